"""Groups whose commands live elsewhere and are imported when one is wanted.

Each command brings parts of the library, the registry or the load tester, for which whoever types another one would wait.
"""

from collections.abc import Collection, Mapping
from importlib import import_module
from typing import Any, Final

import click
from click.exceptions import NoSuchCommand

_WHOLE: Final = 1000
"""Characters of a first sentence: more than any has."""


class Lazy(click.Group):
    """A group.

    Args:
        elsewhere: by the name of a command where it is, ``module:attribute``.
        apart: a heading in the help, and the commands below it.
    """

    def __init__(
        self,
        *args: Any,  # noqa: ANN401  click's own
        elsewhere: Mapping[str, str] | None = None,
        apart: tuple[str, Collection[str]] = ("", ()),
        **more: Any,  # noqa: ANN401  click's own
    ) -> None:
        super().__init__(*args, **more)
        self._elsewhere = elsewhere or {}
        self._apart = apart

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

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Each with its whole first sentence, where click cuts it off: half of one tells nobody what a command does."""
        heading, below = self._apart
        sections: dict[str, list[tuple[str, str]]] = {"Commands": [], heading: []}
        for name in self.list_commands(ctx):
            command = self.get_command(ctx, name)
            if command is not None:
                text = command.get_short_help_str(_WHOLE)
                sections[heading if name in below else "Commands"].append((name, text))
        for title, rows in sections.items():
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does it, which knows of no command that lives elsewhere when it looks for the nearest one."""
        try:
            return super().resolve_command(ctx, args)
        except NoSuchCommand as error:
            raise NoSuchCommand(error.command_name, possibilities=self.list_commands(ctx), ctx=ctx) from None
