"""The list of what an instance is made of, and what follows from it."""

import re
from collections.abc import Sequence

import pytest

from broker.apps.cloud.columns import empty_tables
from broker.apps.cloud.cost import cost, first_broker, prices, workload
from broker.apps.cloud.dashboards import mosaic
from broker.apps.cloud.registry import KINDS, Context, Resource, fill, registry
from broker.errors import ConfigError
from broker.instance import Instance
from broker.science.filters import FILTERS, Filter
from broker.surveys import SURVEYS

BUILT_IN = tuple(FILTERS.values())


def resources(
    testid: str | None = "mytestid", project: str = "pp", filters: Sequence[Filter] = BUILT_IN
) -> tuple[Resource, ...]:
    """List the resources of an instance."""
    return registry(Context(Instance("ztf", testid), project), filters)


def names(kind: str, testid: str | None = None) -> list[str]:
    """Name the resources of one kind."""
    return [it.name for it in resources(testid) if it.kind == kind]


def test_the_documented_resources_are_there():
    """Each topic, bucket, table, machine and job that the documents name."""
    found = {(it.kind, it.stub) for it in resources()}
    topics = ("alerts", "alert_avros", "alerts_pure", "exgalac_trans", "salt2")
    others = {
        *(("topic", stub) for stub in (*topics, "cue_night_conductor")),
        *(("subscription", f"{stub}-counter") for stub in topics),
        *(("bucket", stub) for stub in ("alert_avros", "sncosmo", "broker_files")),
        *(("table", stub) for stub in ("alerts", "DIASource", "salt2")),
        *(("vm", stub) for stub in ("consumer", "night-conductor")),
        *(("schedule", f"cue_night_conductor_{it}") for it in ("START", "END")),
        *(("service", stub) for stub in ("cue_night_conductor", "check_cue_response")),
        ("subscription", "alerts-reservoir"),
        ("dataset", "alerts"),
        ("alert_policy", "check_cue_response"),
    }

    assert others <= found


def test_the_cue_has_no_counter():
    """Nobody counts cues."""
    assert [it for it in names("subscription") if "cue" in it] == []


@pytest.mark.parametrize("kind", [it for it in KINDS if it not in ("dataset", "table")])
def test_the_testid_comes_last(kind: str):
    """In every name."""
    found = names(kind, "mytestid")

    assert found
    assert [it for it in found if not it.endswith("-mytestid")] == []


def test_no_name_is_used_twice():
    """Within a kind."""
    keys = [(it.kind, it.name) for it in resources()]

    assert len(set(keys)) == len(keys)


def test_two_instances_share_nothing():
    """Test and production."""
    first, second = ({(it.kind, it.name) for it in resources(it)} for it in ("a", None))

    assert first & second == set()


def test_everything_comes_after_what_it_needs():
    """So that a setup can go from first to last."""
    made: set[str] = set()
    for it in resources():
        assert set(it.needs) <= made, it
        made.add(f"{it.kind}:{it.name}")


def test_no_placeholder_is_left():
    """Every word of the list stands for something."""
    left = [str(it) for it in resources() if re.search(r"\$\{", str((it.settings, it.purpose)))]

    assert left == []


def test_a_word_that_stands_for_nothing_is_refused():
    """A slip in the list shows at once."""
    with pytest.raises(ConfigError, match="regoin"):
        fill("${regoin}", Context(Instance("ztf")))


def test_a_filter_brings_its_topic_and_counter():
    """No list is to be changed for it."""
    filters = [it for it in BUILT_IN if it.topic == "alerts_pure"]

    found = {it.name for it in resources(None, filters=filters)}

    assert {"ztf-alerts_pure", "ztf-alerts_pure-counter"} <= found
    assert "ztf-exgalac_trans" not in found


def test_two_filters_of_one_topic_are_refused():
    """Their messages would be taken for repeats."""
    with pytest.raises(ConfigError, match="alerts_pure"):
        resources(filters=[*BUILT_IN, BUILT_IN[0], BUILT_IN[1]])


@pytest.mark.parametrize("survey", sorted(set(SURVEYS) - {"lvk"}))
def test_columns_are_known_before_the_first_row(survey: str):
    """Of every table that the survey has."""
    found = empty_tables(SURVEYS[survey], BUILT_IN)

    assert {"alerts", "DIASource", "verdicts"} <= set(found)
    assert [name for name, rows in found.items() if len(rows) or not rows.columns] == []
    for name in ("alerts", "DIASource"):
        assert {"kafkaPublishTimestamp", "healpix9", "healpix29"} <= set(found[name].columns)


def test_a_dashboard_shows_every_topic():
    """And tiles do not overlap."""
    layout = mosaic(resources())
    tiles = [(it["xPos"], it["yPos"]) for it in layout["tiles"]]

    assert [it for it in names("topic") if it not in str(layout)] == []
    assert len(set(tiles)) == len(tiles)


def test_costs_grow_with_alerts():
    """Twice the alerts, twice the money."""
    one, two = (sum(it.usd for it in cost(resources(), n)) for n in (10**6, 2 * 10**6))

    assert two == pytest.approx(2 * one)


def test_a_million_alerts_cost_less_than_at_first():
    """Than the first broker's bills."""
    usd, _ = first_broker()

    assert 5 < sum(it.usd for it in cost(resources())) < usd


def test_publishing_the_packets_costs_what_the_list_says():
    """70,607 bytes and attributes, 40 USD a TiB."""
    lines = [it for it in cost(resources(None)) if it.resource.name == "ztf-alerts"]
    lines = [it for it in lines if it.price.unit == "TiB"]

    assert [it.usd for it in lines] == [pytest.approx(1e6 * (70607 + 410) / 2**40 * 40)]


def test_a_busier_night_makes_machines_cheaper():
    """They are paid by the hour."""
    machines = [
        sum(it.usd for it in cost(resources(), **given) if it.resource.kind == "vm")
        for given in ({}, {"alerts_a_night": 583_400.0})
    ]

    assert machines[1] == pytest.approx(machines[0] / 2)


def test_every_price_tells_where_it_is_from():
    """And since when."""
    assert [it for it in prices() if not (it.source and re.match(r"20\d\d-\d\d", it.date))] == []
    assert [name for name, it in workload().items() if not it["words"]] == []
