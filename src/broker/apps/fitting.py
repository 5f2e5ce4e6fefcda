"""SALT2 fits of anything: stored alerts, packets in files, tables of photometry."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from broker.alerts.lightcurve import LightCurve, build_lightcurves
from broker.alerts.photometry import mag_to_flux
from broker.config import load_settings
from broker.errors import UsageError
from broker.pipeline.fitting import StoredHistory, as_frame
from broker.science.fitters.salt2.presets import Redshift
from broker.science.fitters.salt2.result import Salt2Fit
from broker.surveys import open_alert
from broker.wiring import Broker

Progress = Callable[[int, int], None]
"""Called with the number of light curves that are done, and of all."""

_TOGETHER = 256
_ZERO_POINT = 25.0
_IDS = ("object_id", "objectId", "diaObjectId", "id", "name", "SNID")
_ALIASES = {
    "mjd": ("mjd", "MJD", "time"),
    "band": ("band", "filter"),
    "flux": ("flux", "FLUXCAL"),
    "fluxerr": ("fluxerr", "flux_err", "FLUXCALERR"),
    "mag": ("mag", "magpsf"),
    "magerr": ("magerr", "mag_err", "sigmapsf"),
    "zp": ("zp", "magzpsci"),
    "z": ("z", "redshift"),
    "z_err": ("z_err", "redshift_err"),
}


@dataclass(frozen=True, slots=True)
class Target:
    """A light curve to fit, and what is known of its redshift."""

    curve: LightCurve
    redshift: Redshift | None = None


@dataclass(frozen=True, slots=True)
class Fits:
    """Fits with the light curves that they were made from, in order."""

    fits: Sequence[Salt2Fit]
    curves: Sequence[LightCurve]

    def table(self) -> pl.DataFrame:
        """Return one row a fit, with the columns of table ``salt2``."""
        return as_frame([fit.row() for fit in self.fits]).drop("plot_lc_bytes")


def fit(
    what: str | Path | pl.DataFrame,
    *,
    broker: Broker | None = None,
    model: str = "",
    preset: str = "",
    redshift: Redshift | None = None,
    engine: str = "fast",
    original_errors: bool = False,
    progress: Progress | None = None,
) -> Fits:
    """Fit SALT2 to one light curve, or to thousands.

    Parameters
    ----------
    what : str, Path or DataFrame
        The id of a stored alert or object; a file with one alert packet; or a table (also a
        CSV or Parquet file) of photometry, with columns for object, ``mjd``, ``band`` and
        either ``flux, fluxerr`` (with ``zp``, AB, 25 by default) or ``mag, magerr``; or of
        ids of stored objects alone. Columns ``z`` and ``z_err`` give redshifts.
    broker : Broker, optional
        Whose store and models are used; by default the one of the present settings.
    model, preset : str
        Names, as ``salt2-T23`` and ``original``; by default those of the settings.
    redshift : Redshift, optional
        Fixed redshift, or prior, of every light curve that has none of its own.
    engine : str
        ``fast``, or ``sncosmo``.
    original_errors : bool
        Scale flux errors by 1.505, as the first broker did.
    progress : callable, optional
        Called as fits are done.

    Raises
    ------
    UsageError
        If there is nothing to fit in `what`.
    ConfigError
        If model data is missing, or a name is unknown; says what to do.
    """
    broker = broker or Broker(load_settings())
    targets = list(_targets(what, broker))
    settings = broker.preset(preset, original_errors=original_errors)
    fitter = broker.fitter(settings, model, engine)
    fits: list[Salt2Fit] = []
    for start in range(0, len(targets), _TOGETHER):
        chunk = targets[start : start + _TOGETHER]
        known = [target.redshift or redshift for target in chunk]
        fits += fitter.fit([target.curve for target in chunk], known)
        if progress is not None:
            progress(len(fits), len(targets))
    return Fits(fits, [target.curve for target in targets])


def _targets(what: str | Path | pl.DataFrame, broker: Broker) -> Iterator[Target]:
    if isinstance(what, pl.DataFrame):
        yield from _of_table(what, broker)
        return
    path = Path(what)
    if path.suffix.lower() in (".csv", ".parquet") and path.is_file():
        read = pl.read_csv if path.suffix.lower() == ".csv" else pl.read_parquet
        yield from _of_table(read(path), broker)
    elif path.is_file():
        yield Target(_of_packet(path, broker))
    else:
        yield Target(_of_stored(str(what), broker))


def _of_packet(path: Path, broker: Broker) -> LightCurve:
    alert = open_alert(path, survey=broker.survey.name, resolver=broker.resolver)
    if broker.survey.photometry is None:
        raise UsageError(f"alerts of {broker.survey.name} have no light curve to fit")
    return build_lightcurves([alert.packet], broker.survey.photometry)[0]


def _of_stored(text: str, broker: Broker) -> LightCurve:
    """Merge all that is stored of an object, up to the alert meant."""
    if broker.survey.photometry is None:
        raise UsageError(f"alerts of {broker.survey.name} have no light curve to fit")
    alert = next(broker.archive.alerts(text))
    history = StoredHistory(broker.archive)
    stored = history([alert.object_id], [alert.mjd or np.inf])
    return build_lightcurves([alert.packet], broker.survey.photometry, stored)[0]


def _of_table(table: pl.DataFrame, broker: Broker) -> Iterator[Target]:
    table = _renamed(table)
    if "object_id" not in table.columns and {"mjd", "band"} <= set(table.columns):
        table = table.with_columns(object_id=pl.lit("object"))
    if "object_id" not in table.columns:
        raise UsageError(f"the table has no column of objects: call it one of {', '.join(_IDS)}")
    for rows in table.partition_by("object_id", maintain_order=True):
        if "mjd" in table.columns:
            yield Target(_of_rows(rows, broker), _redshift(rows))
        else:
            yield Target(_of_stored(str(rows["object_id"][0]), broker), _redshift(rows))


def _renamed(table: pl.DataFrame) -> pl.DataFrame:
    names = {"object_id": _IDS, **_ALIASES}
    found = {
        next((alias for alias in aliases if alias in table.columns), ""): name
        for name, aliases in names.items()
    }
    return table.rename({alias: name for alias, name in found.items() if alias})


def _redshift(rows: pl.DataFrame) -> Redshift | None:
    if "z" not in rows.columns or rows["z"][0] is None:
        return None
    error = rows["z_err"][0] if "z_err" in rows.columns else None
    return Redshift(float(rows["z"][0]), float(error or 0.0))


def _of_rows(rows: pl.DataFrame, broker: Broker) -> LightCurve:
    columns = set(rows.columns)
    if {"flux", "fluxerr"} <= columns:
        zero = rows["zp"].to_numpy() if "zp" in columns else np.full(len(rows), _ZERO_POINT)
        scale = 10 ** ((_ZERO_POINT - zero) / 2.5)
        flux, error = rows["flux"].to_numpy() * scale, rows["fluxerr"].to_numpy() * scale
    elif {"mag", "magerr"} <= columns:
        mag, magerr = rows["mag"].to_numpy(), rows["magerr"].to_numpy()
        flux, error = mag_to_flux(mag, _ZERO_POINT, magerr)
    else:
        raise UsageError("the table needs columns flux and fluxerr, or mag and magerr")
    bands = np.array([_passband(name, broker.passbands()) for name in rows["band"].to_list()])
    good = np.isfinite(flux) & (error > 0)
    times = rows["mjd"].cast(pl.Float64).to_numpy()
    object_id = str(rows["object_id"][0])
    return LightCurve.of_detections(
        object_id, 0, times[good], bands[good], flux[good], error[good], _ZERO_POINT
    )


def _passband(name: str, known: Sequence[str]) -> str:
    """Return a passband by its name or by its letter."""
    for passband in known:
        if name in (passband, passband[-1]):
            return passband
    raise UsageError(f"passband {name!r} is not one of {', '.join(known)}")
