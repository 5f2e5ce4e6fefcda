"""``pgb setup`` and ``pgb teardown`` on a home."""

import json
import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import polars as pl
import pytest
from click.testing import CliRunner, Result

from broker.apps.cli import cli
from broker.config import Settings
from broker.connectors.streams.local import LocalStream
from broker.errors import UsageError
from broker.ports import BatchKey, Messages
from broker.wiring import Broker

INSTANCE = ("--survey", "ztf", "--testid", "mytest")
OTHER = ("--survey", "ztf", "--testid", "other")


@pytest.fixture(autouse=True)
def no_project(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no variable of this machine name a project."""
    monkeypatch.delenv("GOOGLE_CLOUD_PROJECT", raising=False)


def setup(home: Path, *flags: str) -> Result:
    """Run ``pgb setup``."""
    return CliRunner().invoke(cli, ["setup", "--home", str(home), *flags])


def teardown(home: Path, *flags: str) -> Result:
    """Run ``pgb teardown``."""
    return CliRunner().invoke(cli, ["teardown", "--home", str(home), *flags])


def states(done: Result) -> set[str]:
    """Return the states of a plan in JSON."""
    return {it["state"] for it in json.loads(done.stdout.splitlines()[0])}


def files(home: Path) -> dict[str, bytes]:
    """Return every file of a home."""
    found = (path for path in sorted(home.rglob("*")) if path.is_file())
    return {str(it.relative_to(home)): it.read_bytes() for it in found}


def names(home: Path) -> set[str]:
    """Name the topics and subscriptions of a home."""
    with closing(LocalStream(home / "streams", "test")) as stream:
        return {name for it in stream.topics() for name in (it.name, *it.backlog)}


def folders(home: Path) -> set[str]:
    """Name the folders that instances have."""
    return {f"{it.parent.name}/{it.name}" for it in home.glob("*/*") if it.is_dir()}


def test_setup_makes_topics_subscriptions_buckets_and_dataset(tmp_path: Path):
    """What the registry lists for a home."""
    assert setup(tmp_path, *INSTANCE, "--yes").exit_code == 0

    assert {"ztf-alerts-mytest", "ztf-alerts-counter-mytest", "ztf-alerts-reservoir-mytest"} <= (
        names(tmp_path)
    )
    assert {"files/ztf-sncosmo-mytest", "tables/ztf_alerts_mytest"} <= folders(tmp_path)


def test_setup_uploads_the_broker_files(tmp_path: Path):
    """Schema maps are read from there."""
    setup(tmp_path, *INSTANCE, "--yes")

    assert (tmp_path / "files/ztf-broker_files-mytest/schema_maps/ztf.yaml").is_file()


def test_setup_again_finds_everything(tmp_path: Path):
    """And changes nothing."""
    setup(tmp_path, *INSTANCE, "--yes")
    before = files(tmp_path)

    done = setup(tmp_path, *INSTANCE, "--yes", "--json")

    assert states(done) == {"exists", "left out"}
    assert files(tmp_path) == before


def test_a_dry_run_changes_nothing(tmp_path: Path):
    """It tells what would be made."""
    done = setup(tmp_path, *INSTANCE, "--dry-run", "--json")

    assert states(done) == {"create", "left out"}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("run", [setup, teardown])
def test_off_a_terminal_nobody_is_asked(tmp_path: Path, run: object):
    """Then --yes is needed."""
    setup(tmp_path, *INSTANCE, "--yes") if run is teardown else None
    before = files(tmp_path)

    done = run(tmp_path, *INSTANCE)  # type: ignore[operator]

    assert isinstance(done.exception, UsageError)
    assert "--yes" in str(done.exception)
    assert files(tmp_path) == before


@pytest.mark.parametrize(("answer", "made"), [(b"\n", False), (b"y\n", True)])
def test_on_a_terminal_the_default_is_no(tmp_path: Path, answer: bytes, made: bool):
    """A person has to say yes."""
    terminal, end = os.openpty()
    os.write(terminal, answer)
    words = ["setup", *INSTANCE, "--home", str(tmp_path)]
    code = f"import sys; from broker.apps.cli import cli; cli({words})"

    done = subprocess.run([sys.executable, "-c", code], stdin=end, capture_output=True, text=True)

    os.close(terminal)
    os.close(end)
    assert (done.returncode, (tmp_path / "streams").exists()) == (0, made), done.stderr
    assert "[y/N]" in done.stderr


def test_setup_goes_on_where_it_was_stopped(tmp_path: Path):
    """A failure in the middle leaves what was made; the next run makes the rest."""
    (tmp_path / "files").write_text("in the way")

    stopped = setup(tmp_path, *INSTANCE, "--yes")
    made = names(tmp_path)
    (tmp_path / "files").unlink()
    again = setup(tmp_path, *INSTANCE, "--yes", "--json")

    assert "bucket ztf-broker_files-mytest could not be made" in str(stopped.exception)
    assert "ztf-alerts-mytest" in made
    assert states(again) == {"exists", "create", "left out"}
    assert "tables/ztf_alerts_mytest" in folders(tmp_path)


def test_what_can_be_changed_is_changed(tmp_path: Path):
    """A subscription's deadline."""
    with closing(LocalStream(tmp_path / "streams", "test")) as stream:
        stream.create_topic("ztf-alerts-mytest")
        stream.subscribe("ztf-alerts-mytest", "ztf-alerts-counter-mytest", ack_deadline_s=10)

    done = setup(tmp_path, *INSTANCE, "--yes")

    assert "ack_deadline_s is 10.0, not 60.0" in done.stdout
    assert states(setup(tmp_path, *INSTANCE, "--json", "--yes")) == {"exists", "left out"}


def test_what_differs_is_left_alone(tmp_path: Path):
    """A subscription's filter cannot be changed; exit code 1."""
    with closing(LocalStream(tmp_path / "streams", "test")) as stream:
        stream.create_topic("ztf-alerts-mytest")
        wanted = 'attributes.x = "1"'
        stream.subscribe("ztf-alerts-mytest", "ztf-alerts-counter-mytest", attribute_filter=wanted)

    done = setup(tmp_path, *INSTANCE, "--yes")

    assert done.exit_code == 1
    assert "differs" in done.stdout
    assert "by hand" in done.stderr


@pytest.fixture
def used(tmp_path: Path) -> Path:
    """Return a home on which two instances have stored and told something."""
    for testid in ("mytest", "other"):
        setup(tmp_path, "--survey", "ztf", "--testid", testid, "--yes")
        broker = Broker(Settings(home=str(tmp_path), survey="ztf", testid=testid))
        key, rows = BatchKey("w0", 0), pl.DataFrame({"objectId": ["a"]})
        with broker.working():
            broker.stream.publish(
                broker.instance.name("mine"), Messages([b"m"], pl.DataFrame([{}])), key
            )
            broker.stream.subscribe(broker.instance.name("mine"), f"someone-{testid}")
            broker.tables.append(broker.instance.dataset, "alerts", rows, key)
            broker.files.create(broker.instance.bucket("sncosmo"), "x.png", b"png", {})
            broker.ledger.open_batches()
            broker.ledger.close_file()
        broker.stream.close()
    return tmp_path


def test_teardown_removes_all_of_an_instance_and_nothing_else(used: Path):
    """Also the topic of a filter that is gone, and its subscriptions."""
    before = {name: data for name, data in files(used).items() if "other" in name}

    done = teardown(used, *INSTANCE, "--yes")

    left = {name for name in files(used) if "mytest" in name}
    after = {name: data for name, data in files(used).items() if "other" in name}
    assert (done.exit_code, left, {it for it in folders(used) if "mytest" in it}) == (
        0,
        set(),
        set(),
    )
    assert after == before
    assert {it for it in names(used) if "mytest" in it} == set()
    assert {"ztf-mine-other", "someone-other"} <= names(used)


def test_teardown_again_finds_nothing(used: Path):
    """Safe to run twice."""
    teardown(used, *INSTANCE, "--yes")

    done = teardown(used, *INSTANCE, "--yes")

    assert done.exit_code == 0
    assert "nothing to remove" in done.stdout


def test_a_dry_teardown_removes_nothing(used: Path):
    """It tells what would go."""
    before = files(used)

    done = teardown(used, *INSTANCE, "--dry-run")

    assert "ztf-alerts-mytest" in done.stdout
    assert files(used) == before


@pytest.mark.parametrize("flags", [(), ("--testid", "False")])
def test_production_is_never_torn_down(tmp_path: Path, flags: tuple[str, ...]):
    """However it is named."""
    setup(tmp_path, "--survey", "ztf", "--yes")
    before = files(tmp_path)

    done = teardown(tmp_path, "--survey", "ztf", *flags, "--yes")

    assert isinstance(done.exception, UsageError)
    assert "production" in str(done.exception)
    assert files(tmp_path) == before


def test_teardown_waits_for_no_worker(used: Path):
    """It refuses while one of the instance is at work."""
    broker = Broker(Settings(home=str(used), survey="ztf", testid="mytest", worker="w7"))
    with broker.working():
        done = teardown(used, *INSTANCE, "--yes")

    assert isinstance(done.exception, UsageError)
    assert "at work" in str(done.exception)
    assert "ztf-alerts-mytest" in names(used)


def test_a_plan_of_a_teardown_waits_for_nobody(used: Path):
    """It only looks."""
    broker = Broker(Settings(home=str(used), survey="ztf", testid="mytest"))
    with broker.working():
        assert teardown(used, *INSTANCE, "--dry-run").exit_code == 0


def test_setup_says_what_to_do_next(tmp_path: Path):
    """With the same instance and home."""
    done = setup(tmp_path, *INSTANCE, "--yes")

    assert f"pgb run PLACE --survey ztf --testid mytest --home {tmp_path}" in done.stderr


def test_a_worker_of_another_instance_is_no_matter(used: Path):
    """Nothing of it is touched."""
    broker = Broker(Settings(home=str(used), survey="ztf", testid="other"))
    with broker.working():
        assert teardown(used, *INSTANCE, "--yes").exit_code == 0


def test_what_could_not_be_removed_is_listed(used: Path):
    """The rest goes; exit code 1."""
    aside = used / "files/ztf-sncosmo-mytest"
    aside.rename(used / "elsewhere")
    aside.symlink_to(used / "elsewhere")

    done = teardown(used, *INSTANCE, "--yes")

    assert done.exit_code == 1
    assert "could not remove bucket ztf-sncosmo-mytest" in done.stderr
    assert (used / "elsewhere" / "x.png").is_file()
    assert {it for it in names(used) if "mytest" in it} == set()


def test_a_project_without_a_name_that_can_be_one_is_refused(tmp_path: Path):
    """Before anything is asked."""
    done = setup(tmp_path, *INSTANCE, "--project", "No Project", "--dry-run")

    assert "cannot be the id" in str(done.exception)
