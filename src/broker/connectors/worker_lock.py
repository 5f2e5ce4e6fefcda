"""One process for each worker of a home: a lock that the system drops when the process ends."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from broker.errors import UsageError

_ATTEMPTS = 5
"""Somebody who asks whether the lock is held has it for a moment."""

_PAUSE_S = 0.1


@dataclass(frozen=True, slots=True)
class WorkerLock:
    """The lock of one worker.

    Parameters
    ----------
    path : Path
        The lock's file; made when the lock is first held.
    """

    path: Path

    @contextmanager
    def held(self, home: Path, refusal: str) -> Iterator[None]:
        """Hold the lock within the block.

        Parameters
        ----------
        home : Path
            The home that the lock belongs to.
        refusal : str
            What is said if another process holds it; ``{process}`` stands for its number.

        Raises
        ------
        UsageError
            If another process holds it, or the home cannot be written.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            file = self.path.open("a+")
        except OSError as error:
            raise UsageError(f"the home {home} cannot be written: {error.strerror}") from error
        with file:
            if not _locked(file):
                file.seek(0)
                raise UsageError(refusal.replace("{process}", file.read().strip() or "?"))
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            yield

    def is_held(self) -> bool:
        """Tell whether a process holds the lock."""
        try:
            file = self.path.open()
        except FileNotFoundError:
            return False
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False


def _locked(file: IO[str]) -> bool:
    for _ in range(_ATTEMPTS):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(_PAUSE_S)
        else:
            return True
    return False
