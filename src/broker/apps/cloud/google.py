"""An instance in a Google Cloud project, the real one or emulators."""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import polars as pl

from broker.apps.cloud.dashboards import mosaic
from broker.apps.cloud.plan import Adapter
from broker.apps.cloud.registry import Context, Resource
from broker.apps.cloud.rest import RestAdapter, authorized_session, described
from broker.apps.cloud.storage import BucketAdapter
from broker.apps.cloud.topics import SubscriptionAdapter, TopicAdapter
from broker.apps.cloud.warehouse import DatasetAdapter, TableAdapter
from broker.connectors.gcp import Cloud

_NO_EMULATOR = "there is no emulator of it"
_ON_THE_WORKER = "lives on the machine that runs pgb run"


class GoogleTarget:
    """A project.

    Parameters
    ----------
    cloud : Cloud
        The project, or emulators.
    context : Context
        Whose resources.
    resources : sequence of Resource
        All of them, for the dashboard.
    columns : mapping
        Stub of a table -> a frame without rows that has its columns.
    commands : sequence of str
        The commands of this ``pgb``; machines and services that need another are left out.
    session : callable, optional
        Returns what sends REST requests, by default with this machine's credentials.
    roots : mapping, optional
        Kind -> address of its REST service, by default Google's.
    """

    def __init__(
        self,
        cloud: Cloud,
        context: Context,
        resources: Sequence[Resource],
        columns: Mapping[str, pl.DataFrame],
        commands: Sequence[str],
        *,
        session: Callable[[], Any] | None = None,
        roots: Mapping[str, str] | None = None,
    ) -> None:
        self._cloud = cloud
        self._context = context
        self._resources = resources
        self._columns = columns
        self._commands = commands
        self._given_session = session
        self._roots = roots or {}

    @property
    def title(self) -> str:
        """The place, in words."""
        where = " on emulators" if self._on_emulators else ""
        return f"Google Cloud project {self._cloud.project} ({self._cloud.region}){where}"

    def adapter(self, kind: str) -> Adapter | str:
        """Return what makes resources of a kind here, or why they are left out."""
        if kind in described() and self._on_emulators:
            return _NO_EMULATOR
        return self._adapters.get(kind, _ON_THE_WORKER)

    def left_out(self, resource: Resource) -> str:
        """Say why one resource cannot be made here; empty if it can."""
        if resource.kind == "table" and resource.stub not in self._columns:
            return "made with their first rows"
        if resource.kind not in ("vm", "service"):
            return ""
        command = resource.settings["command"][0]
        if command not in self._commands:
            return f"this version of pgb has no command {command!r}"
        return "" if self._context.image else "no container image is named: --image"

    @cached_property
    def _adapters(self) -> dict[str, Adapter]:
        cloud, label = self._cloud, self._context.instance.label
        return {
            "topic": TopicAdapter(cloud, label),
            "subscription": SubscriptionAdapter(cloud, label),
            "bucket": BucketAdapter(cloud, label),
            "dataset": DatasetAdapter(cloud, label),
            "table": TableAdapter(cloud, label, self._columns),
            **{kind: self._rest(kind) for kind in described()},
        }

    def _rest(self, kind: str) -> RestAdapter:
        return RestAdapter(
            kind,
            self._context,
            lambda: self._session,
            self._roots.get(kind, ""),
            lambda: mosaic(self._resources),
        )

    @cached_property
    def _session(self) -> Any:
        if self._given_session is not None:
            return self._given_session()
        return authorized_session(self._cloud.project)

    @property
    def _on_emulators(self) -> bool:
        cloud = self._cloud
        return bool(cloud.pubsub or cloud.storage or cloud.bigquery)
