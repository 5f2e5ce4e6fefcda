"""Filters on real packets, against a second implementation written with dicts."""

import csv
import itertools
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fastavro
import numpy as np
import polars as pl
import pytest

from broker.science.filters import FILTERS, evaluate, explain

EXPECTED = Path(__file__).parents[1] / "data" / "expected" / "filters.tsv"
KINDS = {"float": pl.Float32, "double": pl.Float64, "int": pl.Int32, "long": pl.Int64}
KINDS |= {"string": pl.String, "boolean": pl.Boolean, "bytes": pl.Binary}


def packets(folder: Path) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Read every packet of a folder, with its schema."""
    for path in sorted(folder.rglob("*.avro")):
        with path.open("rb") as file:
            reader = fastavro.reader(file)
            for packet in reader:
                yield reader.writer_schema, packet


def kind_of(schema: Any, named: dict[str, Any]) -> pl.DataType:
    """Translate an Avro type."""
    if isinstance(schema, list):
        return kind_of(next(one for one in schema if one != "null"), named)
    if isinstance(schema, str):
        return KINDS[schema]() if schema in KINDS else kind_of(named[schema], named)
    if schema["type"] == "array":
        return pl.List(kind_of(schema["items"], named))
    if schema["type"] != "record":
        return kind_of(schema["type"], named)
    named[schema["name"]] = schema
    return pl.Struct({f["name"]: kind_of(f["type"], named) for f in schema["fields"]})


def frame(schema: Any, packet: dict[str, Any]) -> pl.DataFrame:
    """Make a nested frame of one packet, without its images."""
    fields = kind_of(schema, {}).fields
    kept = {f.name: f.dtype for f in fields if "cutout" not in f.name.lower()}
    return pl.DataFrame([{name: packet[name] for name in kept}], schema=kept)


def is_pure(alert: dict[str, Any]) -> bool:
    """Judge purity with dicts; thresholds in single precision, as the values are."""
    c = alert["candidate"]
    names = ("rb", "nbad", "fwhm", "elong", "magdiff")
    if any(c[name] is None for name in names):
        return False
    return bool(
        c["rb"] >= np.float32(0.65)
        and c["nbad"] == 0
        and c["fwhm"] <= 5
        and c["elong"] <= np.float32(1.2)
        and abs(c["magdiff"]) <= np.float32(0.1)
    )


def is_extragalactic(alert: dict[str, Any]) -> bool:
    """Judge extragalactic transients with dicts."""
    c = alert["candidate"]
    epochs = [c, *(alert["prv_candidates"] or [])]
    times = sorted(e["jd"] for e in epochs if e.get("isdiffpos") in ("t", "1"))
    gaps = [later - sooner for sooner, later in itertools.pairwise(times)]
    far = c["distpsnr1"] in (None, -999.0) or c["distpsnr1"] > 1.5
    return (
        c["isdiffpos"] in ("t", "1")
        and (far or c["sgscore1"] < 0.5)
        and bool(gaps)
        and max(gaps) * 1440 >= 30
        and (c["ssdistnr"] is None or c["ssdistnr"] < 0 or c["ssdistnr"] > 5)
    )


def test_candidates_agree_with_dicts(shared_data: Path) -> None:
    """Every real packet with a candidate gets the verdict of the second implementation."""
    both = list(FILTERS.values())
    compared = 0
    for schema, packet in packets(shared_data / "ztf"):
        verdicts = evaluate(both, frame(schema, packet))
        found = [bool(verdicts.passed(name)[0]) for name in ("purity", "extragalactic")]
        assert found == [is_pure(packet), is_extragalactic(packet)], packet["candid"]
        compared += 1
    assert compared > 100


def test_counts(shared_data: Path) -> None:
    """As many packets of each folder pass as is on record."""
    found: Counter[tuple[str, str]] = Counter()
    with EXPECTED.open() as file:
        expected = {
            (r["folder"], r["filter"]): int(r["passed"])
            for r in csv.DictReader(file, delimiter="\t")
        }
    for folder in {folder for folder, _ in expected}:
        for schema, packet in packets(shared_data / folder):
            verdicts = evaluate(list(FILTERS.values()), frame(schema, packet))
            found.update({(folder, name): int(verdicts.passed(name)[0]) for name in FILTERS})
    assert {key: found[key] for key in expected} == expected


@pytest.mark.parametrize("name", sorted(FILTERS))
def test_explanation_agrees_with_evaluation(shared_data: Path, name: str) -> None:
    """What is explained is what was decided, and each margin has the verdict's sign."""
    for schema, packet in packets(shared_data / "ztf" / "boom-sample_alerts"):
        row = frame(schema, packet)
        told = explain(FILTERS[name], row)
        assert told.passed == bool(evaluate([FILTERS[name]], row).passed(name)[0])
        for cut in told.cuts:
            if cut.margin is not None:
                assert (cut.margin >= 0) == (cut.verdict == "pass"), cut


def schemas(folder: Path) -> Iterator[Any]:
    """Read the alert schema of every version from 7 on."""
    for path in sorted(folder.glob("*/*/*.alert.avsc")):
        if int(path.parts[-3]) >= 7:
            parts = [json.loads(p.read_text()) for p in path.parent.glob("*.avsc") if p != path]
            named = {part["name"]: part for part in parts}
            named |= {f"{part['namespace']}.{part['name']}": part for part in parts}
            yield path.name, kind_of(json.loads(path.read_text()), named)


def test_every_schema_has_its_cuts(shared_data: Path) -> None:
    """Both filters apply to every version of a schema that changed often."""
    both = list(FILTERS.values())
    seen = 0
    for version, kind in schemas(shared_data / "schemas" / "lsst"):
        rows = pl.DataFrame(schema={field.name: field.dtype for field in kind.fields})
        assert not evaluate(both, rows).not_applicable, version
        seen += 1
    assert seen >= 8
