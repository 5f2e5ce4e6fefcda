"""Google's subscriber client, made to outlive an absence of the service."""

from typing import Any

from google.api_core import exceptions as api
from google.api_core.retry import Retry, if_exception_type
from google.cloud.pubsub_v1 import SubscriberClient

# Google's own gives up after 60 s; its thread that extends leases ends for good by that.
_ALWAYS = Retry(
    if_exception_type(
        api.ServiceUnavailable,
        api.DeadlineExceeded,
        api.InternalServerError,
        api.ResourceExhausted,
        api.Aborted,
        api.Unknown,
    ),
    initial=0.1,
    maximum=5.0,
    timeout=24 * 3600,
)


class PatientSubscriber(SubscriberClient):  # type: ignore[misc]
    """Extend leases again when a service comes back after a long time."""

    def modify_ack_deadline(self, *args: Any, **more: Any) -> None:
        """Change deadlines, asking again for as long as it takes."""
        super().modify_ack_deadline(*args, **{"retry": _ALWAYS, "timeout": 10.0, **more})
