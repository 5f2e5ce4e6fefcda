"""Light curves: the one builder from alert packets to arrays that every engine shares."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import yaml
from numpy.typing import NDArray

from broker.alerts.photometry import mag_to_flux
from broker.errors import ConfigError

Array = NDArray[np.float64]
Record = Mapping[str, Any]

SAME_EPOCH_DAYS = 1e-5
"""Times this close in one band are one epoch: packets round the same time differently."""

DETECTION, LIMIT, FORCED = "detection", "limit", "forced"
"""Kinds of points."""

LIMIT_SIGMA = 5.0
"""A limiting magnitude is the flux at this many standard deviations."""

_KINDS = np.array([DETECTION, FORCED, LIMIT])


@dataclass(frozen=True, slots=True)
class EpochFields:
    """Where one record of photometry keeps its numbers; empty where it has none.

    Parameters
    ----------
    time, band : str
        Fields of the time and of the passband's key.
    zero_point : str or float
        Field of the AB zero point, or its value.
    flux, flux_error : str
        Fields of a signed flux on that zero point.
    mag, mag_error, sign, limit_mag : str
        Fields of a magnitude, its error, the sign of the difference and the limiting magnitude.
    """

    time: str
    band: str
    zero_point: str | float
    flux: str = ""
    flux_error: str = ""
    mag: str = ""
    mag_error: str = ""
    sign: str = ""
    limit_mag: str = ""

    def names(self) -> list[str]:
        """Return the fields in use."""
        found = [getattr(self, name) for name in self.__slots__]
        return [name for name in found if isinstance(name, str) and name]


@dataclass(frozen=True, slots=True)
class PhotometryMap:
    """How a survey writes photometry.

    Parameters
    ----------
    object_id, source_id : tuple of str
        Paths of the ids in a packet, the first that is present counts.
    detection, history, forced : str
        Top-level fields of the trigger, of earlier epochs and of forced photometry.
    bands : mapping
        The survey's band key to the passband's registered name.
    epoch, forced_epoch : EpochFields
        Fields of trigger and history, and of forced photometry.
    time_offset : float
        Added to times to make them MJD.
    negative : tuple
        Values of the sign field that mean a negative difference.
    """

    object_id: tuple[str, ...]
    source_id: tuple[str, ...]
    detection: str
    bands: Mapping[Any, str]
    epoch: EpochFields
    history: str = ""
    forced: str = ""
    forced_epoch: EpochFields | None = None
    time_offset: float = 0.0
    negative: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class LightCurve:
    """Photometry of one object, in order of time.

    Parameters
    ----------
    object_id : str
        The object.
    source_id : int
        The detection that it was built for.
    mjd : ndarray (n,), days
        Times, on the survey's own scale.
    band : ndarray (n,) of str
        Names of passbands.
    flux, fluxerr : ndarray (n,)
        Signed fluxes on `zp`; a limit has flux 0 and one sigma as error.
    zp : ndarray (n,), mag
        Zero points.
    zpsys : ndarray (n,) of str
        Magnitude systems.
    kind : ndarray (n,) of str
        ``detection``, ``limit`` or ``forced``.
    """

    object_id: str
    source_id: int
    mjd: Array
    band: NDArray[np.str_]
    flux: Array
    fluxerr: Array
    zp: Array
    zpsys: NDArray[np.str_]
    kind: NDArray[np.str_]

    @classmethod
    def of_detections(
        cls,
        object_id: str,
        source_id: int,
        mjd: Array,
        band: NDArray[np.str_],
        flux: Array,
        fluxerr: Array,
        zp: float = 25.0,
    ) -> "LightCurve":
        """Make a light curve of detections on one AB zero point."""
        order = np.argsort(mjd, kind="stable")
        size = mjd.size
        return cls(
            object_id,
            source_id,
            mjd[order],
            np.asarray(band)[order],
            flux[order],
            fluxerr[order],
            np.full(size, zp),
            np.full(size, "ab"),
            np.full(size, DETECTION),
        )

    def select(self, keep: NDArray[Any]) -> "LightCurve":
        """Return the points that `keep`, a mask or positions, names."""
        return LightCurve(
            self.object_id,
            self.source_id,
            self.mjd[keep],
            self.band[keep],
            self.flux[keep],
            self.fluxerr[keep],
            self.zp[keep],
            self.zpsys[keep],
            self.kind[keep],
        )

    def detections(self) -> "LightCurve":
        """Return the detections alone."""
        return self.select(self.kind == DETECTION)


def load_photometry_map(text: str) -> PhotometryMap:
    """Read a survey's photometry map from YAML.

    Raises
    ------
    ConfigError
        If the text is not such a map.
    """
    try:
        content = dict(yaml.safe_load(text))
        content.pop("passbands", None)
        for name in ("epoch", "forced_epoch"):
            if content.get(name) is not None:
                content[name] = EpochFields(**content[name])
        for name in ("object_id", "source_id", "negative"):
            content[name] = tuple(content.get(name, ()))
        return PhotometryMap(**content)
    except (TypeError, ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"photometry map cannot be read: {error}") from error


def build_lightcurves(
    alerts: Sequence[Record] | pl.DataFrame,
    survey: PhotometryMap,
    stored: Sequence[Sequence[Record]] | None = None,
) -> list[LightCurve]:
    """Build one light curve an alert: trigger, history, forced photometry, stored rows.

    Epochs that occur twice are kept once, a detection before a limit. An absent history is
    an empty one, and points without a time, a known band or an error are left out.

    Parameters
    ----------
    alerts : sequence of mapping, or DataFrame
        Packets, or rows with the same nested fields.
    survey : PhotometryMap
        How the survey writes photometry.
    stored : sequence of sequence of mapping, optional
        For each alert, earlier epochs of its object with the fields of ``survey.epoch``.
    """
    packets = narrow_packets(alerts, survey)
    earlier = [()] * len(packets) if stored is None else stored
    table = _Columns()
    for number, (packet, rows) in enumerate(zip(packets, earlier, strict=True)):
        for record in epochs_of(packet, rows, survey):
            table.add(number, record, survey.epoch, survey.bands, is_forced=False)
        for record in _forced(packet, survey):
            table.add(number, record, survey.forced_epoch, survey.bands, is_forced=True)
    columns = table.arrays(survey)
    return _split(packets, survey, columns)


def narrow_packets(
    alerts: Sequence[Record] | pl.DataFrame, survey: PhotometryMap
) -> Sequence[Record]:
    """Return packets as mappings, of a frame only the fields that are needed."""
    if not isinstance(alerts, pl.DataFrame):
        return alerts
    parts = (survey.history, survey.forced, survey.detection)
    heads = {path.split(".")[0] for path in (*survey.object_id, *survey.source_id)}
    columns: list[pl.Expr] = []
    for name in alerts.columns:
        fields = survey.forced_epoch if name == survey.forced else survey.epoch
        if name in parts and fields is not None:
            ids = [p.split(".")[1] for p in (*survey.source_id, *survey.object_id) if "." in p]
            columns.append(_narrow(alerts.schema[name], name, [*fields.names(), *ids]))
        elif name in heads:
            columns.append(pl.col(name))
    return alerts.select(columns).to_dicts()


def _narrow(dtype: pl.DataType, name: str, wanted: list[str]) -> pl.Expr:
    """Select fields of a struct, or of the structs in a list."""
    inner = dtype.inner if isinstance(dtype, pl.List) else dtype
    if not isinstance(inner, pl.Struct):
        return pl.col(name)
    present = [field.name for field in inner.fields if field.name in wanted]
    if isinstance(dtype, pl.List):
        parts = [pl.element().struct.field(field) for field in present]
        return pl.col(name).list.eval(pl.struct(parts))
    return pl.struct([pl.col(name).struct.field(field) for field in present]).alias(name)


def epochs_of(packet: Record, stored: Sequence[Record], survey: PhotometryMap) -> Iterator[Record]:
    """Yield the records of trigger, history and stored epochs."""
    trigger = packet.get(survey.detection) if survey.detection else packet
    if trigger is not None:
        yield trigger
    yield from (packet.get(survey.history) or ()) if survey.history else ()
    yield from stored


def _forced(packet: Record, survey: PhotometryMap) -> Sequence[Record]:
    if not survey.forced or survey.forced_epoch is None:
        return ()
    return packet.get(survey.forced) or ()


class _Columns:
    """Epochs of many alerts, column-wise."""

    def __init__(self) -> None:
        self.rows: list[tuple[Any, ...]] = []

    def add(
        self,
        number: int,
        record: Record,
        fields: EpochFields | None,
        bands: Mapping[Any, str],
        *,
        is_forced: bool,
    ) -> None:
        """Append one epoch; one without time or known band is left out."""
        if fields is None:
            return
        time = record.get(fields.time)
        band = bands.get(record.get(fields.band))
        if time is None or band is None:
            return
        place = fields.zero_point
        zero = record.get(place) if isinstance(place, str) else place
        get = record.get
        numbers = (get(fields.flux), get(fields.flux_error), get(fields.mag), get(fields.mag_error))
        self.rows.append(
            (number, is_forced, time, band, zero, *numbers, get(fields.sign), get(fields.limit_mag))
        )

    def arrays(self, survey: PhotometryMap) -> dict[str, NDArray[Any]]:
        """Return the columns with fluxes, valid points only, deduplicated and in order."""
        columns = list(zip(*self.rows, strict=True)) if self.rows else [()] * 11
        number, forced, time, band, zero, flux, error, mag, mag_error, sign, limit = columns
        signs = np.where([value in survey.negative for value in sign], -1.0, 1.0)
        zp, mags, limits = _floats(zero), _floats(mag), _floats(limit)
        from_mag, from_mag_error = mag_to_flux(mags, zp, _floats(mag_error))
        fluxes = _first_finite(_floats(flux), signs * from_mag)
        errors = _first_finite(_floats(error), from_mag_error)
        is_limit = ~np.isfinite(fluxes) & np.isfinite(limits)
        errors = np.where(is_limit, mag_to_flux(limits, zp, limits)[0] / LIMIT_SIGMA, errors)
        found = {
            "number": np.array(number, np.int64),
            "mjd": _floats(time) + survey.time_offset,
            "band": np.array(band, np.str_),
            "flux": np.where(is_limit, 0.0, fluxes),
            "fluxerr": errors,
            "zp": zp,
            "rank": np.where(is_limit, 2, np.array(forced, np.int64)),
        }
        good = np.isfinite(found["flux"]) & (errors > 0) & np.isfinite(errors) & np.isfinite(zp)
        return _once({name: column[good] for name, column in found.items()})


def _floats(values: Sequence[Any]) -> Array:
    return np.array(values, np.float64)


def _first_finite(first: Array, second: Array) -> Array:
    return np.where(np.isfinite(first), first, second)


def _once(columns: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Drop repeated epochs (detections and limits together, forced apart); sort by time."""
    forced = columns["rank"] == 1
    keys = (columns["rank"], columns["mjd"], columns["band"], forced, columns["number"])
    order = np.lexsort(keys)
    sorted_ = {name: column[order] for name, column in columns.items()}
    forced = forced[order]
    same = np.diff(sorted_["mjd"]) < SAME_EPOCH_DAYS
    for column in (sorted_["number"], sorted_["band"], forced):
        same &= column[1:] == column[:-1]
    epoch = np.concatenate([[0], np.cumsum(~same)]) if forced.size else np.zeros(0, np.int64)
    best = np.lexsort((sorted_["rank"], epoch))
    _, first = np.unique(epoch[best], return_index=True)
    kept = {name: column[best[first]] for name, column in sorted_.items()}
    order = np.lexsort((kept["mjd"], kept["number"]))
    return {name: column[order] for name, column in kept.items()}


def _split(
    packets: Sequence[Record], survey: PhotometryMap, columns: dict[str, NDArray[Any]]
) -> list[LightCurve]:
    edges = np.searchsorted(columns["number"], np.arange(len(packets) + 1))
    kinds = _KINDS[columns["rank"]]
    zpsys = np.full(kinds.size, "ab")
    curves = []
    for packet, first, last in zip(packets, edges[:-1], edges[1:], strict=True):
        part = slice(first, last)
        curve = LightCurve(
            object_id=str(_lookup(packet, survey.object_id)),
            source_id=int(_lookup(packet, survey.source_id) or 0),
            mjd=columns["mjd"][part],
            band=columns["band"][part],
            flux=columns["flux"][part],
            fluxerr=columns["fluxerr"][part],
            zp=columns["zp"][part],
            zpsys=zpsys[part],
            kind=kinds[part],
        )
        curves.append(curve)
    return curves


def _lookup(packet: Record, paths: tuple[str, ...]) -> Any:
    """Return the value at the first dotted path that is present."""
    for path in paths:
        value: Any = packet
        for name in path.split("."):
            value = value.get(name) if isinstance(value, Mapping) else None
        if value is not None:
            return value
    return ""
