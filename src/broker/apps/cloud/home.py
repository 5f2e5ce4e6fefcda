"""An instance in a home: folders, and rows in the file of subscriptions."""

import shutil
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

from broker.apps.cloud.plan import Adapter, Found
from broker.apps.cloud.registry import Resource
from broker.connectors.disk import disk_errors
from broker.connectors.streams.local import LocalStream
from broker.connectors.worker_lock import WorkerLock
from broker.errors import RefusedError
from broker.instance import Instance

_LEFT_OUT = {
    "table": "made with their first rows",
    "vm": "a home needs none: pgb run",
    "service": "a home needs none: pgb run",
    "schedule": "a home needs none: pgb run",
    "alert_policy": "a home has none: pgb ledger, pgb status",
    "dashboard": "a home has none: pgb ledger, pgb status",
}


class HomeTarget:
    """The embedded default.

    Parameters
    ----------
    home : Path
        The folder that holds everything.
    instance : Instance
        Whose resources.
    """

    def __init__(self, home: Path, instance: Instance) -> None:
        self._home = home
        self._instance = instance
        self._adapters: dict[str, Adapter] = {
            "topic": _Topics(home / "streams", instance),
            "subscription": _Subscriptions(home / "streams", instance),
            "bucket": _Folders(home / "files", instance),
            "dataset": _Folders(home / "tables", instance),
            "ledger": _Ledger(home, instance),
        }

    @property
    def title(self) -> str:
        """The place, in words."""
        return f"the home {self._home}"

    def adapter(self, kind: str) -> Adapter | str:
        """Return what makes resources of a kind here, or why they are left out."""
        return self._adapters.get(kind) or _LEFT_OUT[kind]

    def left_out(self, resource: Resource) -> str:
        """Say why one resource cannot be made here; empty if it can."""
        return "made by the first run" if resource.kind == "ledger" else ""

    @contextmanager
    def at_rest(self) -> Iterator[None]:
        """Hold the places of all workers of the instance, so that none is at work meanwhile.

        Raises
        ------
        UsageError
            If one is.
        """
        with ExitStack() as stack:
            pattern = f"{self._instance.name('worker')}-*.lock"
            for path in sorted((self._home / "locks").glob(pattern)):
                words = f"worker {path.stem!r} is at work on {self._home} (process {{process}})"
                stack.enter_context(WorkerLock(path).held(self._home, f"{words}: stop it first"))
            yield


class _Kept:
    """What all adapters of a home share: a home has names and nothing that could differ."""

    mutable: frozenset[str] = frozenset()

    def __init__(self, folder: Path, instance: Instance) -> None:
        self._folder = folder
        self._instance = instance

    def wanted(self, resource: Resource) -> Mapping[str, Any]:  # noqa: ARG002 - the protocol's
        """Return the settings that count."""
        return {}

    def change(self, resource: Resource, names: Sequence[str]) -> None:
        """Nothing can be changed."""

    def adopt(self, resource: Resource) -> None:
        """Whatever bears the instance's name is its own."""

    def labelled(self) -> Sequence[str]:
        """Name what else is the instance's."""
        return ()


class _Folders(_Kept):
    """Buckets and datasets."""

    def find(self, resource: Resource) -> Found | None:
        """Look for the folder."""
        return Found({}) if (self._folder / resource.name).is_dir() else None

    def create(self, resource: Resource) -> None:
        """Make the folder."""
        path = self._folder / resource.name
        with disk_errors(path):
            path.mkdir(parents=True, exist_ok=True)

    def delete(self, resource: Resource) -> None:
        """Remove the folder with all that is in it."""
        _remove(self._folder / resource.name)


class _Topics(_Folders):
    """Topics: folders of logs."""

    def labelled(self) -> Sequence[str]:
        """Name the topics that end in the instance's test id."""
        if not self._folder.is_dir():
            return ()
        names = (path.name for path in self._folder.iterdir() if path.is_dir())
        return sorted(name for name in names if _belongs(name, self._instance))


class _Subscriptions(_Kept):
    """Subscriptions: rows of one SQLite file that all topics share."""

    mutable = frozenset({"ack_deadline_s"})

    def wanted(self, resource: Resource) -> Mapping[str, Any]:
        """Return topic, filter and deadline."""
        return {
            "topic": resource.settings["topic"],
            "filter": resource.settings.get("filter", ""),
            "ack_deadline_s": float(resource.settings["ack_deadline_s"]),
        }

    def find(self, resource: Resource) -> Found | None:
        """Look for the row."""
        for found in self._rows():
            if found["name"] == resource.name:
                return Found(found)
        return None

    def create(self, resource: Resource) -> None:
        """Subscribe, from the oldest message on."""
        wanted = self.wanted(resource)
        with closing(LocalStream(self._folder, "setup")) as stream:
            stream.subscribe(
                wanted["topic"],
                resource.name,
                attribute_filter=wanted["filter"],
                ack_deadline_s=wanted["ack_deadline_s"],
            )

    def change(self, resource: Resource, names: Sequence[str]) -> None:  # noqa: ARG002 - there is one
        """Set the deadline."""
        deadline = self.wanted(resource)["ack_deadline_s"]
        self._write(
            "UPDATE subscription SET ack_deadline_s = ? WHERE name = ?", (deadline, resource.name)
        )

    def delete(self, resource: Resource) -> None:
        """Forget the subscription, its cursors and its leases."""
        self._write("DELETE FROM subscription WHERE name = ?", (resource.name,))
        for table in self._tables_with("subscription"):
            self._write(f'DELETE FROM "{table}" WHERE subscription = ?', (resource.name,))  # noqa: S608 - names of ours

    def labelled(self) -> Sequence[str]:
        """Name the subscriptions of the instance's topics."""
        return [row["name"] for row in self._rows() if _belongs(row["topic"], self._instance)]

    @property
    def _file(self) -> Path:
        return self._folder / "subscriptions.sqlite"

    def _rows(self) -> list[dict[str, Any]]:
        if not self._file.exists():
            return []
        found = self._read("SELECT name, topic, attribute_filter, ack_deadline_s FROM subscription")
        return [
            {"name": name, "topic": topic, "filter": text, "ack_deadline_s": deadline}
            for name, topic, text, deadline in found
        ]

    def _tables_with(self, column: str) -> list[str]:
        found = self._read(
            "SELECT m.name FROM sqlite_master m JOIN pragma_table_info(m.name) c ON c.name = ?"
            " WHERE m.type = 'table'",
            (column,),
        )
        return [name for (name,) in found]

    def _read(self, sql: str, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self._file, timeout=30)) as db:
            return db.execute(sql, values).fetchall()

    def _write(self, sql: str, values: tuple[Any, ...]) -> None:
        with closing(sqlite3.connect(self._file, timeout=30)) as db, db:
            db.execute(sql, values)


class _Ledger(_Kept):
    """The ledger with its index, and the traces of the workers."""

    def find(self, resource: Resource) -> Found | None:
        """Look for any of the files."""
        return Found({}) if self._files(resource) else None

    def create(self, resource: Resource) -> None:
        """Leave that to the first run."""

    def delete(self, resource: Resource) -> None:
        """Remove all the files."""
        for path in self._files(resource):
            _remove(path)

    def _files(self, resource: Resource) -> list[Path]:
        worker = self._instance.name("worker")
        patterns = (
            *(f"ledger/{resource.name}.sqlite*", f"ledger/{resource.name}.index"),
            *(f"locks/{worker}-*.lock", f"health/{worker}-*.json"),
        )
        return sorted(path for pattern in patterns for path in self._folder.glob(pattern))


def _belongs(name: str, instance: Instance) -> bool:
    """Tell whether a name is one of a test instance's own."""
    survey, *rest = name.split("-")
    return bool(instance.testid) and survey == instance.survey and rest[-1:] == [instance.testid]


def _remove(path: Path) -> None:
    if path.is_symlink():
        raise RefusedError(f"{path} is a link: remove it, and what it leads to, by hand")
    with disk_errors(path):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
