"""RAPID, the Roman alerts: numbered Confluent frames in the manner of LSST."""

from pathlib import Path

from broker.surveys.rows import SourceTable
from broker.surveys.survey import Survey

SURVEY = Survey(
    name="rapid",
    folder=Path(__file__).parent,
    record_names=r"rapid\.v\d+_\d+\.alert",
    required=("diaSource.diaSourceId", "diaSource.band", "diaSource.psfFlux", "diaSource.hp6"),
    wire="confluent",
    time_scale="tai",
    source_table=SourceTable(record="diaSource"),
    cutout_format="fits",
)
