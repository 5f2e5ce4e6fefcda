"""``pgb deadletters``: what could not be used, why, and another try."""

from collections.abc import Iterator
from typing import Any

import click

from broker.apps.cli._options import options, reading_settings_of
from broker.apps.cli._output import print_json
from broker.apps.cli.run import show, take_in
from broker.connectors.sources.generated import GeneratedSource
from broker.errors import UsageError
from broker.pipeline.ledger import utc_now
from broker.surveys import decode_batch
from broker.wiring import Broker


@click.group(name="deadletters")
def command() -> None:
    """List, show or retry the packets that could not be used."""


@command.command(name="list")
@options("survey", "home", "testid", "json")
def list_letters(as_json: bool, **flags: Any) -> None:
    """List the dead letters with the reason of each."""
    broker = Broker(reading_settings_of(**flags))
    retried = broker.ledger.retried()
    letters: list[dict[str, Any]] = [
        {"number": number, **attributes, "retried": int(attributes["digest"]) in retried}
        for number, (_, attributes) in enumerate(_letters(broker), start=1)
    ]
    if as_json:
        print_json(letters)
        return
    for letter in letters:
        again = "  (retried with success)" if letter["retried"] else ""
        size = f"{int(letter['bytes']):,} bytes"
        click.secho(f"{letter['number']}  {letter['place']}, {size}{again}", bold=True)
        click.echo(f"    {letter['error']}: {letter['reason']}")
    click.echo(f"{len(letters)} dead letters", err=True)


@command.command(name="show")
@click.argument("number", type=int)
@click.option("--output", type=click.File("wb"), help="Write the packet's bytes to a file.")
@options("survey", "home", "testid")
def show_letter(number: int, output: Any, **flags: Any) -> None:
    """Show everything known of dead letter NUMBER, or write its bytes to a file."""
    letters = list(_letters(Broker(reading_settings_of(**flags))))
    if not 1 <= number <= len(letters):
        raise UsageError(f"there is no dead letter {number}; there are {len(letters)}")
    payload, attributes = letters[number - 1]
    if output:
        output.write(payload)
    for name, value in attributes.items():
        click.echo(f"{name}: {value}")
    click.echo(f"first bytes: {payload[:32].hex(' ')}")


@command.command(name="retry")
@options("survey", "home", "testid", "worker", "json")
def retry(as_json: bool, **flags: Any) -> None:
    """Try the dead letters again, such as after an update that knows their schema.

    Those that can be read now go through the whole broker; the others stay as they are.
    """
    broker = Broker(reading_settings_of(**flags))
    retried = broker.ledger.retried()
    left = {int(a["digest"]): payload for payload, a in _letters(broker)}
    left = {digest: payload for digest, payload in left.items() if digest not in retried}
    _, errors = decode_batch(list(left.values()), broker.survey, resolver=broker.resolver)
    readable = {d: p for i, (d, p) in enumerate(left.items()) if i not in errors}
    report = take_in(broker, GeneratedSource(readable.values()), total=len(readable))
    broker.ledger.mark_retried(list(readable), utc_now())
    show(report, broker, [], as_json=as_json)
    if not as_json:
        click.echo(f"{len(readable)} could be read now, {len(errors)} still cannot")


def _letters(broker: Broker) -> Iterator[tuple[bytes, dict[str, str]]]:
    log = broker.stream.log(broker.instance.name("deadletters"))
    for key in list(log.keys()):
        if messages := log.read(key):
            yield from zip(messages.payloads, messages.attributes.to_dicts(), strict=True)
