"""ELAsTiCC: bare datums on its stream, containers in its files."""

from pathlib import Path

from broker.surveys.rows import SourceTable
from broker.surveys.survey import Survey

SURVEY = Survey(
    name="elasticc",
    folder=Path(__file__).parent,
    record_names=r"elasticc\.v\d+(_\d+)+\.alert",
    required=(
        "alertId",
        "diaSource.diaSourceId",
        "diaSource.midPointTai",
        "diaSource.psFlux",
        "diaObject.mwebv",
    ),
    wire="bare",
    time_scale="tai",
    source_table=SourceTable(record="diaSource", top=("alertId",)),
)
