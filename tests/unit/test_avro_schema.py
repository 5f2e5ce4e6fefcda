"""Schemas: what is accepted, identity, and the correction of nullable fields."""

import json

import pytest

from broker.errors import DecodeError
from broker.surveys.avro import AvroSchema, correct_header


def record(*fields: dict[str, object], **more: object) -> dict[str, object]:
    """Make a record's definition."""
    return {"type": "record", "name": "packet", "namespace": "a.b", "fields": list(fields), **more}


@pytest.mark.parametrize(
    "definition",
    [
        '{"type": "record", "name": "x"}',
        '{"type": "record", "name": "x", "fields": 3}',
        '{"type": "enum", "name": "x"}',
        '{"type": "array"}',
    ],
)
def test_a_damaged_schema_is_refused_in_words(definition: str):
    """It is a bad packet, not a crash."""
    with pytest.raises(DecodeError, match="schema cannot be used"):
        AvroSchema.parse(definition)


def test_illegal_union_default_is_tolerated() -> None:
    """A null default of a union that ends in null is accepted."""
    schema = AvroSchema.parse(record({"name": "x", "type": ["float", "null"], "default": None}))

    assert schema.name == "a.b.packet"


@pytest.mark.parametrize(
    "definition",
    [
        "not json",
        "[" * 100_000,
        '{"type": "record"}',
        record({"name": "x", "type": "int", "default": None}),
        record({"name": "x", "type": "unheard"}),
        record({"name": "x", "type": ["null", "a.b.packet"]}),
        record({"name": "x", "type": {"type": "array", "items": "null"}}),
        record({"name": "x", "type": "null"}),
        record({"name": ["x"], "type": "int"}),
        record({"name": "x.y", "type": "int"}),
        record({"name": "x", "type": []}),
        record({"name": "x", "type": ["null", "null"]}),
        record({"name": "x", "type": ["int", ["null", "int"]]}),
        record({"name": "x", "type": {"type": "enum", "name": "e", "symbols": {"a": 1}}}),
        *(
            record({"name": "x", "type": {"type": "fixed", "name": "f", "size": size}})
            for size in (-1, 2**31, 1.5, "3", None)
        ),
        '{"type": "record", "name": "x", "fields": [{"name": "f", "type": '
        '{"type": "fixed", "name": "y", "size": Infinity}}]}',
        json.loads('{"type": "array", "items": ' * 80 + '"int"' + "}" * 80),
    ],
)
def test_unusable_schemas_are_refused(definition: object) -> None:
    """What fastavro refuses is refused, and so are schemas of unbounded work."""
    with pytest.raises(DecodeError):
        AvroSchema.parse(definition)  # type: ignore[arg-type]


def test_reasons_are_in_words() -> None:
    """Nothing that Python says about itself is quoted."""
    damaged = [
        b'{"type": "record", "name": "x", "fields": "\xff"}',
        '{"type": "record", "name": "x", "fields": [{"name": "y", "type": {"type": "array"}}]}',
        '{"type": "record", "name": "x", "fields": [{"name": "y", "type": 5}]}',
        '{"type": "record", "name": "x", "fields": [{"name": "y", "type": "unheard"}]}',
    ]
    reasons = []
    for definition in damaged:
        with pytest.raises(DecodeError) as caught:
            AvroSchema.parse(definition)
        reasons.append(str(caught.value))

    assert reasons == [
        "the schema is not JSON: it is not UTF-8",
        "the schema cannot be used: 'items' is missing",
        "the schema cannot be used: a part of it is not what Avro asks for there",
        "the schema cannot be used: it names an unknown type 'unheard'",
    ]


def test_doubling_schema_is_refused() -> None:
    """Named types used twice at each of many levels do not use up memory."""
    fields: list[dict[str, object]] = [
        {"name": "f0", "type": {"type": "record", "name": "r0", "fields": []}}
    ]
    for level in range(1, 40):
        inner = [{"name": n, "type": f"a.b.r{level - 1}"} for n in ("p", "q")]
        kind = {"type": "record", "name": f"r{level}", "fields": inner}
        fields.append({"name": f"f{level}", "type": kind})

    with pytest.raises(DecodeError, match="too many fields"):
        AvroSchema.parse(record(*fields))


def test_fingerprint_ignores_documentation() -> None:
    """Docs, defaults and the way a name is spelled do not change a schema's identity."""
    plain = AvroSchema.parse(record({"name": "x", "type": "int"}))
    wordy = {"name": "x", "type": {"type": "int"}, "doc": "a number", "default": 1}
    spelled = {**record(wordy, doc="d"), "name": "a.b.packet"}
    spelled.pop("namespace")

    assert AvroSchema.parse(json.dumps(spelled)) == plain


def test_fingerprint_keeps_logical_types() -> None:
    """A time and a plain long are different schemas."""
    time = {"type": "long", "logicalType": "timestamp-micros"}

    assert AvroSchema.parse(record({"name": "x", "type": time})) != AvroSchema.parse(
        record({"name": "x", "type": "long"})
    )


def test_correct_header_at_every_level() -> None:
    """Unions with a null default get null first in nested records and items too."""
    inner = record({"name": "y", "type": ["int", "null"]})
    wrong = record(
        {"name": "r", "type": inner},
        {"name": "l", "type": [{"type": "array", "items": "a.b.packet"}, "null"], "default": None},
        doc="kept",
    )

    corrected = correct_header(wrong)

    assert corrected["doc"] == "kept"
    assert corrected["fields"][0]["type"]["fields"][0]["type"] == ["null", "int"]
    assert corrected["fields"][1]["type"][0] == "null"
    assert correct_header(corrected) == corrected


def test_correct_header_leaves_other_defaults() -> None:
    """A union with a default that fits its first branch stays."""
    right = record({"name": "tooflag", "type": ["int", "null"], "default": 0})

    assert correct_header(right) == right
