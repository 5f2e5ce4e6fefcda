"""A night with known truth through the whole broker, from the command line."""

import json
from pathlib import Path

import polars as pl
import pytest
from click.testing import CliRunner

from broker.apps.cli import cli
from broker.apps.simulator.latency import measure
from broker.apps.simulator.report import by_class, by_magnitude, overall, recovery
from broker.apps.simulator.truth import read_truth
from broker.config import Settings
from broker.wiring import Broker

ALERTS = 600


def pgb(home: Path, *arguments: str):
    """Run a command; return what it printed as JSON."""
    words = [*arguments, "--home", str(home), "--json"]
    found = CliRunner().invoke(cli, words, catch_exceptions=False)
    assert found.exit_code == 0, found.output
    return json.loads(found.output.splitlines()[-1])


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """Return a broker that has taken in a simulated night, its truth in ``made/``."""
    folder = tmp_path_factory.mktemp("home")
    night = ["simulate", "night", "--alerts", str(ALERTS), "--night", "2026-11-20"]
    made = pgb(folder, *night, "--model", "parametric", "--out", str(folder / "made"))
    assert made == [
        {"night": "2026-11-20", "alerts": ALERTS, "folder": str(folder / "made/alerts/20261120")}
    ]
    assert pgb(folder, "run", str(folder / "made" / "alerts"))["stored"] == ALERTS
    return folder


def test_the_report_compares_with_the_truth(home: Path):
    """Every alert is there, and each filter has completeness and purity by class."""
    out = home / "report.html"

    report = pgb(home, "simulate", "report", "--truth", str(home / "made"), "--out", str(out))

    assert (report["alerts"], report["missing"]) == (ALERTS, 0)
    filters = {row["filter"]: row for row in report["filters"]}
    assert 0.4 < filters["purity"]["completeness"] < 1
    assert filters["purity"]["purity"] > 0.95
    shares = {row["class"]: row["share"] for row in report["classes"] if row["filter"] == "purity"}
    assert shares["SNIa"] > 0.5 > 0.2 > shares["cosmic_ray"]
    assert json.loads(out.with_suffix(".json").read_text()) == report


def test_latency_is_told_for_every_place_or_why_not(home: Path):
    """Files tell no times: an alert of theirs arrives when the broker takes it up."""
    out = ["--truth", str(home / "made"), "--out", str(home / "latency.html")]

    report = pgb(home, "simulate", "report", *out)

    assert "took up its batch" in report["latency_since"]
    measured, missing = report["latency_s"], report["latency_not_measured"]
    alerts = {"rows", "topic ztf-alerts", "topic ztf-alerts_pure", "topic ztf-exgalac_trans"}
    assert alerts <= set(measured)
    assert {*measured, *missing} == alerts | {"topic ztf-salt2"}
    assert measured["rows"]["alerts"] == ALERTS
    assert all(0 < one["p50"] <= one["p99"] <= one["max"] < 120 for one in measured.values())
    words = "".join(f"{place}: not measured: {reason}" for place, reason in missing.items())
    assert words in (home / "latency.html").read_text()


def test_times_of_the_sender_are_arrivals(tmp_path: Path):
    """Where there are any, as those of a stream; other alerts than those asked for are left out."""
    pgb(
        tmp_path, "run", f"sim://ztf?alerts=60&model=parametric&truth={tmp_path}", "--survey", "ztf"
    )
    broker, truth = Broker(Settings(home=str(tmp_path), survey="ztf")), read_truth(tmp_path)

    latency = measure(broker, truth["source_id"][:20])

    assert latency.since == "when its sender stamped it"
    assert latency.seconds["rows"]["alerts"] == 20
    assert latency.seconds["topic ztf-alerts"]["p50"] < latency.seconds["rows"]["p50"]


def test_what_cannot_be_measured_has_a_reason(tmp_path: Path):
    """An instance without alerts has no times at all."""
    latency = measure(Broker(Settings(home=str(tmp_path), survey="ztf")), pl.Series([1]))

    assert latency.seconds == {}
    assert latency.not_measured["topic ztf-salt2"] == "no light curve of these alerts was fitted"


def test_the_page_needs_no_other_file(home: Path):
    """Its plots are inside."""
    out = home / "page.html"
    pgb(home, "simulate", "report", "--truth", str(home / "made/truth"), "--out", str(out))
    page = out.read_text()

    assert page.count("<img") == page.count("src='data:image/svg+xml;base64,") >= 2
    assert "href" not in page


def test_the_same_truth_for_another_instance_is_refused(home: Path):
    """With words instead of an empty page."""
    words = ["simulate", "report", "--truth", str(home / "made"), "--home", str(home)]
    found = CliRunner().invoke(cli, [*words, "--testid", "other"])

    assert "has no verdicts yet" in str(found.exception)


def test_a_replay_repeats_the_night_in_an_instance_of_its_own(home: Path):
    """The original has as many messages as before."""
    before = {topic.name: topic.messages for topic in streams(home).topics()}

    replayed = pgb(home, "replay", "--night", "20261120", "--from", "home", "--into", "again")

    after = {topic.name: topic.messages for topic in streams(home).topics()}
    assert replayed["stored"] == ALERTS
    assert {name: after[name] for name in before} == before
    assert after["ztf-alerts-again"] == before["ztf-alerts"]
    assert after["ztf-alerts_pure-again"] == before["ztf-alerts_pure"]


def test_a_replay_from_files_is_the_same(home: Path):
    """A folder of packets, no instance needed."""
    folder = str(home / "made" / "alerts")

    assert pgb(home, "replay", "--from", folder, "--into", "files")["stored"] == ALERTS


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--testid", "same", "--into", "same"], "cannot be replayed into itself"),
        (["--into", "False"], "never goes into production"),
        (["--testid", "other", "--into", "False"], "never goes into production"),
        (["--night", "someday"], "YYYYMMDD"),
        (["--speed", "fast"], "neither a factor"),
        (["--night", "20200101"], "no stored alerts of 2020-01-01"),
    ],
)
def test_a_wrong_replay_is_named(home: Path, words, message):
    """And changes nothing."""
    found = CliRunner().invoke(cli, ["replay", *words, "--home", str(home)])

    assert message in str(found.exception)


def test_every_instance_has_its_reservoir_and_counters(home: Path):
    """After its first run, on each topic that it has, from the oldest message on."""
    found = {topic.name: topic for topic in streams(home).topics()}

    for stub in ("alerts", "alert_avros", "alerts_pure", "exgalac_trans"):
        topic = found[f"ztf-{stub}"]
        assert topic.backlog[f"ztf-{stub}-counter"] == topic.messages > 0
    assert "ztf-alerts-reservoir" in found["ztf-alerts"].backlog


def test_the_consumer_simulator_has_a_command(home: Path):
    """From the reservoir, which it makes, to the topic of a test instance."""
    words = ["simulate", "stream", "--rate", "40once", "--testid", "mytest"]

    first, second = pgb(home, *words), pgb(home, *words)

    assert (first["published"], second["published"]) == (40, 40)
    counts = {topic.name: topic for topic in streams(home).topics()}
    assert counts["ztf-alerts-mytest"].messages == 80
    assert counts["ztf-alerts"].backlog["ztf-alerts-reservoir"] == ALERTS - 80
    assert "ztf-alerts_pure-counter" in counts["ztf-alerts_pure"].backlog


def test_wrong_arguments_of_the_consumer_simulator_are_named(home: Path):
    """As usage errors of the command line."""
    words = ["simulate", "stream", "--rate", "no-such-rate", "--runtime", "1min"]
    found = CliRunner().invoke(cli, [*words, "--home", str(home)])

    assert "unknown rate 'no-such-rate'" in str(found.exception)


def test_a_load_is_measured(home: Path):
    """Backlog, latencies to each table and topic, and a verdict."""
    report = pgb(home, "simulate", "load", "--profile", "ztf-live-max", "--minutes", "0.05")

    assert report["alerts"] == 600
    assert report["kept_up"]
    assert {"commit", "table alerts", "topic ztf-alert_avros"} <= set(report["latency_s"])
    assert all(values["p50"] <= values["p99"] for values in report["latency_s"].values())
    assert not list(home.glob("load-*"))


@pytest.mark.parametrize("minutes", ["0", "-1"])
def test_a_load_of_no_time_is_refused(home: Path, minutes: str):
    """Before anything runs."""
    words = ["simulate", "load", "--profile", "ztf-night", "--minutes", minutes]
    found = CliRunner().invoke(cli, [*words, "--home", str(home)])

    assert found.exit_code == 2
    assert "'--minutes'" in found.output


def test_pictures_of_a_night(home: Path):
    """Distributions and cutouts, as the documentation shows them."""
    out = home / "pictures"
    words = ["simulate", "night", "--alerts", "300", "--model", "parametric", "--pictures"]
    found = CliRunner().invoke(cli, [*words, "--out", str(out), "--home", str(home)])

    assert found.exit_code == 0
    names = {file.name for file in out.iterdir()}
    assert names == {"classes.svg", "magnitudes.svg", "history.svg", "cutouts.png"}
    assert all(file.stat().st_size < 300_000 for file in out.iterdir())


def streams(home: Path):
    """Return the topics of a home."""
    return Broker(Settings(home=str(home))).stream


def joined() -> pl.DataFrame:
    """Return six alerts with the verdict of a filter."""
    return pl.DataFrame(
        {
            "class": ["SNIa", "SNIa", "SNIa", "SNIa", "EB", "AGN"],
            "group": ["supernova"] * 4 + ["variable", "nucleus"],
            "redshift": [0.1, 0.1, 0.1, 0.1, None, 1.0],
            "is_real": [True] * 6,
            "mag_true": [18.1, 18.2, 19.1, 19.2, 18.3, 19.3],
            "mine": [True, True, True, None, True, False],
        }
    )


def test_completeness_and_purity():
    """Of a user's filter, which is taken to want supernovae; unknown is not passed."""
    (row,) = overall(joined(), "mine").to_dicts()

    assert row == {"filter": "mine", "completeness": 0.75, "purity": 0.75, "passed": 4}


def test_completeness_by_magnitude():
    """In half magnitudes."""
    found = by_magnitude(joined(), "mine").select("mag", "completeness", "purity").rows()

    assert found == [(18.25, 1.0, pytest.approx(2 / 3)), (19.25, 0.5, 1.0)]


def test_shares_by_class():
    """How many of each class pass."""
    found = dict(by_class(joined(), "mine").select("class", "share").iter_rows())

    assert found == {"SNIa": 0.75, "EB": 1.0, "AGN": 0.0}


def test_recovery_of_parameters():
    """Median offset, and scatter in units of the error."""
    names = {
        f"{p}{end}": [0.0, 0.0, 0.0] for p in ("z", "t0", "c") for end in ("", "_true", "_err")
    }
    x1 = {"x1": [1.1, 0.0, -0.7], "x1_true": [1.0, 0.0, -1.0], "x1_err": [0.1, 0.1, 0.1]}

    (row,) = recovery(pl.DataFrame(names | x1)).filter(parameter="x1").to_dicts()

    assert row["bias"] == pytest.approx(0.1)
    assert row["pull_scatter"] == pytest.approx(1.4826)
