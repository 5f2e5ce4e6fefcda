"""``pgb topics``: what is published, and who has how much left to read."""

from typing import Any

import click

from broker.apps.cli._options import options, settings_of
from broker.apps.cli._output import print_json, print_table
from broker.wiring import Broker


@click.command()
@options("home", "bus", "json")
def command(as_json: bool, **flags: Any) -> None:
    """List the topics with their messages, and each subscription's backlog."""
    topics = Broker(settings_of(**flags)).bus.topics()
    if as_json:
        print_json(
            [{"topic": t.name, "messages": t.messages, "backlog": dict(t.backlog)} for t in topics]
        )
        return
    rows = [
        (
            topic.name,
            _told(topic.messages),
            ", ".join(f"{name}: {_told(left)}" for name, left in topic.backlog.items()),
        )
        for topic in topics
    ]
    print_table("", ("topic", "messages", "backlog of subscriptions"), rows)


def _told(count: int) -> str:
    return f"{count:,}" if count >= 0 else "not told"
