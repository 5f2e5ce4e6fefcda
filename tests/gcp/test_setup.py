"""``pgb setup`` and ``pgb teardown`` in a project on three emulators, seen by Google's clients."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest

pytest.importorskip("google.cloud.bigquery")
pytest.importorskip("google.cloud.pubsub_v1")
pytest.importorskip("google.cloud.storage")

from click.testing import CliRunner, Result

from broker.apps.cli import cli
from broker.apps.cloud.registry import Context, registry
from broker.apps.cloud.topics import SubscriptionAdapter, TopicAdapter
from broker.connectors.gcp.clients import Cloud
from broker.errors import ConfigError, TransientError
from broker.instance import Instance
from gcp import bigquery_emulator, pubsub_emulator, storage_emulator

_MISSING = [it.what_is_missing() for it in (pubsub_emulator, storage_emulator, bigquery_emulator)]
_needs_emulators = pytest.mark.skipif(any(_MISSING), reason="; ".join(filter(None, _MISSING)))
_DELETED = "_deleted-topic_"
_NUMBERS = count(100)


@dataclass(frozen=True)
class Project:
    """A project on emulators, and how commands reach it."""

    cloud: Cloud
    variables: dict[str, str]

    def run(self, command: str, *flags: str, testid: str = "mytest") -> Result:
        """Run a command on an instance of the project."""
        place = ["--survey", "lsst", "--testid", testid, "--project", self.cloud.project]
        return CliRunner(env=self.variables).invoke(cli, [command, *place, *flags])

    def setup(self, *flags: str, testid: str = "mytest") -> Result:
        """Run ``pgb setup --yes``."""
        return self.run("setup", "--yes", *flags, testid=testid)

    def teardown(self, *flags: str, testid: str = "mytest") -> Result:
        """Run ``pgb teardown --yes``."""
        return self.run("teardown", "--yes", *flags, testid=testid)

    def states(self, *flags: str) -> dict[str, str]:
        """Return the state of each resource that can be made here."""
        done = self.run("setup", "--dry-run", "--json", *flags)
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        found = json.loads(done.stdout.splitlines()[0])
        return {it["name"]: it["state"] for it in found if it["state"] != "left out"}

    def names(self) -> set[str]:
        """Name everything that there is, as Google's clients list it."""
        cloud, path = self.cloud, f"projects/{self.cloud.project}"
        topics = cloud.publisher.list_topics(project=path)
        subscriptions = cloud.subscriber.list_subscriptions(project=path)
        datasets = [it.dataset_id for it in cloud.warehouse.list_datasets()]
        tables = [
            f"{it.dataset_id}.{it.table_id}"
            for dataset in datasets
            for it in cloud.warehouse.list_tables(dataset)
        ]
        found = [it.name.rsplit("/", 1)[1] for listed in (topics, subscriptions) for it in listed]
        # The emulator lists the buckets of all projects.
        buckets = cloud.store.list_buckets(prefix=f"{cloud.project}-")
        own = [it.name for it in buckets if it.name.startswith(f"{cloud.project}-")]
        return {*found, *datasets, *tables, *own}


@pytest.fixture(scope="module")
def variables(
    google_address: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, str]]:
    """Return the variables that lead to emulators, which all tests of this module share."""
    folder: Path = tmp_path_factory.mktemp("bigquery")
    with storage_emulator.running() as storage, bigquery_emulator.running(folder) as bigquery:
        yield {
            "PUBSUB_EMULATOR_HOST": google_address,
            "STORAGE_EMULATOR_HOST": storage,
            "BIGQUERY_EMULATOR_HOST": bigquery.url,
            "PGB_HOME": str(tmp_path_factory.mktemp("home")),
        }


@pytest.fixture
def project(variables: dict[str, str]) -> Project:
    """Return an empty project."""
    return _project(variables)


@pytest.fixture(scope="module")
def ready(variables: dict[str, str]) -> Project:
    """Return a project that is set up, for the tests that only look."""
    project = _project(variables)
    assert set(project.states().values()) == {"create"}
    assert project.names() == set()
    assert project.setup().exit_code == 0
    return project


def _project(variables: dict[str, str]) -> Project:
    cloud = Cloud(
        f"project-{next(_NUMBERS)}",
        pubsub=variables["PUBSUB_EMULATOR_HOST"],
        storage=variables["STORAGE_EMULATOR_HOST"],
        bigquery=variables["BIGQUERY_EMULATOR_HOST"],
    )
    return Project(cloud, variables)


@pytest.mark.slow
@_needs_emulators
class TestProject:
    def test_setup_makes_it_once(self, ready: Project):
        """The second plan finds all of it as it should be."""
        states = ready.states()

        assert set(states.values()) == {"exists"}
        assert set(states) == ready.names()

    def test_subscriptions_never_expire(self, ready: Project):
        """And have the registry's deadline and the instance's label."""
        path = f"projects/{ready.cloud.project}/subscriptions/lsst-alerts-reservoir-mytest"
        found = ready.cloud.subscriber.get_subscription(subscription=path)
        assert found.ack_deadline_seconds == 60
        assert not found.expiration_policy.ttl
        assert dict(found.labels) == {"pgb-instance": "lsst-mytest"}

    def test_tables_are_partitioned_and_clustered(self, ready: Project):
        """By day and by pixel, before the first row."""
        found = ready.cloud.warehouse.get_table("lsst_alerts_mytest.alerts")
        assert found.time_partitioning.field == "kafkaPublishTimestamp"
        assert found.clustering_fields == ["healpix9", "healpix19", "healpix29"]
        assert found.labels == {"pgb-instance": "lsst-mytest"}

    def test_broker_files_are_uploaded(self, ready: Project):
        """Into the instance's bucket."""
        bucket = f"{ready.cloud.project}-lsst-broker_files-mytest"
        assert ready.cloud.store.bucket(bucket).blob("schema_maps/lsst.yaml").exists()

    def test_setup_goes_on_where_it_was_stopped(self, project: Project):
        """What was there before is left as it is."""
        project.setup()
        project.cloud.warehouse.delete_table("lsst_alerts_mytest.verdicts")
        path = f"projects/{project.cloud.project}/topics/lsst-salt2-mytest"
        project.cloud.publisher.delete_topic(topic=path)

        made = {name for name, state in project.states().items() if state == "create"}
        project.setup()

        assert made == {"lsst_alerts_mytest.verdicts", "lsst-salt2-mytest"}
        assert project.states()["lsst-salt2-mytest"] == "exists"

    def test_what_differs_is_told(self, project: Project):
        """A subscription of a topic that is gone; exit code 1."""
        project.setup()
        path = f"projects/{project.cloud.project}/topics/lsst-salt2-mytest"
        project.cloud.publisher.delete_topic(topic=path)

        done = project.setup()

        assert done.exit_code == 1
        assert f"topic is {_DELETED}, not lsst-salt2-mytest" in done.stdout

    def test_a_changed_deadline_is_set_right(self, project: Project):
        """Without harm to what waits."""
        name = "lsst-alerts-counter-mytest"
        project.setup()
        path = f"projects/{project.cloud.project}/subscriptions/{name}"
        project.cloud.subscriber.update_subscription(
            request={
                "subscription": {"name": path, "ack_deadline_seconds": 30},
                "update_mask": {"paths": ["ack_deadline_seconds"]},
            }
        )

        assert project.states()[name] == "change"
        project.setup()

        assert project.states()[name] == "exists"

    def test_columns_that_lack_are_added(self, project: Project):
        """Rows stay."""
        from google.cloud import bigquery

        dataset = bigquery.Dataset(f"{project.cloud.project}.lsst_alerts_mytest")
        project.cloud.warehouse.create_dataset(dataset)
        schema = [bigquery.SchemaField("object_id", "INTEGER")]
        table = bigquery.Table(f"{dataset.reference}.verdicts", schema=schema)
        table.time_partitioning = bigquery.TimePartitioning()
        project.cloud.warehouse.create_table(table)

        assert project.states()["lsst_alerts_mytest.verdicts"] == "change"
        project.setup("--region", "US")

        found = project.cloud.warehouse.get_table("lsst_alerts_mytest.verdicts")
        assert {"object_id", "purity", "source_id"} <= {it.name for it in found.schema}

    def test_teardown_leaves_the_other_instance(self, project: Project):
        """All of one goes, filled buckets and tables as well, all of the other stays."""
        project.setup(testid="other")
        other = project.names()
        project.setup()
        bucket = f"{project.cloud.project}-lsst-alert_avros-mytest"
        for number in range(300):  # more than the client deletes with a bucket
            project.cloud.store.bucket(bucket).blob(f"{number}.avro").upload_from_string(b"x")

        done = project.teardown()

        assert (done.exit_code, project.names()) == (0, other)
        assert "nothing to remove" in project.teardown().stdout

    def test_teardown_finds_what_is_no_longer_listed(self, project: Project):
        """The topic of a filter that is gone, by its label."""
        project.setup()
        path = f"projects/{project.cloud.project}/topics/lsst-mine-mytest"
        labels = {"pgb-instance": "lsst-mytest"}
        project.cloud.publisher.create_topic(request={"name": path, "labels": labels})

        project.teardown()

        assert project.names() & {"lsst-mine-mytest", "lsst-alerts-mytest"} == set()

    def test_what_others_made_stays(self, project: Project):
        """It is listed; exit code 1."""
        path = f"projects/{project.cloud.project}/topics/lsst-alerts-mytest"
        project.cloud.publisher.create_topic(name=path)
        project.setup()

        done = project.teardown()

        assert done.exit_code == 1
        assert "could not remove topic lsst-alerts-mytest" in done.stderr
        assert "lsst-alerts-mytest" in project.names()

    def test_production_is_never_torn_down(self, project: Project):
        """Nothing is asked or removed."""
        project.setup(testid="False")
        before = project.names()

        done = project.teardown(testid="False")

        assert "production" in str(done.exception)
        assert project.names() == before

    def test_what_has_no_emulator_is_left_out(self, ready: Project):
        """With the reason."""
        done = ready.run("setup", "--dry-run")

        assert "no emulator" in done.stdout
        assert "dashboard broker-instance-lsst-mytest" in done.stdout


@pytest.mark.parametrize("kind", ["topic", "subscription"])
def test_what_others_made_is_adopted(our_address: str, kind: str):
    """On our server, whose labels can be changed: it gets the label and the right settings."""
    cloud = Cloud("a-project", pubsub=our_address)
    instance = Instance("ztf", f"t{next(_NUMBERS)}")
    listed = {it.stub: it for it in registry(Context(instance)) if it.kind == kind}
    topic = f"projects/a-project/topics/{instance.name('alerts')}"
    cloud.publisher.create_topic(name=topic)
    resource = listed["alerts" if kind == "topic" else "alerts-counter"]
    if kind == "subscription":
        path = f"projects/a-project/subscriptions/{resource.name}"
        cloud.subscriber.create_subscription(name=path, topic=topic)
    adapter = {"topic": TopicAdapter, "subscription": SubscriptionAdapter}[kind](cloud, "label")
    before = adapter.find(resource)

    adapter.adopt(resource)
    adapter.change(resource, ["retention_s"])

    after = adapter.find(resource)
    assert before is not None
    assert after is not None
    assert (before.ours, after.ours) == (False, True)
    assert after.settings["retention_s"] == adapter.wanted(resource)["retention_s"]
    assert list(adapter.labelled()) == [resource.name]
    adapter.delete(resource)
    assert adapter.find(resource) is None


def test_an_emulator_that_is_away_is_named(tmp_path: Path):
    """Within seconds."""
    away = {
        "PUBSUB_EMULATOR_HOST": "127.0.0.1:9",
        "STORAGE_EMULATOR_HOST": "http://127.0.0.1:9",
        "BIGQUERY_EMULATOR_HOST": "http://127.0.0.1:9",
        "PGB_HOME": str(tmp_path),
    }
    project = Project(Cloud("my-project"), away)

    done = project.setup()

    assert isinstance(done.exception, TransientError)
    assert "no emulator answers at 127.0.0.1:9" in str(done.exception)


def test_without_credentials_it_says_what_to_do(tmp_path: Path):
    """Before anything is made."""
    nothing = {
        **dict.fromkeys(
            ("PUBSUB_EMULATOR_HOST", "STORAGE_EMULATOR_HOST", "BIGQUERY_EMULATOR_HOST"), ""
        ),
        "GOOGLE_APPLICATION_CREDENTIALS": str(tmp_path / "absent.json"),
        "PGB_HOME": str(tmp_path),
    }
    project = Project(Cloud("my-project"), nothing)

    done = project.setup()

    assert isinstance(done.exception, ConfigError)
    assert "gcloud auth application-default login" in str(done.exception)
    assert list(tmp_path.iterdir()) == []
