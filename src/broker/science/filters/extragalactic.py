"""Extragalactic transients: brighter than the reference, no star, not moving."""

import math

import polars as pl

from broker.science.filters._base import (
    Cut,
    Filter,
    Variant,
    at_least,
    column,
    number,
    single,
)
from broker.science.filters._gaps import PATTERSON, largest_gap, not_moving

_RECIPE = "Extragalactic-transient recipe of the survey's alert tutorials"
_STARS = f"{_RECIPE}; star-galaxy score: Tachibana & Miller 2018, PASP 130, 128001"
_SCHEMA = "alert schema, record diaSource"

# J2000 position of the north Galactic pole (Perryman et al. 1997, The Hipparcos Catalogue, 1.5.3).
_POLE_RA, _POLE_DEC = math.radians(192.85948), math.radians(27.12825)
_MIN_LATITUDE = 15.0


def positive(isdiffpos: pl.Expr) -> pl.Expr:
    """Tell whether a subtraction is positive: t or 1 against f or 0; null if neither.

    Examples
    --------
    >>> pl.DataFrame({"s": ["t", "1", "f", "0", None]}).select(positive(pl.col("s")))["s"].to_list()
    [True, True, False, False, None]
    """
    sign = isdiffpos.cast(pl.String)
    is_known = sign.is_in(["t", "1", "true", "f", "0", "false"])
    return pl.when(is_known).then(sign.is_in(["t", "1", "true"]))


def _not_moving_candidate(has_history: bool) -> Cut:
    history = column("prv_candidates") if has_history else None
    trigger = pl.when(positive(column("candidate.isdiffpos"))).then(column("candidate.jd"))
    gap = largest_gap(trigger, history, "jd", positive(pl.col("isdiffpos")))
    return not_moving(gap, "in positive subtractions")


def _no_star() -> Cut:
    separation, score = number("candidate.distpsnr1"), number("candidate.sgscore1")
    separation = pl.when(separation >= 0).then(separation)
    score = pl.when(score >= 0).then(score)
    return Cut(
        "no_pointsource_counterpart",
        pl.struct(distpsnr1=separation, sgscore1=score),
        separation.is_null() | (separation > single(1.5)) | (score < single(0.5)),
        "distpsnr1 missing or > 1.5 arcsec, or sgscore1 < 0.5",
        "",
        "",
        _STARS,
        "the catalogue has no source near, or no star-galaxy score for it",
    )


def _no_ssobject_candidate() -> Cut:
    separation = number("candidate.ssdistnr")
    separation = pl.when(separation >= 0).then(separation)
    return Cut(
        "no_ssobject",
        separation,
        separation.is_null() | (separation > single(5.0)),
        5.0,
        ">",
        "arcsec",
        f"{_RECIPE}; {PATTERSON}",
        "no known solar-system object is near",
    )


def _candidate(has_history: bool) -> Variant:
    sign = column("candidate.isdiffpos")
    history = ("prv_candidates.jd", "prv_candidates.isdiffpos") if has_history else ()
    return Variant(
        requires=history,
        cuts=(
            Cut("is_positive_sub", sign, positive(sign), "t or 1", "==", "", _RECIPE),
            _no_star(),
            _not_moving_candidate(has_history),
            _no_ssobject_candidate(),
        ),
        note="The history is sorted by time first; gaps are between consecutive detections."
        if has_history
        else "The history lists no detections, so the alert counts as a single one.",
    )


def _everything() -> Variant:
    return Variant(
        ("triggersource.sourceid", "sources"),
        (
            Cut(
                "accepted",
                column("triggersource.sourceid").is_not_null() | pl.lit(value=True),
                pl.lit(value=True),
                "always",
                "",
                "",
                "Convention of this broker: these alerts are never held back",
            ),
        ),
        "Every alert passes: no cut on these packets has been agreed on. The verdict says "
        "nothing about the alert.",
    )


def _positive_flux(flux: str, unit: str, negative: str = "") -> Cut:
    value = number(f"diaSource.{flux}")
    passes = value > single(0.0)
    if negative:
        passes &= ~column(f"diaSource.{negative}").fill_null(value=False)
    what = "flux above the template's" + (f" and {negative} not set" if negative else "")
    return Cut("is_positive_sub", value, passes, 0.0, ">", unit, f"{_SCHEMA}: {what}")


def _not_moving_source(flux: str, time: str) -> Cut:
    trigger = pl.when(number(f"diaSource.{flux}") > 0).then(column(f"diaSource.{time}"))
    gap = largest_gap(trigger, column("prvDiaSources"), time, pl.col(flux) > 0)
    return not_moving(gap, "of positive flux")


def _no_ssobject_source() -> Cut:
    known = column("diaSource.ssObjectId")
    known = pl.when(known != 0).then(known)
    return Cut(
        "no_ssobject",
        known,
        known.is_null(),
        "no association (0 counts as none)",
        "",
        "",
        f"{_SCHEMA}: ssObjectId",
        "associated with no solar-system object",
    )


def _off_plane() -> Cut:
    ra, dec = (column(f"diaSource.{axis}").radians() for axis in ("ra", "dec"))
    along = dec.sin() * math.sin(_POLE_DEC)
    across = dec.cos() * math.cos(_POLE_DEC) * (ra - _POLE_RA).cos()
    latitude = (along + across).arcsin().degrees()
    return Cut(
        "off_galactic_plane",
        latitude,
        latitude.abs() >= _MIN_LATITUDE,
        _MIN_LATITUDE,
        "abs >=",
        "deg",
        "Galactic latitude (pole: Perryman et al. 1997); stars outnumber galaxies near the plane",
    )


def _dia_source(*negative: str) -> Variant:
    fields = ("psfFlux", "midpointMjdTai", "ssObjectId", "ra", "dec", *negative)
    history = ("prvDiaSources.psfFlux", "prvDiaSources.midpointMjdTai")
    return Variant(
        (*(f"diaSource.{name}" for name in fields), *history),
        (
            _positive_flux("psfFlux", "nJy", *negative),
            _not_moving_source("psfFlux", "midpointMjdTai"),
            _no_ssobject_source(),
            _off_plane(),
        ),
        "The packet names no star near the detection, so there is no cut on a point-like "
        "counterpart: variable stars away from the Galactic plane do pass.",
    )


def _simulated() -> Variant:
    host = "diaObject.hostgal_snsep"
    return Variant(
        ("diaSource.psFlux", "diaSource.midPointTai", "prvDiaSources.psFlux", host),
        (
            _positive_flux("psFlux", "flux at zero point 27.5"),
            _not_moving_source("psFlux", "midPointTai"),
            at_least("has_host", host, 0.0, "arcsec", "alert schema, record diaObject: -9 is none"),
        ),
        "Simulated alerts: no moving objects and no stars are in the packet; a host galaxy is.",
    )


FILTER = Filter(
    name="extragalactic",
    topic="exgalac_trans",
    summary="Brighter than the reference, not a known star, not a moving object.",
    variants=(
        _candidate(has_history=True),
        _candidate(has_history=False),
        _everything(),
        _dia_source("isNegative"),
        _dia_source("is_negative"),
        _dia_source(),
        _simulated(),
    ),
    attribute="is_extragalactic_transient",
    publish_cuts=True,
)
