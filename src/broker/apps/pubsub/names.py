"""Paths of resources: ``projects/<project>/topics/<name>`` and the like.

A home knows no projects: a name is the same resource in every project.
"""

import re
from dataclasses import dataclass

from broker.apps.pubsub.refusals import invalid

DELETED_TOPIC = "_deleted-topic_"
DELETED_SCHEMA = "_deleted-schema_"
_NAME = re.compile(r"(?!goog)[A-Za-z][A-Za-z0-9\-_.~+%]{2,254}")
_PATH = re.compile(r"projects/([^/]+)/(topics|subscriptions|snapshots|schemas)/([^/]*)")
_PARENT = re.compile(r"projects/([^/]+)/?")


@dataclass(frozen=True, slots=True)
class Path:
    """A resource's path, taken apart."""

    project: str
    kind: str
    name: str

    def __str__(self) -> str:
        return f"projects/{self.project}/{self.kind}/{self.name}"


def parse(kind: str, text: str) -> Path:
    """Take a path apart.

    Raises
    ------
    Refusal
        If it is not the path of a resource of this kind.
    """
    found = _PATH.fullmatch(text)
    if found is None or found[2] != kind or not found[3]:
        raise invalid(f"invalid name {text!r}: it must be projects/PROJECT/{kind}/NAME")
    return Path(*found.groups())


def parse_new(kind: str, text: str) -> Path:
    """Take apart the path of a resource that is to be made.

    Raises
    ------
    Refusal
        If the name is not allowed.
    """
    path = parse(kind, text)
    if not _NAME.fullmatch(path.name):
        raise invalid(
            f"invalid name {text!r}: it starts with a letter, has 3 to 255 of the characters"
            " A-Z a-z 0-9 - _ . ~ + %, and does not start with goog"
        )
    return path


def project_of(text: str) -> str:
    """Return the project of ``projects/<project>``.

    Raises
    ------
    Refusal
        If the text is not such a path.
    """
    found = _PARENT.fullmatch(text)
    if found is None:
        raise invalid(f"invalid project {text!r}: it must be projects/PROJECT")
    return found[1]
