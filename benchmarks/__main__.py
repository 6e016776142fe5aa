"""`python -m benchmarks [NAME...]`: autolink beside its neighbours, in one run. README.md says how to read it."""

import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import click
from rich.console import Console

from benchmarks import INSTALL

try:
    import psutil  # noqa: F401
except ImportError:
    sys.exit(f"benchmarks: psutil is missing: {INSTALL}")

from benchmarks import identities, plots, report
from benchmarks.harness import FULL, QUICK, Bench, Budget
from benchmarks.processes import StackFailed
from benchmarks.result import NEEDS, Findings
from benchmarks.stacks import OURS, STACKS
from benchmarks.stacks.base import Stack
from benchmarks.suite import SUITE

INTERRUPTED = 130


@click.command(
    help=f"Measure autolink beside its neighbours. NAME is of: {', '.join(SUITE)}; all of them by default."
)
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--quick", is_flag=True, help="Under two minutes for all, and as much noisier.")
@click.option(
    "--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Write every figure there."
)
@click.option(
    "--plots", "plots_folder", type=click.Path(file_okay=False, path_type=Path), help="Draw plots into it."
)
@click.option("--peers", help="Neighbours to compare with, by the beginnings of their names: 'asyncio,grpc'.")
def main(
    names: tuple[str, ...], quick: bool, json_file: Path | None, plots_folder: Path | None, peers: str | None
) -> None:
    if unknown := [name for name in names if name not in SUITE]:
        _refuse(f"no benchmark is called {', '.join(unknown)}; there are {', '.join(SUITE)}")
    if plots_folder is not None and (missing := plots.missing()):
        _refuse(missing)
    for path in (json_file, plots_folder):
        if path is not None and not path.absolute().parent.is_dir():
            _refuse(f"there is no folder {path.absolute().parent} to write {path.name} into")
    console = Console()
    findings = Findings(command=" ".join(["python", "-m", "benchmarks", *sys.argv[1:]]))
    chosen = _present(_chosen(peers), findings, console)
    wanted = [name for name in SUITE if name in names or not names]
    status = measure(wanted, QUICK if quick else FULL, chosen, findings, console)
    report.show(console, findings)
    if json_file is not None:
        findings.write(json_file)
        console.print(f"written: {json_file}", highlight=False, soft_wrap=True)
    if plots_folder is not None:
        for path in plots.draw(findings, plots_folder):
            console.print(f"drawn: {path}", highlight=False, soft_wrap=True)
    sys.exit(status)


def measure(
    names: list[str], budget: Budget, peers: list[Stack], findings: Findings, console: Console
) -> int:
    """Run benchmarks; whatever was found when it ends, by itself or by Ctrl-C, is in `findings`.

    Returns:
        The exit status: 0, 1 where autolink itself could not be measured, or 130 for Ctrl-C.
    """
    status = 0
    with tempfile.TemporaryDirectory() as made, report.Bars(console, findings, len(names)) as progress:
        folder = Path(made)
        identities.make(folder)
        bench = Bench(folder, budget, peers, findings, progress)
        try:
            with _interruptible():
                for name in names:
                    progress.begin(name)
                    begun = time.monotonic()
                    try:
                        SUITE[name](bench)
                    except StackFailed as failure:  # one benchmark's; the others may work
                        progress.warn(f"{name}: {failure}")
                        status = 1
                    findings.seconds[name] = round(time.monotonic() - begun, 1)
                    progress.done()
        except KeyboardInterrupt:
            console.print("[yellow]interrupted:[/] what follows is what was found until then")
            status = INTERRUPTED
        finally:
            bench.end()
    return status


def _chosen(peers: str | None) -> list[Stack]:
    """The neighbours that were asked for."""
    others = {name.lower(): stack for name, stack in STACKS.items() if name != OURS}
    if peers is None:
        return list(others.values())
    chosen: list[Stack] = []
    for start in filter(None, (part.strip().lower() for part in peers.split(","))):
        found = [stack for name, stack in others.items() if name.startswith(start)]
        if not found:
            _refuse(
                f"no neighbour is called {start}; there are {', '.join(stack.name for stack in others.values())}"
            )
        chosen += [stack for stack in found if stack not in chosen]
    return chosen


def _present(peers: list[Stack], findings: Findings, console: Console) -> list[Stack]:
    """Those of them that are installed; a line for each that is not, and a note to its row of the table."""
    present = []
    for stack in peers:
        missing = stack.missing()
        if missing is None:
            present.append(stack)
            continue
        line = f"{stack.name} is missing: {missing}"
        findings.failures.append(line)
        findings.notes.update({key: line for key, needed in NEEDS.items() if needed == stack.name})
        console.print(f"[yellow]left out:[/] {line}", highlight=False, soft_wrap=True)
    return present


@contextmanager
def _interruptible() -> Iterator[None]:
    """SIGTERM keeps what was found just as Ctrl-C does, also where a shell started us with SIGINT ignored."""

    def interrupt(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _refuse(line: str) -> NoReturn:
    click.echo(f"benchmarks: {line}", err=True)
    sys.exit(2)


if __name__ == "__main__":
    main()
