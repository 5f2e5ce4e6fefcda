"""A librdkafka client that is quiet: its errors in our words, its connection told once."""

import json
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, TypeVar

from confluent_kafka import KafkaError, KafkaException, Message
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_exponential

from broker.errors import (
    ConfigError,
    ForbiddenError,
    NotFoundError,
    RefusedError,
    ServiceError,
    TransientError,
)

_LOG = logging.getLogger(__name__)

Answer = TypeVar("Answer")

COMMON: Mapping[str, Any] = {
    "client.id": "pitt-google-broker",
    # It reconnects for ever; the longest pause between two tries is 10 s.
    "reconnect.backoff.ms": 100,
    "reconnect.backoff.max.ms": 10_000,
    "socket.keepalive.enable": True,
    "log.connection.close": False,
    "statistics.interval.ms": 2000,
}

_FORBIDDEN = {
    KafkaError._AUTHENTICATION,
    KafkaError.SASL_AUTHENTICATION_FAILED,
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
}
_REFUSED = {
    KafkaError.MSG_SIZE_TOO_LARGE,
    KafkaError.INVALID_MSG,
    KafkaError.RECORD_LIST_TOO_LARGE,
    KafkaError.TOPIC_EXCEPTION,
    KafkaError.UNSUPPORTED_SASL_MECHANISM,
    KafkaError._FENCED,
    KafkaError.FENCED_INSTANCE_ID,
    KafkaError.INVALID_PRODUCER_EPOCH,
}
# What a cluster answers while it elects or moves a coordinator.
_PASSING = {
    KafkaError.NOT_COORDINATOR,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.CONCURRENT_TRANSACTIONS,
}
_PATIENCE_S = 15.0
_FILES = ("kerberos.keytab", *(f"{it}.location" for it in ("ca", "certificate", "key", "keystore")))
_KERBEROS_HINT = (
    ". The wheel of confluent-kafka has no Kerberos; build it beside a librdkafka of your system "
    "that has: pip install --no-binary confluent-kafka confluent-kafka"
)
_ABSENT = {KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC}


@dataclass(frozen=True, slots=True)
class Clock:
    """UNIX time, time that only runs forward, and waiting."""

    now: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep

    def today(self) -> date:
        """Return the UTC date."""
        return datetime.fromtimestamp(self.now(), UTC).date()


SYSTEM_CLOCK = Clock()


def error_of(exception: KafkaException) -> KafkaError:
    """Return the error inside an exception."""
    error = exception.args[0]
    assert isinstance(error, KafkaError)  # noqa: S101 - how the library makes its exceptions
    return error


def service_error(error: KafkaError, doing: str) -> ServiceError:
    """Return the error of ours that tells what to do about one of librdkafka's."""
    words = f"{doing}: {error.str()}"
    if error.code() in _FORBIDDEN:
        return ForbiddenError(words)
    if error.code() in _ABSENT:
        return NotFoundError(words)
    if error.code() in _REFUSED or error.fatal():
        return RefusedError(words)
    return TransientError(words)


def ask(question: Callable[[], Answer], doing: str) -> Answer:
    """Ask the cluster, again for a while if it is busy with itself.

    Raises
    ------
    ServiceError
        If there is no answer; the kind tells what to do.
    """
    trying = Retrying(
        retry=retry_if_exception(_is_passing),
        wait=wait_exponential(multiplier=0.1, max=2),
        stop=stop_after_delay(_PATIENCE_S),
        reraise=True,
    )
    try:
        return trying(question)
    except KafkaException as error:
        raise service_error(error_of(error), doing) from error


def _is_passing(error: BaseException) -> bool:
    return isinstance(error, KafkaException) and error_of(error).code() in _PASSING


def make_client(kind: Callable[..., Any], properties: Mapping[str, Any], **more: Any) -> Any:
    """Make a consumer, producer or admin client.

    Raises
    ------
    ConfigError
        If a property is wrong, or names a file that is not there; its value is not repeated, as
        it may be a secret.
    """
    for name, value in properties.items():
        if name.endswith(_FILES) and value != "probe" and not Path(str(value)).exists():
            raise ConfigError(f"the Kafka client cannot be made: {name}: there is no such file")
    try:
        return kind({**COMMON, **properties}, logger=_Hushed(), **more)
    except KafkaException as error:
        words = error_of(error).str()
        for value in map(str, _secrets(properties)):
            words = words.replace(value, "…")
        hint = _KERBEROS_HINT if "GSSAPI" in words else ""
        raise ConfigError(f"the Kafka client cannot be made: {words}{hint}") from None


def next_message(consumer: Any, wait_s: float, doing: str) -> Message | None:
    """Take the next message or event; None if there is none in time.

    Raises
    ------
    ServiceError
        If the client cannot go on; the kind tells what to do.
    KeyboardInterrupt
        If the process is to stop, also when the word came while the library called us back:
        it then returns nothing, not even an exception.
    """
    try:
        message: Message | None = consumer.poll(wait_s)
    except KafkaException as error:
        raise service_error(error_of(error), doing) from error
    except SystemError as error:
        raise KeyboardInterrupt from error
    return message


class Connection:
    """Whether any server of the cluster answers, as librdkafka's callbacks tell it.

    A loss and the return are logged once each, however often librdkafka says so.

    Parameters
    ----------
    now : callable
        UNIX time, s.
    """

    def __init__(self, address: str, now: Callable[[], float]) -> None:
        self._address = address
        self._now = now
        self._lost_at: float | None = None
        self._was_up = False
        self.reconnects = 0
        self.reason = ""
        self.refusal: KafkaError | None = None

    @property
    def lost(self) -> bool:
        """Whether the connection was there and is not now."""
        return self._lost_at is not None

    def on_error(self, error: KafkaError) -> None:
        """Take librdkafka's word that something is wrong."""
        self.reason = error.str()
        if error.code() in _FORBIDDEN or error.fatal():
            self.refusal = error
        if error.code() == KafkaError._ALL_BROKERS_DOWN:
            self._down()

    def on_statistics(self, text: str) -> None:
        """Read from librdkafka's statistics whether a server is connected."""
        servers = json.loads(text)["brokers"].values()
        if any(server["state"] == "UP" for server in servers):
            self.up()
        elif self._was_up:
            self._down()

    def up(self) -> None:
        """Take note that a server answered."""
        self._was_up, self.refusal = True, None
        if self._lost_at is not None:
            self.reconnects += 1
            away_s = self._now() - self._lost_at
            _LOG.warning("connected to %s again after %.0f s", self._address, away_s)
            self._lost_at = None

    def check(self) -> None:
        """Raise if the server refuses us and never did otherwise.

        Raises
        ------
        ForbiddenError
            If a login was never accepted.
        RefusedError
            If the client cannot go on.
        """
        if self.refusal is not None and (not self._was_up or self.refusal.fatal()):
            raise service_error(self.refusal, f"Kafka at {self._address}") from None

    def _down(self) -> None:
        if self._lost_at is None and self._was_up:
            self._lost_at = self._now()
            _LOG.warning(
                "lost the connection to %s (%s); trying again until it is back",
                *(self._address, self.reason or "no server answers"),
            )


class _Hushed:
    """What librdkafka would print, kept for those who debug."""

    def log(self, _level: int, message: str, *values: Any) -> None:
        _LOG.debug(message, *values)


def _secrets(properties: Mapping[str, Any]) -> list[Any]:
    marks = ("password", "secret", "sasl.username", "client.id")
    return [value for name, value in properties.items() if name.endswith(marks) and value]
