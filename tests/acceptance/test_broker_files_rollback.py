"""Broker files through the command line: pushed, loaded at the next start, rolled back."""

import json

from broker.surveys import DEFAULT_SURVEY, get_survey

LOADING = {"PGB_BROKER_FILES": "home"}


def _map(tmp_path, name, **lines):
    text = (get_survey(DEFAULT_SURVEY).folder / "schema_map.yaml").read_text()
    for old, new in lines.items():
        text = text.replace(f"\n{old}:", f"\nnot_{old}:") + f"\n{old}: {new}\n"
    file = tmp_path / name
    file.write_text(text)
    return f"schema_maps/{DEFAULT_SURVEY}.yaml={file}"


def _attributes(pgb, count):
    """Return the names of the attributes of the next messages."""
    lines = pgb("pull", "alerts", "--max", str(count), "--json").splitlines()
    return [set(json.loads(line)["attributes"]) for line in lines]


def test_change_and_rollback(pgb, tmp_path, night):
    """A map is in force from the next start on, and no longer after a rollback."""
    packets = [tmp_path / f"{number}.avro" for number in range(3)]
    for path, packet in zip(packets, night, strict=False):
        path.write_bytes(packet)
    pgb("broker-files", "push", "--why", "first")
    pgb("run", str(packets[0]), environment=LOADING)
    pgb("broker-files", "push", _map(tmp_path, "m.yaml", sourceid="[candidate, candid]"))
    pgb("run", str(packets[1]), environment=LOADING)
    pgb("broker-files", "rollback", "1", "--why", "a try")
    pgb("run", str(packets[2]), environment=LOADING)

    names = [found & {"candid", "candidate_candid"} for found in _attributes(pgb, 3)]
    assert names == [{"candid"}, {"candidate_candid"}, {"candid"}]
    assert [it["version"] for it in pgb.json("broker-files", "log")] == [1, 2, 3]
    why = [(it["note"]["why"], it["restores"]) for it in pgb.json("broker-files", "list")]
    assert why == [("first", None), ("", None), ("a try", 1)]


def test_difference(pgb, tmp_path):
    """A difference is shown as of two texts: two versions, or the latest and the present."""
    pgb("broker-files", "push")
    unchanged = pgb("broker-files", "diff")
    pgb("broker-files", "push", _map(tmp_path, "m.yaml", mag="magap"))

    assert unchanged == ""
    assert "+mag: magap" in pgb("broker-files", "diff", "1", "2").splitlines()
    assert "-mag: magap" in pgb("broker-files", "diff").splitlines()


def test_show(pgb, tmp_path):
    """A file of any version is printed as it was pushed."""
    pgb("broker-files", "push")
    pgb("broker-files", "push", _map(tmp_path, "m.yaml", mag="magap"))
    name = f"schema_maps/{DEFAULT_SURVEY}.yaml"

    assert pgb("broker-files", "show", name) == (tmp_path / "m.yaml").read_text()
    assert "magap" not in pgb("broker-files", "show", name, "--version", "1")
    assert name in pgb("broker-files", "show")
    assert pgb.json("broker-files", "show")["number"] == 2


def test_nothing_to_push(pgb):
    """What is there already makes no version."""
    pgb("broker-files", "push")

    assert "nothing has changed since version 1" in pgb("broker-files", "push")


def test_nothing_was_pushed(pgb):
    """A worker that is to load what is not there says what to do, as do the commands."""
    words = "has no broker files yet: pgb broker-files push"

    assert words in pgb("run", "x.avro", environment=LOADING, code=2)
    assert words in pgb("broker-files", "show", code=2)
    assert words in pgb("broker-files", "diff", code=2)
