"""Buckets in Google Cloud Storage."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from google.api_core.exceptions import NotFound

from broker.apps.cloud.plan import Found
from broker.apps.cloud.registry import LABEL, Resource
from broker.connectors.gcp import Cloud, plain_words

_AT_A_TIME = 32
_KEPT_BY_EMULATORS = ("location",)


class BucketAdapter:
    """Buckets with uniform access.

    Emulators keep no labels: with one, a bucket is the instance's if it bears its name.

    Parameters
    ----------
    cloud : Cloud
        The project.
    label : str
        The instance's label.
    """

    mutable = frozenset({"versions", "uniform_access"})

    def __init__(self, cloud: Cloud, label: str) -> None:
        self._cloud = cloud
        self._label = label

    def wanted(self, resource: Resource) -> Mapping[str, Any]:
        """Return location, access, and whether older versions of objects are kept."""
        return {
            "location": str(resource.settings["location"]).upper(),
            "versions": bool(resource.settings.get("versions")),
            "uniform_access": True,
        }

    def find(self, resource: Resource) -> Found | None:
        """Look for a bucket; None if it is not there."""
        with self._words():
            try:
                found = self._cloud.store.get_bucket(resource.name, **self._options)
            except NotFound:
                return None
        settings = {
            "location": found.location,
            "versions": found.versioning_enabled,
            "uniform_access": found.iam_configuration.uniform_bucket_level_access_enabled,
        }
        if self._cloud.storage:
            return Found({name: settings[name] for name in _KEPT_BY_EMULATORS})
        return Found(settings, found.labels.get(LABEL) == self._label)

    def create(self, resource: Resource) -> None:
        """Make a bucket."""
        bucket = self._configured(resource)
        bucket.labels = {LABEL: self._label}
        location = resource.settings["location"]
        with self._words():
            self._cloud.store.create_bucket(bucket, location=location, **self._options)

    def change(self, resource: Resource, names: Sequence[str]) -> None:  # noqa: ARG002 - all at once
        """Set access and versions."""
        with self._words():
            self._configured(resource).patch(**self._options)

    def adopt(self, resource: Resource) -> None:
        """Give a bucket the instance's label."""
        with self._words():
            bucket = self._cloud.store.get_bucket(resource.name, **self._options)
            bucket.labels = {**bucket.labels, LABEL: self._label}
            bucket.patch(**self._options)

    def delete(self, resource: Resource) -> None:
        """Remove a bucket with all objects and their versions, however many."""
        bucket = self._cloud.store.bucket(resource.name)
        with self._words(), ThreadPoolExecutor(_AT_A_TIME, "delete") as pool:
            listed = self._cloud.store.list_blobs(
                bucket, versions=not self._cloud.storage, **self._options
            )
            list(pool.map(self._delete_object, listed))
            bucket.delete(**self._options)

    def labelled(self) -> Sequence[str]:
        """Name the buckets that bear the label."""
        with self._words():
            found = list(self._cloud.store.list_buckets(**self._options))
        return [it.name for it in found if it.labels.get(LABEL) == self._label]

    def _configured(self, resource: Resource) -> Any:
        bucket = self._cloud.store.bucket(resource.name)
        bucket.iam_configuration.uniform_bucket_level_access_enabled = True
        bucket.versioning_enabled = self.wanted(resource)["versions"]
        return bucket

    def _delete_object(self, blob: Any) -> None:
        try:
            blob.delete(**self._options)
        except NotFound:
            return

    @property
    def _options(self) -> dict[str, Any]:
        return {"retry": self._cloud.store_retry, "timeout": 60.0}

    def _words(self) -> Any:
        return plain_words("Cloud Storage", self._cloud.project, self._cloud.storage)
