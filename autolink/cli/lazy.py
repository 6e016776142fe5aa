"""Groups whose commands live elsewhere and are imported when one is wanted.

Each command brings parts of the library, the registry or the load tester, for which whoever types another one would wait.
"""

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import click
from click.exceptions import NoSuchCommand


class Lazy(click.Group):
    """A group.

    Args:
        elsewhere: by the name of a command where it is, ``module:attribute``.
    """

    def __init__(self, *args: Any, elsewhere: Mapping[str, str] | None = None, **more: Any) -> None:  # noqa: ANN401
        super().__init__(*args, **more)
        self._elsewhere = elsewhere or {}

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All of them, for the help."""
        return sorted([*super().list_commands(ctx), *self._elsewhere])

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """The one of this name, imported."""
        if name not in self._elsewhere:
            return super().get_command(ctx, name)
        module, _, attribute = self._elsewhere[name].partition(":")
        command: click.Command = getattr(import_module(module), attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does it, which knows of no command that lives elsewhere when it looks for the nearest one."""
        try:
            return super().resolve_command(ctx, args)
        except NoSuchCommand as error:
            raise NoSuchCommand(error.command_name, possibilities=self.list_commands(ctx), ctx=ctx) from None
