"""Resource names."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.errors import ConfigError
from broker.instance import Age, Instance, recognise

TESTIDS = st.from_regex(r"[a-z][a-z0-9]{0,20}", fullmatch=True)


def test_a_test_instance_ends_in_its_testid():
    """The documents' own example."""
    assert Instance("ztf", "mytestid").name("consumer") == "ztf-consumer-mytestid"


def test_production_has_no_suffix():
    """No testid, no suffix."""
    assert Instance("ztf").name("consumer") == "ztf-consumer"


def test_a_bucket_starts_with_the_project():
    """Buckets are global on a cloud."""
    assert Instance("ztf", "t").bucket("alert_avros", "P") == "P-ztf-alert_avros-t"


def test_a_dataset_has_no_hyphen():
    """BigQuery allows none."""
    assert Instance("ztf", "mytestid").dataset == "ztf_alerts_mytestid"


@pytest.mark.parametrize("role", ["counter", "reservoir"])
def test_the_testid_stays_last_in_subscriptions(role: str):
    """Role before testid."""
    assert Instance("ztf", "t").subscription("alerts", role) == f"ztf-alerts-{role}-t"


@pytest.mark.parametrize("testid", [None, False, "False", ""])
def test_false_is_production(testid: str | bool | None):
    """However a shell or a caller writes it."""
    assert Instance("ztf", testid).name("consumer") == "ztf-consumer"


@pytest.mark.parametrize("testid", ["1abc", "A", "a-b", "a b", "é"])
def test_a_testid_that_cannot_be_in_a_name_is_refused(testid: str):
    """The message names the value."""
    with pytest.raises(ConfigError, match="testid"):
        Instance("ztf", testid)


@given(TESTIDS, TESTIDS)
def test_two_instances_never_share_a_name(one: str, other: str):
    """Different testids, different names."""
    same = Instance("ztf", one).name("alerts") == Instance("ztf", other).name("alerts")
    assert same == (one == other)


AGES = [
    ("v0.3", "topic", "alerts", "ztf_alert_data"),
    ("2021", "topic", "alerts", "ztf_alerts"),
    ("v0.5", "topic", "alerts", "ztf-alerts"),
    ("2024", "topic", "alerts_raw", "ztf-alerts_raw"),
    ("v0.3", "bucket", "alert_avros", "pp_ztf_alert_avro_bucket"),
    ("2021", "bucket", "alert_avros", "pp_ztf_alert_avros"),
    ("v0.5", "bucket", "alert_avros", "pp-ztf-alert_avros"),
    ("2024", "bucket", "alert_avros", "pp-ztf_alerts_v4_02"),
    ("v0.3", "topic", "alert_avros", "ztf_alert_avro_bucket"),
    ("2021", "topic", "alert_avros", "ztf_alert_avros"),
    ("v0.5", "topic", "alert_avros", "ztf-alert_avros"),
    ("2024", "topic", "alert_avros", "ztf-alert_avros"),
    ("v0.3", "function", "upload_bytes_to_bucket", "upload_ztf_bytes_to_bucket"),
    ("v0.5", "function", "upload_bytes_to_bucket", "ztf-upload_bytes_to_bucket"),
    ("v0.3", "job", "bq-sink", "production-ztf-ps-bq"),
    ("v0.5", "job", "bq-sink", "ztf-bq-sink"),
    ("2024", "job", "bq-sink", "ztf-store_in_BigQuery"),
    ("2021", "job", "value-added", "production-ztf-ps-exgal-salt2"),
    ("v0.5", "job", "value-added", "ztf-value-added"),
    ("2021", "topic", "exgalac_trans", "ztf_exgalac_trans"),
    ("v0.5", "topic", "exgalac_trans", "ztf-exgalac_trans"),
    ("2021", "topic", "salt2", "ztf_salt2"),
    ("v0.5", "topic", "salt2", "ztf-salt2"),
    ("2021", "dataset", "alerts", "ztf_alerts"),
    ("v0.5", "dataset", "alerts", "ztf_alerts"),
    ("2024", "dataset", "alerts", "ztf"),
    ("2024", "table", "alerts", "alerts_v4_02"),
    ("v0.5", "table", "alerts", "alerts"),
]


@pytest.mark.parametrize(("age", "kind", "stub", "name"), AGES)
def test_every_age_has_its_names(age: Age, kind: str, stub: str, name: str):
    """The table of names by age."""
    made = Instance("ztf").named(kind, stub, project="pp", age=age, version="4.02")

    assert made == name


@pytest.mark.parametrize(
    ("age", "kind", "stub", "name"),
    [row for row in AGES if row[3] != Instance("ztf").named(*row[1:3], project="pp")],
)
def test_an_old_name_is_recognised(age: Age, kind: str, stub: str, name: str):
    """As the thing that it stands for."""
    assert (kind, stub) in [(it.kind, it.stub) for it in recognise(name)]


def test_an_old_name_tells_its_keywords():
    """Survey and test id."""
    found = recognise("decat_alerts_mytestid")

    assert [(it.kind, it.stub, it.survey, it.testid) for it in found] == [
        ("dataset", "alerts", "decat", "mytestid")
    ]


def test_a_name_of_today_is_no_old_name():
    """It follows the rule."""
    assert recognise("ztf-alerts") == ()


@pytest.mark.parametrize("testid", [None, "mytestid"])
@pytest.mark.parametrize("stub", ["consumer", "night-conductor"])
def test_a_machine_knows_its_instance_by_its_name(stub: str, testid: str | None):
    """Whether or not there is a test id."""
    instance = Instance("ztf", testid)

    assert Instance.of_machine(instance.name(stub), stub) == instance


def test_a_machine_of_another_stub_is_refused():
    """A wrong name would bring wrong keywords."""
    with pytest.raises(ConfigError, match="night-conductor"):
        Instance.of_machine("ztf-consumer-mytestid", "night-conductor")


def test_a_name_that_needs_a_version_says_so():
    """Rather than to leave it out."""
    with pytest.raises(ConfigError, match="version"):
        Instance("ztf").named("table", "alerts", age="2024")


def test_ages_without_test_instances_refuse_them():
    """Two instances would share a name."""
    with pytest.raises(ConfigError, match="no test id"):
        Instance("ztf", "t").named("topic", "alerts", age="v0.3")


def test_a_service_has_no_underscore():
    """Names that are part of an address allow none."""
    assert Instance("ztf", "t").service("cue_night_conductor") == "ztf-cue-night-conductor-t"
