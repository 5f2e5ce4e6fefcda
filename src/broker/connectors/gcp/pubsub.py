"""Asking Pub/Sub: patience while it is away, its limits, its names."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import polars as pl
from google.api_core import exceptions as api
from google.api_core.retry import Retry, if_exception_type

from broker.connectors.gcp.clients import Cloud
from broker.connectors.gcp.errors import plain_words
from broker.errors import NotFoundError, RefusedError
from broker.ports import BatchKey, Messages

MAX_MESSAGE_BYTES = 10_000_000
MAX_ATTRIBUTES = 100
MAX_KEY_BYTES = 256
MAX_VALUE_BYTES = 1024

REQUEST_BYTES = 9_000_000
REQUEST_MESSAGES = 1000
"""A request to publish may have 10 MB and 1000 messages."""

ACK_IDS = 1000
"""A request has 512 KiB at most; an ack id has some 200 bytes."""

_OVERHEAD_BYTES = 12
"""What the wire adds to a message and to each of its attributes, at most."""

_FIRST_ANSWER_S = 8.0
_COMES_BACK = (
    api.ServiceUnavailable,
    api.ResourceExhausted,
    api.TooManyRequests,
    api.Aborted,
    api.InternalServerError,
    api.Unknown,
)


class PubSub:
    """The calls of one user to Pub/Sub.

    A service that does not answer is asked again with growing pauses, for `patience_s`; one
    that never answered before, for a few seconds only.

    Parameters
    ----------
    cloud : Cloud
        The project.
    patience_s : float
        How long a service may be away that answered before, s.
    """

    def __init__(self, cloud: Cloud, patience_s: float = 60.0) -> None:
        self.cloud = cloud
        self._patience_s = patience_s
        self._answered = False

    def ask(
        self, call: Callable[..., Any], what: str = "", *, again: bool = True, **more: Any
    ) -> Any:
        """Make a call; what it raises comes as one of our errors.

        Parameters
        ----------
        call : callable
            A method of one of Google's clients.
        what : str
            What there is not, if the answer is that something was not found.
        again : bool
            Whether to ask again when the time of one question is over.
        **more
            Passed on to `call`.

        Raises
        ------
        NotFoundError, ForbiddenError, RefusedError
            If the service says no.
        TransientError
            If it does not answer in time.
        """
        patience_s = self._patience_s if self._answered else min(_FIRST_ANSWER_S, self._patience_s)
        comes_back = (*_COMES_BACK, api.DeadlineExceeded) if again else _COMES_BACK
        predicate = if_exception_type(*comes_back)
        retry = Retry(predicate, initial=0.1, maximum=4.0, multiplier=2.0, timeout=patience_s)
        more = {"retry": retry, "timeout": 60.0, **more}
        try:
            with plain_words("Pub/Sub", self.cloud.project, self.cloud.pubsub):
                answer = call(**more)
        except NotFoundError as error:
            if not what or "no Google Cloud project" in str(error):
                raise
            raise NotFoundError(f"there is no {what} in project {self.cloud.project}") from error
        self._answered = True
        return answer

    def every(self, call: Callable[..., Any], **more: Any) -> list[Any]:
        """Make a call that lists; return what is on all pages."""
        return list(self.ask(lambda **values: list(call(**values)), **more))

    def path(self, kind: str, name: str) -> str:
        """Return the full name of a topic, subscription or schema."""
        if name.startswith("projects/"):
            return name
        return f"projects/{self.cloud.project}/{kind}/{name}"


def sizes(messages: Messages, topic: str, key: BatchKey) -> list[int]:
    """Return what each message weighs on the wire, in bytes, at most.

    Raises
    ------
    RefusedError
        If Pub/Sub would not take one; names the topic, the batch and the message.
    """
    texts = messages.attributes.select(pl.all().cast(pl.String))
    values = texts.select(pl.all().str.len_bytes().cast(pl.Int64))
    fault = _attribute_fault(values)
    weights = [len(payload) + _OVERHEAD_BYTES for payload in messages.payloads]
    if values.width:
        keys = {name: len(name.encode()) + _OVERHEAD_BYTES for name in values.columns}
        each = [pl.col(name) + size for name, size in keys.items()]
        added = values.select(pl.sum_horizontal(each)).to_series().to_list()
        weights = [weight + more for weight, more in zip(weights, added, strict=True)]
    fault = fault or _weight_fault(weights)
    if fault:
        row, words = fault
        raise RefusedError(
            f"Pub/Sub cannot take message {row} of batch {key} for topic {topic!r}"
            f"{_ids(texts, row)}: {words}"
        )
    return weights


def parts(values: Sequence[str], size: int) -> Iterator[list[str]]:
    """Divide a list into lists of at most `size`."""
    for start in range(0, len(values), size):
        yield list(values[start : start + size])


def _attribute_fault(values: pl.DataFrame) -> tuple[int, str] | None:
    """Return the first row with an attribute beyond the limits, and what is wrong."""
    for name in values.columns:
        long = values[name].gt(MAX_VALUE_BYTES).arg_true()
        size = len(name.encode())
        if len(long):
            row = int(long[0])
            words = f"attribute {name!r} has {values[name][row]:,} bytes"
            return row, f"{words}, more than {MAX_VALUE_BYTES:,}"
        if (size > MAX_KEY_BYTES or not name) and values[name].is_not_null().any():
            row = int(values[name].is_not_null().arg_true()[0])
            return row, f"an attribute's name has {size} bytes, not 1 to {MAX_KEY_BYTES}"
    if values.width > MAX_ATTRIBUTES:
        counts = values.select(pl.sum_horizontal(pl.all().is_not_null())).to_series()
        many = counts.gt(MAX_ATTRIBUTES).arg_true()
        if len(many):
            row = int(many[0])
            return row, f"it has {counts[row]} attributes, more than {MAX_ATTRIBUTES}"
    return None


def _weight_fault(weights: list[int]) -> tuple[int, str] | None:
    for row, weight in enumerate(weights):
        if weight > MAX_MESSAGE_BYTES:
            return row, f"it has {weight:,} bytes, more than {MAX_MESSAGE_BYTES:,}"
        if weight == _OVERHEAD_BYTES:
            return row, "it has neither a payload nor attributes"
    return None


def _ids(texts: pl.DataFrame, row: int) -> str:
    """Name a message by its first attributes that are short."""
    if not texts.width:
        return ""
    found = [(name, text) for name, text in texts.row(row, named=True).items() if text]
    parts = [f"{name}={text}" for name, text in found if len(text) <= 40 and len(name) <= 40]
    return f" ({', '.join(parts[:3])})" if parts else ""
