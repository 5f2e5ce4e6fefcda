"""What a broker tells DESC of an alert: ``brokerClassification`` messages of schema v0_9_1."""

import io
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import fastavro

from broker.errors import DecodeError, UsageError

_FILE = Path(__file__).parent / "schemas" / "v0_9_1.brokerClassfication.json"
"""The name is spelt as in the schema itself."""

_CONTAINER = b"Obj\x01"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Probabilities = Mapping[int, float]


@dataclass(frozen=True, slots=True)
class Classification:
    """What one classifier thinks of one alert.

    Parameters
    ----------
    alert_id, source_id : int
        The alert's ``alertId`` and ``diaSourceId``.
    published : datetime
        When the alert was published, as its stream tells; DESC measures latency from it.
    ingested : datetime, optional
        When the broker got it.
    probabilities : mapping
        Class id of DESC's taxonomy -> probability, 0 to 1.
    """

    alert_id: int
    source_id: int = 0
    published: datetime = _EPOCH
    ingested: datetime | None = None
    broker_name: str = "Pitt-Google Broker"
    broker_version: str = ""
    classifier_name: str = ""
    classifier_params: str = ""
    probabilities: Probabilities = field(default_factory=dict)


def schema_text() -> str:
    """Return the Avro schema as JSON, as a schema service wants it."""
    return _FILE.read_text()


def from_class_dict(class_dict: Mapping[str, Any], **more: Any) -> Classification:
    """Make a classification of any of the dicts in which classifiers give their results.

    Parameters
    ----------
    class_dict : mapping
        ``alertId``, ``classifierNames`` or ``classifierName``, any other field of the schema,
        and ``classifications`` in a shape that `probabilities_of` knows.
    **more
        Fields of `Classification` that the dict does not tell.

    Raises
    ------
    UsageError
        If a field is missing or wrong.

    Examples
    --------
    >>> from_class_dict({"alertId": 7, "classifications": {"2222": 0.9}}).probabilities
    {2222: 0.9}
    """
    values = {name: class_dict[key] for key, name in _FIELDS.items() if key in class_dict}
    if "alert_id" not in values | more:
        raise UsageError("a classification must tell its alertId")
    found = probabilities_of(class_dict.get("classifications", {}))
    return Classification(**{**values, "probabilities": found, **more})


def probabilities_of(classifications: Any) -> dict[int, float]:
    """Return class id -> probability, from any shape in use.

    Those are a dict; a list of dicts of one item each; such a list within a dict, as
    ``classificationDict``; and the schema's own list of ``classId`` and ``probability``.

    Raises
    ------
    UsageError
        If it is none of these, a class comes twice, or a probability is not within 0 to 1.

    Examples
    --------
    >>> probabilities_of({"classificationDict": [{"10": 0.1}, {"20": 0.9}]})
    {10: 0.1, 20: 0.9}
    """
    found: dict[int, float] = {}
    for class_id, probability in _pairs(classifications):
        number, value = _number(class_id, probability)
        if number in found:
            raise UsageError(f"class {number} comes twice in {classifications!r}")
        found[number] = value
    return found


def write(classification: Classification, *, header: bool = False) -> bytes:
    """Write a message.

    Parameters
    ----------
    classification : Classification
        What to tell.
    header : bool
        With the schema in the message; without it for a topic that the schema is attached to.

    Raises
    ------
    UsageError
        If a value does not fit into its field.
    """
    record = {
        key: getattr(classification, name)
        for key, name in _FIELDS.items()
        if key != "classifierNames"
    }
    record["classifications"] = [
        {"classId": class_id, "probability": probability}
        for class_id, probability in classification.probabilities.items()
    ]
    out = io.BytesIO()
    try:
        if header:
            fastavro.writer(out, _schema(), [record])
        else:
            fastavro.schemaless_writer(out, _schema(), record)
    except (ValueError, TypeError, OverflowError, AttributeError) as error:
        raise UsageError(f"the classification cannot be written: {error}") from error
    return out.getvalue()


def read(payload: bytes) -> Classification:
    """Read a message, with or without the schema in it.

    Raises
    ------
    DecodeError
        If it is none.
    """
    source = io.BytesIO(payload)
    try:
        if payload.startswith(_CONTAINER):
            (record,) = fastavro.reader(source)
        else:
            record = fastavro.schemaless_reader(source, _schema(), None)
        if source.read(1):
            raise DecodeError("the message goes on after the classification")
        return from_class_dict(record)
    except (ValueError, TypeError, EOFError, IndexError, OverflowError, KeyError) as error:
        raise DecodeError(f"not a classification: {error}") from error
    except UsageError as error:
        raise DecodeError(str(error)) from error


_FIELDS = {
    "alertId": "alert_id",
    "diaSourceId": "source_id",
    "elasticcPublishTimestamp": "published",
    "brokerIngestTimestamp": "ingested",
    "brokerName": "broker_name",
    "brokerVersion": "broker_version",
    "classifierNames": "classifier_name",
    "classifierName": "classifier_name",
    "classifierParams": "classifier_params",
}


@cache
def _schema() -> Any:
    return fastavro.parse_schema(json.loads(schema_text()))


def _pairs(classifications: Any) -> Iterable[tuple[Any, Any]]:
    if isinstance(classifications, Mapping):
        if set(classifications) == {"classificationDict"}:
            return _pairs(classifications["classificationDict"])
        return list(classifications.items())
    if not isinstance(classifications, list | tuple):
        raise UsageError(f"classifications must be a dict or a list of dicts: {classifications!r}")
    return [pair for item in classifications for pair in _pairs_of_item(item)]


def _pairs_of_item(item: Any) -> Iterable[tuple[Any, Any]]:
    if not isinstance(item, Mapping):
        raise UsageError(f"a classification must be a dict, not {item!r}")
    if "classId" in item:
        return [(item["classId"], item.get("probability"))]
    return list(item.items())


def _number(class_id: Any, probability: Any) -> tuple[int, float]:
    try:
        number, value = int(class_id), float(probability)
    except (TypeError, ValueError) as error:
        raise UsageError(f"class {class_id!r}: {probability!r} is no probability") from error
    if not (math.isfinite(value) and 0 <= value <= 1):
        raise UsageError(f"class {number}: {value!r} is no probability")
    return number, value
