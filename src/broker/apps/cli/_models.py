"""Model data for commands that fit: fetched once, with a progress bar."""

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

from broker.apps.simulator.models import SimulationBroker
from broker.errors import ConfigError, ServiceError
from broker.pipeline.fitting import Salt2Stage
from broker.wiring import Broker

_FAILED = "fetch-failed"
"""File beside the models that says that a fetch failed, so that no run waits for it again."""


def stage(broker: Broker) -> Salt2Stage | None:
    """Make the stage of SALT2 fits, fetching model data once; without it say so in a line."""
    if broker.survey.photometry is None:
        return None
    if isinstance(broker, SimulationBroker):
        tell_stand_ins(broker)
    try:
        return broker.salt2_stage()
    except ConfigError as missing:
        reason = _fetch_once(broker) if broker.settings.fetch_models == "once" else str(missing)
        if reason is None:
            return broker.salt2_stage()
    click.secho(f"no SALT2 fits in this run: {reason}", fg="yellow", err=True)
    return None


def tell_stand_ins(broker: SimulationBroker) -> None:
    """Fetch model data once; say what a simulation has to do without."""
    reason = "run 'pgb models fetch'"
    if broker.stand_ins() and broker.settings.fetch_models == "once":
        reason = _fetch_once(broker) or reason
    if names := broker.stand_ins():
        words = f"small made-up models stand in for {', '.join(names)}: {reason}"
        click.secho(words, fg="yellow", err=True)


def _fetch_once(broker: Broker) -> str | None:
    """Fetch what the run needs, unless that failed before; return the reason if there is none."""
    mark = broker.models.root / _FAILED
    if mark.exists():
        return f"{mark.read_text()}; try 'pgb models fetch'"
    try:
        fetch(broker, [broker.settings.salt2_model, *broker.passbands()])
    except ConfigError as error:  # nobody has the survey's passbands, so another try is no use
        return str(error)
    except ServiceError as error:
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.write_text(str(error))
        return f"{error}; try 'pgb models fetch' later"
    return None


def fetch(broker: Broker, names: list[str]) -> None:
    """Fetch model data with a progress bar; with no names, all that is pinned."""
    console = Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("looking for model data", total=None)

        def show(message: str, done: int, total: int) -> None:
            progress.update(task, description=message, completed=done, total=total)

        broker.models.fetch(names, show)
    (broker.models.root / _FAILED).unlink(missing_ok=True)
