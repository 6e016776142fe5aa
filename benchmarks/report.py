"""What a person reads: progress while a run goes on, then a table for each benchmark and the table to meet."""

from collections.abc import Iterable
from itertools import groupby

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from benchmarks.result import Findings, Result, machine, versions
from benchmarks.stacks import STACKS

_LATENCIES = "latencies_us"
_LACKS = "lacks"


class Bars:
    """Two bars: the benchmarks, and the slots of the one that runs. Warnings appear above them."""

    def __init__(self, console: Console, findings: Findings, benchmarks: int) -> None:
        self._console = console
        self._findings = findings
        columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
        self._progress = Progress(*columns, console=console)
        self._run = self._progress.add_task("", total=benchmarks)
        self._slots = self._progress.add_task("", total=0)
        self._live = Live(Group(self._progress), console=console, refresh_per_second=4, transient=True)

    def __enter__(self) -> "Bars":
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def begin(self, name: str) -> None:
        self._progress.update(self._run, description=name)
        self._progress.reset(self._slots, total=0, description="")

    def done(self) -> None:
        self._progress.advance(self._run)

    def expect(self, slots: int) -> None:
        self._progress.update(self._slots, total=(self._progress.tasks[1].total or 0) + slots)

    def slot(self, text: str) -> None:
        self._progress.update(self._slots, advance=1, description=text)

    def warn(self, line: str) -> None:
        self._findings.failures.append(line)
        self._console.print(f"[yellow]left out:[/] {line}", highlight=False, soft_wrap=True)


def show(console: Console, findings: Findings) -> None:
    """Everything that was found."""
    for name, results in groupby(findings.results, key=lambda result: result.name):
        console.print(_benchmark(name, list(results)))
    console.print(_bars(findings))
    _circumstances(console, findings)


def _benchmark(name: str, results: list[Result]) -> Table:
    table = Table(title=name, title_justify="left", title_style="bold", pad_edge=False)
    for column in ("circumstances", "stack", "metric"):
        table.add_column(column, overflow="fold")
    for column in ("value", "p50 µs", "p99 µs", "CPU µs", "ours is"):
        table.add_column(column, justify="right", no_wrap=True)
    beside = {_identity(one, one.baseline): one.ratio for one in results if one.baseline is not None}
    rows = [one for one in results if one.baseline is None]  # a ratio stands on the line of whom it is with
    for _, group in groupby(rows, key=lambda one: (_circumstances_of(one), one.metric)):
        compared = list(group)
        if len(compared) > 1:
            table.add_section()
        for one in compared:
            first = one is compared[0]
            table.add_row(
                _circumstances_of(one) if first else "", one.stack, one.metric if first else "", number(one.value),
                number(one.p50_us), number(one.p99_us), number(one.cpu_us), _times(beside.get(_identity(one, one.stack))),
                end_section=one is compared[-1] and len(compared) > 1,
            )  # fmt: skip
    return table


def _identity(result: Result, baseline: str | None) -> tuple[str, str, str | None]:
    return result.metric, _circumstances_of(result), baseline


def _circumstances_of(result: Result) -> str:
    shown = {key: value for key, value in result.params.items() if key not in (_LATENCIES, _LACKS)}
    return ", ".join(f"{key} {value:,}" if isinstance(value, int) else f"{key} {value}" for key, value in shown.items())


def _bars(findings: Findings) -> Table:
    table = Table(title="the table to meet", title_justify="left", title_style="bold", pad_edge=False)
    for column in ("key", "what"):
        table.add_column(column, overflow="fold")
    for column in ("figure", "bar", "goal"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("note", overflow="fold")
    for key, row in findings.bars().items():
        sign = "≤" if row["at_most"] else "≥"
        table.add_row(
            key, row["what"], number(row["figure"]), _mark(sign, row["bar"], row["bar_met"]),
            _mark(sign, row["goal"], row["goal_met"]), row["note"],
        )  # fmt: skip
    return table


def _mark(sign: str, mark: float, met: bool | None) -> str:
    text = f"{sign} {mark:g}"
    return {None: text, True: f"[green]{text} met[/]", False: f"[red]{text} not[/]"}[met]


def _circumstances(console: Console, findings: Findings) -> None:
    if findings.noise:
        noise = findings.as_json()["noise"]["median"]
        console.print(f"noise: the same stack against itself differs by a factor of {noise:.2f} (median)")
    for name, stack in STACKS.items():
        if stack.lacks and any(result.stack == name for result in findings.results):
            console.print(f"{name} does less: {', '.join(stack.lacks)}", highlight=False, soft_wrap=True)
    load = f"load {findings.began_with_load:.1f} at the start"
    console.print(", ".join([*_words(machine().items()), load]), highlight=False, soft_wrap=True)
    console.print("; ".join(_words(versions().items())), highlight=False, soft_wrap=True)


def _words(pairs: Iterable[tuple[str, object]]) -> list[str]:
    return [f"{key} {value}" for key, value in pairs]


def number(value: float | None) -> str:
    """Three digits are what these figures bear."""
    if value is None:
        return ""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _times(ratio: float | None) -> str:
    return "" if ratio is None else f"{number(ratio)} ×"
