"""The threads of a run: what is done with a batch beside the taking of the next."""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from types import TracebackType
from typing import Generic, Self, TypeVar

Work = TypeVar("Work")
Kept = TypeVar("Kept")


class Hands(Generic[Work, Kept]):
    """Keeps batches and then tells them, each in a thread of its own, in order.

    A large batch is told beside the keeping of the next one, not beside its decoding: two
    threads that both compute get into each other's way, and the disk is busy longer anyway.

    Parameters
    ----------
    keep : callable
        Makes a batch durable.
    tell : callable
        Writes what was made of a batch, given that and the outcome of `keep`, for which it waits.
    """

    def __init__(
        self, keep: Callable[[Work], Kept], tell: Callable[[Work, "Future[Kept]"], Work]
    ) -> None:
        self.flying: deque[Future[Work]] = deque()
        self._keep, self._tell = keep, tell
        self._keeping: list[Future[Kept]] = []
        self._held: list[Work] = []
        self._threads = ExitStack()
        self._keeper = ThreadPoolExecutor(1, "keep")
        self._teller = ThreadPoolExecutor(1, "tell")

    def __enter__(self) -> Self:
        self._threads.enter_context(self._keeper)
        self._threads.enter_context(self._teller)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Return when no thread is at work; Ctrl-C lets them finish what was taken."""
        if kind is None or issubclass(kind, KeyboardInterrupt):
            self.tell_held()
        self._threads.__exit__(kind, error, traceback)

    def take(self, work: Work, *, is_large: bool) -> None:
        """Take over a batch; return once a large one is durable."""
        wait(self._keeping)
        self._keeping = [self._keeper.submit(self._keep, work)]
        self._held = [work]
        if is_large:
            wait(self._keeping)
            wait(self.flying)
        else:
            self.tell_held()

    def tell_held(self) -> None:
        """Tell the last batch now, if that waits for the next one."""
        for work in self._held:
            self.flying.append(self._teller.submit(self._tell, work, *self._keeping))
        self._held = []
