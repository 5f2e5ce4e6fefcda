"""Buckets in memory, for tests: the same contract, failures scripted as data."""

from collections.abc import Iterator, Mapping, Sequence

from broker.connectors.files.names import check_bucket, check_name
from broker.errors import BrokerError, NotFoundError
from broker.ports import FileInfo


class MemoryFiles:
    """`Files` that live as long as the object.

    Parameters
    ----------
    failures : sequence of BrokerError
        The next calls of `create` raise these, one each, and then succeed.
    """

    def __init__(self, failures: Sequence[BrokerError] = ()) -> None:
        self._failures = list(failures)
        self._objects: dict[tuple[str, str], tuple[bytes, dict[str, str]]] = {}

    def create(self, bucket: str, name: str, data: bytes, metadata: Mapping[str, str]) -> bool:
        """Store an object unless it exists; tell whether it was stored."""
        if self._failures:
            raise self._failures.pop(0)
        check_bucket(bucket)
        check_name(name)
        if (bucket, name) in self._objects:
            return False
        self._objects[bucket, name] = (bytes(data), dict(metadata))
        return True

    def replace(self, bucket: str, name: str, data: bytes, metadata: Mapping[str, str]) -> None:
        """Store an object in place of the one that may be there."""
        self.remove(bucket, name)
        self.create(bucket, name, data, metadata)

    def remove(self, bucket: str, name: str) -> None:
        """Delete an object; one that is not there is no error."""
        self._objects.pop((bucket, name), None)

    def read(self, bucket: str, name: str) -> bytes:
        """Return an object's bytes.

        Raises
        ------
        NotFoundError
            If there is no such object.
        """
        check_bucket(bucket)
        check_name(name)
        if (bucket, name) not in self._objects:
            raise NotFoundError(f"bucket {bucket!r} has no object {name!r}")
        return self._objects[bucket, name][0]

    def list(self, bucket: str, prefix: str = "") -> Iterator[FileInfo]:
        """Iterate over the objects whose names start with `prefix`, in order of name."""
        check_bucket(bucket)
        for (where, name), (data, metadata) in sorted(self._objects.items()):
            if where == bucket and name.startswith(prefix):
                yield FileInfo(name, len(data), metadata)
