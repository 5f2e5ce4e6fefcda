"""Schema maps: generic words to a survey's own fields."""

import polars as pl
import pytest

from broker.errors import ConfigError
from broker.surveys import SURVEYS, SchemaMap, adopt_texts, get_survey

GENERIC = """
objectid sourceid source object prv_sources prv_forced_sources prv_nondetect_limits ss_object
ss_source cutout_difference cutout_science cutout_template dec dec_err filter flux flux_err mag
mag_err mag_zp mjd ra ra_err skymap snr urls SURVEY SCHEMA_ORIGIN
"""


@pytest.mark.parametrize("name", sorted(SURVEYS))
@pytest.mark.parametrize("key", GENERIC.split())
def test_every_survey_has_every_generic_word(name, key):
    """Every generic word is in every schema map, null where the survey lacks it."""
    assert key in get_survey(name).schema_map


@pytest.mark.parametrize(
    ("survey", "key", "value"),
    [
        ("ztf", "TOPIC_SYNTAX", "ztf_yyyymmdd_programid1"),
        ("ztf", "FILTER_MAP", {1: "g", 2: "r", 3: "i"}),
        ("ztf", "objectId", "objectId"),
        ("ztf", "prvSources", "prv_candidates"),
        ("ztf", "source", "candidate"),
        ("ztf", "sourceId", "candid"),
        ("ztf", "filter", "fid"),
        ("ztf", "mag", "magpsf"),
        ("ztf", "magerr", "sigmapsf"),
        ("ztf", "magzp", "magzpsci"),
        ("decat", "TOPIC_SYNTAX", "decat_yyyymmdd_2021A-0113"),
        ("decat", "objectId", "objectid"),
        ("decat", "prvSources", "sources"),
        ("decat", "source", "triggersource"),
        ("decat", "cutoutTemplate", "refcutout"),
        ("elasticc", "objectId", ["diaObject", "diaObjectId"]),
        ("elasticc", "sourceId", ["diaSource", "diaSourceId"]),
        ("elasticc", "prvForcedSources", "prvDiaForcedSources"),
        ("elasticc", "psFlux", "psFlux"),
        ("elasticc", "cutoutScience", None),
    ],
)
def test_older_words_keep_their_values(survey, key, value):
    """The words of the older schema maps have the values that they always had."""
    assert get_survey(survey).schema_map[key] == value


def test_a_bare_name_is_found_at_the_top_level_or_in_the_source():
    """A bare name means a field of the packet or else of its source record."""
    words = SchemaMap({"source": "candidate", "mag": "magpsf", "sourceid": "candid"})
    packet = {"candid": 7, "candidate": {"magpsf": 18.5, "candid": 8}}
    assert (words.get_value("mag", packet), words.get_value("sourceid", packet)) == (18.5, 7)


@pytest.mark.parametrize("packet", [{}, {"diaSource": None}, {"diaSource": {}}])
def test_a_missing_intermediate_gives_none(packet):
    """Whatever is missing on the way, the value is None and nothing is raised."""
    words = SchemaMap({"ra": ["diaSource", "position", "ra"]})
    assert words.get_value("ra", packet) is None


def test_an_unknown_word_gives_the_default():
    """A word that the map lacks gives the default."""
    assert SchemaMap({}).get_value("ra", {"ra": 1.0}, default=-1) == -1


def test_get_key_is_the_innermost_field():
    """The key of a nested word is its last field."""
    words = get_survey("elasticc").schema_map
    assert (words.get_key("objectId"), words.get_key("ra")) == ("diaObjectId", "ra")


def test_get_key_of_a_missing_word_is_none():
    """A word without a field has no key."""
    assert get_survey("ztf").schema_map.get_key("skymap") is None


def test_an_offset_is_added():
    """ZTF's Julian date becomes a modified one."""
    packet = {"candidate": {"jd": 2460506.75}}
    assert get_survey("ztf").schema_map.get_value("mjd", packet) == 60506.25


@pytest.mark.parametrize("nothing", [0, None])
def test_zero_or_null_ids_give_way_to_the_alternative(nothing):
    """An LSST alert without diaObject has the id of its solar-system object."""
    packet = {
        "diaObject": None,
        "diaSource": {"diaObjectId": nothing},
        "ssSource": {"ssObjectId": 5},
    }
    assert get_survey("lsst").schema_map.get_value("objectid", packet) == 5


def test_a_zero_position_is_no_missing_position():
    """A declination of exactly 0 stays, although it has alternatives."""
    packet = {"diaSource": {"dec": 0.0}}
    assert get_survey("lsst").schema_map.get_value("dec", packet) == 0.0


def test_the_expression_agrees_with_get_value():
    """Polars and Python read the same values."""
    words = get_survey("lsst").schema_map
    packets = [
        {"diaSource": {"diaObjectId": 9, "ssObjectId": 0}, "ssSource": {"ssObjectId": 0}},
        {"diaSource": {"diaObjectId": 0, "ssObjectId": 4}, "ssSource": {"ssObjectId": 4}},
    ]
    frame = pl.DataFrame(packets)
    found = frame.select(words.expression("objectid", frame.schema))["objectid"].to_list()
    assert found == [words.get_value("objectid", packet) for packet in packets] == [9, 4]


def test_the_expression_of_absent_fields_is_null():
    """Fields that a schema version lacks are null."""
    frame = pl.DataFrame({"diaSource": [{"ra": 1.0}]})
    words = get_survey("lsst").schema_map
    assert frame.select(words.expression("dec", frame.schema))["dec"].to_list() == [None]


def test_attribute_names_join_the_path():
    """Message attributes of ids have the path's fields joined by underscores."""
    assert get_survey("lsst").id_attributes == ("diaObject_diaObjectId", "diaSource_diaSourceId")


def test_a_map_is_yaml():
    """A schema map is the text of a YAML file."""
    words = SchemaMap.parse("ra: [position, ra]\n", "map.yaml")
    assert words.get_value("ra", {"position": {"ra": 3.0}}) == 3.0


@pytest.mark.parametrize("text", ["- a\n", "a: [\n"])
def test_a_broken_map_is_a_config_error(text):
    """A text that is no mapping is refused, by name."""
    with pytest.raises(ConfigError, match=r"broken\.yaml"):
        SchemaMap.parse(text, "broken.yaml")


@pytest.fixture
def adopted():
    """Restore what the surveys ship with."""
    yield
    for name in SURVEYS:
        adopt_texts(name, {})


def test_survey_adopts_a_map(adopted):
    """A map from elsewhere replaces the one that is shipped, and only that file."""
    shipped = get_survey("ztf")
    adopt_texts("ztf", {"schema_map.yaml": "SURVEY: ztf\nmag: magap\n"})

    assert get_survey("ztf").schema_map.get_key("mag") == "magap"
    assert get_survey("ztf").photometry == shipped.photometry


def test_shipped_map_is_restored(adopted):
    """Nothing adopted is what is shipped."""
    adopt_texts("ztf", {"schema_map.yaml": "mag: magap\n"})
    adopt_texts("ztf", {})

    assert get_survey("ztf").schema_map.get_key("mag") == "magpsf"


@pytest.mark.parametrize("text", ["- a list", "a: [", ""])
def test_map_that_cannot_be_adopted(adopted, text):
    """A bad map is refused by name, and the survey stays as it was."""
    with pytest.raises(ConfigError, match="schema map of ztf"):
        adopt_texts("ztf", {"schema_map.yaml": text})
    assert get_survey("ztf").schema_map.get_key("mag") == "magpsf"
