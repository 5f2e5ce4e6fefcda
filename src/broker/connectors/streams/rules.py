"""What a subscription may ask for beyond a deadline: dead letters, order, patience."""

from dataclasses import astuple, dataclass

from broker.connectors.streams.subscriptions import Subscriptions

_SCHEMA = """
CREATE TABLE IF NOT EXISTS rule (
    subscription TEXT PRIMARY KEY, max_attempts INTEGER NOT NULL, dead_letter_topic TEXT NOT NULL,
    ordered INTEGER NOT NULL, minimum_backoff_s REAL NOT NULL, maximum_backoff_s REAL NOT NULL,
    retention_s REAL NOT NULL) WITHOUT ROWID
"""


@dataclass(frozen=True, slots=True)
class Rules:
    """How a subscription delivers; the default is as soon as it can, for ever.

    Parameters
    ----------
    max_attempts : int
        A message that was delivered so often becomes a dead letter; 0 is never.
    dead_letter_topic : str
        Where dead letters are published.
    ordered : bool
        Whether messages of one ordering key are delivered one after the other.
    minimum_backoff_s, maximum_backoff_s : float
        How long a message rests before it is delivered again: the minimum after the first
        attempt, doubled after each, up to the maximum; 0 is not at all.
    retention_s : float
        Messages older than this are passed over; 0 keeps all.
    """

    max_attempts: int = 0
    dead_letter_topic: str = ""
    ordered: bool = False
    minimum_backoff_s: float = 0.0
    maximum_backoff_s: float = 0.0
    retention_s: float = 0.0

    def backoff_s(self, attempt: int) -> float:
        """Return how long a message rests after its `attempt`-th delivery, in seconds.

        Examples
        --------
        >>> [Rules(minimum_backoff_s=10, maximum_backoff_s=30).backoff_s(n) for n in (1, 2, 3)]
        [10.0, 20.0, 30.0]
        """
        if not self.maximum_backoff_s or not attempt:
            return 0.0
        return float(
            min(self.minimum_backoff_s * 2.0 ** min(attempt - 1, 60), self.maximum_backoff_s)
        )

    def is_dead(self, attempt: int) -> bool:
        """Tell whether a message that was delivered `attempt` times becomes a dead letter."""
        return 0 < self.max_attempts <= attempt


class RuleBook:
    """The rules of the subscriptions of one home, kept beside them.

    Parameters
    ----------
    subscriptions : Subscriptions
        Whose file the rules are kept in.
    """

    def __init__(self, subscriptions: Subscriptions) -> None:
        self._subscriptions = subscriptions
        with subscriptions.transaction() as db:
            db.execute(_SCHEMA)

    def get(self, subscription: str) -> Rules:
        """Return a subscription's rules; those of one that has none are the default."""
        with self._subscriptions.transaction() as db:
            row = db.execute(
                "SELECT * FROM rule WHERE subscription = ?", (subscription,)
            ).fetchone()
        if row is None:
            return Rules()
        _, attempts, topic, ordered, *times = row
        return Rules(attempts, topic, bool(ordered), *times)

    def set(self, subscription: str, rules: Rules) -> None:
        """Keep a subscription's rules."""
        with self._subscriptions.transaction() as db:
            db.execute(
                "INSERT OR REPLACE INTO rule VALUES (?, ?, ?, ?, ?, ?, ?)",
                (subscription, *astuple(rules)),
            )

    def with_dead_letters(self) -> list[str]:
        """Name the subscriptions that have a limit of attempts."""
        with self._subscriptions.transaction() as db:
            rows = db.execute("SELECT subscription FROM rule WHERE max_attempts > 0").fetchall()
        return [name for (name,) in rows]
