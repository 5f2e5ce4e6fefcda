"""How each survey writes an alert: schemas, schema maps, formats.

`open_alert` opens one alert from anything; `decode_batch` decodes many into columns.
"""

from broker.surveys.batch import AlertFrame, decode_batch
from broker.surveys.known import DEFAULT_SURVEY, SURVEYS, adopt_texts, get_survey
from broker.surveys.opening import container_of, open_alert
from broker.surveys.registry import SchemaRegistry, SchemaResolver
from broker.surveys.schema_map import SchemaMap
from broker.surveys.splitting import split_container
from broker.surveys.survey import Survey

__all__ = [
    "DEFAULT_SURVEY",
    "SURVEYS",
    "AlertFrame",
    "SchemaMap",
    "SchemaRegistry",
    "SchemaResolver",
    "Survey",
    "adopt_texts",
    "container_of",
    "decode_batch",
    "get_survey",
    "open_alert",
    "split_container",
]
