"""Where compiled kernels are kept, on hosts where nothing may be written."""

import atexit
import os
import shutil
import sys
import tempfile
from collections.abc import MutableMapping, Sequence
from pathlib import Path

import platformdirs

_FOLDER = "NUMBA_CACHE_DIR"


def usual_places() -> list[Path]:
    """Return where numba keeps kernels: beside the code, or in the user's cache."""
    return [Path(__file__).parents[2], Path(platformdirs.user_cache_dir("numba"))]


def let_kernels_be_kept(environment: MutableMapping[str, str], places: Sequence[Path]) -> None:
    """Give kernels a folder for this process only where none of `places` can be written.

    Numba would refuse to compile at all, as in a container with a read-only file system.
    """
    if environment.get(_FOLDER) or any(map(_is_writable, places)):
        return
    folder = tempfile.mkdtemp(prefix="pgb-kernels-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    environment[_FOLDER] = folder
    words = f"kernels are compiled anew, as no cache can be written: set {_FOLDER} to a folder"
    print(f"pgb: {words}", file=sys.stderr)


def _is_writable(place: Path) -> bool:
    """Tell whether a folder can be written, or made."""
    while not place.exists():
        place = place.parent
    return place.is_dir() and os.access(place, os.W_OK)
