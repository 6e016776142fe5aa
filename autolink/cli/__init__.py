"""The `autolink` command."""

from autolink.cli.main import main as main
