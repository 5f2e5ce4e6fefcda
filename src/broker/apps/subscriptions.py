"""The subscriptions that every instance has of its own: its reservoir and its counters."""

from collections.abc import Sequence

from broker.apps.cloud.registry import Context, registry
from broker.errors import NotFoundError
from broker.instance import Instance
from broker.ports import Stream
from broker.science.filters import FILTERS, Filter


def make_subscriptions(
    stream: Stream, instance: Instance, filters: Sequence[Filter] = tuple(FILTERS.values())
) -> list[str]:
    """Make an instance's own subscriptions on the topics that it has.

    Parameters
    ----------
    stream : Stream
        Where the topics are.
    instance : Instance
        Whose.
    filters : sequence of Filter
        Whose topics are counted, too.

    Returns
    -------
    list of str
        Names of the subscriptions that are there now.
    """
    there = {topic.name for topic in stream.topics()}
    by_topic = {chosen.topic: chosen for chosen in filters}
    made = []
    for resource in registry(Context(instance), list(by_topic.values())):
        settings = resource.settings
        if resource.kind != "subscription" or settings["topic"] not in there:
            continue
        try:
            stream.subscribe(
                settings["topic"], resource.name, ack_deadline_s=settings["ack_deadline_s"]
            )
        except NotFoundError:  # deleted meanwhile
            continue
        made.append(resource.name)
    return made
