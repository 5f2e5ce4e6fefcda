"""How a request is refused: Google's status codes, the same over gRPC and over HTTP."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum

from broker.errors import (
    BrokerError,
    ForbiddenError,
    NotFoundError,
    RefusedError,
    TransientError,
    UsageError,
)


class Code(Enum):
    """A status: its name in Google's APIs and its HTTP status."""

    INVALID_ARGUMENT = 400
    FAILED_PRECONDITION = 400.1
    UNAUTHENTICATED = 401
    PERMISSION_DENIED = 403
    NOT_FOUND = 404
    ALREADY_EXISTS = 409
    INTERNAL = 500
    UNIMPLEMENTED = 501
    UNAVAILABLE = 503

    @property
    def http(self) -> int:
        """The HTTP status."""
        return int(self.value)


@dataclass
class Refusal(Exception):
    """A request is not served; `metadata` tells details by name."""

    code: Code
    words: str
    reason: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)


def invalid(words: str) -> Refusal:
    """Return a refusal for an argument that is wrong."""
    return Refusal(Code.INVALID_ARGUMENT, words)


def not_found(kind: str, path: str) -> Refusal:
    """Return a refusal for a resource that is not there."""
    return Refusal(Code.NOT_FOUND, f"{kind} does not exist: {path}")


def already_exists(kind: str, path: str) -> Refusal:
    """Return a refusal for a name that is taken."""
    return Refusal(Code.ALREADY_EXISTS, f"{kind} already exists: {path}")


def unimplemented(what: str) -> Refusal:
    """Return a refusal for what this server does not do."""
    return Refusal(Code.UNIMPLEMENTED, f"this server has no {what}; use pull or streaming pull")


_CODES: tuple[tuple[type[BrokerError], Code], ...] = (
    (NotFoundError, Code.NOT_FOUND),
    (ForbiddenError, Code.PERMISSION_DENIED),
    (RefusedError, Code.FAILED_PRECONDITION),
    (UsageError, Code.INVALID_ARGUMENT),
    (TransientError, Code.UNAVAILABLE),
)


@contextmanager
def refusing() -> Iterator[None]:
    """Turn the broker's errors into refusals.

    Raises
    ------
    Refusal
        With the code that says what the caller should do.
    """
    try:
        yield
    except BrokerError as error:
        code = next((code for kind, code in _CODES if isinstance(error, kind)), Code.INTERNAL)
        raise Refusal(code, str(error)) from error
