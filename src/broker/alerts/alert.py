"""One alert, in generic words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import hpgeom

from broker.alerts.cutout import KINDS, Cutout, open_cutout

Packet = Mapping[str, Any]
Id = int | str

HEALPIX_ORDERS = (9, 19, 29)


class PacketReader(Protocol):
    """What knows how one survey writes its alerts."""

    def packet(self) -> Packet:
        """Decode the whole alert, in the survey's own words."""
        ...

    def value(self, key: str, packet: Packet) -> Any:
        """Return the value of a generic word, or None."""
        ...

    def band(self, packet: Packet) -> str | None:
        """Return the band of the detection."""
        ...

    def id_attributes(self, packet: Packet) -> dict[str, Id]:
        """Return the ids under the names that message attributes give them."""
        ...

    def n_previous(self, packet: Packet) -> int:
        """Count the earlier detections that the alert lists."""
        ...

    def container(self) -> bytes:
        """Return the alert as a valid Avro container."""
        ...


@dataclass(frozen=True, eq=False)
class Alert:
    """One message about one new detection.

    The packet is decoded when it is first needed and kept. A generic word that the survey or
    this alert lacks is None.

    Parameters
    ----------
    survey : str
        Keyword of the survey.
    schema_version : str
        As message attributes name it.
    payload : bytes
        As received.
    reader : PacketReader
        Reads this payload.
    time_scale : str
        Scale of `mjd`, ``utc`` or ``tai``.
    """

    survey: str
    schema_version: str
    payload: bytes = field(repr=False)
    reader: PacketReader = field(repr=False)
    time_scale: str = "utc"

    @cached_property
    def packet(self) -> Packet:
        """The whole alert in the survey's own words."""
        return self.reader.packet()

    def get(self, key: str, default: Any = None) -> Any:
        """Return the value of a generic word, `default` if it is missing."""
        value = self.reader.value(key, self.packet)
        return default if value is None else value

    @property
    def object_id(self) -> Id | None:
        """Id of the sky object."""
        value: Id | None = self.get("objectid")
        return value

    @property
    def source_id(self) -> Id | None:
        """Id of the detection."""
        value: Id | None = self.get("sourceid")
        return value

    @property
    def ra(self) -> float | None:
        """Right ascension [deg]."""
        return self._number("ra")

    @property
    def dec(self) -> float | None:
        """Declination [deg]."""
        return self._number("dec")

    @property
    def mjd(self) -> float | None:
        """Time of the detection [MJD in `time_scale`]."""
        return self._number("mjd")

    @property
    def band(self) -> str | None:
        """Passband."""
        return self.reader.band(self.packet)

    @property
    def mag(self) -> float | None:
        """Magnitude as the survey gives it; its sign of the difference is not in it."""
        return self._number("mag")

    @property
    def mag_err(self) -> float | None:
        """Error of `mag`."""
        return self._number("mag_err")

    @property
    def flux(self) -> float | None:
        """Difference flux, in the survey's own unit."""
        return self._number("flux")

    @property
    def flux_err(self) -> float | None:
        """Error of `flux`."""
        return self._number("flux_err")

    @property
    def detection(self) -> Packet:
        """Record of the triggering detection."""
        record: Packet = self.get("source", {})
        return record

    @property
    def history(self) -> Sequence[Packet]:
        """Earlier detections and limits, in packet order."""
        entries: Sequence[Packet] = self.get("prv_sources", ())
        return entries

    @property
    def forced(self) -> Sequence[Packet]:
        """Forced photometry, in packet order."""
        entries: Sequence[Packet] = self.get("prv_forced_sources", ())
        return entries

    @cached_property
    def cutouts(self) -> dict[str, Cutout]:
        """The cutouts that the alert has, by kind.

        Raises
        ------
        DecodeError
            If one of them cannot be read.
        """
        raw = {kind: self.get(f"cutout_{kind}") for kind in KINDS}
        return {kind: open_cutout(kind, data) for kind, data in raw.items() if data}

    def healpix(self, order: int) -> int | None:
        """Return the nested HEALPix index of the position, None without one on the sky."""
        if self.ra is None or self.dec is None or not _on_sky(self.ra, self.dec):
            return None
        return int(hpgeom.angle_to_pixel(2**order, self.ra, self.dec, nest=True, lonlat=True))

    @cached_property
    def attributes(self) -> dict[str, Any]:
        """Message attributes: ids under the survey's names, HEALPix, version, history."""
        places = {f"healpix{order}": self.healpix(order) for order in HEALPIX_ORDERS}
        return {
            **self.reader.id_attributes(self.packet),
            **{name: place for name, place in places.items() if place is not None},
            "schema_version": self.schema_version,
            "n_previous_detections": self.reader.n_previous(self.packet),
        }

    def to_container(self) -> bytes:
        """Return the alert as a valid Avro container, whatever it came in."""
        return self.reader.container()

    def _number(self, key: str) -> float | None:
        value = self.get(key)
        return None if value is None or value != value else float(value)


def _on_sky(ra: float, dec: float) -> bool:
    return -360 <= ra <= 360 and -90 <= dec <= 90
