"""The command ``pgb``: one module a command, found by walking this package."""

import os
import sys
from importlib import import_module
from pkgutil import iter_modules

import click

from broker import __version__
from broker.apps.cli._kernels import let_kernels_be_kept, usual_places
from broker.errors import BrokerError

_ORDER = ("demo", "run", "query", "alert", "explain", "topics", "pull", "deadletters", "ledger")
_EXIT_ERROR, _EXIT_INTERRUPTED = 2, 130


class Commands(click.Group):
    """Commands that are imported when first used."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """List the main ones in the order in which a newcomer meets them, then the rest."""
        found = (m.name for m in iter_modules(__path__) if not m.name.startswith("_"))
        names = [name.replace("_", "-") for name in found]
        return sorted(names, key=lambda n: (_ORDER.index(n) if n in _ORDER else len(_ORDER), n))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command."""
        if cmd_name not in self.list_commands(ctx):
            return None
        command = import_module(f"{__name__}.{cmd_name.replace('-', '_')}").command
        assert isinstance(command, click.Command)  # noqa: S101 - a slip of the programmer
        return command


@click.command(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="pgb")
def cli() -> None:
    """Take in the alerts of a sky survey, keep, filter and publish them.

    \b
    First steps:
      pgb demo                      a night of made-up alerts through the whole broker
      pgb run FOLDER --survey ztf   real packets from files
      pgb query "SELECT …"          what was stored, in SQL
    """


def main() -> None:
    """Run the command line; every expected error is one line and exit code 2."""
    # Steps over a batch are too short to be shared among threads: that costs a tenth more.
    os.environ.setdefault("POLARS_MAX_THREADS", "1")
    let_kernels_be_kept(os.environ, usual_places())
    try:
        sys.exit(cli.main(standalone_mode=False) or 0)
    except click.exceptions.Abort:
        _fail("stopped", _EXIT_INTERRUPTED)
    except click.ClickException as error:
        error.show()
        sys.exit(_EXIT_ERROR)
    except BrokerError as error:
        _fail(str(error), _EXIT_ERROR)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)
    except OSError as error:
        if error.filename is None:
            raise
        _fail(f"{error.filename}: {error.strerror}", _EXIT_ERROR)
    except KeyboardInterrupt:
        _fail("stopped; what was received is kept, run the same again to go on", _EXIT_INTERRUPTED)


def _fail(words: str, code: int) -> None:
    click.secho(f"pgb: {words}", fg="red", err=True)
    sys.exit(code)
