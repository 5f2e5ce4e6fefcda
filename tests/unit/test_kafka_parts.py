"""Topics of the night, profiles, places, offsets and health of Kafka; no server needed."""

import json
import logging
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from itertools import pairwise
from pathlib import Path

import polars as pl
import pytest

pytest.importorskip("confluent_kafka")

from confluent_kafka import Consumer, KafkaError

from broker.config import Secret, Settings
from broker.connectors.kafka.client import Connection, make_client, service_error
from broker.connectors.kafka.health import Health, PartitionHealth, read_health, write_health
from broker.connectors.kafka.offsets import Jump, Offsets
from broker.connectors.kafka.place import read_place
from broker.connectors.kafka.profiles import profiles_of, registry_of
from broker.connectors.kafka.topics import TopicWatch, topic_of_night
from broker.errors import (
    ConfigError,
    ForbiddenError,
    NotFoundError,
    RefusedError,
    TransientError,
    UsageError,
)
from broker.surveys import get_survey

DAY = date(2021, 1, 2)
NAMES = {"a_20210101", "a_20210102", "b_20210102", "xa_20210102_2"}
LOGIN = Settings(kafka_user="me", kafka_password=Secret("hunter2"), kafka_keytab="/k")


def watch(*syntaxes: str, deadline_s: float = 60, partial: bool = False) -> TopicWatch:
    """Make a watch."""
    return TopicWatch(syntaxes, deadline_s, partial=partial)


@pytest.mark.parametrize(
    ("survey", "expected"),
    [("ztf", "ztf_20210102_programid1"), ("decat", "decat_20210102_2021A-0113")],
)
def test_topic_of_night(survey: str, expected: str) -> None:
    """The survey's syntax and the UTC date make the topic."""
    assert expected == topic_of_night(get_survey(survey).topic_syntax, DAY)


def test_yesterday_is_read_as_well() -> None:
    """A night can straddle midnight."""
    found = watch("a_yyyymmdd").look(NAMES, DAY, 0)

    assert sorted(found) == ["a_20210101", "a_20210102"]


def test_all_awaited_must_exist() -> None:
    """Of several topics none of tonight's is read until all exist."""
    waiting = watch("a_yyyymmdd", "c_yyyymmdd")

    assert waiting.look(NAMES, DAY, 0) == ["a_20210101"]
    assert waiting.missing == ["c_20210102"]


def test_partial_start() -> None:
    """If asked, those that exist are read."""
    found = watch("a_yyyymmdd", "c_yyyymmdd", partial=True).look(NAMES, DAY, 0)

    assert sorted(found) == ["a_20210101", "a_20210102"]


def test_names_match_exactly() -> None:
    """Part of a longer name is no match."""
    assert watch("a").look({"xa_20210102_2", "aa"}, DAY, 0) == []


def test_deadline() -> None:
    """The deadline ends the wait with the reason."""
    waiting = watch("c_yyyymmdd", deadline_s=60)
    waiting.look(NAMES, DAY, 0)

    with pytest.raises(NotFoundError, match="topic c_20210102 still not there after 60 s"):
        waiting.look(NAMES, DAY, 60)


def test_no_deadline() -> None:
    """Infinity waits for ever."""
    waiting = watch("c", deadline_s=float("inf"))
    waiting.look(NAMES, DAY, 0)

    assert waiting.look(NAMES, DAY, 1e9) == []


def test_looks_less_and_less_often() -> None:
    """The time between two looks grows up to half a minute."""
    waiting, looks, now = watch("c", deadline_s=1e6), [], 0.0
    while now < 200:
        if waiting.due(now):
            waiting.look(NAMES, DAY, now)
            looks.append(now)
        now += 0.25
    pauses = [after - before for before, after in pairwise(looks)]

    assert (pauses[0], max(pauses)) == (1.0, 30.0)
    assert pauses == sorted(pauses)


def test_date_moves_on() -> None:
    """After midnight the new date's topic is read, and that of two days ago is not."""
    waiting = watch("a_yyyymmdd")
    waiting.look(NAMES, DAY, 0)
    found = waiting.look({*NAMES, "a_20210103"}, date(2021, 1, 3), 40)

    assert sorted(found) == ["a_20210102", "a_20210103"]


@pytest.mark.parametrize(
    ("survey", "profile", "expected"),
    [
        ("ztf", "open", {"security.protocol": "PLAINTEXT"}),
        (
            "ztf",
            "kerberos",
            {
                "security.protocol": "SASL_PLAINTEXT",
                "sasl.mechanisms": "GSSAPI",
                "sasl.kerberos.principal": "me",
                "sasl.kerberos.keytab": "/k",
            },
        ),
        (
            "lsst",
            "production",
            {
                "security.protocol": "SASL_PLAINTEXT",
                "sasl.mechanisms": "SCRAM-SHA-512",
                "sasl.username": "me",
                "sasl.password": "hunter2",
            },
        ),
        (
            "lvk",
            "gcn",
            {
                "security.protocol": "SASL_SSL",
                "sasl.mechanisms": "OAUTHBEARER",
                "sasl.oauthbearer.method": "oidc",
                "sasl.oauthbearer.client.id": "me",
                "sasl.oauthbearer.client.secret": "hunter2",
            },
        ),
        ("elasticc", "second", {"security.protocol": "PLAINTEXT"}),
    ],
)
def test_profile_properties(survey: str, profile: str, expected: dict[str, str]) -> None:
    """A profile and a login give the properties of the client."""
    place = read_place(f"kafka://?profile={profile}", LOGIN, get_survey(survey))

    assert expected.items() <= place.properties.items()


def every_profile() -> Iterator[tuple[str, str]]:
    """Walk the profiles of all surveys."""
    for survey in ("ztf", "lsst", "lvk", "elasticc"):
        for name in profiles_of(get_survey(survey)):
            yield survey, name


@pytest.mark.parametrize(("survey", "profile"), list(every_profile()))
def test_librdkafka_takes_every_profile(survey: str, profile: str, tmp_path: Path) -> None:
    """Each profile makes a client, or tells what this build of librdkafka lacks and what to do."""
    (tmp_path / "keytab").touch()
    login = replace(LOGIN, kafka_keytab=str(tmp_path / "keytab"))
    place = read_place(f"kafka://127.0.0.1:9/?profile={profile}", login, get_survey(survey))
    if place.client.get("sasl.mechanisms") == "GSSAPI":
        with pytest.raises(ConfigError, match=r"GSSAPI.*pip install --no-binary"):
            make_client(Consumer, {**place.properties, "group.id": "g"})
    else:
        make_client(Consumer, {**place.properties, "group.id": "g"}).close()


def test_registry_of_a_profile() -> None:
    """A profile names its schema registry, path and all."""
    assert registry_of(get_survey("lsst"), "production").endswith("/schema-registry")
    assert registry_of(get_survey("ztf"), "open") == ""


def test_default_place() -> None:
    """Without anything given, the survey's first profile and its topics are used."""
    place = read_place("kafka://", Settings(testid="t"), get_survey("ztf"))

    assert (place.bootstrap, place.topics, place.group) == (
        "public.alerts.ztf.uw.edu:9092",
        ("ztf_yyyymmdd_programid1",),
        "ztf-consumer-t",
    )


def test_group_starts_with_the_user() -> None:
    """Where the server wants it, the user name comes first."""
    assert read_place("kafka://", LOGIN, get_survey("lsst")).group == "me-lsst-consumer"


def test_own_server_needs_no_login() -> None:
    """Another address than the profile's is reached without a login."""
    place = read_place("kafka://localhost:9092/a,b?group=g", Settings(), get_survey("lsst"))

    assert (place.topics, place.group, dict(place.client)) == (("a", "b"), "g", {})


def test_own_server_with_login() -> None:
    """Properties in the URL say how to log in; the login comes from the settings."""
    url = "kafka://h:1/t?sasl.mechanisms=SCRAM-SHA-512&security.protocol=SASL_PLAINTEXT"

    assert read_place(url, LOGIN, get_survey("ztf")).properties["sasl.password"] == "hunter2"


def test_password_from_file(tmp_path: Path) -> None:
    """A password may lie in a file."""
    (tmp_path / "pw").write_text("s3cret\n")
    settings = Settings(kafka_user="me", kafka_password_file=str(tmp_path / "pw"))

    assert read_place("kafka://", settings, get_survey("lsst")).client["sasl.password"] == "s3cret"


def test_missing_login_names_the_setting() -> None:
    """What is missing is told with its environment variable."""
    with pytest.raises(ConfigError, match="PGB_KAFKA_PASSWORD"):
        read_place("kafka://", Settings(kafka_user="me"), get_survey("lsst"))


@pytest.mark.parametrize(
    "url",
    [
        "kafka://me:hunter2@host:1/t",
        "kafka://host:1/t?sasl.password=hunter2",
        "kafka://host:1/t?sasl.oauthbearer.client.secret=hunter2",
        "kafka://host:1/t?colour=red",
        "kafka://host:1/^ztf_.*",
        "kafka://host:1/t?night=tomorrow",
    ],
)
def test_wrong_urls(url: str) -> None:
    """Secrets, unknown options and patterns do not belong into a URL; none is repeated."""
    with pytest.raises(UsageError) as caught:
        read_place(url, Settings(), get_survey("ztf"))

    assert "hunter2" not in str(caught.value)


def test_unknown_profile() -> None:
    """A wrong profile is told with those that exist."""
    with pytest.raises(ConfigError, match="open, partnership, kerberos"):
        read_place("kafka://?profile=nowhere", Settings(), get_survey("ztf"))


def test_place_hides_login() -> None:
    """The repr of a place holds no secret."""
    assert "hunter2" not in repr(read_place("kafka://", LOGIN, get_survey("lsst")))


@pytest.mark.parametrize("name", ["sasl.kerberos.keytab", "ssl.ca.location"])
def test_missing_file_is_told_by_its_property(name: str) -> None:
    """Librdkafka would say it in the words of OpenSSL, or wait for a ticket for ever."""
    properties = {"group.id": "g", "security.protocol": "SSL", name: "/not/there"}

    with pytest.raises(ConfigError, match=f"{name}: there is no such file"):
        make_client(Consumer, properties)


def test_keytab_may_be_in_the_users_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kinit reads the path as it is, so that the tilde is ours to resolve."""
    monkeypatch.setenv("HOME", "/home/me")
    login = Settings(kafka_user="me", kafka_keytab="~/my.keytab")

    place = read_place("kafka://?profile=kerberos", login, get_survey("ztf"))

    assert place.properties["sasl.kerberos.keytab"] == "/home/me/my.keytab"


def test_wrong_property_is_told_without_secrets() -> None:
    """The library's words about a property come without any value of the login."""
    with pytest.raises(ConfigError) as caught:
        make_client(Consumer, {"group.id": "g", "sasl.password": "hunter2", "no.such": "hunter2"})

    assert "no.such" in str(caught.value)
    assert "hunter2" not in str(caught.value)


def origins(*rows: tuple[int, int]) -> pl.DataFrame:
    """Make origins of partitions and offsets of topic ``t``."""
    schema = {"topic": pl.String, "partition": pl.Int32, "offset": pl.Int64}
    return pl.DataFrame([("t", *row) for row in rows], schema=schema, orient="row")


def test_commits_what_is_durable() -> None:
    """Of each partition the offset after the last durable message is committed."""
    offsets = Offsets()
    offsets.assign({("t", 0): -1, ("t", 1): -1})
    offsets.make_durable(origins((0, 7), (1, 3), (0, 8)))

    assert offsets.to_commit() == {("t", 0): 9, ("t", 1): 4}


def test_revoked_is_not_committed() -> None:
    """A batch of a partition that was taken away is not committed when it lands."""
    offsets = Offsets()
    offsets.assign({("t", 0): -1, ("t", 1): -1})
    offsets.revoke([("t", 0)])
    offsets.make_durable(origins((0, 7), (1, 3)))

    assert offsets.to_commit() == {("t", 1): 4}


def test_never_commits_backwards() -> None:
    """A partition that comes back with a later commit is not set back."""
    offsets = Offsets()
    offsets.assign({("t", 0): -1})
    offsets.revoke([("t", 0)])
    offsets.assign({("t", 0): 20})
    offsets.make_durable(origins((0, 7)))

    assert offsets.to_commit() == {}


def test_confirmed_is_not_committed_again() -> None:
    """What the server has recorded is done."""
    offsets = Offsets()
    offsets.assign({("t", 0): -1})
    offsets.make_durable(origins((0, 7)))
    offsets.confirm({("t", 0): 8})

    assert offsets.to_commit() == {}


def test_gaps_are_found() -> None:
    """Missing offsets between batches and within one are found, per partition."""
    offsets = Offsets()
    offsets.assign({("t", 0): 2, ("t", 1): -1})
    jumps = offsets.take(origins((0, 5), (1, 9), (0, 6), (0, 9)))

    assert [Jump(("t", 0), 2, 4), Jump(("t", 0), 7, 8)] == jumps
    assert offsets.take(origins((0, 10), (1, 10))) == []


def test_what_holds_no_message_is_committed_last() -> None:
    """Marks of transactions at the end wait until all before them is durable."""
    offsets = Offsets()
    offsets.assign({("t", 0): 0, ("t", 1): -1})
    offsets.take(origins((0, 0), (0, 1)))
    before = offsets.reached_end(("t", 0), 5), offsets.reached_end(("t", 1), 3)
    early = offsets.to_commit()
    offsets.make_durable(origins((0, 0), (0, 1)))

    assert before == ([Jump(("t", 0), 2, 4)], [])
    assert early == {("t", 1): 3}
    assert offsets.to_commit() == {("t", 0): 5, ("t", 1): 3}


def test_an_end_is_forgotten_with_its_partition() -> None:
    """A partition that comes back is read from where its group stands, not from the end."""
    offsets = Offsets()
    offsets.assign({("t", 0): 0})
    offsets.reached_end(("t", 0), 20)
    offsets.revoke([("t", 0)])
    offsets.reached_end(("t", 0), 20)
    offsets.assign({("t", 0): 15})

    assert offsets.to_commit() == {}


def error(code: int, words: str = "") -> KafkaError:
    """Make an error of librdkafka."""
    return KafkaError(code, words or None)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (KafkaError._TRANSPORT, TransientError),
        (KafkaError.SASL_AUTHENTICATION_FAILED, ForbiddenError),
        (KafkaError.UNKNOWN_TOPIC_OR_PART, NotFoundError),
        (KafkaError.MSG_SIZE_TOO_LARGE, RefusedError),
    ],
)
def test_errors_tell_what_to_do(code: int, kind: type[Exception]) -> None:
    """Each error becomes the one of ours that says what to do."""
    assert type(service_error(error(code), "reading")) is kind


def test_loss_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    """A lost connection is one line, its return another, whatever the library repeats."""
    caplog.set_level(logging.INFO)
    connection = Connection("host:1", iter(range(100)).__next__)
    connection.on_statistics(json.dumps({"brokers": {"a": {"state": "UP"}}}))
    for _ in range(1000):
        connection.on_error(error(KafkaError._ALL_BROKERS_DOWN, "1/1 brokers are down"))
        connection.on_statistics(json.dumps({"brokers": {"a": {"state": "CONNECT"}}}))
    connection.on_statistics(json.dumps({"brokers": {"a": {"state": "UP"}}}))

    assert [record.getMessage().split(" (")[0] for record in caplog.records] == [
        "lost the connection to host:1",
        "connected to host:1 again after 1 s",
    ]
    assert connection.reconnects == 1


def test_refused_login_is_raised() -> None:
    """A login that was never accepted is an error, not a wait."""
    connection = Connection("host:1", lambda: 0.0)
    connection.on_error(error(KafkaError._AUTHENTICATION, "wrong password"))

    with pytest.raises(ForbiddenError, match="wrong password"):
        connection.check()


def test_snapshot_round_trip(tmp_path: Path) -> None:
    """A snapshot is read back as it was written."""
    health = Health("consuming", 100.0, partitions=[PartitionHealth("t", 0, 5, 4, 9)])
    write_health(tmp_path / "a" / "w0.json", health)

    found = read_health(tmp_path / "a" / "w0.json")

    assert (found.state, list(found.partitions), found.lag) == (
        "consuming",
        [*health.partitions],
        4,
    )


def test_metrics() -> None:
    """Ages are there once something happened."""
    metrics = Health("consuming", 100.0, last_message=90.0).metrics()

    assert metrics["last_message_age_s"] == 10.0
    assert "last_commit_age_s" not in metrics
