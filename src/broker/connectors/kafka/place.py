"""From ``kafka://bootstrap[,…]/topic[,…]?option=…`` and the settings to a way to connect."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Any
from urllib.parse import parse_qsl

from broker.config import Settings
from broker.connectors.kafka.profiles import KafkaProfile, Login, choose_profile, login_for
from broker.connectors.kafka.topics import check_syntax
from broker.errors import UsageError
from broker.instance import Instance
from broker.surveys import Survey

_SECRET = re.compile(r"password|secret|jaas|username|client\.id|key|oauthbearer\.config")
_OWN_OPTIONS = ("group", "profile", "night", "partial")


@dataclass(frozen=True, slots=True)
class KafkaPlace:
    """Where to read or publish, and as whom.

    Parameters
    ----------
    bootstrap : str
        Addresses, ``host:port[,…]``.
    topics : tuple of str
        Topic names, ``yyyymmdd`` standing for the UTC date.
    group : str
        Consumer group.
    client : mapping
        Properties of a librdkafka client, the login among them; not part of the repr.
    night : date, optional
        The night whose topics are read, if not today's.
    partial : bool
        Start with those topics that exist.
    schema_registry : str
        Address of the schema registry that belongs to the place, if there is one.
    """

    bootstrap: str
    topics: tuple[str, ...]
    group: str
    client: Mapping[str, Any] = field(repr=False)
    night: date | None = None
    partial: bool = False
    schema_registry: str = ""

    @property
    def properties(self) -> dict[str, Any]:
        """Properties of any client of this place."""
        return {**self.client, "bootstrap.servers": self.bootstrap}


def read_place(url: str, settings: Settings, survey: Survey) -> KafkaPlace:
    """Read a URL.

    Without an address the survey's profile gives it, without topics the profile or the
    survey's syntax does. Options are ``group``, ``profile``, ``night`` (a date),
    ``partial=true``, and any property of librdkafka but secrets.

    Raises
    ------
    UsageError
        If the URL cannot be read, or holds a secret.
    ConfigError
        If the profile or a part of the login is missing.
    """
    address, topics, options = _split(url)
    profile = choose_profile(survey, options.pop("profile", "") or settings.kafka_profile, address)
    names = topics or profile.topics or tuple(filter(None, [survey.topic_syntax]))
    own = {name: options.pop(name) for name in _OWN_OPTIONS if name in options}
    _check_properties(options)
    profile = _with(profile, options)
    login = Login.from_settings(settings)
    instance = Instance(survey.name, settings.testid or None)
    group = own.get("group") or settings.kafka_group or instance.name("consumer")
    return KafkaPlace(
        bootstrap=address or profile.bootstrap,
        topics=tuple(check_syntax(name) for name in names),
        group=profile.group_id(group, login),
        client=profile.client_properties(login),
        night=_date(own["night"]) if "night" in own else None,
        partial=own.get("partial", "").lower() in ("1", "true", "yes"),
        schema_registry=profile.schema_registry,
    )


def _split(url: str) -> tuple[str, tuple[str, ...], dict[str, str]]:
    place, _, query = url.partition("?")
    address, _, path = place.removeprefix("kafka://").partition("/")
    if "@" in address:
        raise UsageError(
            "a login does not belong into a URL: set kafka_user in the settings, and "
            "PGB_KAFKA_PASSWORD in the environment or kafka_password_file"
        )
    topics = tuple(name for name in path.split(",") if name)
    return address, topics, dict(parse_qsl(query))


def _check_properties(options: Mapping[str, str]) -> None:
    for name in options:
        if "." not in name:
            known = ", ".join(_OWN_OPTIONS)
            raise UsageError(
                f"{name!r} is not an option of kafka:// places; there are {known} and the "
                "properties of librdkafka"
            )
        if _SECRET.search(name):
            raise UsageError(
                f"{name} does not belong into a URL: use the settings kafka_user and "
                "kafka_password_file, or PGB_KAFKA_PASSWORD in the environment"
            )


def _with(profile: KafkaProfile, options: Mapping[str, str]) -> KafkaProfile:
    client = {**profile.client, **options}
    return replace(profile, client=client, login=login_for(client, profile.login))


def _date(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise UsageError(
            f"option night of a kafka:// place must be a date, not {text!r}"
        ) from error
