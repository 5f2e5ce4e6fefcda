"""Adding schema definitions."""

import json

import pytest

from broker.errors import UsageError
from broker.surveys import get_survey
from broker.surveys.add_schema import add_schemas, canonical
from broker.surveys.example import example_packet

LSST = get_survey("lsst")

SOURCE = {
    "namespace": "lsst.v12_0", "name": "diaSource", "type": "record", "doc": "not kept",
    "fields": [{"name": "diaSourceId", "type": "long", "doc": "not kept"},
               {"name": "time", "type": {"type": "long", "logicalType": "timestamp-micros"}},
               {"name": "flag", "type": ["null", "boolean"], "default": None}],
}  # fmt: skip
ALERT = {
    "namespace": "lsst.v12_0", "name": "alert", "type": "record",
    "fields": [{"name": "diaSource", "type": "lsst.v12_0.diaSource"},
               {"name": "prv", "type": ["null", {"type": "array", "items": "diaSource"}]}],
}  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    """A folder of definitions in several files."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "lsst.v12_0.alert.avsc").write_text(json.dumps(ALERT))
    (source / "lsst.v12_0.diaSource.avsc").write_text(json.dumps(SOURCE))
    return source


def test_a_folder_gives_one_file_a_version(folder, tmp_path):
    """The alert is written under its version; the records in it are no files."""
    target = tmp_path / "target"
    assert add_schemas(folder, LSST, target) == [target / "v12_0.json"]
    assert [file.name for file in target.iterdir()] == ["v12_0.json"]


def test_the_definition_is_whole_and_canonical(folder, tmp_path):
    """Records are put in place once; names, types and logical types stay, words go."""
    (file,) = add_schemas(folder, LSST, tmp_path / "target")
    definition = json.loads(file.read_text())
    inner = definition["fields"][0]["type"]
    assert definition["name"] == "lsst.v12_0.alert"
    assert inner["fields"][1]["type"] == {"type": "long", "logicalType": "timestamp-micros"}
    assert definition["fields"][1]["type"][1] == {"type": "array", "items": "lsst.v12_0.diaSource"}
    assert "not kept" not in file.read_text()
    assert "default" not in file.read_text()


def test_other_records_are_written_when_asked_for(folder, tmp_path):
    """Another kind of message gets its version and its name."""
    files = add_schemas(folder, LSST, tmp_path / "target", also=("diaSource",))
    assert sorted(file.name for file in files) == ["v12_0.diaSource.json", "v12_0.json"]


def test_a_folder_without_alerts_is_refused(tmp_path):
    """Nothing found is an error that names survey and folder."""
    with pytest.raises(UsageError, match="no alert schema of survey 'lsst'"):
        add_schemas(tmp_path, LSST, tmp_path / "target")


@pytest.mark.parametrize("name", ["ztf", "lsst", "elasticc", "rapid", "lvk", "decat"])
def test_shipped_definitions_are_canonical(name):
    """What ships is what the tool writes."""
    survey = get_survey(name)
    for version in survey.schemas.versions:
        definition = survey.schemas.get(version).definition
        assert canonical(definition) == definition


def test_the_versions_of_lsst_are_newest_first():
    """Version 10 comes before version 9."""
    assert LSST.schemas.versions[:5] == ("v11_1", "v11_0", "v10_0", "v9_0", "v8_0")


def test_classifications_of_elasticc_ship():
    """The message that brokers send back has its schema."""
    found = get_survey("elasticc").schemas.get("v0_9_1.brokerClassfication")
    assert found.name == "elasticc.v0_9_1.brokerClassfication"


def test_examples_fill_every_field():
    """An example has values, lists of two, and ids of its own."""
    schema = LSST.schemas.get("v9_0")
    first, second = example_packet(schema), example_packet(schema, 1)
    assert len(first["prvDiaSources"]) == 2
    assert first["diaSource"]["diaSourceId"] != second["diaSource"]["diaSourceId"]
    assert first["diaSource"]["diaSourceId"] not in [
        one["diaSourceId"] for one in first["prvDiaSources"]
    ]


def test_an_unknown_field_of_an_example_is_refused():
    """A misspelt override is an error."""
    with pytest.raises(UsageError, match="diaSorce"):
        example_packet(LSST.schemas.get("v9_0"), diaSorce={})
