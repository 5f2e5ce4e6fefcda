"""``pgb pubsub``: a home behind Google's Pub/Sub protocol."""

import signal
import threading
from pathlib import Path
from typing import Any

import click

from broker.apps.cli._options import options, settings_of
from broker.config import Secret
from broker.errors import ConfigError, UsageError
from broker.wiring import Broker

_WORKER = "pubsub"
_PORT = click.IntRange(0, 65535)


@click.group("pubsub")
def command() -> None:
    """Let Google's Pub/Sub client read and write the topics of a home."""


@command.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Where to listen.")
@click.option("--port", type=_PORT, metavar="PORT", default=8085, show_default=True,
              help="0 takes a free one.")  # fmt: skip
@click.option("--from-start", is_flag=True, help="New subscriptions get what is there already.")
@click.option("--token-file", metavar="FILE", help="Callers must send the token in this file.")
@click.option("--allow-anyone", is_flag=True, help="Listen on a network without a token.")
@click.option("--worker", default=_WORKER, show_default=True, help="Whose messages these are.")
@options("home")
def serve(
    host: str,
    port: int,
    from_start: bool,
    token_file: str | None,
    allow_anyone: bool,
    **flags: Any,
) -> None:
    """Serve the topics of a home under Google's Pub/Sub protocol, until Ctrl-C.

    gRPC and REST share the port. Topics that `pgb run` fills can be read, and what is
    published is kept like all else in the home. Names are those of the home; every project
    sees the same ones. In another terminal:

    \b
      export PUBSUB_EMULATOR_HOST=127.0.0.1:8085
      python -c "from google.cloud import pubsub_v1; \\
        print(*pubsub_v1.PublisherClient().list_topics(project='projects/any'))"
      curl http://127.0.0.1:8085/v1/projects/any/topics

    A new subscription gets what is published after it was made; with --from-start, or
    when it seeks back in time, it gets what was there before as well.
    """
    settings = settings_of(**flags)
    serving, address_of = _modules()
    address = address_of(host, port, _token(token_file or settings.pubsub_token_file), allow_anyone)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    with serving(Broker(settings), address, from_start=from_start) as place:
        click.echo(f"ready: Pub/Sub on {place} (gRPC and REST), home {settings.home_path}")
        click.echo(f"  export PUBSUB_EMULATOR_HOST={place}")
        stop.wait()
    click.echo("stopped; what was published is kept")


def _modules() -> tuple[Any, Any]:
    try:
        from broker.apps.pubsub.serving import Address, serving
    except ImportError as error:
        raise ConfigError(
            "pgb pubsub needs an extra: pip install 'pitt-google-broker[gcp]'"
        ) from error
    return serving, Address


def _token(file: str) -> Secret:
    if not file:
        return Secret()
    try:
        token = Path(file).expanduser().read_text().strip()
    except OSError as error:
        raise UsageError(f"token file {file} cannot be read: {error.strerror}") from error
    if not token:
        raise UsageError(f"token file {file} is empty")
    return Secret(token)
