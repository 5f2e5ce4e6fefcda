"""``pgb warmup``: compile the fast kernels ahead."""

import time
from datetime import UTC, datetime

import click

from broker.surveys import SURVEYS, decode_batch


@click.command()
def command() -> None:
    """Compile the decoder's kernel once, so that the first run does not wait for it.

    Compiled code is cached on disk; a second call takes a moment.
    """
    started = time.perf_counter()
    for survey in SURVEYS.values():
        if survey.generate is not None:
            packets = list(survey.generate(2, 1, datetime.now(UTC).date()))
            decode_batch(packets, survey)
    click.echo(f"ready after {time.perf_counter() - started:.1f} s")
