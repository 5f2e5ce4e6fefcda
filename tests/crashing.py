"""Runs that end in the middle, for tests of what is left then."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from broker.config import Settings
from broker.connectors.sources.generated import GeneratedSource
from broker.pipeline.copies import Copies
from broker.pipeline.runner import Limits, Pipeline, Report, Sinks
from broker.ports import Source
from broker.wiring import Broker


class CrashError(Exception):
    """The process ends here."""


class Fused:
    """Something whose method works only so many times."""

    def __init__(self, inner: Any, method: str, times: int) -> None:
        self._inner, self._method, self._left = inner, method, times

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method: Callable[..., Any] = getattr(self._inner, name)
        return self._counted(method) if name == self._method else method

    def _counted(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            self._left -= 1
            if self._left < 0:
                raise CrashError
            return method(*args)

        return call


def run(
    home: Path,
    packets: list[bytes] | Source,
    copies: Copies,
    layout: str = "",
    patience_s: float = 0,
) -> Report:
    """Take the packets into a home, with copies of them elsewhere."""
    source = GeneratedSource(packets) if isinstance(packets, list) else packets
    broker = Broker(Settings(home=str(home), worker="w1" if home.name == "other" else "w0"))
    name = broker.instance.name
    logs = (broker.stream.log(name("alerts")), broker.stream.log(name("deadletters")))
    sinks = Sinks(*logs, broker.stream, broker.tables, broker.files, copies, "proj-x", layout)
    limits = Limits(batch_alerts=10, patience_s=patience_s)
    pipeline = Pipeline(
        broker.instance, broker.survey, broker.filters, sinks, broker.ledger, limits=limits
    )
    try:
        with broker.working():
            return pipeline.run(source)
    finally:
        broker.stream.close()
        broker.ledger.close_file()
