"""The door to SALT2 fits: one class for every engine, and the quality cuts."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from broker.errors import ConfigError
from broker.science.fitters.salt2.presets import (
    DEFAULT,
    MIN_DETECTIONS,
    MIN_SNR,
    Preset,
    Redshift,
)
from broker.science.fitters.salt2.result import Salt2Fit
from broker.science.fitters.salt2.tables import (
    SourceTables,
    build_tables,
    note_tables,
    recall_tables,
)

# What is compiled is imported where it is used, as most commands fit nothing.
if TYPE_CHECKING:
    from broker.alerts.lightcurve import LightCurve
    from broker.science.fitters.salt2.kernel import Model


class Engine(Protocol):
    """What every engine offers."""

    @property
    def name(self) -> str:
        """Name that is written into rows."""
        ...

    def fit(
        self,
        lightcurves: Sequence["LightCurve"],
        redshifts: Sequence[Redshift | None] | None = None,
    ) -> list[Salt2Fit]:
        """Fit a batch, one result a light curve; a failure is a result with its error."""
        ...


@dataclass(frozen=True, slots=True)
class Salt2Fitter:
    """Fits batches of light curves.

    Parameters
    ----------
    tables : SourceTables
        Model and passbands of the fast engine, and of pictures.
    preset : Preset
        Bounds and search.
    engine : Engine, optional
        By default the fast engine on all cores.
    """

    tables: SourceTables
    preset: Preset = DEFAULT
    engine: Engine | None = None
    _engine: Engine = field(init=False, repr=False)

    def __post_init__(self) -> None:
        from broker.science.fitters.salt2.engine import FastEngine

        engine = self.engine or FastEngine(self.tables, self.preset)
        object.__setattr__(self, "_engine", engine)

    def fit(
        self,
        lightcurves: Sequence["LightCurve"],
        redshifts: Sequence[Redshift | None] | None = None,
    ) -> list[Salt2Fit]:
        """Fit a batch, one result a light curve; a failure is a result with its error.

        Parameters
        ----------
        lightcurves : sequence of LightCurve
            Any number; nothing is left out, see `passes_quality`.
        redshifts : sequence of Redshift or None, optional
            One a light curve; None leaves the redshift free.
        """
        return self._engine.fit(lightcurves, redshifts)


ENGINES = ("fast", "sncosmo")
"""Engines by name; the first is the default."""


class Models(Protocol):
    """Where models come from; `ModelStore` is one."""

    def source(self, name: str) -> Any:
        """Return the sncosmo source of a model."""
        ...

    def bandpasses(self, names: Sequence[str]) -> list[Any]:
        """Return sncosmo bandpasses."""
        ...

    def fingerprint(self, names: Sequence[str]) -> str:
        """Return a digest of the data of models and bandpasses; empty if it is not known."""
        ...


def make_fitter(
    models: Models,
    bands: Sequence[str],
    preset: Preset = DEFAULT,
    *,
    model: str = "",
    engine: str = ENGINES[0],
    z_max: float = 0.25,
    threads: int = 0,
    cache: Path | None = None,
) -> Salt2Fitter:
    """Make a fitter from names.

    Parameters
    ----------
    models : Models
        Model data.
    bands : sequence of str
        Passbands of the light curves.
    preset : Preset
        Bounds and search.
    model : str
        Pinned model; by default the preset's.
    engine : str
        One of `ENGINES`.
    z_max : float
        Largest redshift that will be asked for.
    threads : int
        Cores that the fast engine may use; 0 is all.
    cache : Path, optional
        Folder in which tables are kept between runs.

    Raises
    ------
    ConfigError
        If there is no such engine, or model data is missing or not pinned.
    ScienceError
        If the model cannot be tabulated.
    """
    if engine not in ENGINES:
        raise ConfigError(f"there is no engine {engine!r}; known: {', '.join(ENGINES)}")
    name, z_max = model or preset.model, max(z_max, preset.z[1])
    if engine == "fast":
        from broker.science.fitters.salt2.engine import FastEngine

        tables = _tables(models, name, bands, z_max, cache)
        return Salt2Fitter(tables, preset, FastEngine(tables, preset, threads))
    from broker.science.fitters.salt2.sncosmo_engine import SncosmoEngine

    bandpasses, source = models.bandpasses(bands), models.source(name)
    tables = build_tables(source, bandpasses, z_max=z_max, cache=cache)
    return Salt2Fitter(tables, preset, SncosmoEngine(source, bandpasses, preset))


def _tables(
    models: Models, name: str, bands: Sequence[str], z_max: float, cache: Path | None
) -> SourceTables:
    """Return tables from the cache where they were made of the same data, else anew."""
    mark = models.fingerprint([name, *bands]) if cache is not None else ""
    if cache is not None and mark:
        known = recall_tables(cache, mark, z_max)
        if known is not None:
            return known
    bandpasses, source = models.bandpasses(bands), models.source(name)
    tables = build_tables(source, bandpasses, z_max=z_max, cache=cache)
    if cache is not None and mark:
        note_tables(cache, mark, z_max, tables)
    return tables


@dataclass(frozen=True, slots=True)
class Painter:
    """Draws fits; tables of the colour term are made once.

    Parameters
    ----------
    tables : SourceTables
        Model and passbands.
    preset : Preset
        Gives the range of colours.
    """

    tables: SourceTables
    preset: Preset = DEFAULT
    _model: "Model" = field(init=False, repr=False)

    def __post_init__(self) -> None:
        from broker.science.fitters.salt2.engine import expand

        object.__setattr__(self, "_model", expand(self.tables, self.preset.c))

    def draw(self, fit: Salt2Fit, lightcurve: "LightCurve") -> bytes:
        """Draw a fit as a PNG; without a fit the points alone.

        Parameters
        ----------
        fit : Salt2Fit
            The fit.
        lightcurve : LightCurve
            What it was made from.
        """
        from broker.science.fitters.salt2.picture import draw

        return draw(fit, lightcurve, self._model, self.tables.coverage.bands)


def passes_quality(lightcurve: "LightCurve") -> bool:
    """Tell whether a light curve is good enough to fit.

    It needs five positive detections, and one point with S/N >= 5.

    References
    ----------
    Möller et al. 2021, MNRAS 501, 3272 (arXiv:2009.01242), section 3.
    """
    snr = lightcurve.flux / lightcurve.fluxerr
    detected = lightcurve.kind == "detection"
    positive = int(np.count_nonzero(detected & (snr > 0)))
    return positive >= MIN_DETECTIONS and bool(np.max(snr[detected], initial=-1.0) >= MIN_SNR)
