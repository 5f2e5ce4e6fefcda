"""Resource names."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.errors import ConfigError
from broker.instance import Instance

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
