"""Rows of two schemas, and queries of the kinds that people run on alerts."""

# ruff: noqa: E501

from datetime import date
from typing import Any

import polars as pl

# Two objects, three alerts; a nested history with a field that only the newer schema has.
OLDER = pl.DataFrame(
    {
        "objectId": ["A", "A", "B"],
        "candid": [2**62 + 1, 2**62 + 2, 2**62 + 3],
        "jd": [1.0, 2.0, 1.5],
        "band": ["g", "r", None],
        "rb": pl.Series([0.5, 0.9, None], dtype=pl.Float32),
        "nbad": pl.Series([0, 1, 2], dtype=pl.Int32),
        "candidate": [
            {"jd": 1.0, "magpsf": 18.0},
            {"jd": 2.0, "magpsf": 17.0},
            {"jd": 1.5, "magpsf": None},
        ],
        "prv_candidates": [
            [{"jd": 0.1, "magpsf": 19.0}, {"jd": 0.2, "magpsf": None}],
            [{"jd": 0.3, "magpsf": 19.5}],
            None,
        ],
    }
)
NEWER = pl.DataFrame(
    {
        "objectId": ["C"],
        "candid": [2**62 + 4],
        "jd": [3.0],
        "band": ["i"],
        "rb": [0.1],
        "nbad": [2**40],
        "drb": [0.99],
        "candidate": [{"drb": 0.99, "jd": 3.0, "magpsf": 16.0}],
        "prv_candidates": [[{"magpsf": 20.5, "jd": 0.4, "procstatus": "0"}]],
    }
)
# Query and its rows.
QUERIES: list[tuple[str, list[tuple[Any, ...]]]] = [
    ("SELECT candid FROM d.alerts WHERE rb > 0.8", [(2**62 + 2,)]),
    ("SELECT candid FROM `d.alerts` WHERE jd = 3", [(2**62 + 4,)]),
    ("SELECT candid FROM `project-1.d.alerts` WHERE jd = 3", [(2**62 + 4,)]),
    ("SELECT candid FROM `project-1`.d.alerts AS t WHERE t.jd = 3", [(2**62 + 4,)]),
    ("SELECT alerts.candid FROM d.alerts WHERE alerts.jd = 3", [(2**62 + 4,)]),
    ("SELECT d.alerts.candid FROM d.alerts WHERE d.alerts.jd = 3", [(2**62 + 4,)]),
    ("SELECT objectId FROM d.alerts WHERE candidate.magpsf < 17.5 ORDER BY 1", [("A",), ("C",)]),
    ("SELECT a.candidate.jd FROM d.alerts AS a WHERE a.objectId = 'B'", [(1.5,)]),
    ("SELECT candidate.drb FROM d.alerts ORDER BY drb DESC LIMIT 2", [(0.99,), (None,)]),
    (
        "SELECT objectId, p.jd FROM d.alerts, UNNEST(prv_candidates) AS p ORDER BY p.jd",
        [("A", 0.1), ("A", 0.2), ("A", 0.3), ("C", 0.4)],
    ),
    (
        "SELECT t.objectId, p.magpsf FROM d.alerts t, UNNEST(t.prv_candidates) p WHERE p.magpsf > 19.2 ORDER BY 2",
        [("A", 19.5), ("C", 20.5)],
    ),
    (
        "SELECT objectId, magpsf FROM d.alerts CROSS JOIN UNNEST(prv_candidates) WHERE magpsf > 20",
        [("C", 20.5)],
    ),
    (
        "SELECT p.jd, off FROM d.alerts CROSS JOIN UNNEST(prv_candidates) AS p WITH OFFSET AS off WHERE objectId = 'A' ORDER BY 1",
        [(0.1, 0), (0.2, 1), (0.3, 0)],
    ),
    (
        "SELECT p.jd, offset FROM d.alerts, UNNEST(prv_candidates) p WITH OFFSET WHERE offset = 1",
        [(0.2, 1)],
    ),
    ("SELECT p.jd FROM d.alerts t, t.prv_candidates p WHERE p.jd > 0.3", [(0.4,)]),
    ("SELECT p.procstatus FROM d.alerts, UNNEST(prv_candidates) p WHERE p.jd = 0.4", [("0",)]),
    (
        "SELECT objectId, p.jd FROM d.alerts a LEFT JOIN UNNEST(a.prv_candidates) p ON TRUE WHERE objectId = 'B'",
        [("B", None)],
    ),
    (
        "SELECT objectId FROM d.alerts WHERE EXISTS (SELECT 1 FROM UNNEST(prv_candidates) p WHERE p.magpsf > 20)",
        [("C",)],
    ),
    (
        "SELECT (SELECT MAX(p.magpsf) FROM UNNEST(prv_candidates) p) FROM d.alerts WHERE objectId = 'A' ORDER BY candid",
        [(19.0,), (19.5,)],
    ),
    ("SELECT ARRAY_LENGTH(prv_candidates) FROM d.alerts WHERE jd = 1", [(2,)]),
    ("SELECT prv_candidates[OFFSET(0)].jd FROM d.alerts WHERE jd = 2", [(0.3,)]),
    ("SELECT prv_candidates[SAFE_OFFSET(5)].jd FROM d.alerts WHERE jd = 2", [(None,)]),
    ("SELECT x, o FROM UNNEST([10, 20]) AS x WITH OFFSET AS o ORDER BY o", [(10, 0), (20, 1)]),
    ("SELECT COUNT(*) FROM d.alerts WHERE objectId IN UNNEST(['A', 'C'])", [(3,)]),
    (
        "SELECT objectId, COUNT(*) AS n FROM d.alerts GROUP BY objectId HAVING n > 1",
        [("A", 2)],
    ),
    (
        "SELECT objectId, ARRAY_AGG(STRUCT(jd, band) ORDER BY jd) AS curve FROM d.alerts WHERE objectId = 'A' GROUP BY 1",
        [("A", [{"jd": 1.0, "band": "g"}, {"jd": 2.0, "band": "r"}])],
    ),
    (
        "SELECT ARRAY_AGG(candid ORDER BY jd DESC LIMIT 1)[OFFSET(0)] AS latest FROM d.alerts WHERE objectId = 'A'",
        [(2**62 + 2,)],
    ),
    (
        "SELECT candid FROM d.alerts WHERE TRUE QUALIFY ROW_NUMBER() OVER (PARTITION BY objectId ORDER BY jd DESC) = 1 ORDER BY 1",
        [(2**62 + 2,), (2**62 + 3,), (2**62 + 4,)],
    ),
    (
        "SELECT COUNTIF(rb > 0.8), SUM(nbad), SAFE_DIVIDE(1, 0) FROM d.alerts",
        [(1, 2**40 + 3, None)],
    ),
    ("SELECT APPROX_COUNT_DISTINCT(objectId) FROM d.alerts", [(3,)]),
    ("SELECT APPROX_QUANTILES(jd, 2)[OFFSET(1)] FROM d.alerts WHERE jd < 3", [(1.5,)]),
    (
        "WITH bright AS (SELECT * FROM d.alerts WHERE jd > 2) SELECT candid FROM bright",
        [(2**62 + 4,)],
    ),
    (
        "SELECT a.candid FROM d.alerts a JOIN d.other o USING (objectId) WHERE o.kind = 'SN'",
        [(2**62 + 3,)],
    ),
    (
        "SELECT candid FROM d.alerts WHERE jd = 1 UNION ALL SELECT candid FROM d.alerts WHERE jd = 3 ORDER BY 1",
        [(2**62 + 1,), (2**62 + 4,)],
    ),
    (
        "SELECT * EXCEPT (candidate, prv_candidates, jd, rb, nbad, drb, band) FROM d.alerts WHERE jd = 3",
        [("C", 2**62 + 4)],
    ),
    (
        "SELECT IF(rb IS NULL, 'none', 'some'), IFNULL(band, '?') FROM d.alerts WHERE jd = 1.5",
        [("none", "?")],
    ),
    (
        "SELECT CAST(candid AS STRING), SAFE_CAST('x' AS INT64) FROM d.alerts WHERE jd = 1",
        [(str(2**62 + 1), None)],
    ),
    ("SELECT REGEXP_CONTAINS(objectId, r'^[AB]') FROM d.alerts WHERE jd = 1", [(True,)]),
    ("SELECT FORMAT('%s-%d', objectId, candid) FROM d.alerts WHERE jd = 3", [(f"C-{2**62 + 4}",)]),
    (
        "SELECT objectId, magpsf FROM d.alerts LEFT JOIN UNNEST(prv_candidates) WHERE objectId = 'B'",
        [("B", None)],
    ),
    (
        "WITH h AS (SELECT prv_candidates AS hist FROM d.alerts) SELECT p.jd FROM h, UNNEST(hist) AS p WHERE p.jd > 0.3",
        [(0.4,)],
    ),
    (
        "SELECT ARRAY(SELECT p.jd FROM UNNEST(prv_candidates) AS p WHERE p.magpsf > 19.2) FROM d.alerts WHERE jd = 2",
        [([0.3],)],
    ),
    (
        "SELECT EXTRACT(YEAR FROM TIMESTAMP '2026-02-03 23:00:00'), EXTRACT(DATE FROM TIMESTAMP '2026-02-03 23:00:00')",
        [(2026, date(2026, 2, 3))],
    ),
    ("SELECT 7 / 2, DIV(7, 2), MOD(7, 2)", [(3.5, 3, 1)]),
]
