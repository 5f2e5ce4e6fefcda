"""Pub/Sub over HTTP, as simple clients use it: Google's emulator and our server."""

import base64
from typing import Any

import pytest

pytest.importorskip("google.cloud.pubsub_v1")

import requests

from gcp.pubsub_bus import Bus


class Http:
    """Calls by path; the names are those of the bus."""

    def __init__(self, bus: Bus) -> None:
        self._root = f"http://{bus.address}/v1/"
        self._session = requests.Session()
        self.topic, self.subscription = bus.name("topics"), bus.name("subscriptions")

    def __call__(self, verb: str, path: str, body: Any = None, **query: Any) -> Any:
        """Send a request."""
        return self._session.request(verb, self._root + path, json=body, params=query, timeout=30)

    def make(self) -> None:
        """Make the topic and the subscription."""
        self("PUT", self.topic, {}).raise_for_status()
        self("PUT", self.subscription, {"topic": self.topic}).raise_for_status()

    def close(self) -> None:
        """Let go of connections."""
        self._session.close()


@pytest.fixture
def http(bus: Bus) -> Any:
    """Return what calls the server under test."""
    http = Http(bus)
    yield http
    http.close()


def test_create_and_get(http: Http) -> None:
    """A subscription is made with PUT and got with GET."""
    http.make()
    found = http("GET", http.subscription)

    assert found.status_code == 200
    assert found.json()["topic"] == http.topic
    assert found.json()["ackDeadlineSeconds"] == 10


def test_not_found(http: Http) -> None:
    """The status is 404, and the body says NOT_FOUND."""
    found = http("GET", http.subscription)

    assert found.status_code == 404
    assert found.json()["error"]["status"] == "NOT_FOUND"
    assert found.json()["error"]["code"] == 404


def test_subscription_to_an_unknown_topic(http: Http) -> None:
    """The topic must be there."""
    assert http("PUT", http.subscription, {"topic": http.topic}).status_code == 404


def test_already_exists(http: Http) -> None:
    """The status is 409."""
    http.make()

    assert http("PUT", http.topic, {}).status_code == 409


def test_wrong_argument(http: Http) -> None:
    """The status is 400."""
    http.make()
    found = http("POST", f"{http.subscription}:pull", {"maxMessages": 0})

    assert (found.status_code, found.json()["error"]["status"]) == (400, "INVALID_ARGUMENT")


def test_unknown_field(http: Http) -> None:
    """A body with a field that is not there is refused."""
    http.make()

    assert http("POST", f"{http.subscription}:pull", {"nonsense": 1}).status_code == 400


def test_publish_pull_acknowledge(http: Http) -> None:
    """Payloads are in base64; an acknowledged message does not come again."""
    http.make()
    payload = bytes(range(256))
    message = {"data": base64.b64encode(payload).decode(), "attributes": {"a": "b"}}
    published = http("POST", f"{http.topic}:publish", {"messages": [message]}).json()
    pulled = http("POST", f"{http.subscription}:pull", {"maxMessages": 5}).json()
    [received] = pulled["receivedMessages"]
    answered = http("POST", f"{http.subscription}:acknowledge", {"ackIds": [received["ackId"]]})

    assert base64.b64decode(received["message"]["data"]) == payload
    assert received["message"]["attributes"] == {"a": "b"}
    assert published["messageIds"] == [received["message"]["messageId"]]
    assert received["message"]["publishTime"].endswith("Z")
    assert (answered.status_code, answered.json()) == (200, {})
    wanted = {"maxMessages": 5, "returnImmediately": True}
    assert http("POST", f"{http.subscription}:pull", wanted).json() == {}


@pytest.mark.parametrize("data", ["!!!", "aGk*", "a"])
def test_publish_what_is_no_base64(http: Http, data: str) -> None:
    """A body that cannot be decoded is refused, not published without what is wrong."""
    http.make()
    message = {"data": data, "attributes": {"a": "b"}}
    answered = http("POST", f"{http.topic}:publish", {"messages": [message]})

    assert answered.status_code == 400


def test_publish_in_the_alphabet_of_addresses(http: Http) -> None:
    """Base64 may be that of addresses, and without padding."""
    http.make()
    http("POST", f"{http.topic}:publish", {"messages": [{"data": "_-8"}]}).raise_for_status()
    pulled = http("POST", f"{http.subscription}:pull", {"maxMessages": 5}).json()

    assert base64.b64decode(pulled["receivedMessages"][0]["message"]["data"]) == b"\xff\xef"


def test_modify_ack_deadline(http: Http) -> None:
    """A deadline of 0 gives a message back."""
    http.make()
    http("POST", f"{http.topic}:publish", {"messages": [{"data": "eA=="}]})
    first = http("POST", f"{http.subscription}:pull", {"maxMessages": 1}).json()
    ids = [first["receivedMessages"][0]["ackId"]]
    http(
        "POST",
        f"{http.subscription}:modifyAckDeadline",
        {"ackIds": ids, "ackDeadlineSeconds": 0},
    ).raise_for_status()
    again = http("POST", f"{http.subscription}:pull", {"maxMessages": 1}).json()

    assert again["receivedMessages"][0]["message"]["data"] == "eA=="


def test_lists(http: Http) -> None:
    """Topics, subscriptions and a topic's subscriptions are listed, in pages."""
    http.make()
    project = http.topic.rsplit("/", 2)[0]

    topics = http("GET", f"{project}/topics", pageSize=1000).json()["topics"]
    subscriptions = http("GET", f"{project}/subscriptions").json()["subscriptions"]
    of_topic = http("GET", f"{http.topic}/subscriptions").json()["subscriptions"]
    assert http.topic in {it["name"] for it in topics}
    assert http.subscription in {it["name"] for it in subscriptions}
    assert of_topic == [http.subscription]
    assert (
        "nextPageToken" in http("GET", f"{project}/topics", pageSize=1).json() or len(topics) == 1
    )


def test_update(http: Http) -> None:
    """PATCH changes what the mask names."""
    http.make()
    changed = {"subscription": {"ackDeadlineSeconds": 44}, "updateMask": "ackDeadlineSeconds"}
    http("PATCH", http.subscription, changed).raise_for_status()

    assert http("GET", http.subscription).json()["ackDeadlineSeconds"] == 44


def test_seek(http: Http) -> None:
    """A subscription goes to a time."""
    http.make()
    http("POST", f"{http.topic}:publish", {"messages": [{"data": "eA=="}]})
    http("POST", f"{http.subscription}:seek", {"time": "2100-01-01T00:00:00Z"}).raise_for_status()
    wanted = {"maxMessages": 5, "returnImmediately": True}

    assert http("POST", f"{http.subscription}:pull", wanted).json() == {}


def test_delete(http: Http) -> None:
    """DELETE answers with an empty object."""
    http.make()
    found = http("DELETE", http.subscription)

    assert (found.status_code, found.json()) == (200, {})
    assert http("DELETE", http.topic).status_code == 200
    assert http("GET", http.topic).status_code == 404


def test_fields_in_a_query(http: Http) -> None:
    """Numbers, truths and lists may stand behind the path."""
    http.make()
    http("POST", f"{http.topic}:publish", {"messages": [{"data": "eA=="}, {"data": "eQ=="}]})
    wanted = {"maxMessages": "5", "returnImmediately": "true"}
    pulled = http("POST", f"{http.subscription}:pull", **wanted).json()["receivedMessages"]
    ids = [received["ackId"] for received in pulled]
    http("POST", f"{http.subscription}:acknowledge", ackIds=ids).raise_for_status()

    assert len(ids) == 2
    assert http("POST", f"{http.subscription}:pull", **wanted).json() == {}


def test_nothing_there(http: Http) -> None:
    """A path that is no resource is not found."""
    assert http("GET", "projects/x/nonsense/y").status_code == 404
