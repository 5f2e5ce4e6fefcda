"""Datasets and tables in Google BigQuery."""

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl
from google.api_core.exceptions import NotFound

from broker.apps.cloud.plan import Found
from broker.apps.cloud.registry import LABEL, Resource
from broker.connectors.gcp import Cloud
from broker.connectors.tables.bigquery import BigQueryTables
from broker.connectors.tables.bigquery_loads import Service
from broker.connectors.tables.bigquery_schema import fields_of, same, unite
from broker.ports import BatchKey

_COMPLETE = "complete"
_NO_BATCH = BatchKey("setup", 0)


class DatasetAdapter:
    """Datasets.

    Parameters
    ----------
    cloud : Cloud
        The project.
    label : str
        The instance's label.
    """

    mutable: frozenset[str] = frozenset()

    def __init__(self, cloud: Cloud, label: str) -> None:
        self._service = Service(cloud)
        self._label = label

    def wanted(self, resource: Resource) -> Mapping[str, Any]:
        """Return the location."""
        return {"location": str(resource.settings["location"]).lower()}

    def find(self, resource: Resource) -> Found | None:
        """Look for a dataset; None if it is not there."""
        with self._service.words():
            try:
                found = self._service.client.get_dataset(resource.name, **self._service.options)
            except NotFound:
                return None
        return Found({"location": found.location.lower()}, found.labels.get(LABEL) == self._label)

    def create(self, resource: Resource) -> None:
        """Make a dataset."""
        from google.cloud.bigquery import Dataset

        made = Dataset(f"{self._service.cloud.project}.{resource.name}")
        made.location, made.labels = resource.settings["location"], {LABEL: self._label}
        with self._service.words():
            self._service.client.create_dataset(made, exists_ok=True, **self._service.options)

    def change(self, resource: Resource, names: Sequence[str]) -> None:
        """Nothing can be changed."""

    def adopt(self, resource: Resource) -> None:
        """Give a dataset the instance's label."""
        client, options = self._service.client, self._service.options
        with self._service.words():
            found = client.get_dataset(resource.name, **options)
            found.labels = {**found.labels, LABEL: self._label}
            client.update_dataset(found, ["labels"], **options)

    def delete(self, resource: Resource) -> None:
        """Remove a dataset with all tables."""
        with self._service.words():
            self._service.client.delete_dataset(
                resource.name, delete_contents=True, not_found_ok=True, **self._service.options
            )

    def labelled(self) -> Sequence[str]:
        """Name the datasets that bear the label."""
        with self._service.words():
            found = list(self._service.client.list_datasets(**self._service.options))
        return [it.dataset_id for it in found if it.labels.get(LABEL) == self._label]


class TableAdapter:
    """Tables, made just as the first rows would make them; columns are only added.

    Parameters
    ----------
    cloud : Cloud
        The project.
    label : str
        The instance's label.
    columns : mapping
        Stub of a table -> a frame without rows that has its columns.
    """

    mutable = frozenset({"columns"})

    def __init__(self, cloud: Cloud, label: str, columns: Mapping[str, pl.DataFrame]) -> None:
        self._service = Service(cloud)
        self._label = label
        self._columns = columns
        self._tables = BigQueryTables(cloud)

    def wanted(self, resource: Resource) -> Mapping[str, Any]:  # noqa: ARG002 - the protocol's
        """Return that no column lacks."""
        return {"columns": _COMPLETE}

    def find(self, resource: Resource) -> Found | None:
        """Look for a table; None if it is not there."""
        with self._service.words():
            try:
                found = self._service.client.get_table(resource.name, **self._service.options)
            except NotFound:
                return None
        return Found({"columns": self._lacking(resource, found)}, self._is_ours(found))

    def create(self, resource: Resource) -> None:
        """Make a table."""
        self._append(resource)
        self.adopt(resource)

    def change(self, resource: Resource, names: Sequence[str]) -> None:  # noqa: ARG002 - there is one
        """Add the columns that lack."""
        self._append(resource)

    def adopt(self, resource: Resource) -> None:
        """Give a table the instance's label."""
        client, options = self._service.client, self._service.options
        with self._service.words():
            found = client.get_table(resource.name, **options)
            found.labels = {**found.labels, LABEL: self._label}
            client.update_table(found, ["labels"], **options)

    def delete(self, resource: Resource) -> None:
        """Remove a table with its rows."""
        with self._service.words():
            self._service.client.delete_table(
                resource.name, not_found_ok=True, **self._service.options
            )

    def labelled(self) -> Sequence[str]:
        """Name nothing: tables go with their dataset."""
        return ()

    def _append(self, resource: Resource) -> None:
        dataset, table = resource.name.split(".")
        self._tables.append(dataset, table, self._columns[resource.stub], _NO_BATCH)

    def _lacking(self, resource: Resource, found: Any) -> str:
        columns = self._columns.get(resource.stub)
        if columns is None:
            return _COMPLETE
        united, _ = unite(found.schema, fields_of(columns))
        if same(united, found.schema):
            return _COMPLETE
        before = {it.name.lower() for it in found.schema}
        new = [it.name for it in united if it.name.lower() not in before]
        return f"without {', '.join(new) or 'some nested fields'}"

    def _is_ours(self, found: Any) -> bool:
        """Tell whether a table, or its dataset, bears the label: runs make tables without."""
        if found.labels.get(LABEL) == self._label:
            return True
        client, options = self._service.client, self._service.options
        with self._service.words():
            dataset = client.get_dataset(found.dataset_id, **options)
        return bool(dataset.labels.get(LABEL) == self._label)
