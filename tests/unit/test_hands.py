"""The threads of a run do one thing after the other, and leave nothing that was taken."""

import threading
from concurrent.futures import Future

import pytest

from broker.pipeline.hands import Hands


class Diary:
    """What was done, in order."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.hands: Hands[str, str] = Hands(self.keep, self.tell)

    def keep(self, work: str) -> str:
        """Keep."""
        self.lines.append(f"keep {work}")
        return f"kept {work}"

    def tell(self, work: str, kept: "Future[str]") -> str:
        """Tell, once kept."""
        assert kept.result(5) == f"kept {work}"
        self.lines.append(f"tell {work}")
        return work

    def take_and_raise(self, work: str, error: BaseException) -> None:
        """Take a large batch, and end with an error."""
        with self.hands as hands:
            hands.take(work, is_large=True)
            raise error


def test_small_batches_are_told_at_once():
    """Nothing waits for the next batch."""
    diary = Diary()
    with diary.hands as hands:
        hands.take("a", is_large=False)
        assert hands.flying.popleft().result(5) == "a"
        hands.take("b", is_large=False)

    assert diary.lines == ["keep a", "tell a", "keep b", "tell b"]


def test_a_large_batch_is_durable_at_once_and_told_with_the_next():
    """Its telling does not run beside the decoding of the next."""
    diary = Diary()
    with diary.hands as hands:
        hands.take("a", is_large=True)
        assert diary.lines == ["keep a"]
        hands.tell_held()
        hands.take("b", is_large=True)
        assert sorted(diary.lines) == ["keep a", "keep b", "tell a"]

    assert diary.lines[-1] == "tell b"
    assert [done.result(0) for done in hands.flying] == ["a", "b"]


def test_ctrl_c_lets_what_was_taken_be_told():
    """What is durable is told, too, before the threads end."""
    diary = Diary()
    with pytest.raises(KeyboardInterrupt):
        diary.take_and_raise("a", KeyboardInterrupt())

    assert diary.lines == ["keep a", "tell a"]


def test_after_an_error_no_thread_is_left():
    """What was held back is for the next start to tell."""
    diary, before = Diary(), threading.active_count()
    with pytest.raises(RuntimeError, match="stop"):
        diary.take_and_raise("a", RuntimeError("stop"))

    assert diary.lines == ["keep a"]
    assert threading.active_count() == before
