"""``pgb pull``: lease messages of a topic, print them, acknowledge them."""

import base64
from typing import Any

import click
import orjson

from broker.alerts.convert import clean, without_bytes
from broker.apps.cli._options import options, reading_settings_of
from broker.apps.cli._output import print_json
from broker.errors import PacketError, UsageError
from broker.ports import Delivery
from broker.surveys import open_alert
from broker.wiring import Broker


@click.command()
@click.argument("topic")
@click.option("--subscription", metavar="NAME", help="Made if absent (default: TOPIC-pull).")
@click.option("--max", "most", default=10, show_default=True, help="Most messages to print.")
@click.option("--filter", "attribute_filter", default="", metavar="EXPR", help="See below.")
@click.option("--deadline", default=60.0, show_default=True, help="Seconds until redelivery.")
@click.option("--no-ack", is_flag=True, help="Do not acknowledge: they will come again.")
@options("survey", "home", "testid", "bus", "json")
def command(
    topic: str,
    subscription: str | None,
    most: int,
    attribute_filter: str,
    deadline: float,
    no_ack: bool,
    as_json: bool,
    **flags: Any,
) -> None:
    """Print messages of TOPIC that this subscription has not yet acknowledged.

    TOPIC is a full name (ztf-alerts_pure) or its middle part (alerts_pure). A new
    subscription starts at the oldest message and may select by attributes:

    \b
      pgb pull alerts_pure --max 3
      pgb pull alerts --subscription mine --filter 'attributes.is_pure = "1"' --json
    """
    broker = Broker(reading_settings_of(**flags))
    topic = _topic(broker, topic)
    name = subscription or f"{topic}-pull"
    broker.bus.subscribe(topic, name, attribute_filter=attribute_filter, ack_deadline_s=deadline)
    deliveries = broker.bus.pull(name, most)
    for delivery in deliveries:
        if as_json:
            print_json(_as_json(delivery, broker))
        else:
            _show(delivery)
    if deliveries and not no_ack:
        broker.bus.acknowledge(name, [delivery.ack_id for delivery in deliveries])
    if not deliveries:
        click.echo(f"no messages left for {name}", err=True)


def _topic(broker: Broker, text: str) -> str:
    names = [topic.name for topic in broker.bus.topics()]
    for candidate in (text, broker.instance.name(text)):
        if candidate in names:
            return candidate
    raise UsageError(f"there is no topic {text!r}; there are: {', '.join(names) or 'none yet'}")


def _as_json(delivery: Delivery, broker: Broker) -> dict[str, Any]:
    return {
        "message_id": delivery.message_id,
        "published": delivery.published.isoformat(),
        "attempt": delivery.attempt,
        "attributes": dict(delivery.attributes),
        "payload": _readable(delivery.payload, broker),
    }


def _readable(payload: bytes, broker: Broker) -> Any:
    """Return JSON as it is, an alert without its cutouts, anything else in base64."""
    if not payload:
        return None
    try:
        return orjson.loads(payload)
    except orjson.JSONDecodeError:
        pass
    try:
        alert = open_alert(payload, survey=broker.survey.name, resolver=broker.resolver)
        return clean(without_bytes(alert.packet))
    except PacketError:
        return base64.b64encode(payload).decode()


def _show(delivery: Delivery) -> None:
    again = f", attempt {delivery.attempt}" if delivery.attempt > 1 else ""
    click.secho(f"{delivery.message_id}  {len(delivery.payload):,} bytes{again}", bold=True)
    for name, value in delivery.attributes.items():
        click.echo(f"    {name} = {value}")
