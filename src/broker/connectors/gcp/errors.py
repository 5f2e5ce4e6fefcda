"""Google's errors as ours, in words that say what to do."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from broker.errors import (
    BrokerError,
    ConfigError,
    ForbiddenError,
    NotFoundError,
    RefusedError,
    TransientError,
)

_APIS = {
    "Pub/Sub": "pubsub.googleapis.com",
    "Cloud Storage": "storage.googleapis.com",
    "BigQuery": "bigquery.googleapis.com",
    "Compute Engine": "compute.googleapis.com",
    "Cloud Run": "run.googleapis.com",
    "Cloud Scheduler": "cloudscheduler.googleapis.com",
    "Cloud Monitoring": "monitoring.googleapis.com",
}

_NO_CREDENTIALS = (
    "no Google Cloud credentials: run 'gcloud auth application-default login', or set"
    " GOOGLE_APPLICATION_CREDENTIALS to the key file of a service account"
)


@contextmanager
def plain_words(service: str, project: str = "", emulator: str = "") -> Iterator[None]:
    """Translate what Google's clients raise within.

    Parameters
    ----------
    service : str
        ``Pub/Sub``, ``Cloud Storage``, ``BigQuery`` or another name of a service.
    project : str
        The project that was asked.
    emulator : str
        Address of the emulator in the service's stead; empty for the real one.

    Raises
    ------
    ConfigError
        Without credentials.
    NotFoundError, ForbiddenError, RefusedError
        If the service says no: what is wrong and what to do.
    TransientError
        If it may answer later: quota, time, an emulator that is not running.
    """
    try:
        yield
    except BrokerError:
        raise
    except Exception as error:
        ours = translate(error, service, project, emulator)
        if ours is None:
            raise
        raise ours from error


def translate(
    error: Exception, service: str, project: str = "", emulator: str = ""
) -> BrokerError | None:
    """Return our error for one of Google's; None if it is none of theirs."""
    import requests
    from google.api_core import exceptions as api
    from google.auth import exceptions as auth

    where = f"{service} of project {project}" if project else service
    known = api.GoogleAPICallError | requests.ConnectionError
    if isinstance(error, api.RetryError) and isinstance(error.cause, known):
        error = error.cause
    words = _words(error)
    if isinstance(error, auth.DefaultCredentialsError | auth.RefreshError):
        return ConfigError(f"{where}: {_NO_CREDENTIALS} ({words})")
    if isinstance(error, api.Unauthenticated):
        return ConfigError(f"{where}: the credentials were not accepted; {_NO_CREDENTIALS}")
    away = api.ServiceUnavailable | requests.ConnectionError | auth.TransportError | api.RetryError
    if isinstance(error, away | TimeoutError):
        return _away(where, emulator, words)
    if isinstance(error, api.ResourceExhausted | api.TooManyRequests) or _is_quota(error):
        return TransientError(
            f"{where}: a quota is used up ({words}): wait, or ask for more on the console's"
            " quota page"
        )
    if isinstance(error, api.Forbidden):
        return ForbiddenError(_forbidden(error, service, project, where, words))
    if isinstance(error, api.NotFound):
        return NotFoundError(_not_found(project, where, words))
    if isinstance(error, api.ServerError | api.Aborted | api.DeadlineExceeded):
        return TransientError(f"{where}: {words}")
    if isinstance(error, api.GoogleAPICallError):
        return RefusedError(f"{where}: {words}")
    return None


def _words(error: Any) -> str:
    """Return the service's own words, on one line."""
    text = str(getattr(error, "message", "") or error)
    return " ".join(text.split())[:500]


def _away(where: str, emulator: str, words: str) -> TransientError:
    if emulator:
        return TransientError(
            f"{where}: no emulator answers at {emulator}: start it, or unset its *_EMULATOR_HOST"
            " variable to reach the real service"
        )
    return TransientError(f"{where} does not answer: {words}")


def _is_quota(error: Any) -> bool:
    reasons = {str(each.get("reason")) for each in getattr(error, "errors", ()) if _is_dict(each)}
    return bool(reasons & {"quotaExceeded", "rateLimitExceeded", "userRateLimitExceeded"})


def _is_dict(each: object) -> bool:
    return isinstance(each, dict)


def _forbidden(error: Any, service: str, project: str, where: str, words: str) -> str:
    disabled = getattr(error, "reason", None) == "SERVICE_DISABLED" or (
        "has not been used in project" in words or "it is disabled" in words
    )
    if disabled:
        api = _APIS.get(service, "the API")
        return f"{where}: the API is disabled: gcloud services enable {api} --project {project}"
    if "project" in words.lower() and "not found" in words.lower():
        return _not_found(project, where, words)
    return (
        f"{where}: permission denied ({words}): the account that is used lacks a role; the page"
        " 'Run it on Google Cloud' lists those that are needed"
    )


def _not_found(project: str, where: str, words: str) -> str:
    text = words.lower()
    if "project" in text and ("not found" in text or "deleted" in text) and "resource" not in text:
        return f"there is no Google Cloud project {project!r}, or this account cannot see it"
    return f"{where}: {words}"
