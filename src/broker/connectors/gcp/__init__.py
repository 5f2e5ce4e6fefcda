"""What the connectors to Google Cloud share: places, cached clients, errors in plain words."""

from broker.connectors.gcp.clients import Cloud, cloud_of, project_of
from broker.connectors.gcp.errors import plain_words

__all__ = ["Cloud", "cloud_of", "plain_words", "project_of"]
