"""One set of Google's clients a project, made when first used and kept."""

import re
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any
from urllib.parse import urlsplit

from broker.config import Settings
from broker.connectors.gcp.errors import plain_words
from broker.errors import ConfigError

_PROJECT = re.compile(r"[a-z][a-z0-9-]{4,28}[a-z0-9]\Z")
_CHANNEL_OPTIONS = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    # An emulator that comes back is found again within seconds, not minutes.
    ("grpc.max_reconnect_backoff_ms", 2000),
]

# An emulator is there or it is not; a service is given time to get over a bad minute.
_STORE_RETRY_S, _EMULATOR_RETRY_S = 30.0, 2.0


@dataclass(frozen=True)
class Cloud:
    """A Google Cloud project as seen from here: the real one, or emulators.

    Parameters
    ----------
    project : str
        Project id.
    region : str
        Where new buckets, datasets and jobs are made.
    pubsub, storage, bigquery, bigquery_storage : str
        Addresses of emulators, empty for the real services: ``host:port`` (Pub/Sub, BigQuery
        storage) or a URL (Cloud Storage, BigQuery).
    """

    project: str
    region: str = "us-central1"
    pubsub: str = ""
    storage: str = ""
    bigquery: str = ""
    bigquery_storage: str = ""

    @cached_property
    def publisher(self) -> Any:
        """Return ``pubsub_v1.PublisherClient`` (message batching is left to the caller)."""
        from google.cloud.pubsub_v1 import PublisherClient
        from google.pubsub_v1.services.publisher.transports import PublisherGrpcTransport

        return self._pubsub_client(PublisherClient, PublisherGrpcTransport)

    def publish(self, request: Any, **more: Any) -> Any:
        """Send one ``PublishRequest`` and wait; it is taken whole or not at all."""
        from google.pubsub_v1 import PublisherClient

        return PublisherClient.publish(self.publisher, request=request, **more)

    @cached_property
    def subscriber(self) -> Any:
        """Return ``pubsub_v1.SubscriberClient``; an emulator's answers may be of any size."""
        from google.pubsub_v1.services.subscriber.transports import SubscriberGrpcTransport

        from broker.connectors.gcp.subscriber import PatientSubscriber

        return self._pubsub_client(PatientSubscriber, SubscriberGrpcTransport)

    @cached_property
    def schemas(self) -> Any:
        """Return ``SchemaServiceClient``."""
        from google.pubsub_v1 import SchemaServiceClient
        from google.pubsub_v1.services.schema_service.transports import SchemaServiceGrpcTransport

        return self._pubsub_client(SchemaServiceClient, SchemaServiceGrpcTransport)

    def _pubsub_client(self, kind: Any, transport: Any) -> Any:
        import grpc

        with plain_words("Pub/Sub", self.project, self.pubsub):
            if not self.pubsub:
                return kind()
            channel = grpc.insecure_channel(self.pubsub, options=_CHANNEL_OPTIONS)
            return kind(transport=transport(channel=channel))

    @cached_property
    def store(self) -> Any:
        """Return ``storage.Client``."""
        from google.auth.credentials import AnonymousCredentials
        from google.cloud import storage

        with plain_words("Cloud Storage", self.project, self.storage):
            if not self.storage:
                return storage.Client(project=self.project)
            return storage.Client(
                project=self.project,
                credentials=AnonymousCredentials(),
                client_options={"api_endpoint": self.storage},
            )

    @cached_property
    def store_retry(self) -> Any:
        """Return how long a request to Cloud Storage is repeated."""
        from google.cloud.storage.retry import DEFAULT_RETRY

        seconds = _EMULATOR_RETRY_S if self.storage else _STORE_RETRY_S
        return DEFAULT_RETRY.with_timeout(seconds).with_delay(0.2, 5.0, 2.0)

    @cached_property
    def warehouse(self) -> Any:
        """Return ``bigquery.Client``."""
        from google.auth.credentials import AnonymousCredentials
        from google.cloud import bigquery

        with plain_words("BigQuery", self.project, self.bigquery):
            if not self.bigquery:
                return bigquery.Client(project=self.project, location=self.region)
            return bigquery.Client(
                project=self.project,
                credentials=AnonymousCredentials(),
                client_options={"api_endpoint": self.bigquery},
            )


def cloud_of(settings: Settings, project: str = "") -> Cloud:
    """Return the cloud of a project, by default the one that the settings name.

    Raises
    ------
    ConfigError
        If no project is named, or the name cannot be one.
    """
    project = project or settings.project
    if not project:
        raise ConfigError(
            "no Google Cloud project is named: set GOOGLE_CLOUD_PROJECT or the setting 'project'"
        )
    if not _PROJECT.match(project):
        raise ConfigError(
            f"{project!r} cannot be the id of a Google Cloud project: 6 to 30 lower-case letters,"
            " digits and hyphens, starting with a letter"
        )
    return _cloud(
        project,
        settings.region,
        settings.pubsub_emulator,
        settings.storage_emulator,
        settings.bigquery_emulator,
        settings.bigquery_storage_emulator,
    )


@lru_cache(maxsize=16)
def _cloud(*parts: str) -> Cloud:
    return Cloud(*parts)


def project_of(url: str, settings: Settings) -> tuple[Cloud, str]:
    """Split ``scheme://[project][/rest]`` into its cloud and the rest.

    Raises
    ------
    ConfigError
        If no project is named, in the place or in the settings.
    """
    parts = urlsplit(url)
    return cloud_of(settings, parts.netloc), parts.path.strip("/")
