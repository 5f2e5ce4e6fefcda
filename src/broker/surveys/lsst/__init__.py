"""Rubin Observatory's LSST: numbered Confluent frames; cutouts are plain FITS."""

from pathlib import Path

from broker.surveys.rows import SourceTable
from broker.surveys.survey import Survey

SURVEY = Survey(
    name="lsst",
    folder=Path(__file__).parent,
    record_names=r"lsst(\.v\d+_\d+)?\.alert",
    required=(
        "diaSource.diaSourceId",
        "diaSource.midpointMjdTai|diaSource.midPointTai",
        "diaSource.ra",
        "diaSource.dec|diaSource.decl",
        "diaSource.psfFlux|diaSource.psFlux",
        "diaSource.ssObjectId",
        "diaSource.apFlux",
        "prvDiaSources",
    ),
    wire="confluent",
    time_scale="tai",
    source_table=SourceTable(record="diaSource"),
    cutout_format="fits",
    clustered_tables=True,
    file_layout="{version}/kafkaPublishTimestamp={date}/{object_key}={object_id}/"
    "{source_key}={source_id}.avro",
)
