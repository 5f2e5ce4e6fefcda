"""Machines, services, schedules, alarms and dashboards, on a stub of Google's REST interfaces."""

import json
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import urlsplit

import pytest

pytest.importorskip("google.api_core")
import requests

from broker.apps.cloud.dashboards import mosaic
from broker.apps.cloud.plan import apply, plan, plan_removal, remove
from broker.apps.cloud.registry import Context, Resource, registry
from broker.apps.cloud.rest import RestAdapter, authorized_session, described
from broker.errors import BrokerError, ConfigError, ForbiddenError, TransientError
from broker.instance import Instance
from broker.science.filters import FILTERS

Answer = tuple[int, dict[str, Any]]
COLLECTIONS = {
    "instances": "items",
    "services": "services",
    "jobs": "jobs",
    "alertPolicies": "alertPolicies",
    "dashboards": "dashboards",
}
DISABLED = {
    "error": {
        "code": 403,
        "message": "Cloud Run API has not been used in project 1 before or it is disabled.",
        "status": "PERMISSION_DENIED",
    }
}


class Service(ThreadingHTTPServer):
    """Keeps what is posted by its path; answers as Google does, or as it is told to."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.kept: dict[str, dict[str, Any]] = {}
        self.asked: list[tuple[str, str]] = []
        self.refusal: Answer | None = None

    def answer(self, method: str, target: str, body: dict[str, Any]) -> Answer:
        """Answer one request."""
        self.asked.append((method, target))
        if self.refusal is not None:
            return self.refusal
        parts = urlsplit(target)
        path = parts.path.lstrip("/")
        if path.endswith(":pause"):
            self.kept[path.removesuffix(":pause")]["state"] = "PAUSED"
            return 200, {}
        if method == "POST":
            return self.create(path, parts.query, body)
        if method == "GET" and (key := COLLECTIONS.get(path.rsplit("/", 1)[-1])):
            return 200, {key: [v for k, v in self.kept.items() if k.startswith(path + "/")]}
        if path not in self.kept:
            return 404, {"error": {"code": 404, "message": f"Resource '{path}' was not found"}}
        return self.existing(method, path, body)

    def create(self, path: str, query: str, body: dict[str, Any]) -> Answer:
        """Keep a new thing under its name."""
        short = query.removeprefix("serviceId=") or body.get("name") or body["displayName"]
        name = f"{path}/{short.rsplit('/', 1)[-1]}"
        told = body["name"] if path.endswith("instances") else name
        self.kept[name] = {**body, "name": told}
        return 200, {}

    def existing(self, method: str, path: str, body: dict[str, Any]) -> Answer:
        """Tell, change or remove a thing."""
        if method == "DELETE":
            del self.kept[path]
            return 200, {}
        if method == "PATCH":
            self.kept[path] |= {key: it for key, it in body.items() if key != "name"}
        return 200, self.kept[path]


class Handler(BaseHTTPRequestHandler):
    """One request."""

    server: Service

    def do(self) -> None:
        """Answer it."""
        size = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(size)) if size else {}
        status, told = self.server.answer(self.command, self.path, body)
        data = json.dumps(told).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = do_PATCH = do_DELETE = do

    def log_message(self, *words: Any) -> None:
        """Stay silent."""


@pytest.fixture
def service() -> Iterator[Service]:
    """Return a service that has nothing."""
    with Service() as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


class Project:
    """A target with nothing but what is reached over REST."""

    title = "a stub"

    def __init__(self, service: Service, testid: str = "mytest") -> None:
        self.context = Context(Instance("ztf", testid), "my-project", image="a.b/c/pgb:1")
        listed = registry(self.context, list(FILTERS.values()))
        self.resources = [it for it in listed if it.kind in described()]
        self.session = requests.Session()
        root = f"http://127.0.0.1:{service.server_port}"
        self._adapters = {
            kind: RestAdapter(
                kind, self.context, lambda: self.session, root, lambda: mosaic(listed)
            )
            for kind in described()
        }

    def adapter(self, kind: str) -> RestAdapter | str:
        """Return what makes a kind."""
        return self._adapters.get(kind, "not here")

    def left_out(self, resource: Resource) -> str:
        """Leave nothing out."""
        return ""

    def states(self) -> set[str]:
        """Plan a setup and return its states."""
        return {it.state for it in plan(self.resources, self)}

    def set_up(self) -> None:
        """Make everything."""
        apply(plan(self.resources, self), self, lambda step: None)

    def tear_down(self) -> list[tuple[Resource, str]]:
        """Remove everything; return what could not be."""
        return remove(plan_removal(self.resources, self), self, lambda it: None)


@pytest.fixture
def project(service: Service) -> Iterator[Project]:
    """Return an empty project."""
    project = Project(service)
    with project.session:
        yield project


def test_everything_is_made_once(project: Project, service: Service):
    """A second setup finds it as it should be."""
    assert project.states() == {"create"}
    project.set_up()

    assert len(service.kept) == len(project.resources)
    assert project.states() == {"exists"}


def test_a_dry_plan_only_asks(project: Project, service: Service):
    """Nothing but GET."""
    project.states()

    assert {method for method, _ in service.asked} == {"GET"}


def test_schedules_of_a_test_instance_are_paused(project: Project, service: Service):
    """Nobody's night starts by accident."""
    project.set_up()

    states = [it.get("state") for name, it in service.kept.items() if "/jobs/" in name]
    assert states == ["PAUSED", "PAUSED"]


def test_the_cue_says_start(project: Project, service: Service):
    """To the instance's own topic."""
    project.set_up()

    [job] = [it for name, it in service.kept.items() if "START" in name]
    target = job["pubsubTarget"]
    assert target["topicName"] == "projects/my-project/topics/ztf-cue_night_conductor-mytest"
    assert target["data"] == "U1RBUlQ="


def test_a_machine_runs_the_worker(project: Project, service: Service):
    """With the image, the instance's keywords and places in the project."""
    project.set_up()

    [machine] = [it for name, it in service.kept.items() if name.endswith("ztf-consumer-mytest")]
    script = machine["metadata"]["items"][0]["value"]
    assert "a.b/c/pgb:1 run kafka:// --follow" in script
    assert "--env=PGB_TESTID=mytest" in script
    assert "--env=PGB_BUS=pubsub://my-project" in script


def test_a_changed_schedule_is_set_right(project: Project, service: Service):
    """It differs in one setting, which can be changed."""
    project.set_up()
    [name] = [it for it in service.kept if "START" in it]
    service.kept[name]["schedule"] = "0 5 * * *"

    [step] = [it for it in plan(project.resources, project) if it.state == "change"]
    assert step.words == "cron is 0 5 * * *, not 0 4 * * *"
    project.set_up()

    assert service.kept[name]["schedule"] == "0 4 * * *"


def test_a_machine_of_another_type_is_left_alone(project: Project, service: Service):
    """It would have to be stopped for that."""
    project.set_up()
    [name] = [it for it in service.kept if it.endswith("ztf-consumer-mytest")]
    service.kept[name]["machineType"] = "https://x/zones/us-central1-a/machineTypes/n1"

    steps = [it for it in plan(project.resources, project) if it.state != "exists"]

    assert [(it.state, it.resource.stub) for it in steps] == [("differs", "consumer")]


def without_zeros(value: Any) -> Any:
    """Leave out what is zero or empty, as Google's services do in what they tell."""
    if isinstance(value, dict):
        return {name: without_zeros(it) for name, it in value.items() if it not in (0, "", [], {})}
    return [without_zeros(it) for it in value] if isinstance(value, list) else value


def test_what_the_service_adds_is_no_difference(project: Project, service: Service):
    """It tells machine types as addresses, fills in defaults, and leaves out zeros."""
    project.set_up()
    service.kept = {name: without_zeros(it) for name, it in service.kept.items()}
    for name, it in service.kept.items():
        it["etag"] = "x"
        if name.endswith("ztf-consumer-mytest"):
            it["machineType"] = f"https://x/projects/my-project/{it['machineType']}"

    assert project.states() == {"exists"}


def test_teardown_leaves_nothing(project: Project, service: Service):
    """And finds nothing the second time."""
    project.set_up()

    assert project.tear_down() == []
    assert service.kept == {}
    assert project.tear_down() == []


def test_teardown_leaves_other_instances_alone(project: Project, service: Service):
    """Their label is another."""
    other = Project(service, "other")
    with other.session:
        other.set_up()
        before = json.dumps(service.kept)
        project.set_up()

        project.tear_down()

    assert json.dumps(service.kept) == before


def test_what_others_made_stays(project: Project, service: Service):
    """It is listed, until setup is told to adopt it."""
    project.set_up()
    [name] = [it for it in service.kept if "/dashboards/" in it]
    service.kept[name]["labels"] = {}

    [(resource, reason)] = project.tear_down()

    assert (resource.kind, list(service.kept)) == ("dashboard", [name])
    assert "by hand" in reason
    apply(plan(project.resources, project, adopt=True), project, lambda step: None)
    assert project.tear_down() == []


def test_a_machine_of_a_resource_that_is_gone_is_removed(project: Project, service: Service):
    """It bears the label."""
    project.set_up()
    project.resources = [it for it in project.resources if it.stub != "night-conductor"]

    project.tear_down()

    assert service.kept == {}


@pytest.mark.parametrize(
    ("refusal", "kind", "words"),
    [
        ((403, DISABLED), ForbiddenError, r"enable \w+\.googleapis\.com"),
        ((403, {"error": {"message": "Permission x denied"}}), ForbiddenError, "lacks a role"),
        ((429, {"error": {"message": "Quota exceeded"}}), TransientError, "quota"),
        ((503, {"error": {"message": "try later"}}), TransientError, "try later"),
    ],
)
def test_a_refusal_is_told_in_words(
    project: Project, service: Service, refusal: Answer, kind: type[BrokerError], words: str
):
    """Which service said no, and what to do."""
    service.refusal = refusal

    with pytest.raises(kind, match=words):
        project.states()


def test_setup_goes_on_after_a_refusal(project: Project, service: Service):
    """What was made stays."""
    steps = plan(project.resources, project)
    apply(steps[:3], project, lambda step: None)
    service.refusal = (403, {"error": {"message": "no"}})
    with pytest.raises(ForbiddenError, match="the same command again goes on"):
        apply(steps[3:], project, lambda step: None)

    service.refusal = None
    project.set_up()

    assert project.states() == {"exists"}


def test_without_credentials_it_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
):
    """And asks no machine for them."""
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path_factory.mktemp("x") / "no"))

    with pytest.raises(ConfigError, match="gcloud auth application-default login"):
        authorized_session("my-project")


def test_a_production_schedule_is_not_paused(service: Service):
    """It is to start the night."""
    project = Project(service, "")
    with project.session:
        schedules = [it for it in project.resources if it.kind == "schedule"]
        apply(plan(schedules, project), project, lambda step: None)

    assert {it.get("state") for it in service.kept.values()} == {None}
    assert replace(schedules[0]).name == "ztf-cue_night_conductor_START"
