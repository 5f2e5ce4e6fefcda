"""Schema maps from the bucket of broker files, and values by their generic words.

Same as `broker.apps.cloud.broker_files` and `broker.surveys.SchemaMap`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from broker.apps.cloud.broker_files import read_schema_map
from broker.config import load_settings
from broker.errors import NotFoundError
from broker.surveys import SchemaMap

__all__ = ["get_key", "get_value", "load_schema_map", "load_yaml"]


def load_schema_map(
    survey: str, testid: str | bool | None, schema: str | Path | None = None
) -> dict[str, Any]:
    """Load a schema map: a file, or the bucket's for a survey.

    Parameters
    ----------
    survey : str
        Keyword of the survey whose instance has the bucket.
    testid : str or bool or None
        Test id of the instance; False, also as text, is production.
    schema : str or Path, optional
        A file of your own, or the name of a map; by default the survey's.

    Raises
    ------
    ValueError
        If the bucket has no such map.
    """
    if isinstance(schema, Path):
        return load_yaml(schema)
    settings = load_settings(survey=survey, testid=str(testid or False))
    try:
        return read_schema_map(settings, schema or survey)
    except NotFoundError as error:
        raise ValueError(str(error)) from error


def load_yaml(file: Any) -> dict[str, Any]:
    """Load a schema map from a path or a Cloud Storage blob."""
    with file.open("r") as opened:
        return dict(SchemaMap.parse(opened.read(), str(file)))


def get_value(key: str, alert_dict: Mapping[str, Any], schema_map: Mapping[str, Any]) -> Any:
    """Return the value of a generic word in an alert; None if it is not there."""
    return SchemaMap(schema_map).get_value(key, alert_dict)


def get_key(key: str, schema_map: Mapping[str, Any]) -> str | None:
    """Return the survey's own name of a generic word; None if it has none."""
    return SchemaMap(schema_map).get_key(key)
