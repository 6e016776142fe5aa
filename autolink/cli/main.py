"""The command itself: global options, and the errors of every subcommand as one line."""

import click

from autolink.cli.demo import demo
from autolink.version import __version__


@click.group(context_settings={"auto_envvar_prefix": "AUTOLINK", "help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="autolink")
def main() -> None:
    """Agents that hold an Auto ID, prove it with mutual TLS, and exchange signed messages."""


main.add_command(demo)
