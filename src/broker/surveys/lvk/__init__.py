"""LIGO-Virgo-KAGRA: JSON notices of gravitational-wave events; an event has no position."""

from pathlib import Path

import polars as pl

from broker.surveys.rows import SourceTable
from broker.surveys.survey import Survey

SURVEY = Survey(
    name="lvk",
    folder=Path(__file__).parent,
    record_names=r"lvk\.v\d+_\d+\.alert",
    required=("superevent_id", "alert_type", "time_created", "event"),
    wire="json",
    time_scale="utc",
    object_id_type=pl.String(),
    source_table=SourceTable(record="event", top=("superevent_id", "alert_type", "time_created")),
)
