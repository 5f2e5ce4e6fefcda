"""Buckets of Google Cloud Storage."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, suppress
from threading import Lock
from typing import Any, Self

from broker.config import Settings
from broker.connectors.files.names import check_bucket, check_name
from broker.connectors.gcp.clients import Cloud, project_of
from broker.connectors.gcp.errors import plain_words
from broker.errors import ConfigError, NotFoundError, UsageError
from broker.ports import FileInfo

CONTENT_TYPE = "contentType"
"""Metadata key that becomes the object's content type."""

_DEFAULT_TYPE = "application/octet-stream"
_MOST_NAME_BYTES = 1024
_CONNECTIONS = 64
_TIMEOUT_S = (5.0, 60.0)
_BIG_BYTES = 8 << 20
_LISTED = "items(name,size,metadata,contentType),nextPageToken"


class GcsFiles:
    """`Files` in Google Cloud Storage; any number of threads may share it.

    An object is stored on the condition that it is absent, so that trying again is safe. A
    bucket is made when its first object comes, with uniform access and in the cloud's region.
    The metadata key ``contentType`` becomes the object's content type.

    Parameters
    ----------
    cloud : Cloud
        The project that pays and owns the buckets; their names are given in full.
    """

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self._client = _ready_for_many_threads(cloud.store)
        self._retry = cloud.store_retry
        self._making = Lock()

    @classmethod
    def from_url(cls, url: str, settings: Settings) -> Self:
        """Open ``gs://[project]``.

        Raises
        ------
        ConfigError
            If no project is named, or more than one, or there are no credentials.
        """
        cloud, rest = project_of(url, settings)
        if rest:
            raise ConfigError(
                f"{url} names more than a project: buckets are named after the instance"
            )
        return cls(cloud)

    def create(self, bucket: str, name: str, data: bytes, metadata: Mapping[str, str]) -> bool:
        """Store an object unless it exists; tell whether it was stored.

        False may also mean that an earlier try of this very call had stored it, its answer
        having been lost on the way.

        Raises
        ------
        UsageError
            If the name is not allowed.
        TransientError
            If the service does not answer; the object may have been stored.
        ForbiddenError, RefusedError
            If the service says no, in its words.
        """
        if len(data) > _BIG_BYTES and self._exists(bucket, name):
            return False
        return self._upload(bucket, name, data, metadata, if_generation_match=0)

    def replace(self, bucket: str, name: str, data: bytes, metadata: Mapping[str, str]) -> None:
        """Store an object in place of the one that may be there.

        Raises
        ------
        UsageError, TransientError, ForbiddenError, RefusedError
            As `create`.
        """
        self._upload(bucket, name, data, metadata)

    def remove(self, bucket: str, name: str) -> None:
        """Delete an object; one that is not there is no error.

        Raises
        ------
        UsageError, TransientError, ForbiddenError, RefusedError
            As `create`.
        """
        from google.api_core.exceptions import NotFound

        blob = self._blob(bucket, name)
        with self._words(), suppress(NotFound):
            blob.delete(retry=self._retry, timeout=_TIMEOUT_S)

    def read(self, bucket: str, name: str) -> bytes:
        """Return an object's bytes.

        Raises
        ------
        NotFoundError
            If there is no such object.
        TransientError
            If the service does not answer.
        """
        from google.api_core.exceptions import NotFound

        blob = self._blob(bucket, name)
        with self._words():
            try:
                data: bytes = blob.download_as_bytes(retry=self._retry, timeout=_TIMEOUT_S)
            except NotFound as error:
                raise NotFoundError(f"bucket {bucket!r} has no object {name!r}") from error
        return data

    def list(self, bucket: str, prefix: str = "") -> Iterator[FileInfo]:
        """Iterate over the objects whose names start with `prefix`, in order of name."""
        check_bucket(bucket)
        return self._listed(bucket, prefix)

    def _listed(self, bucket: str, prefix: str) -> Iterator[FileInfo]:
        from google.api_core.exceptions import NotFound

        found = self._client.list_blobs(
            bucket, prefix=prefix, fields=_LISTED, retry=self._retry, timeout=_TIMEOUT_S
        )
        with self._words():
            try:
                for blob in found:
                    yield FileInfo(blob.name, blob.size, _metadata_of(blob))
            except NotFound:
                return

    def _exists(self, bucket: str, name: str) -> bool:
        """Ask before many bytes are sent in vain (an emulator compares only when they are few)."""
        blob = self._blob(bucket, name)
        with self._words():
            return bool(blob.exists(retry=self._retry, timeout=_TIMEOUT_S))

    def _upload(
        self, bucket: str, name: str, data: bytes, metadata: Mapping[str, str], **condition: int
    ) -> bool:
        """Upload, in one request up to 8 MB and in resumable parts above."""
        from google.api_core.exceptions import NotFound

        blob = self._blob(bucket, name)
        custom = {key: str(value) for key, value in metadata.items() if key != CONTENT_TYPE}
        blob.metadata = custom or None
        options: dict[str, Any] = {
            "content_type": metadata.get(CONTENT_TYPE, _DEFAULT_TYPE),
            "retry": self._retry,
            "timeout": _TIMEOUT_S,
            **condition,
        }
        with self._words():
            try:
                return _sent(blob, data, options)
            except NotFound:
                self._make(bucket)
                return _sent(blob, data, options)

    def _make(self, bucket: str) -> None:
        """Make a bucket, unless another thread or process was first."""
        from google.api_core.exceptions import Conflict

        made = self._client.bucket(bucket)
        made.iam_configuration.uniform_bucket_level_access_enabled = True
        with self._making:
            try:
                made.create(location=self._cloud.region, retry=self._retry, timeout=_TIMEOUT_S)
            except Conflict:
                return

    def _blob(self, bucket: str, name: str) -> Any:
        check_bucket(bucket)
        check_name(name)
        if len(name.encode()) > _MOST_NAME_BYTES or "\n" in name or "\r" in name:
            raise UsageError(
                f"object name {name!r} is not allowed: it must be one line of {_MOST_NAME_BYTES}"
                " bytes at most"
            )
        return self._client.bucket(bucket).blob(name)

    def _words(self) -> AbstractContextManager[None]:
        return plain_words("Cloud Storage", self._cloud.project, self._cloud.storage)


def _ready_for_many_threads(client: Any) -> Any:
    """Let Google's client keep many connections, and look for proxies once."""
    from requests.adapters import HTTPAdapter

    session = client._http
    adapter = HTTPAdapter(pool_connections=4, pool_maxsize=_CONNECTIONS)
    for scheme in ("https://", "http://"):
        session.mount(scheme, adapter)
    if session.trust_env:
        # Searching the environment with each request takes a fifth of an upload's time.
        found = session.merge_environment_settings(client.api_endpoint, {}, None, None, None)
        session.proxies, session.verify = found["proxies"], found["verify"]
        session.trust_env = False
    return client


def _sent(blob: Any, data: bytes, options: Mapping[str, Any]) -> bool:
    """Send an object; tell whether its condition held."""
    from google.api_core.exceptions import PreconditionFailed

    try:
        blob.upload_from_string(data, **options)
    except PreconditionFailed:
        return False
    return True


def _metadata_of(blob: Any) -> dict[str, str]:
    metadata = dict(blob.metadata or {})
    if blob.content_type not in (None, _DEFAULT_TYPE):
        metadata[CONTENT_TYPE] = blob.content_type
    return metadata
