"""Avro records from columns."""

import io

import fastavro
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.surveys.synthetic.encoder import NULL_INT, RecordEncoder, Texts, varint

RECORD = {
    "type": "record",
    "name": "r",
    "fields": [
        {"name": "before", "type": "string"},
        {"name": "long", "type": "long"},
        {"name": "maybe_long", "type": ["null", "long"]},
        {"name": "long_maybe", "type": ["int", "null"]},
        {"name": "double", "type": "double"},
        {"name": "float", "type": ["null", "float"]},
        {"name": "flag", "type": ["null", "boolean"]},
        {"name": "constant", "type": ["null", "double"]},
        {"name": "text", "type": ["null", "string"]},
        {"name": "needed", "type": "string"},
        {"name": "when", "type": ["null", {"type": "long", "logicalType": "timestamp-micros"}]},
    ],
}
PARSED = fastavro.parse_schema(RECORD)

longs = st.integers(-(2**63) + 1, 2**63 - 1)
rows = st.fixed_dictionaries(
    {
        "long": longs,
        "maybe_long": st.none() | longs,
        "long_maybe": st.none() | st.integers(-(2**31), 2**31 - 1),
        "double": st.floats(allow_nan=False),
        "float": st.none() | st.floats(width=32, allow_nan=False),
        "flag": st.none() | st.booleans(),
        "text": st.none() | st.text(),
        "needed": st.text(),
    }
)


def columns(records):
    """Turn rows into columns."""

    def ints(name):
        return np.array([NULL_INT if r[name] is None else int(r[name]) for r in records], np.int64)

    def floats(name):
        return np.array([np.nan if r[name] is None else r[name] for r in records], np.float64)

    def texts(name):
        words = sorted({r[name] for r in records} - {None})
        index = [-1 if r[name] is None else words.index(r[name]) for r in records]
        return Texts(words, np.array(index))

    numbers = {name: ints(name) for name in ("long", "maybe_long", "long_maybe", "flag")}
    reals = {name: floats(name) for name in ("double", "float")}
    return numbers | reals | {name: texts(name) for name in ("text", "needed")}


@settings(deadline=None)  # the first example compiles
@given(st.lists(rows, min_size=1, max_size=5))
def test_records_are_what_fastavro_writes(records):
    """Any values, nulls in any branch, constants and defaults between them."""
    encoder = RecordEncoder(RECORD, {"before": "é", "constant": 0.5, "when": 7})
    found = encoder.encode(columns(records))

    for number, record in enumerate(records):
        out = io.BytesIO()
        whole = {**record, "before": "é", "constant": 0.5}
        whole["when"] = None
        fastavro.schemaless_writer(out, PARSED, whole)
        expected = out.getvalue()[:-1] + b"\x02\x0e"
        assert bytes(found.span(number, number + 1)) == expected


def test_fields_not_given_are_null_or_zero():
    """Null where the schema allows it."""
    encoded = RecordEncoder(RECORD).encode({"long": np.array([5])})
    record = fastavro.schemaless_reader(io.BytesIO(bytes(encoded.data)), PARSED, None)

    assert record == {
        **dict.fromkeys(("maybe_long", "float", "flag", "constant", "text", "when")),
        "before": "",
        "long": 5,
        "long_maybe": None,
        "double": 0.0,
        "needed": "",
    }


def test_a_column_that_the_record_lacks_is_a_mistake():
    """It is named."""
    with pytest.raises(KeyError, match="no_such_field"):
        RecordEncoder(RECORD).encode({"no_such_field": np.array([1])})


@settings(deadline=None)
@given(longs)
def test_varints_are_those_of_the_book(value):
    """Zig-zag, seven bits a byte."""
    out = io.BytesIO()
    fastavro.schemaless_writer(out, "long", value)

    assert varint(value) == out.getvalue()
