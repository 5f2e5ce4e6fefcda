"""The consumer simulator for the command line: the broker's words instead of Python's."""

from dataclasses import asdict, replace
from typing import Any

from broker.apps.simulator.rates import Amount
from broker.apps.simulator.stream import publish_stream
from broker.config import Settings
from broker.errors import UsageError
from broker.wiring import Broker

_WORKER = "simulator"


def stream_summary(
    settings: Settings,
    rate: Amount | str,
    runtime: Amount | None,
    every: float,
    *,
    ends: tuple[str | None, str | None],
    nack: bool,
    on_empty: str,
    confirm: bool,
) -> dict[str, Any]:
    """Publish from a reservoir; return what was done.

    Raises
    ------
    UsageError
        If an argument is wrong.
    """
    # The reservoir is the production instance's, whose packets a home may keep beside a bus.
    broker = Broker(replace(settings, worker=_WORKER, testid=""))
    try:
        summary = publish_stream(
            rate,
            (broker.survey.name, settings.testid or None),
            runtime,
            (every, "sec"),
            *ends,
            nack,
            confirm,
            stream=broker.bus,
            on_empty=on_empty,
            worker=_WORKER,
        )
    except ValueError as error:
        raise UsageError(str(error)) from error
    finally:
        broker.bus.close()
    return asdict(summary)
