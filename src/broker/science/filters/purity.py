"""Purity: the detection is likely real and not an artefact of image subtraction."""

from broker.science.filters._base import (
    Cut,
    Filter,
    Variant,
    at_least,
    at_most,
    no_flag,
    number,
    within,
)

_RECIPE = "F. Masci, recipe for filtering alerts (IPAC)"
_REAL_BOGUS = f"{_RECIPE}; score: Mahabal et al. 2019, PASP 131, 038002"
_SCHEMA = "alert schema, record diaSource"
_RELIABILITY = f"{_SCHEMA}: probability that the source is astrophysical; more likely than not"

_BAD_PIXELS = (
    "pixelFlags_bad",
    "pixelFlags_cr",
    "pixelFlags_edge",
    "pixelFlags_offimage",
    "pixelFlags_interpolatedCenter",
    "pixelFlags_saturatedCenter",
    "pixelFlags_suspectCenter",
    "pixelFlags_streakCenter",
)
_FEW_BAD_PIXELS = ("pixelFlags_bad", "pixelFlags_cr", "pixelFlags_edge", "pixelFlags_saturated")
_BAD_FITS = ("centroid_flag", "psfFlux_flag", "shape_flag")
_INJECTED = ("pixelFlags_injected", "pixelFlags_injected_template")
_NO_SHAPE = (
    "The packet has no width in pixels, no elongation and no aperture-minus-PSF magnitude; "
    "the flags of the pixels and of the fits take their place. The reliability model still "
    "changes, so its threshold is even odds; alerts below 0.1 are never sent."
)


def _candidate() -> Variant:
    bad_pixels = number("candidate.nbad")
    return Variant(
        requires=tuple(f"candidate.{n}" for n in ("rb", "nbad", "fwhm", "elong", "magdiff")),
        cuts=(
            at_least("rb", "candidate.rb", 0.65, "", _REAL_BOGUS),
            Cut("nbad", bad_pixels, bad_pixels == 0, 0, "==", "pixels", _RECIPE),
            at_most("fwhm", "candidate.fwhm", 5.0, "pixels", _RECIPE),
            at_most("elong", "candidate.elong", 1.2, "", _RECIPE),
            within("magdiff", "candidate.magdiff", 0.1, "mag", f"{_RECIPE}: aperture minus PSF"),
        ),
    )


def _reliable() -> Cut:
    return at_least("reliability", "diaSource.reliability", 0.5, "", _RELIABILITY)


def _flags(name: str, flags: tuple[str, ...]) -> Cut:
    return no_flag(name, "diaSource", flags, _SCHEMA)


def _dia_source() -> tuple[Variant, ...]:
    flags = (*_BAD_PIXELS, *_BAD_FITS, *_INJECTED)
    cuts = (
        _reliable(),
        _flags("good_pixels", _BAD_PIXELS),
        _flags("good_fits", _BAD_FITS),
        _flags("not_injected", _INJECTED),
    )
    needs = tuple(f"diaSource.{name}" for name in ("reliability", *flags))
    dipole = _flags("not_dipole", ("isDipole",))
    return (
        Variant((*needs, "diaSource.isDipole"), (*cuts, dipole), _NO_SHAPE),
        Variant(needs, cuts, f"{_NO_SHAPE} Schemas before 8.0 do not tell dipoles."),
    )


def _dia_source_few_flags() -> Variant:
    needs = tuple(f"diaSource.{name}" for name in ("reliability", "isdiffpos", *_FEW_BAD_PIXELS))
    return Variant(
        needs,
        (_reliable(), _flags("good_pixels", _FEW_BAD_PIXELS)),
        "The packet has four pixel flags and no flags of the fits.",
    )


def _signal_to_noise() -> Variant:
    return Variant(
        ("diaSource.snr", "diaSource.psFlux"),
        (at_least("snr", "diaSource.snr", 5.0, "", "usual 5-sigma limit of a detection"),),
        "Simulated alerts without artefacts: only the significance is left to cut on.",
    )


FILTER = Filter(
    name="purity",
    topic="alerts_pure",
    summary="The detection is likely real, not an artefact of image subtraction.",
    variants=(
        _candidate(),
        Variant(
            ("triggersource.rb",),
            (at_least("rb", "triggersource.rb", 0.65, "", _REAL_BOGUS),),
            "The packet has a real-bogus score only.",
        ),
        *_dia_source(),
        _dia_source_few_flags(),
        _signal_to_noise(),
    ),
    attribute="is_pure",
    publish_cuts=True,
)
