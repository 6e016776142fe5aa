"""The command itself: what is global, and where the subcommands hang."""

import logging
import sys
from typing import Final

import click

from autolink.cli.edge import Edge
from autolink.cli.logs import StderrLog
from autolink.cli.options import option
from autolink.identity import environment_passphrase
from autolink.version import __version__

_COMMANDS: Final = {
    "id": "autolink.cli.identity:identity",
    "run": "autolink.cli.run:run",
    "call": "autolink.cli.talk:call",
    "ping": "autolink.cli.talk:ping",
    "registry": "autolink.cli.registry:registry",
    "bench": "autolink.cli.bench:bench",
    "verify": "autolink.cli.verify:verify",
    "demo": "autolink.cli.demo:demo",
}


@click.group(
    cls=Edge,
    elsewhere=_COMMANDS,
    context_settings={"auto_envvar_prefix": "AUTOLINK", "help_option_names": ["-h", "--help"]},
    epilog="Identities are kept in the platform's place for a user's data, or in $AUTOLINK_HOME. Exit status: 0 it "
    "went as it should, 1 failed or not on record, 2 wrong command line, 3 refused, 4 the far handler answered with an "
    "error, 5 nobody reached or out of time, 130 interrupted.",
)
@click.version_option(__version__, prog_name="autolink")
@option("-v", "--verbose", count=True, show_default=False, help="More on stderr; -vv for everything.")
@click.pass_context
def main(ctx: click.Context, *, verbose: int) -> None:
    """Agents that hold an Auto ID, prove it with mutual TLS, and exchange signed messages."""
    environment_passphrase()  # out of the environment, before anything of the user's runs
    _log_to_stderr(ctx, (logging.WARNING, logging.INFO, logging.DEBUG)[min(verbose, 2)])
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a terminal that cannot show a letter gets its code, not an error
            stream.reconfigure(errors="backslashreplace")


def _log_to_stderr(ctx: click.Context, level: int) -> None:
    root, handler = logging.getLogger(), StderrLog()
    before = root.level
    root.addHandler(handler)
    root.setLevel(level)

    @ctx.call_on_close
    def restore() -> None:
        root.removeHandler(handler)
        root.setLevel(before)
