"""Zwicky Transient Facility: containers that carry their schema."""

from collections.abc import Iterator
from datetime import date
from pathlib import Path

import polars as pl

from broker.surveys.rows import SourceTable
from broker.surveys.survey import Survey


def _generate(alerts: int, seed: int, night: date) -> Iterator[bytes]:
    from broker.surveys.ztf.generator import make_night  # costs half a second to import

    return make_night(alerts, seed, night)


SURVEY = Survey(
    name="ztf",
    folder=Path(__file__).parent,
    record_names=r"ztf\.alert",
    required=(
        "objectId",
        "candid",
        "candidate.jd",
        "candidate.fid",
        "candidate.programid",
        "candidate.rcid",
        "candidate.magpsf",
        "candidate.isdiffpos",
        "prv_candidates",
    ),
    wire="container",
    time_scale="utc",
    object_id_type=pl.String(),
    source_table=SourceTable(
        record="candidate",
        top=("schemavsn", "publisher", "objectId", "candid"),
        drop=("candid",),
        joined=("prv_candidates", "candid", "prv_candidates_candids"),
    ),
    cutout_format="gzip",
    schema_doc="avro alert schema for ZTF (www.ztf.caltech.edu)",
    generate=_generate,
)
