"""Named settings of a SALT2 fit."""

from dataclasses import dataclass, replace

Range = tuple[float, float]

PARAMETERS = ("z", "t0", "x0", "x1", "c")
"""Order of the fitted parameters everywhere."""

MIN_SNR = 5.0
"""Least of the largest signal-to-noise ratios of a light curve that is fitted."""

MIN_DETECTIONS = 5
"""Fewest positive detections of a light curve that is fitted."""

ORIGINAL_ERROR_SCALE = 1.5051499783199063
"""ln(10 / 2.5) over ln(10) / 2.5: by how much the first broker overestimated flux errors."""


@dataclass(frozen=True, slots=True)
class Redshift:
    """What is known of an object's redshift.

    Parameters
    ----------
    value : float
        The redshift.
    error : float
        Standard deviation of a Gaussian prior; 0 fixes the redshift.
    """

    value: float
    error: float = 0.0


@dataclass(frozen=True, slots=True)
class Preset:
    """Bounds, data selection and search of a fit.

    Parameters
    ----------
    name : str
        Written into every row.
    z, x1, c : tuple of float
        Bounds of the parameters.
    t0_half_width : float, days
        Half width of the bounds on t0.
    t0_at_first : bool
        Centre t0 on the whole day of the first epoch with S/N >= 5, not on the brightest one.
    phase_range : tuple of float or None, rest-frame days
        Points outside it, around a first fit, are left out of the last.
    kinds : tuple of str
        Kinds of photometry that are fitted.
    error_scale : float
        Factor on flux errors.
    model : str
        Pinned model that is used unless another is named.
    starts : int
        Most descents, each from a valley of chi-squared in redshift.
    """

    name: str
    z: Range
    x1: Range
    c: Range
    t0_half_width: float
    t0_at_first: bool = False
    phase_range: Range | None = None
    kinds: tuple[str, ...] = ("detection",)
    error_scale: float = 1.0
    model: str = "salt2-2.4"
    starts: int = 3


DEFAULT = Preset(
    name="default",
    z=(0.001, 0.2),
    x1=(-4.0, 4.0),
    c=(-0.5, 1.5),
    t0_half_width=25.0,
    phase_range=(-15.0, 45.0),
)
"""Wide enough for a peak that is still to come; masks phases where the model ends."""

ORIGINAL = Preset(
    name="original",
    z=(0.01, 0.2),
    x1=(-5.0, 5.0),
    c=(-5.0, 5.0),
    t0_half_width=10.0,
    t0_at_first=True,
)
"""The first broker's bounds (redshifts: Möller et al. 2021, arXiv:2009.01242)."""

PRESETS = {preset.name: preset for preset in (DEFAULT, ORIGINAL)}
"""Presets by name."""


def with_original_errors(preset: Preset) -> Preset:
    """Return the preset with the first broker's flux errors, 1.505 times too large."""
    return replace(preset, error_scale=ORIGINAL_ERROR_SCALE)
