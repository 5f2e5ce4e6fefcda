"""The one place where resource names are made: ``{survey}-{stub}[-{testid}]``."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from broker.errors import ConfigError

_PRODUCTION = (None, False, "", "False", "false")
_TESTID = re.compile(r"[a-z][a-z0-9]*\Z")

Age = Literal["v0.3", "2021", "v0.5", "2024"]
"""Which broker's names: the first one's, those of early 2021, today's rules, the later one's."""

AGES: tuple[Age, ...] = ("v0.3", "2021", "v0.5", "2024")
"""All ages, oldest first."""

_FIRST = {
    ("topic", "alerts"): "{survey}_alert_data",
    ("bucket", "alert_avros"): "{project}_{survey}_alert_avro_bucket",
    ("topic", "alert_avros"): "{survey}_alert_avro_bucket",
    ("topic", "exgalac_trans"): "{survey}_exgalac_trans",
    ("topic", "salt2"): "{survey}_salt2",
    ("bucket", "sncosmo"): "{project}_{survey}-sncosmo",
    ("bucket", "broker_files"): "{project}-broker_files",
    ("function", "upload_bytes_to_bucket"): "upload_{survey}_bytes_to_bucket",
    ("job", "bq-sink"): "production-{survey}-ps-bq",
    ("job", "value-added"): "production-{survey}-ps-exgal-salt2",
    ("vm", "consumer"): "{survey}-consumer",
    ("vm", "night-conductor"): "night-conductor",
    ("dataset", "alerts"): "{survey}_alerts",
}

_AGES: Mapping[Age, Mapping[tuple[str, str], str]] = {
    "v0.3": _FIRST,
    "2021": _FIRST
    | {
        ("topic", "alerts"): "{survey}_alerts",
        ("bucket", "alert_avros"): "{project}_{survey}_alert_avros",
        ("topic", "alert_avros"): "{survey}_alert_avros",
    },
    "v0.5": {
        ("dataset", "alerts"): "{survey}_alerts{_testid}",
    },
    "2024": {
        ("bucket", "alert_avros"): "{project}-{survey}_alerts_{version}{-testid}",
        ("job", "bq-sink"): "{survey}-store_in_BigQuery{-testid}",
        ("dataset", "alerts"): "{survey}{_testid}",
        ("table", "alerts"): "alerts_{version}",
    },
}
"""What each age called things that do not follow the rule ``{survey}-{stub}[-{testid}]``."""

_PARTS = {
    "survey": r"(?P<survey>[a-z]+)",
    "project": r"(?P<project>[a-z][a-z0-9-]*)",
    "version": r"(?P<version>v\d+(?:_\d+)*)",
    "-testid": r"(?:-(?P<testid>[a-z][a-z0-9]*))?",
    "_testid": r"(?:_(?P<testid>[a-z][a-z0-9]*))?",
}
_PART = re.compile(r"\{([^}]+)\}")


@dataclass(frozen=True, slots=True)
class OldName:
    """What a name of some age stands for.

    Parameters
    ----------
    age : str
        Whose rule the name follows.
    kind, stub : str
        The thing: ``topic``, ``bucket``, ``dataset``, ``function``, ``job``, ``vm`` or
        ``table``, and the stub by which it is known today.
    survey, testid : str
        Keywords in the name; empty where it has none.
    """

    age: Age
    kind: str
    stub: str
    survey: str = ""
    testid: str = ""


def versiontag(version: str) -> str:
    """Write a schema's version as resource names have it.

    Examples
    --------
    >>> versiontag("4.02")
    'v4_02'
    """
    return "v" + version.removeprefix("v").replace(".", "_")


def recognise(name: str) -> tuple[OldName, ...]:
    """Tell what a name that breaks today's rule can stand for, by age.

    Examples
    --------
    >>> [(it.age, it.kind, it.stub, it.survey) for it in recognise("ztf_alert_data")]
    [('v0.3', 'topic', 'alerts', 'ztf')]
    """
    found: dict[tuple[str, str], OldName] = {}
    for age, things in _AGES.items():
        for (kind, stub), template in things.items():
            if match := re.fullmatch(_pattern(template), name):
                words = match.groupdict()
                survey, testid = words.get("survey") or "", words.get("testid") or ""
                found.setdefault((kind, stub), OldName(age, kind, stub, survey, testid))
    return tuple(found.values())


def old_stubs() -> tuple[tuple[str, str], ...]:
    """Return kind and stub of everything that had another name in some age."""
    return tuple(dict.fromkeys(key for things in _AGES.values() for key in things))


def _pattern(template: str) -> str:
    """Return the regular expression of the names that a template makes."""
    texts = _PART.split(template)
    return "".join(_PARTS[it] if i % 2 else re.escape(it) for i, it in enumerate(texts))


@dataclass(frozen=True, slots=True)
class Instance:
    """One running broker: a survey and, unless it is production, a test id.

    Parameters
    ----------
    survey : str
        Lower-case keyword of the survey.
    testid : str or None
        Lower-case letters and digits, a letter first; None is the production instance, and
        so is False, also as text, which is how shells hand it on.

    Raises
    ------
    ConfigError
        If `testid` cannot be part of a resource name.

    Examples
    --------
    >>> Instance("decat", "mytestid").name("consumer")
    'decat-consumer-mytestid'
    >>> Instance("decat").dataset
    'decat_alerts'
    """

    survey: str
    testid: str | bool | None = None

    def __post_init__(self) -> None:
        if self.testid in _PRODUCTION:
            object.__setattr__(self, "testid", None)
        if self.testid is not None and not _TESTID.match(str(self.testid)):
            raise ConfigError(
                f"testid {self.testid!r} cannot be used in resource names: "
                "use lower-case letters and digits, starting with a letter"
            )

    def name(self, stub: str) -> str:
        """Name a topic, subscription, bucket or job."""
        return "-".join(str(part) for part in (self.survey, stub, self.testid) if part)

    def subscription(self, topic_stub: str, role: str) -> str:
        """Name a subscription of the broker's own, `role` being ``counter`` or ``reservoir``."""
        return self.name(f"{topic_stub}-{role}")

    def bucket(self, stub: str, project: str | None = None) -> str:
        """Name a bucket; a cloud project's id comes first, as buckets are global there."""
        return "-".join(part for part in (project, self.name(stub)) if part)

    def service(self, stub: str) -> str:
        """Name what runs or is reached over HTTP, where ``_`` is not allowed."""
        return self.name(stub).replace("_", "-")

    @property
    def label(self) -> str:
        """Name the instance itself, as the label of all that is made for it."""
        return "-".join(str(part) for part in (self.survey, self.testid) if part)

    @classmethod
    def of_machine(cls, name: str, stub: str) -> "Instance":
        """Read the keywords from a machine's own name, as one knows that is started by it.

        Raises
        ------
        ConfigError
            If the machine's name is not one of `stub`.

        Examples
        --------
        >>> Instance.of_machine("ztf-night-conductor-mytestid", "night-conductor")
        Instance(survey='ztf', testid='mytestid')
        """
        survey, _, rest = name.partition("-")
        testid = None if rest == stub else name.rsplit("-", 1)[-1]
        found = cls(survey, testid)
        if found.name(stub) != name:
            raise ConfigError(f"{name!r} is not the name of a machine {stub!r}")
        return found

    def named(
        self, kind: str, stub: str, *, project: str = "", age: Age = "v0.5", version: str = ""
    ) -> str:
        """Name a thing as the broker of some age did.

        Parameters
        ----------
        kind, stub : str
            The thing, under today's stub.
        project : str
            A bucket's project id.
        age : str
            Whose names.
        version : str
            Version of the schema, which later names have.

        Raises
        ------
        ConfigError
            If the name needs a project or version that is not given, or an age that knew no
            test instances is asked for one.

        Examples
        --------
        >>> Instance("ztf").named("topic", "alerts", age="v0.3")
        'ztf_alert_data'
        >>> Instance("ztf").named("table", "alerts", age="2024", version="4.02")
        'alerts_v4_02'
        """
        template = _AGES[age].get((kind, stub))
        if template is None:
            return self._by_rule(kind, stub, project)
        values = {
            "survey": self.survey,
            "project": project,
            "version": versiontag(version) if version else "",
            "-testid": f"-{self.testid}" if self.testid else "",
            "_testid": f"_{self.testid}" if self.testid else "",
        }
        used = _PART.findall(template)
        if missing := [it for it in used if not values[it] and "testid" not in it]:
            raise ConfigError(f"the name of {kind} {stub!r} needs a {missing[0]}")
        if self.testid and kind != "table" and not any("testid" in it for it in used):
            raise ConfigError(f"names of {age} have no test id: {kind} {stub!r}")
        return _PART.sub(lambda it: values[it[1]], template)

    def _by_rule(self, kind: str, stub: str, project: str) -> str:
        if kind == "bucket":
            return self.bucket(stub, project or None)
        return stub if kind == "table" else self.name(stub)

    @property
    def dataset(self) -> str:
        """Name the dataset that holds the instance's tables (``-`` is not allowed there)."""
        return "_".join(str(part) for part in (self.survey, "alerts", self.testid) if part)
