"""`autolink demo`: watch agents of two organisations meet."""

import re
from typing import Final

import anyio
import click
from rich.console import Console
from rich.text import Text

from autolink.cli.edge import Status
from autolink.cli.options import json_option
from autolink.cli.show import print_json
from autolink.demo import Outcome, run_demo
from autolink.errors import display

_MARK: Final = 8
"""Columns of a scene's mark, below which stands what was seen."""
_ID: Final = re.compile(r"\b([0-9a-f]{8})[0-9a-f]{56}\b")


@click.command()
@json_option
@click.pass_context
def demo(ctx: click.Context, *, as_json: bool) -> None:
    """Ten agents in processes of their own meet over loopback: three talk, six are turned away, and one is a registry.

    One of the three is revoked in the end: its link dies at both ends, and it is refused. `link_closed_ms` in --json is the
    time from submitting the revocation to the later end's word of that.
    """
    try:
        if as_json:
            outcome = anyio.run(run_demo, backend="trio")
        else:
            with Console(stderr=True).status("starting") as status:
                outcome = anyio.run(run_demo, lambda text: status.update(Text(display(text))), backend="trio")
    except (RuntimeError, TimeoutError) as error:
        raise click.ClickException(f"the demo broke off: {str(error) or 'it took too long'}") from None
    if as_json:
        print_json(outcome.as_json())
    else:
        _print(outcome)
    ctx.exit(Status.OK if outcome.ok else Status.FAILED)


def _print(outcome: Outcome) -> None:
    console = Console(markup=False, highlight=False)
    for scene in outcome.scenes:
        mark, style = ("ok", "green") if scene["ok"] else ("failed", "red")
        console.print(Text.assemble((mark.ljust(_MARK), style), (_brief(scene["what"]), "bold")))
        if scene["detail"]:
            for line in Text(_brief(scene["detail"])).wrap(console, console.width - _MARK):
                console.print(" " * _MARK + line.plain.rstrip())
    console.print(
        f"{outcome.tls.get('version')} with {outcome.tls.get('group')}; one round trip {outcome.round_trip_ms:.2f} ms; "
        f"{outcome.exchanged} messages sent by honest agents, {outcome.verified} verified; {outcome.processes} agents."
    )


def _brief(text: str) -> str:
    """For a line: ids and keys by their first digits, as `AutoId.short`; `--json` has them in full."""
    return display(_ID.sub(r"\1…", text))
