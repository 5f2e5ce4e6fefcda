"""How the pipeline waits for a service that does not answer."""

import logging
from threading import Event

from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    stop_after_delay,
    stop_when_event_set,
    wait_exponential_jitter,
)
from tenacity.nap import sleep_using_event

from broker.errors import TransientError

_LOG = logging.getLogger(__name__)

_MOST_WAIT_S = 30.0
"""Longest pause between two attempts."""


def patiently(patience_s: float, stopped: Event) -> Retrying:
    """Return what calls a function again while it raises `TransientError`.

    Parameters
    ----------
    patience_s : float
        For how long, in seconds; then the error is raised.
    stopped : threading.Event
        Ends the wait at once when set.
    """
    return Retrying(
        retry=retry_if_exception_type(TransientError),
        stop=stop_after_delay(patience_s) | stop_when_event_set(stopped),
        wait=wait_exponential_jitter(max=_MOST_WAIT_S),
        sleep=sleep_using_event(stopped),
        before_sleep=_say_once,
        reraise=True,
    )


def _say_once(state: RetryCallState) -> None:
    """Log the first failure; what follows is the same again."""
    if state.attempt_number == 1 and state.outcome is not None:
        _LOG.warning("waiting for a service: %s", state.outcome.exception())
