"""The `autolink` command."""

from autolink.cli.main import main

__all__ = [
    "main",
]  # fmt: skip
