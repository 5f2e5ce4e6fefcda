"""Filters that users write: Python files, predicates and SQL."""

import json
from pathlib import Path

import polars as pl
import pytest

from broker.errors import UsageError
from broker.science.filters import FILTERS, describe, evaluate, explain, load_user_filters

ROWS = pl.DataFrame(
    {
        "objectId": ["a", "b", "c"],
        "candidate": [
            {"rb": 0.9, "magpsf": 17.0, "nbad": 0},
            {"rb": 0.65, "magpsf": 19.0, "nbad": 0},
            {"rb": None, "magpsf": float("nan"), "nbad": 2},
        ],
        "prv_candidates": [[{"jd": 1.0}], [], None],
    },
    schema_overrides={
        "candidate": pl.Struct({"rb": pl.Float32, "magpsf": pl.Float32, "nbad": pl.Int32})
    },
)


def load(folder: Path, name: str, text: str) -> list:
    """Write a filter file and load it."""
    (folder / name).write_text(text)
    return load_user_filters([folder / name])


def passed(folder: Path, name: str, text: str) -> list[bool]:
    """Evaluate the one filter of a file."""
    (one,) = load(folder, name, text)
    return evaluate([one], ROWS).passed(one.name).tolist()


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("candidate.rb >= 0.65", [True, True, False]),
        ("WHERE candidate.rb > 0.8", [True, False, False]),
        (
            "SELECT * FROM t.alerts WHERE candidate.rb > 0.8 AND candidate.nbad = 0",
            [True, False, False],
        ),
        ("SELECT objectId FROM t.alerts a WHERE a.candidate.rb > 0.8;", [True, False, False]),
        ("candidate.magpsf > 18", [False, True, False]),
        ("candidate.magpsf BETWEEN 16 AND 18 OR candidate.nbad = 2", [True, False, True]),
        ("ABS(candidate.magpsf - 17) < 0.5", [True, False, False]),
        ("candidate.rb IS NULL", [False, False, True]),
        ('objectId IN ("a", "c")', [True, False, True]),
        ("ARRAY_LENGTH(prv_candidates) >= 1", [True, False, False]),
    ],
)
def test_sql(tmp_path: Path, sql: str, expected: list[bool]) -> None:
    """A condition in BigQuery's dialect selects alerts; NaN counts as missing."""
    assert passed(tmp_path, "mine.sql", sql) == expected


def test_sql_conditions_become_cuts(tmp_path: Path) -> None:
    """Each condition joined by AND is a cut with value, threshold and margin."""
    sql = (
        "-- name: bright\n-- topic: bright_ones\nWHERE candidate.rb > 0.7 AND candidate.magpsf < 18"
    )
    (one,) = load(tmp_path, "mine.sql", sql)
    found = explain(one, ROWS[1])
    cuts = [(cut.name, cut.value, cut.comparison, cut.margin) for cut in found.cuts]
    assert (one.name, one.topic) == ("bright", "bright_ones")
    assert cuts == [("rb", 0.65, ">", pytest.approx(-0.05)), ("magpsf", 19.0, "<", -1.0)]


@pytest.mark.parametrize(
    ("sql", "words"),
    [
        ("SELECT * FROM t\nWHERE rb >\n> 3 AND (", "line 3"),
        ("SELECT * FROM t", "no WHERE"),
        ("SELECT * FROM t WHERE rb > 1 LIMIT 3", "not limit"),
        ("SELECT * FROM t WHERE a IN (SELECT b FROM c)", "subquery"),
        ("DELETE FROM t", "line 1"),
        ("SELECT 'abc", "line 1"),
        ("x > 1\nAND NO_SUCH_FUNCTION(y) > 2", "line 2"),
    ],
)
def test_wrong_sql(tmp_path: Path, sql: str, words: str) -> None:
    """A wrong SQL file is refused with the file and the line."""
    with pytest.raises(UsageError, match=words) as error:
        load(tmp_path, "mine.sql", sql)
    assert "mine.sql" in str(error.value)


def test_missing_column_does_not_apply(tmp_path: Path) -> None:
    """A filter on columns that the alerts lack says so and passes nothing."""
    (one,) = load(tmp_path, "mine.sql", "candidate.drb > 0.5")
    verdicts = evaluate([one, FILTERS["purity"]], ROWS)
    assert not verdicts.passed("mine").any()
    assert "candidate.drb" in verdicts.not_applicable["mine"]
    assert explain(one, ROWS[0]).applicable is False


def test_python_filter(tmp_path: Path) -> None:
    """A Python file gives a filter of named cuts."""
    text = (
        "from broker.science.filters import Filter, Variant, at_least, at_most\n"
        "cuts = (at_least('rb', 'candidate.rb', 0.65, '', 'me'),)\n"
        "FILTER = Filter('mine', 'my_topic', 'Mine.', (Variant((), cuts),))\n"
    )
    assert passed(tmp_path, "mine.py", text) == [True, True, False]


def test_predicate(tmp_path: Path) -> None:
    """A plain function of the alert as a dict works, batch or single."""
    text = "def passes(alert):\n    return alert['candidate']['rb'] > 0.8\n"
    (one,) = load(tmp_path, "mine.py", text)
    assert evaluate([one], ROWS).passed("mine").tolist() == [True, False, False]
    assert explain(one, ROWS[2]).cuts[0].reason.startswith("line 2: TypeError")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("def passes(alert:\n", "line 1"),
        ("x = 1\nraise ValueError('no')\n", "line 2: ValueError: no"),
        ("x = 1\n", "no FILTER"),
        ("FILTER = 3\n", "FILTER must be"),
        ("from broker.science.filters import Filter, Variant\nVariant((), ())\n", "line 2"),
    ],
)
def test_wrong_python(tmp_path: Path, text: str, words: str) -> None:
    """A wrong Python file is refused with the file and the line."""
    with pytest.raises(UsageError, match=words) as error:
        load(tmp_path, "mine.py", text)
    assert "mine.py" in str(error.value)


@pytest.mark.parametrize("name", ["absent.py", "mine.txt"])
def test_unusable_file(tmp_path: Path, name: str) -> None:
    """A file that is absent or of another kind is refused by name."""
    (tmp_path / "mine.txt").write_text("")
    with pytest.raises(UsageError, match=name):
        load_user_filters([tmp_path / name])


def test_name_twice(tmp_path: Path) -> None:
    """Two files may not give the same name."""
    paths = [tmp_path / "one.sql", tmp_path / "two.sql"]
    for path in paths:
        path.write_text("-- name: same\nobjectId = 'a'")
    with pytest.raises(UsageError, match="already loaded"):
        load_user_filters(paths)


def test_broken_filter_leaves_the_others(tmp_path: Path) -> None:
    """A filter that cannot be evaluated is unknown; the others keep their verdicts."""
    (bad,) = load(tmp_path, "bad.sql", "prv_candidates > 3")
    (good,) = load(tmp_path, "good.sql", "candidate.rb > 0.8")
    verdicts = evaluate([bad, good], ROWS)
    assert verdicts.frame["bad.unknown"].to_list() == [1, 1, 1]
    assert verdicts.passed("good").tolist() == [True, False, False]


def test_explanation_is_json() -> None:
    """An explanation is plain values."""
    found = explain(FILTERS["purity"], ROWS[0]).to_dict()
    assert json.loads(json.dumps(found)) == found | {"cuts": list(found["cuts"])}


def test_empty_batch(tmp_path: Path) -> None:
    """A batch without alerts gives verdicts without rows."""
    (one,) = load(tmp_path, "mine.sql", "candidate.rb > 0.8")
    assert evaluate([one], ROWS.clear()).frame.shape == (0, 3)


def test_description_names_every_cut() -> None:
    """The reference page has a row for each cut of each filter."""
    text = describe(FILTERS.values())
    cuts = [cut for one in FILTERS.values() for variant in one.variants for cut in variant.cuts]
    assert sum(line.startswith("| `") for line in text.splitlines()) == len(cuts)


def test_every_cut_has_a_reference() -> None:
    """No cut of ours is without a source."""
    for one in FILTERS.values():
        for variant in one.variants:
            assert all(cut.reference for cut in variant.cuts)


@pytest.mark.parametrize("name", ["purity", "is_pure", "not_moving", "with space"])
def test_name_not_free(tmp_path: Path, name: str) -> None:
    """A user's filter cannot take a name that the broker uses, nor an impossible one."""
    with pytest.raises(UsageError, match=name):
        load(tmp_path, "mine.sql", f"-- name: {name}\nobjectId = 'a'")
