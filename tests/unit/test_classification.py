"""Classifications as DESC wants them."""

import json
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import fastavro
import pytest

from broker.errors import DecodeError, UsageError
from broker.surveys.elasticc.classification import (
    Classification,
    from_class_dict,
    probabilities_of,
    read,
    schema_text,
    write,
)

_EXPECTED = {10: 0.1, 20: 0.9, 11120: 0.8, 111120: 0.6}
_ITEMS = [{"10": 0.1}, {"20": 0.9}, {"11120": 0.8}, {"111120": 0.6}]
_FULL = Classification(
    alert_id=2**60,
    source_id=7,
    published=datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC),
    ingested=datetime(2026, 1, 2, 3, 4, 6, tzinfo=UTC),
    broker_version="1.0",
    classifier_name="SuperNNova_v1.3",
    classifier_params="none",
    probabilities={2222: 0.75, 2223: 0.25},
)


@pytest.mark.parametrize(
    "shape",
    [
        {"classificationDict": _ITEMS},
        _ITEMS,
        {"10": 0.1, "20": 0.9, "11120": 0.8, "111120": 0.6},
        [{"classId": int(key), "probability": it[key]} for it in _ITEMS for key in it],
    ],
    ids=["nested", "list", "dict", "schema"],
)
def test_shapes(shape: Any) -> None:
    """Every shape in which classifiers give results says the same."""
    found = from_class_dict({"alertId": 1, "classifierNames": "a, b", "classifications": shape})

    assert found.probabilities == _EXPECTED
    assert (found.alert_id, found.classifier_name) == (1, "a, b")


@pytest.mark.parametrize(
    ("shape", "says"),
    [
        (3, "a dict or a list"),
        ([3], "must be a dict"),
        ({"Ia": 0.5}, "'Ia'"),
        ({"1": 1.5}, "no probability"),
        ({"1": float("nan")}, "no probability"),
        ({"1": None}, "no probability"),
        ([{"1": 0.5}, {"01": 0.5}], "twice"),
    ],
)
def test_wrong_shapes(shape: Any, says: str) -> None:
    """What is no classification says why."""
    with pytest.raises(UsageError, match=says):
        probabilities_of(shape)


def test_needs_an_alert() -> None:
    """Without an alert there is no classification."""
    with pytest.raises(UsageError, match="alertId"):
        from_class_dict({"classifications": {}})


@pytest.mark.parametrize("header", [False, True])
def test_round_trip(header: bool) -> None:
    """A message comes back as it was written, with or without the schema in it."""
    assert read(write(_FULL, header=header)) == _FULL


def test_bare_message_is_read_by_the_schema() -> None:
    """Others read a bare message with the schema as DESC spells it."""
    schema = fastavro.parse_schema(json.loads(schema_text()))
    record = fastavro.schemaless_reader(BytesIO(write(_FULL)), schema, None)

    assert schema["name"] == "elasticc.v0_9_1.brokerClassfication"
    assert record["classifications"][0] == {"classId": 2222, "probability": 0.75}


@pytest.mark.parametrize("payload", [b"", b"Obj\x01", b"\xff" * 30, write(_FULL) + b"\x00"])
def test_unreadable(payload: bytes) -> None:
    """What is no message is a decoding error."""
    with pytest.raises(DecodeError):
        read(payload)


def test_does_not_fit() -> None:
    """A value that its field cannot hold is named."""
    with pytest.raises(UsageError, match="cannot be written"):
        write(Classification(alert_id=2**70))


def test_real_example(shared_data: Path) -> None:
    """A file that the first broker wrote can be read."""
    folder = shared_data / "elasticc" / "brokerClassification"
    payload = (folder / "c8e2eab_brokerClassification_example.avro").read_bytes()
    found = read(payload)

    assert found.alert_id == 123456789
    assert found.probabilities == pytest.approx(_EXPECTED)
