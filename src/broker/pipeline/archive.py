"""Every stored packet by the id of its alert or object, read from the journals."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from broker.alerts.alert import Alert
from broker.errors import NotFoundError
from broker.pipeline.ledger import Ledger
from broker.ports import BatchKey
from broker.surveys import SchemaResolver, Survey, open_alert


class PacketReader(Protocol):
    """Reads one packet out of the journals of all workers."""

    def message(self, key: BatchKey, row: int) -> bytes:
        """Return the packet of a row of a batch, as sent."""
        ...


@dataclass(frozen=True, slots=True)
class AlertArchive:
    """The stored packets of an instance.

    Parameters
    ----------
    ledger : Ledger
        Knows where each packet lies.
    survey : Survey
        How the packets are written.
    journal : PacketReader
        The packets of all workers.
    resolver : SchemaResolver, optional
        Finds the schemas of numbered packets; by default the shipped ones only.
    """

    ledger: Ledger
    survey: Survey
    journal: PacketReader
    resolver: SchemaResolver | None = None

    def source_ids(self, text: str) -> list[int]:
        """Return the ids of the alerts meant by the id of an alert or of an object.

        Raises
        ------
        NotFoundError
            If neither an alert nor an object has this id.
        """
        if text.isdecimal() and int(text) < 1 << 63:
            number = int(text)
            found = [number] if self.ledger.locate([number]) else self.ledger.alerts_of(number)
        else:
            found = self.ledger.alerts_of(text)
        if not found:
            raise NotFoundError(f"no stored alert or object has the id {text}")
        return found

    def payload(self, source_id: int) -> bytes:
        """Return a packet byte for byte as it came.

        Raises
        ------
        NotFoundError
            If the alert is not stored.
        """
        location = self.ledger.locate([source_id]).get(source_id)
        if location is None:
            raise NotFoundError(f"no stored alert has the id {source_id}")
        return self.journal.message(location.key, location.row)

    def alert(self, source_id: int) -> Alert:
        """Open a stored alert."""
        payload = self.payload(source_id)
        return open_alert(payload, survey=self.survey.name, resolver=self.resolver)

    def alerts(self, text: str) -> Iterator[Alert]:
        """Open the alerts meant by an id of an alert or of an object, latest first."""
        found = [self.alert(source_id) for source_id in self.source_ids(text)]
        return iter(sorted(found, key=lambda alert: alert.mjd or 0.0, reverse=True))
