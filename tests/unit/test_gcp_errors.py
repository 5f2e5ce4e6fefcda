"""Google's errors are told in words that say what to do."""

import re

import pytest

from broker.errors import (
    BrokerError,
    ConfigError,
    ForbiddenError,
    NotFoundError,
    RefusedError,
    TransientError,
)

api = pytest.importorskip("google.api_core.exceptions")
auth = pytest.importorskip("google.auth.exceptions")
requests = pytest.importorskip("requests")
errors = pytest.importorskip("broker.connectors.gcp.errors")

_QUOTA = [{"reason": "quotaExceeded", "message": "too much"}]


@pytest.mark.parametrize(
    ("error", "kind", "says"),
    [
        (auth.DefaultCredentialsError("none"), ConfigError, "gcloud auth application-default"),
        (auth.RefreshError("expired"), ConfigError, "GOOGLE_APPLICATION_CREDENTIALS"),
        (api.Unauthenticated("no"), ConfigError, "not accepted"),
        (api.ServiceUnavailable("down"), TransientError, "does not answer"),
        (requests.ConnectionError("refused"), TransientError, "does not answer"),
        (api.RetryError("30 s", requests.ConnectionError("refused")), TransientError, "refused"),
        (api.ResourceExhausted("slow down"), TransientError, "quota"),
        (api.Forbidden("limit", errors=_QUOTA), TransientError, "quota"),
        (
            api.PermissionDenied("Cloud Pub/Sub API has not been used in project 1 before"),
            ForbiddenError,
            "gcloud services enable pubsub.googleapis.com --project proj-1",
        ),
        (api.PermissionDenied("User not authorized"), ForbiddenError, "lacks a role"),
        (api.NotFound("Requested project not found"), NotFoundError, "no Google Cloud project"),
        (api.NotFound("Resource not found (resource=t)"), NotFoundError, "(resource=t)"),
        (api.InternalServerError("oops"), TransientError, "oops"),
        (api.InvalidArgument("bad name"), RefusedError, "bad name"),
    ],
)
def test_says_what_to_do(error: Exception, kind: type[BrokerError], says: str) -> None:
    """Each kind of failure has its class and its words."""
    with pytest.raises(kind, match=re.escape(says)), errors.plain_words("Pub/Sub", "proj-1"):
        raise error


def test_names_an_emulator_that_is_not_running() -> None:
    """An address that does not answer is named."""
    words = re.escape("no emulator answers at 127.0.0.1:1")
    there = errors.plain_words("Pub/Sub", "proj-1", "127.0.0.1:1")
    with pytest.raises(TransientError, match=words), there:
        raise api.ServiceUnavailable("refused")


def test_leaves_other_errors_alone() -> None:
    """What is not Google's passes as it is."""
    with pytest.raises(ValueError, match="mine"), errors.plain_words("Pub/Sub"):
        raise ValueError("mine")
