"""`autolink demo`: watch agents of two organisations meet."""

import json
import sys

import anyio
import click
from rich.console import Console
from rich.table import Table

from autolink.demo import Outcome, run_demo


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a table.")
def demo(*, as_json: bool) -> None:
    """Nine agents in processes of their own meet over loopback: three talk, six are turned away."""
    console = Console(stderr=True)
    try:
        if as_json:
            outcome = anyio.run(run_demo, backend="trio")
        else:
            with console.status("starting") as status:
                outcome = anyio.run(run_demo, status.update, backend="trio")
    except (RuntimeError, TimeoutError) as error:
        raise click.ClickException(f"the demo broke off: {error or 'it took too long'}") from None
    if as_json:
        click.echo(json.dumps(outcome.as_json(), indent=2))
    else:
        _print(outcome)
    sys.exit(0 if outcome.ok else 1)


def _print(outcome: Outcome) -> None:
    table = Table(title="autolink demo", title_justify="left", show_lines=False)
    table.add_column("scene", no_wrap=True)
    table.add_column("what was seen", overflow="fold")
    table.add_column("", no_wrap=True)
    for scene in outcome.scenes:
        table.add_row(scene["what"], scene["detail"], "[green]ok[/]" if scene["ok"] else "[red]failed[/]")
    console = Console()
    console.print(table)
    console.print(
        f"{outcome.tls.get('version')} with {outcome.tls.get('group')}; one round trip {outcome.round_trip_ms:.2f} ms; "
        f"{outcome.exchanged} messages sent by honest agents, {outcome.verified} verified; {outcome.processes} agents."
    )
