"""Subscription filters: what matches, and what is said about wrong grammar."""

import polars as pl
import pytest

from broker.connectors.streams.attribute_filter import AttributeFilter
from broker.errors import UsageError

ATTRIBUTES = pl.DataFrame(
    {
        "band": ["g", "r", None, "gr"],
        "kafka.topic": ["a", "b", "c", None],
        "candid": [1, 2, 3, 4],
        "pure": [True, False, None, True],
    }
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", [0, 1, 2, 3]),
        ("  ", [0, 1, 2, 3]),
        ('attributes.band = "g"', [0]),
        ('attributes.band="g"', [0]),
        ('attributes.band != "g"', [1, 2, 3]),
        ("attributes:band", [0, 1, 3]),
        ("NOT attributes:band", [2]),
        ("-attributes:band", [2]),
        ('hasPrefix(attributes.band, "g")', [0, 3]),
        ('NOT hasPrefix(attributes.band, "g")', [1, 2]),
        ('attributes."kafka.topic" = "b"', [1]),
        ('attributes:"kafka.topic"', [0, 1, 2]),
        ('attributes.candid = "3"', [2]),
        ('attributes.pure = "true"', [0, 3]),
        ('attributes.absent = "1"', []),
        ('attributes.absent != "1"', [0, 1, 2, 3]),
        ("attributes:absent", []),
        ('hasPrefix(attributes.absent, "")', []),
        ('attributes.band = "g" OR attributes.band = "r"', [0, 1]),
        ('attributes:band AND attributes.candid != "1" AND attributes.pure = "true"', [3]),
        ('(attributes.band = "g" OR attributes.band = "gr") AND attributes.candid = "4"', [3]),
        ('NOT (attributes.band = "g" OR attributes.band = "r")', [2, 3]),
        (r'attributes.band = "\u0067"', [0]),
        (r'attributes.band = "\x67\162"', [3]),
        ('attributes.band = "AND"', []),
    ],
)
def test_matches(text: str, expected: list[int]) -> None:
    """The rows that Pub/Sub's grammar says."""
    assert expected == AttributeFilter(text).rows(ATTRIBUTES).tolist()


@pytest.mark.parametrize(
    ("text", "expected"),
    [("attributes:band", []), ("NOT attributes:band", [0, 1]), ('attributes.band != "g"', [0, 1])],
)
def test_messages_without_attributes(text: str, expected: list[int]) -> None:
    """A batch of messages without any attributes is filtered as well."""
    assert expected == AttributeFilter(text).rows(pl.DataFrame(), 2).tolist()


@pytest.mark.parametrize(
    ("text", "position"),
    [
        ("band", 1),
        ('attributes.band == "g"', 18),
        ("attributes.band = g", 19),
        ("attributes.band", 16),
        ('attributes.band = "g" and attributes:x', 23),
        ("attributes:a AND attributes:b OR attributes:c", 31),
        ("(attributes:a", 14),
        ("attributes:a)", 13),
        ('hasPrefix(attributes.a "b")', 24),
        ('attributes.a = "b', 16),
        ('attributes.kafka.topic = "x"', 17),
        (r'attributes.a = "\q"', 16),
        ("attributes a", 12),
        ("attributes.a < 1", 14),
    ],
)
def test_wrong_grammar(text: str, position: int) -> None:
    """An error tells the position, counted from one."""
    with pytest.raises(UsageError, match=f"position {position}:"):
        AttributeFilter(text)


def test_too_long() -> None:
    """A filter that Pub/Sub would refuse is refused here."""
    with pytest.raises(UsageError, match="256"):
        AttributeFilter('attributes.a = "' + "x" * 300 + '"')
