"""The subscriptions that every instance has of its own: its reservoir and its counters."""

from broker.errors import NotFoundError
from broker.instance import Instance
from broker.ports import Stream


def make_subscriptions(stream: Stream, instance: Instance) -> list[str]:
    """Make an instance's reservoir and ``*-counter`` subscriptions on the topics that it has.

    Returns
    -------
    list of str
        Names of the subscriptions that are there now.
    """
    alerts = instance.name("alerts")
    found = [topic.name for topic in stream.topics() if _belongs(topic.name, instance)]
    made = []
    for topic in found:
        roles = ("counter", "reservoir") if topic == alerts else ("counter",)
        stub = topic.removeprefix(f"{instance.survey}-")
        if instance.testid:
            stub = stub.removesuffix(f"-{instance.testid}")
        for role in roles:
            made.append(instance.subscription(stub, role))
            try:
                stream.subscribe(topic, made[-1])
            except NotFoundError:  # deleted meanwhile
                made.pop()
    return made


def _belongs(topic: str, instance: Instance) -> bool:
    """Tell whether a topic is one of an instance's own."""
    head, *parts = topic.split("-")
    last = parts[1] if len(parts) == 2 else None
    return head == instance.survey and 1 <= len(parts) <= 2 and last == instance.testid
