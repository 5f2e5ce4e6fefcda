"""From settings to what is set up, and where."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from broker.apps.cloud.columns import empty_tables
from broker.apps.cloud.home import HomeTarget
from broker.apps.cloud.plan import Target
from broker.apps.cloud.registry import Context, Resource, registry
from broker.config import Settings
from broker.connectors.gcp import cloud_of
from broker.errors import ConfigError
from broker.wiring import Broker


@dataclass(frozen=True, slots=True)
class Opened:
    """An instance, what it is made of, and where.

    Parameters
    ----------
    settings : Settings
        With places that are those of the target.
    context : Context
        Whose names.
    resources : sequence of Resource
        What it is made of.
    target : Target
        Where.
    """

    settings: Settings
    context: Context
    resources: Sequence[Resource]
    target: Target


def open_instance(
    settings: Settings, *, in_cloud: bool, image: str = "", commands: Sequence[str] = ()
) -> Opened:
    """List what an instance is made of, and reach for where it is.

    Parameters
    ----------
    settings : Settings
        Instance, project and region, home.
    in_cloud : bool
        Whether the place is a Google Cloud project and not a home.
    image : str
        Container image of machines and services.
    commands : sequence of str
        The commands of this ``pgb``.

    Raises
    ------
    ConfigError
        If no project is named, or the extra ``gcp`` is not installed.
    """
    broker = Broker(settings)
    if not in_cloud:
        context = Context(broker.instance)
        home = HomeTarget(broker.home, broker.instance)
        return Opened(settings, context, registry(context, broker.filters), home)
    cloud = cloud_of(settings)
    context = Context(broker.instance, cloud.project, cloud.region, image)
    resources = registry(context, broker.filters)
    try:
        from broker.apps.cloud.google import GoogleTarget
    except ImportError as error:
        raise ConfigError(
            "Google Cloud needs an extra: pip install 'pitt-google-broker[gcp]'"
        ) from error
    columns = empty_tables(broker.survey, broker.filters)
    target = GoogleTarget(cloud, context, resources, columns, commands)
    return Opened(_in_project(settings, cloud.project), context, resources, target)


def _in_project(settings: Settings, project: str) -> Settings:
    """Let every place be the project that has no place of its own yet."""
    return replace(
        settings,
        project=project,
        bus=settings.bus or f"pubsub://{project}",
        files=settings.files or f"gs://{project}",
        tables=settings.tables or f"bigquery://{project}",
    )
