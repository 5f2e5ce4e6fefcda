"""The columns of an instance's tables, as the pipeline makes them of an alert."""

from collections.abc import Sequence

import polars as pl

from broker.pipeline import fitting, products
from broker.pipeline.intake import NewAlerts
from broker.science.filters import Filter
from broker.science.fitters.salt2.result import Salt2Fit
from broker.surveys import Survey, decode_batch
from broker.surveys.example import encode_as_sent, example_packet

_ORIGINS = {
    "topic": pl.String,
    "partition": pl.Int32,
    "offset": pl.Int64,
    "timestamp_ms": pl.Int64,
    "place": pl.String,
}


def empty_tables(survey: Survey, filters: Sequence[Filter]) -> dict[str, pl.DataFrame]:
    """Return each table's columns in a warehouse as a frame without rows.

    They are those of rows that an example alert of the newest known schema makes.

    Parameters
    ----------
    survey : Survey
        Whose alerts.
    filters : sequence of Filter
        Whose verdicts have columns.
    """
    versions = survey.shipped_versions()
    schema = survey.schemas.get(versions[0]) if versions else None
    if schema is None:
        return {}
    packet = encode_as_sent(survey, schema, example_packet(schema))
    frames, _ = decode_batch([packet], survey)
    if not frames:
        return {}
    origins = pl.DataFrame({name: [None] for name in _ORIGINS}, schema=_ORIGINS)
    made = products.make(NewAlerts(frames[0], [packet], origins), filters)
    found = {name: rows.clear() for name, rows in products.tables(made, clustered=True)}
    if survey.photometry is not None:
        blank = Salt2Fit("", 0, "", "", "", "")
        found[fitting.NAME] = fitting.fit_rows([blank], frames[0]).clear()
    return found
