"""What Google's resources are beyond the home's topics and subscriptions: labels, schemas …"""

from collections.abc import Sequence
from typing import Any, TypeVar

from google.protobuf.field_mask_pb2 import FieldMask

from broker.apps.pubsub.refusals import invalid
from broker.connectors.streams.subscriptions import Subscriptions

_SCHEMA = """
CREATE TABLE IF NOT EXISTS pubsub (
    kind TEXT, name TEXT, body BLOB NOT NULL, PRIMARY KEY (kind, name)) WITHOUT ROWID
"""
_MOST_A_PAGE = 1000

T = TypeVar("T")


class Catalogue:
    """Messages of the protocol by kind and name, kept beside the subscriptions.

    Parameters
    ----------
    subscriptions : Subscriptions
        Whose file they are kept in.
    """

    def __init__(self, subscriptions: Subscriptions) -> None:
        self._subscriptions = subscriptions
        self._cache: dict[tuple[str, str], bytes | None] = {}
        with subscriptions.transaction() as db:
            db.execute(_SCHEMA)

    def get(self, kind: str, name: str, made: Any) -> Any:
        """Return a message, None if there is none."""
        key = (kind, name)
        if key not in self._cache:
            with self._subscriptions.transaction() as db:
                row = db.execute(
                    "SELECT body FROM pubsub WHERE kind = ? AND name = ?", key
                ).fetchone()
            self._cache[key] = row[0] if row else None
        body = self._cache[key]
        return None if body is None else made.FromString(body)

    def put(self, kind: str, name: str, message: Any) -> None:
        """Keep a message."""
        body = message.SerializeToString()
        with self._subscriptions.transaction() as db:
            db.execute("INSERT OR REPLACE INTO pubsub VALUES (?, ?, ?)", (kind, name, body))
        self._cache[kind, name] = body

    def drop(self, kind: str, name: str) -> None:
        """Forget a message."""
        with self._subscriptions.transaction() as db:
            db.execute("DELETE FROM pubsub WHERE kind = ? AND name = ?", (kind, name))
        self._cache[kind, name] = None

    def names(self, kind: str) -> list[str]:
        """Name the messages of a kind, in order."""
        with self._subscriptions.transaction() as db:
            rows = db.execute(
                "SELECT name FROM pubsub WHERE kind = ? ORDER BY name", (kind,)
            ).fetchall()
        return [name for (name,) in rows]


def page(found: Sequence[T], size: int, token: str) -> tuple[Sequence[T], str]:
    """Return one page of a list, and the token of the next.

    Raises
    ------
    Refusal
        If the size or the token is wrong.
    """
    if size < 0 or (token and not token.isdecimal()):
        raise invalid("invalid page size or page token")
    start, most = int(token or 0), min(size or _MOST_A_PAGE, _MOST_A_PAGE)
    end = start + most
    return found[start:end], str(end) if end < len(found) else ""


def update(kept: Any, wanted: Any, paths: Sequence[str], changeable: frozenset[str]) -> Any:
    """Return a copy of `kept` with the fields of `paths` as in `wanted`.

    Raises
    ------
    Refusal
        If there is no path, or one that cannot be changed.
    """
    if not paths:
        raise invalid("the update mask names no field")
    changed = type(kept)()
    changed.CopyFrom(kept)
    for path in paths:
        field = path.split(".")[0]
        if field not in changeable:
            raise invalid(f"invalid update mask: {path!r} is not a field that can be changed")
        if field != path:
            FieldMask(paths=[path]).MergeMessage(wanted, changed, True, True)
            continue
        one = type(kept)()
        one.CopyFrom(wanted)
        for other in kept.DESCRIPTOR.fields:
            if other.name != field:
                one.ClearField(other.name)
        changed.ClearField(field)
        changed.MergeFrom(one)
    return changed
