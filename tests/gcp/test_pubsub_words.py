"""What goes wrong with Pub/Sub is one line that says what to do, soon, and exit code 2."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("google.cloud.pubsub_v1")

_NOBODY = {"PUBSUB_EMULATOR_HOST": "127.0.0.1:9"}
_BUS = {"PGB_BUS": "pubsub://proj-test"}


def pgb(home: Path, variables: dict[str, str], *arguments: str) -> tuple[int, str, float]:
    """Run a command without credentials; return its code, last line and duration in s."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    places = {"HOME": str(home), "PGB_HOME": str(home / "pgb"), "PGB_FETCH_MODELS": "never"}
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", "from broker.apps.cli import main; main()", *arguments],
        env={**kept, **places, "NO_GCE_CHECK": "true", **variables},
        capture_output=True,
        text=True,
        timeout=120,
    )
    line = (done.stderr.strip().splitlines() or [""])[-1]
    return done.returncode, line, time.monotonic() - started


@pytest.mark.slow
@pytest.mark.parametrize(
    ("variables", "arguments", "says"),
    [
        (_NOBODY, ("run", "pubsub://proj-test/sub"), "no emulator answers at 127.0.0.1:9"),
        (_NOBODY | _BUS, ("topics",), "no emulator answers at 127.0.0.1:9"),
        ({}, ("run", "pubsub://proj-test/sub"), "gcloud auth application-default login"),
        (_BUS, ("topics",), "gcloud auth application-default login"),
        ({}, ("run", "pubsub:///sub"), "GOOGLE_CLOUD_PROJECT"),
        ({}, ("run", "pubsub://Proj_X/sub"), "cannot be the id of a Google Cloud project"),
        ({}, ("run", "pubsub://proj-test"), "names no subscription"),
    ],
)
def test_words(
    tmp_path: Path, variables: dict[str, str], arguments: tuple[str, ...], says: str
) -> None:
    """The reason is in the last line, and nobody waits for minutes."""
    code, line, seconds = pgb(tmp_path, variables, *arguments)

    assert code == 2
    assert line.startswith("pgb: ")
    assert says in line
    assert seconds < 60


@pytest.mark.slow
def test_unknown_subscription(tmp_path: Path, our_address: str) -> None:
    """A subscription that is not there is named, and no home is made."""
    variables = {"PUBSUB_EMULATOR_HOST": our_address}
    code, line, _ = pgb(tmp_path, variables, "run", "pubsub://proj-test/nothing")

    assert (code, line) == (2, "pgb: there is no subscription 'nothing' in project proj-test")
    assert not (tmp_path / "pgb").exists()
