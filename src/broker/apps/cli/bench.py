"""``pgb bench``: how fast, against whom, in one run."""

from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

import click

from broker.apps import benchmarks
from broker.apps.cli._options import options
from broker.apps.cli._output import print_json, print_table

NAMES = sorted(m.name for m in iter_modules(benchmarks.__path__) if not m.name.startswith("_"))


@click.command()
@click.argument("name", type=click.Choice(NAMES))
@click.option(
    "--from",
    "place",
    type=click.Path(exists=True, path_type=Path),
    help="Folder of real packets (default: generated ones).",
)
@click.option("--rounds", type=int, help="Interleaved rounds of which the median is taken.")
@options("json")
def command(name: str, place: Path | None, rounds: int | None, as_json: bool) -> None:
    """Measure one part of the broker against its rivals, in the same process and run.

    Ratios are medians over interleaved rounds; they are steady where absolute figures
    depend on the machine. What each benchmark does is told in docs/explanation/speed.md.
    """
    options_given = {"place": place, "rounds": rounds}
    run = import_module(f"{benchmarks.__name__}.{name}").run
    result = run(**{key: value for key, value in options_given.items() if value is not None})
    if not as_json:
        _show(name, result)
    else:
        print_json(result)


def _show(name: str, result: dict[str, Any]) -> None:
    for part, values in result.items():
        if isinstance(values, dict):
            rows = [(key, _rounded(value)) for key, value in values.items()]
            print_table(f"{name}: {part}", (part, "value"), rows)


def _rounded(value: Any) -> Any:
    return f"{value:,.4g}" if isinstance(value, float) else value
