"""What may be asked of a subscription, and what the home's streams make of it."""

from typing import Any

from broker.apps.pubsub import protocol
from broker.apps.pubsub.names import parse
from broker.apps.pubsub.protocol import Message
from broker.apps.pubsub.refusals import invalid, refusing, unimplemented
from broker.connectors.streams.attribute_filter import AttributeFilter
from broker.connectors.streams.rules import Rules

CHANGEABLE = frozenset(
    {
        "ack_deadline_seconds",
        "dead_letter_policy",
        "enable_exactly_once_delivery",
        "expiration_policy",
        "labels",
        "message_retention_duration",
        "push_config",
        "retain_acked_messages",
        "retry_policy",
    }
)
"""Fields that an update may change."""

_DEADLINE_S = 10
_MOST_DEADLINE_S = 600
_LEAST_RETENTION_S, _MOST_RETENTION_S = 600, 31 * 86_400
_ATTEMPTS, _LEAST_ATTEMPTS, _MOST_ATTEMPTS = 5, 5, 100
_LEAST_BACKOFF_S, _MOST_BACKOFF_S = 10.0, 600.0


def checked(wanted: Message) -> Message:
    """Return a copy of a subscription's settings with Google's defaults.

    Raises
    ------
    Refusal
        If a value is outside Google's limits, or asks for what this server does not do.
    """
    _check_kind(wanted)
    kept = protocol.Subscription()
    kept.CopyFrom(wanted)
    kept.ack_deadline_seconds = wanted.ack_deadline_seconds or _DEADLINE_S
    _within("ack_deadline_seconds", kept.ack_deadline_seconds, _DEADLINE_S, _MOST_DEADLINE_S)
    if wanted.HasField("message_retention_duration"):
        seconds = _seconds(wanted.message_retention_duration)
        _within("message_retention_duration", seconds, _LEAST_RETENTION_S, _MOST_RETENTION_S)
    if wanted.HasField("dead_letter_policy"):
        _check_dead_letters(kept.dead_letter_policy)
    if wanted.HasField("retry_policy"):
        _check_retries(kept.retry_policy)
    with refusing():
        AttributeFilter(wanted.filter)
    return kept


def rules_of(settings: Message) -> Rules:
    """Return what settings mean to a stream; a retention that was not asked for is for ever."""
    dead, retry = settings.dead_letter_policy, settings.retry_policy
    with_dead = settings.HasField("dead_letter_policy")
    with_retry = settings.HasField("retry_policy")
    return Rules(
        max_attempts=(dead.max_delivery_attempts or _ATTEMPTS) if with_dead else 0,
        dead_letter_topic=parse("topics", dead.dead_letter_topic).name if with_dead else "",
        ordered=settings.enable_message_ordering,
        minimum_backoff_s=_backoff(retry, "minimum_backoff", _LEAST_BACKOFF_S) if with_retry else 0,
        maximum_backoff_s=_backoff(retry, "maximum_backoff", _MOST_BACKOFF_S) if with_retry else 0,
        retention_s=_seconds(settings.message_retention_duration),
    )


def _check_kind(wanted: Message) -> None:
    if wanted.push_config.push_endpoint:
        raise unimplemented("push subscriptions")
    for field in ("bigquery_config", "cloud_storage_config"):
        if wanted.HasField(field):
            raise unimplemented(f"subscriptions with {field}")
    if wanted.message_transforms:
        raise unimplemented("message transforms")


def _check_dead_letters(policy: Message) -> None:
    parse("topics", policy.dead_letter_topic)
    policy.max_delivery_attempts = policy.max_delivery_attempts or _ATTEMPTS
    _within("max_delivery_attempts", policy.max_delivery_attempts, _LEAST_ATTEMPTS, _MOST_ATTEMPTS)


def _check_retries(policy: Message) -> None:
    shortest = _backoff(policy, "minimum_backoff", _LEAST_BACKOFF_S)
    longest = _backoff(policy, "maximum_backoff", _MOST_BACKOFF_S)
    _within("minimum_backoff", shortest, 0, longest)
    _within("maximum_backoff", longest, shortest, _MOST_BACKOFF_S)


def _backoff(policy: Message, field: str, default_s: float) -> float:
    return _seconds(getattr(policy, field)) if policy.HasField(field) else default_s


def _seconds(duration: Any) -> float:
    return float(duration.seconds + duration.nanos / 1e9)


def _within(name: str, value: float, least: float, most: float) -> None:
    if not least <= value <= most:
        raise invalid(f"{name} must be {least:g} to {most:g}, not {value:g}")
