"""What the broker decided against what was true: completeness, purity, recovery, latency."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from broker.apps.simulator.latency import Latency, measure
from broker.errors import UsageError
from broker.wiring import Broker

TARGETS: Mapping[str, pl.Expr] = {
    "purity": pl.col("is_real"),
    "extragalactic": pl.col("redshift").is_not_null(),
}
"""What a filter is for; of any other filter it is taken to be supernovae."""

_SUPERNOVAE = pl.col("group") == "supernova"
_PARAMETERS = ("z", "t0", "x1", "c")
_BIN_MAG = 0.5
_TRUE, _PASSED = "is_target", "is_passed"


@dataclass(frozen=True, slots=True)
class TruthReport:
    """The tables of a report.

    Attributes
    ----------
    alerts, missing : int
        Alerts in the truth that are stored, and that are not.
    classes : polars.DataFrame
        ``filter, class, is_target, alerts, passed, share``.
    filters : polars.DataFrame
        ``filter, completeness, purity, passed``: over all alerts.
    magnitudes : polars.DataFrame
        ``filter, mag, completeness, purity, alerts``, by true magnitude.
    fits : polars.DataFrame
        ``object_id``, and true value, fitted value and error of each SALT2 parameter; one row
        a type Ia supernova, its latest fit.
    beyond : int
        How many of them lie beyond the redshifts that a fit may find.
    recovery : polars.DataFrame
        ``parameter, fits, bias, scatter, pull_scatter``: medians and normalised median absolute
        deviations, without those that are beyond.
    latency : Latency
        Seconds from arrival to row, to each topic, and to fit.
    """

    alerts: int
    missing: int
    classes: pl.DataFrame
    filters: pl.DataFrame
    magnitudes: pl.DataFrame
    fits: pl.DataFrame
    beyond: int
    recovery: pl.DataFrame
    latency: Latency

    def summary(self) -> dict[str, Any]:
        """Return it as one JSON object."""
        return {
            "alerts": self.alerts,
            "missing": self.missing,
            "filters": self.filters.to_dicts(),
            "classes": self.classes.to_dicts(),
            "magnitudes": self.magnitudes.to_dicts(),
            "recovery": self.recovery.to_dicts(),
            "fits_beyond_bounds": self.beyond,
            **self.latency.summary(),
        }


def make_report(broker: Broker, truth: pl.DataFrame) -> TruthReport:
    """Join the truth of a night with what a broker made of it.

    Raises
    ------
    UsageError
        If the broker has stored none of these alerts.
    """
    names = [chosen.name for chosen in broker.filters]
    dataset = broker.instance.dataset
    known = broker.tables.tables()
    if f"{dataset}.verdicts" not in known:
        raise UsageError(f"instance {broker.instance.name('alerts')} has no verdicts yet")
    verdicts = broker.tables.query(f"SELECT * FROM {dataset}.verdicts").unique("source_id")  # noqa: S608 - our own name
    joined = truth.join(verdicts.drop("object_id"), on="source_id", how="inner")
    if joined.is_empty():
        raise UsageError("none of the alerts of this truth is stored here")
    found = [name for name in names if name in joined.columns]
    reach = pl.col("z_true").is_between(*broker.preset().z)
    fits = _fits(broker, truth) if f"{dataset}.salt2" in known else _no_fits()
    return TruthReport(
        alerts=len(joined),
        missing=len(truth) - len(joined),
        classes=pl.concat([by_class(joined, name) for name in found]),
        filters=pl.concat([overall(joined, name) for name in found]),
        magnitudes=pl.concat([by_magnitude(joined, name) for name in found]),
        fits=fits,
        beyond=len(fits) - len(fits.filter(reach)),
        recovery=recovery(fits.filter(reach)),
        latency=measure(broker, truth["source_id"]),
    )


def _marked(joined: pl.DataFrame, name: str) -> pl.DataFrame:
    return joined.with_columns(
        TARGETS.get(name, _SUPERNOVAE).alias(_TRUE),
        pl.col(name).fill_null(value=False).alias(_PASSED),
    )


def by_class(joined: pl.DataFrame, name: str) -> pl.DataFrame:
    """Count, per class, the alerts that pass a filter."""
    return (
        _marked(joined, name)
        .group_by("class")
        .agg(
            pl.col(_TRUE).any(),
            alerts=pl.len(),
            passed=pl.col(_PASSED).sum(),
        )
        .with_columns(share=pl.col("passed") / pl.col("alerts"))
        .select(pl.lit(name).alias("filter"), pl.all())
        .sort("class")
    )


def _rates() -> list[pl.Expr]:
    """Return completeness and purity; null where there is nothing to divide by."""
    both = (pl.col(_TRUE) & pl.col(_PASSED)).sum()
    targets, passed = pl.col(_TRUE).sum(), pl.col(_PASSED).sum()
    return [
        pl.when(targets > 0).then(both / targets).alias("completeness"),
        pl.when(passed > 0).then(both / passed).alias("purity"),
    ]


def overall(joined: pl.DataFrame, name: str) -> pl.DataFrame:
    """Return completeness and purity of a filter."""
    marked = _marked(joined, name)
    return marked.select(pl.lit(name).alias("filter"), *_rates(), passed=pl.col(_PASSED).sum())


def by_magnitude(joined: pl.DataFrame, name: str) -> pl.DataFrame:
    """Return completeness and purity of a filter in bins of true magnitude."""
    bins = (pl.col("mag_true") / _BIN_MAG).floor() * _BIN_MAG + _BIN_MAG / 2
    return (
        _marked(joined, name)
        .group_by(bins.alias("mag"))
        .agg(*_rates(), alerts=pl.len())
        .select(pl.lit(name).alias("filter"), "mag", "completeness", "purity", "alerts")
        .sort("mag")
    )


def _fits(broker: Broker, truth: pl.DataFrame) -> pl.DataFrame:
    """Return the latest successful fit of each type Ia supernova beside the truth."""
    source_id = broker.survey.schema_map.get_key("sourceid") or "source_id"
    columns = ", ".join(f"{name}, {name}_err" for name in _PARAMETERS)
    table = f"{broker.instance.dataset}.salt2"
    chosen = f"SELECT {source_id} AS source_id, {columns} FROM {table} WHERE success = 1"  # noqa: S608 - names of ours
    rows = broker.tables.query(chosen)
    true = truth.filter(pl.col("x0").is_not_null()).select(
        "source_id",
        "object_id",
        "mjd",
        *(pl.col(name).alias(f"{name}_true") for name in _PARAMETERS),
    )
    joined = true.join(rows.unique("source_id"), on="source_id", how="inner")
    return joined.sort("mjd").unique("object_id", keep="last", maintain_order=True)


def _no_fits() -> pl.DataFrame:
    names = [f"{name}{end}" for name in _PARAMETERS for end in ("", "_err", "_true")]
    return pl.DataFrame(schema={"object_id": pl.String, **dict.fromkeys(names, pl.Float64)})


def recovery(fits: pl.DataFrame) -> pl.DataFrame:
    """Return how well the fits find the true parameters."""
    rows = []
    for name in _PARAMETERS:
        off = (fits[name] - fits[f"{name}_true"]).drop_nulls().to_numpy()
        pull = ((fits[name] - fits[f"{name}_true"]) / fits[f"{name}_err"]).drop_nulls().to_numpy()
        bias = float(np.median(off)) if off.size else None
        rows.append((name, off.size, bias, _scatter(off), _scatter(pull[np.isfinite(pull)])))
    names = ("parameter", "fits", "bias", "scatter", "pull_scatter")
    kinds = (pl.String, pl.Int64, pl.Float64, pl.Float64, pl.Float64)
    return pl.DataFrame(rows, schema=dict(zip(names, kinds, strict=True)), orient="row")


def _scatter(values: np.ndarray[Any, Any]) -> float | None:
    """Return the normalised median absolute deviation."""
    if not values.size:
        return None
    return float(1.4826 * np.median(np.abs(values - np.median(values))))


def rows_of(report: TruthReport) -> Sequence[tuple[str, Any, Any, Any]]:
    """Return filter, passed, completeness and purity for a table on a terminal."""
    return [
        (row["filter"], row["passed"], _percent(row["completeness"]), _percent(row["purity"]))
        for row in report.filters.iter_rows(named=True)
    ]


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"
