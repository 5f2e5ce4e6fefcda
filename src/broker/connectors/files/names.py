"""What a bucket and an object may be called, alike in every implementation here."""

from pathlib import PurePosixPath

from broker.errors import UsageError

METADATA_SUFFIX = ".meta.json"


def check_bucket(bucket: str) -> None:
    """Refuse a bucket's name that is more than one plain folder.

    Raises
    ------
    UsageError
        If the name is empty, hidden or has a slash.
    """
    if not bucket or "/" in bucket or "\0" in bucket or bucket.startswith("."):
        raise UsageError(f"bucket name {bucket!r} is not allowed: it must be one plain word")


def check_name(name: str) -> None:
    """Refuse an object's name that could lie outside its bucket or be hidden in it.

    Raises
    ------
    UsageError
        If the name is absolute, has an empty or hidden part (so also ``..``), or is taken
        for metadata.
    """
    parts = name.split("/")
    if PurePosixPath(name).is_absolute() or "\0" in name:
        raise UsageError(f"object name {name!r} is not allowed: it must be relative")
    if any(not part or part.startswith(".") for part in parts):
        raise UsageError(
            f"object name {name!r} is not allowed: no part may be empty or start with a dot"
        )
    if name.endswith(METADATA_SUFFIX):
        raise UsageError(f"object name {name!r} is not allowed: {METADATA_SUFFIX} is for metadata")
