"""A BigQuery on this machine for tests: local-bigquery, in an environment of its own.

It needs Python 3.13. Make the environment once with ``python tests/gcp/bigquery_emulator.py
fetch``; start one by hand with ``python tests/gcp/bigquery_emulator.py start``.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import platformdirs

VERSION = "0.4.0"
# It wants a newer DuckDB, for which its extensions are not published as packages.
_DUCKDB = "1.5.5"
_EXTENSIONS = ("ducklake", "icu", "httpfs", "sqlite", "spatial", "avro")
_START_S = 120.0
_MAIN = Path(__file__).with_name("bigquery_mended.py")
_READ_NEEDS = """
import json, importlib.metadata as m
print(json.dumps([it for it in m.requires("local-bigquery") if "duckdb" not in it]))
"""
_COPY_EXTENSIONS = f"""
from duckdb_extensions import import_extension
for name in {_EXTENSIONS!r}:
    import_extension(name)
"""


@dataclass(frozen=True)
class Emulator:
    """Where an emulator listens, and its process."""

    url: str
    grpc: str
    process: "subprocess.Popen[bytes]"

    def kill(self) -> None:
        """End the process at once."""
        self.process.kill()
        self.process.wait(30)


def environment() -> Path:
    """Return the folder of the environment with the emulator and DuckDB's extensions."""
    named = os.environ.get("PGB_TEST_BIGQUERY_VENV")
    cache = Path(platformdirs.user_cache_dir("pgb"))
    return Path(named) if named else cache / f"local-bigquery-{VERSION}"


def what_is_missing() -> str:
    """Say why no emulator can be started here; empty if one can."""
    if (environment() / "complete").is_file():
        return ""
    return "no local-bigquery here: run python tests/gcp/bigquery_emulator.py fetch"


def fetch() -> None:
    """Make the environment, as pip is set up on this machine.

    Raises
    ------
    RuntimeError
        If there is no Python 3.13.
    """
    if not what_is_missing():
        return
    folder = environment()
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([_python313(), "-m", "venv", str(folder)], check=True)
    _pip("--no-deps", f"local-bigquery=={VERSION}")
    (folder / "home").mkdir()
    needs = subprocess.run([_python(), "-c", _READ_NEEDS], check=True, stdout=subprocess.PIPE)
    wheels = ("s", *(f"-{name}" for name in _EXTENSIONS))
    extensions = [f"duckdb-extension{it}=={_DUCKDB}" for it in wheels]
    _pip(*json.loads(needs.stdout), f"duckdb=={_DUCKDB}", *extensions)
    subprocess.run([_python(), "-c", _COPY_EXTENSIONS], check=True, env=_variables())
    (folder / "complete").touch()


@contextmanager
def running(folder: Path, storage_emulator: str = "") -> Iterator[Emulator]:
    """Run an emulator on loopback; it ends with the block.

    Parameters
    ----------
    folder : Path
        Where its data are kept; a later one with the same folder finds them.
    storage_emulator : str
        URL of an emulator of Cloud Storage, for loads from ``gs://``.
    """
    ports = _free_ports(2)
    options = ["--host", "127.0.0.1", "--port", str(ports[0]), "--grpc-port", str(ports[1])]
    command = [_python(), str(_MAIN), *options, "--data-dir", str(folder), "serve"]
    variables = _variables()
    if storage_emulator:
        variables["STORAGE_EMULATOR_HOST"] = storage_emulator
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, env=variables, start_new_session=True
        )
        emulator = Emulator(f"http://127.0.0.1:{ports[0]}", f"127.0.0.1:{ports[1]}", process)
        try:
            _wait(emulator, log)
            yield emulator
        finally:
            emulator.kill()


def _python() -> str:
    return str(environment() / "bin" / "python")


def _python313() -> str:
    """Return a Python 3.13: the one on the path, or one of pyenv's."""
    versions = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found = [*sorted(versions.glob("3.13.*/bin/python")), shutil.which("python3.13")]
    for each in found:
        if each and subprocess.run([str(each), "-c", ""], capture_output=True).returncode == 0:
            return str(each)
    raise RuntimeError("local-bigquery needs Python 3.13, which is not here")


def _pip(*packages: str) -> None:
    options = ["-q", "--no-warn-conflicts"]
    subprocess.run([_python(), "-m", "pip", "install", *options, *packages], check=True)


def _variables() -> dict[str, str]:
    """Return the variables of a process whose DuckDB keeps its extensions in the cache."""
    return {**os.environ, "HOME": str(environment() / "home")}


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def _wait(emulator: Emulator, log: IO[bytes]) -> None:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline and emulator.process.poll() is None:
        try:
            urllib.request.urlopen(f"{emulator.url}/bigquery/v2/projects", timeout=30).close()
            return
        except urllib.error.HTTPError as error:
            raise RuntimeError(f"local-bigquery is not well: {error.read().decode()}") from error
        except OSError:
            time.sleep(0.1)
    log.seek(0)
    raise RuntimeError(f"local-bigquery did not start: {log.read().decode()[-2000:]}")


def main() -> None:
    """Fetch the emulator, or run one until Ctrl-C."""
    if sys.argv[1:] == ["fetch"]:
        fetch()
        print(what_is_missing() or f"local-bigquery {VERSION} is in {environment()}")
        return
    if reason := what_is_missing():
        sys.exit(reason)
    with tempfile.TemporaryDirectory(prefix="pgb-bigquery-") as folder:
        try:
            with running(Path(folder)) as emulator:
                print(f"export BIGQUERY_EMULATOR_HOST={emulator.url}  # gRPC {emulator.grpc}")
                sys.stdout.flush()
                signal.pause()
        except KeyboardInterrupt:
            print("stopped")


if __name__ == "__main__":
    main()
