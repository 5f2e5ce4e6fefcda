"""The one place where resource names are made: ``{survey}-{stub}[-{testid}]``."""

import re
from dataclasses import dataclass

from broker.errors import ConfigError

_PRODUCTION = (None, False, "", "False", "false")
_TESTID = re.compile(r"[a-z][a-z0-9]*\Z")


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

    @property
    def dataset(self) -> str:
        """Name the dataset that holds the instance's tables (``-`` is not allowed there)."""
        return "_".join(str(part) for part in (self.survey, "alerts", self.testid) if part)
