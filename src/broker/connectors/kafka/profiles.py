"""How to connect: profiles that ship with a survey, logins that are passed in.

A survey's folder may hold ``kafka.yaml``::

    profiles:
      <name>:                       the first one is the survey's default
        bootstrap: host:port[,…]
        topics: [names, yyyymmdd standing for the UTC date]
        login: none | password | kerberos | oauth
        group: "{user}-{group}"     pattern of the consumer group
        schema_registry: URL
        client: {librdkafka property: value}
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from broker.config import Settings
from broker.errors import ConfigError
from broker.surveys import Survey

_FILE = "kafka.yaml"


@dataclass(frozen=True, slots=True)
class Login:
    """Who we are; a secret is never part of the repr.

    Parameters
    ----------
    user : str
        User name, Kerberos principal or OAuth client id.
    password : str
        Password or OAuth client secret.
    keytab : str
        Path of the Kerberos keytab.
    """

    user: str = ""
    password: str = field(default="", repr=False)
    keytab: str = ""

    @classmethod
    def from_settings(cls, settings: Settings) -> "Login":
        """Take the login from the settings, the password from its file if one is named.

        Raises
        ------
        ConfigError
            If the file cannot be read.
        """
        password = settings.kafka_password.reveal()
        if settings.kafka_password_file:
            try:
                password = Path(settings.kafka_password_file).expanduser().read_text().strip()
            except OSError as error:
                raise ConfigError(
                    f"setting 'kafka_password_file' cannot be read: {error.strerror}"
                ) from error
        keytab = settings.kafka_keytab and str(Path(settings.kafka_keytab).expanduser())
        return cls(settings.kafka_user, password, keytab)


# What librdkafka calls the parts of a login, by the way of logging in.
_LOGINS: Mapping[str, Mapping[str, str]] = {
    "none": {},
    "password": {"sasl.username": "user", "sasl.password": "password"},
    "kerberos": {"sasl.kerberos.principal": "user", "sasl.kerberos.keytab": "keytab"},
    "oauth": {"sasl.oauthbearer.client.id": "user", "sasl.oauthbearer.client.secret": "password"},
}
_LOGIN_OF = {"GSSAPI": "kerberos", "OAUTHBEARER": "oauth"}


@dataclass(frozen=True, slots=True)
class KafkaProfile:
    """How one cluster is reached, without any secret."""

    name: str = "plain"
    bootstrap: str = ""
    topics: tuple[str, ...] = ()
    login: str = "none"
    group: str = "{group}"
    schema_registry: str = ""
    client: Mapping[str, Any] = field(default_factory=dict)

    def client_properties(self, login: Login) -> dict[str, Any]:
        """Return the properties of a librdkafka client, the login among them.

        Raises
        ------
        ConfigError
            If a part of the login is missing; names the setting.
        """
        properties = dict(self.client)
        for name, part in _LOGINS[self.login].items():
            value = getattr(login, part)
            if not value:
                raise ConfigError(
                    f"profile {self.name!r} needs setting 'kafka_{part}' "
                    f"(environment variable PGB_KAFKA_{part.upper()})"
                )
            properties[name] = value
        return properties

    def group_id(self, group: str, login: Login) -> str:
        """Return the full name of a consumer group."""
        return self.group.format(group=group, user=login.user)


def profiles_of(survey: Survey) -> dict[str, KafkaProfile]:
    """Return the profiles that ship with a survey, its default first."""
    text = survey.text(_FILE)
    return parse_profiles(text, f"of {survey.name}") if text is not None else {}


def parse_profiles(text: str, place: str) -> dict[str, KafkaProfile]:
    """Read profiles from YAML that was found at `place`, the default first.

    Raises
    ------
    ConfigError
        If the text does not describe profiles.
    """
    try:
        content = yaml.safe_load(text)["profiles"]
        return {name: _profile(name, fields) for name, fields in content.items()}
    except (yaml.YAMLError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"Kafka profiles {place} cannot be read: {error!r}") from error


def registry_of(survey: Survey, profile: str = "") -> str:
    """Return the schema registry that belongs to a profile or the default; empty if none."""
    profiles = profiles_of(survey)
    found = profiles.get(profile) if profile else next(iter(profiles.values()), None)
    return found.schema_registry if found else ""


def choose_profile(survey: Survey, name: str, bootstrap: str) -> KafkaProfile:
    """Return the profile of this name, else the one that fits the address.

    Without a name it is the survey's default if no address was given, the profile that has
    the address if there is one, and a connection without login otherwise.

    Raises
    ------
    ConfigError
        If there is no such profile.
    """
    profiles = profiles_of(survey)
    if name:
        if name not in profiles:
            known = ", ".join(profiles) or "none"
            raise ConfigError(f"setting 'kafka_profile': {name!r} is not one of {known}")
        return profiles[name]
    if not bootstrap:
        if not profiles:
            raise ConfigError("give the address of a Kafka server: kafka://host:port/topic")
        return next(iter(profiles.values()))
    same = (found for found in profiles.values() if found.bootstrap == bootstrap)
    return next(same, KafkaProfile())


def login_for(properties: Mapping[str, Any], otherwise: str) -> str:
    """Return the way of logging in that client properties ask for."""
    mechanism = properties.get("sasl.mechanisms", properties.get("sasl.mechanism"))
    return _LOGIN_OF.get(str(mechanism), "password") if mechanism else otherwise


def _profile(name: str, content: Mapping[str, Any]) -> KafkaProfile:
    values = dict(content)
    values["topics"] = tuple(values.get("topics", ()))
    return KafkaProfile(name, **values)
