"""``pgb bench``: how fast, against whom, in one run."""

from importlib import import_module
from inspect import signature
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

import click

from broker.apps import benchmarks
from broker.apps.cli._options import options, settings_of
from broker.apps.cli._output import print_json, print_table
from broker.errors import ConfigError, UsageError
from broker.wiring import Broker

NAMES = sorted(m.name for m in iter_modules(benchmarks.__path__) if not m.name.startswith("_"))


@click.command()
@click.argument("name", type=click.Choice(NAMES))
@click.option(
    "--from",
    "place",
    type=click.Path(exists=True, path_type=Path),
    help="Folder of real packets (default: generated ones), or of model data for salt2.",
)
@click.option("--rounds", type=int, help="Interleaved rounds of which the median is taken.")
@click.option(
    "--server",
    metavar="HOST:PORT",
    help="Kafka to use (default: librdkafka's mock), or Pub/Sub emulator to compare with.",
)
@options("json")
def command(
    name: str, place: Path | None, rounds: int | None, server: str | None, as_json: bool
) -> None:
    """Measure one part of the broker against its rivals, in the same process and run.

    Ratios are medians over interleaved rounds; they are steady where absolute figures
    depend on the machine. What each benchmark does is told in docs/explanation/speed.md.
    """
    run = import_module(f"{benchmarks.__name__}.{name}").run
    models = place or model_data()
    given = {"place": place, "rounds": rounds, "server": server, "models": models}
    wanted = signature(run).parameters
    if place is not None and not {"place", "models"} & set(wanted):
        raise UsageError(f"the benchmark {name} makes its own data: leave --from out")
    result = run(**{k: v for k, v in given.items() if v is not None and k in wanted})
    if not as_json:
        _show(name, result)
    else:
        print_json(result)


def model_data() -> Path | None:
    """Return the folder of model data, if the model of the present settings is there."""
    broker = Broker(settings_of())
    try:
        model = broker.models.path(broker.settings.salt2_model)
    except ConfigError:
        return None
    return next(folder for folder in model.parents if (folder / "models").is_dir())


def _show(name: str, result: dict[str, Any]) -> None:
    for part, values in result.items():
        if isinstance(values, dict):
            rows = [(key, _rounded(value)) for key, value in values.items()]
            print_table(f"{name}: {part}", (part, "value"), rows)


def _rounded(value: Any) -> Any:
    return f"{value:,.4g}" if isinstance(value, float) else value
