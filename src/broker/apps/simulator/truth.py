"""The truth of a simulated night: one row an alert, kept as Parquet beside the night."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl

from broker.alerts.photometry import njy_to_abmag
from broker.apps.simulator.cadence import Cadence
from broker.apps.simulator.population import Population
from broker.apps.simulator.sky import Seen
from broker.errors import UsageError
from broker.surveys.synthetic.columns import FieldNight, Floats, Packed

SUFFIX = ".truth.parquet"

_PARAMETERS = ("z", "x0", "x1", "c", "period")


def truth_rows(
    cadence: Cadence,
    night: FieldNight,
    packed: Packed,
    seen: Sequence[tuple[Population, Seen]],
) -> pl.DataFrame:
    """Return what each alert of a field really is.

    Returns
    -------
    polars.DataFrame
        ``source_id``, ``object_id`` (text), ``field``, ``mjd`` and ``t0`` (the survey's own
        scale), ``band``, ``class``, ``group``, ``is_real``, ``ra``, ``dec`` [deg],
        ``flux_true``, ``flux``, ``flux_error`` [nJy], ``mag_true`` (of the absolute
        difference), ``limit_mag``, ``redshift``, and parameters of the model where it has them.
    """
    epochs, visits = night.epochs, night.visits
    alerts = np.flatnonzero(epochs.alert)
    visit, row = epochs.visit[alerts], epochs.object[alerts]
    true = np.concatenate([one.flux_true for _, one in seen])[alerts]
    kinds = np.repeat(np.arange(len(seen)), [len(one.objects.slot) for _, one in seen])[row]
    names = np.array([band.name for band in cadence.bands])

    told = {
        name: np.array([getattr(population, name) for population, _ in seen])[kinds]
        for name in ("name", "group", "is_real")
    }
    return pl.DataFrame(
        {
            "source_id": packed.source_ids,
            "object_id": list(packed.object_ids),
            "field": np.full(alerts.size, night.field, np.int32),
            "mjd": visits.mjd[visit] + cadence.offset_days,
            "band": names[visits.band[visit]],
            "class": told["name"],
            "group": told["group"],
            "is_real": told["is_real"],
            "ra": epochs.ra[alerts],
            "dec": epochs.dec[alerts],
            "flux_true": true,
            "flux": epochs.flux[alerts],
            "flux_error": epochs.flux_error[alerts],
            "mag_true": njy_to_abmag(np.abs(true))[0],
            "limit_mag": visits.limit_mag[visit],
            "redshift": night.objects.redshift[row],
            "is_moving": night.objects.solar_system[row] > 0,
            "t0": _parameter("t0", seen)[row] + cadence.offset_days,
            **{name: _parameter(name, seen)[row] for name in _PARAMETERS},
        }
    ).with_columns(pl.col(pl.Float64).fill_nan(None))


def _parameter(name: str, seen: Sequence[tuple[Population, Seen]]) -> Floats:
    parts = [one.truth.get(name, np.full(len(one.objects.slot), np.nan)) for _, one in seen]
    return np.concatenate(parts)


def write_truth(rows: Sequence[pl.DataFrame], folder: Path, night: str) -> Path:
    """Write the truth of a night; return the file."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{night}{SUFFIX}"
    pl.concat(rows).write_parquet(file)
    return file


def read_truth(place: Path) -> pl.DataFrame:
    """Read the truth from a file, or from all nights below a folder.

    Raises
    ------
    UsageError
        If there is none.
    """
    files = sorted(place.rglob(f"*{SUFFIX}")) if place.is_dir() else [place]
    if not files or not files[0].exists():
        raise UsageError(f"no *{SUFFIX} in {place}: make a night with: pgb simulate night")
    return pl.concat([pl.read_parquet(file) for file in files]).unique("source_id")
