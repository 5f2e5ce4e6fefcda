"""DECam Alliance for Transients: containers; positions of objects are 32-bit floats."""

from pathlib import Path

import polars as pl

from broker.surveys.rows import SourceTable
from broker.surveys.survey import Survey

SURVEY = Survey(
    name="decat",
    folder=Path(__file__).parent,
    record_names=r"decat\.object",
    required=("objectid", "triggersource.sourceid", "triggersource.mjd", "sources"),
    wire="container",
    time_scale="utc",
    object_id_type=pl.String(),
    source_table=SourceTable(
        record="triggersource",
        top=None,
        rename={"ra": "source_ra", "dec": "source_dec"},
        joined=("sources", "sourceid", "sources_sourceids"),
    ),
    cutout_format="gzip",
)
