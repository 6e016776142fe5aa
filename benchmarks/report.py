"""What a person reads: progress while a run goes on, then each benchmark's tables and the table to meet."""

import re
from collections import defaultdict
from collections.abc import Callable
from itertools import groupby
from typing import Any, Final

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from benchmarks.result import BARS, Findings, Result, machine, versions, words
from benchmarks.stacks import OURS, STACKS


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
    """Everything that was found, in 80 columns."""
    for name, results in groupby(findings.results, key=lambda result: result.name):
        for table in _tables(name, list(results)):
            console.print(table)
            console.print()
    if findings.table:
        console.print(_bars(findings))
        console.print()
    if unmeasured := len(BARS) - len(findings.table):
        console.print(f"{unmeasured} of the {len(BARS)} rows of the table were not measured in this run.")
    _background(console, findings)


def _tables(name: str, results: list[Result]) -> list[Group]:
    if name == "verify":
        return [_verdicts(results)]
    metrics = dict.fromkeys(result.metric for result in results)
    return [_figures(name, metric, [one for one in results if one.metric == metric]) for metric in metrics]


def _figures(name: str, metric: str, results: list[Result]) -> Group:
    """All figures of one metric. What is the same in every row stands in the title, what says nothing nowhere."""
    beside = {_identity(one, one.baseline): one.ratio for one in results if one.baseline is not None}
    rows = [one for one in results if one.baseline is None]  # a ratio stands on the line of whom it is with
    keys = [key for key in dict.fromkeys(key for one in rows for key in one.circumstances) if key != "unit"]
    varying = [key for key in keys if len({one.circumstances.get(key) for one in rows}) > 1]
    common = [_PHRASES[key].format(rows[0].circumstances[key]) for key in keys if key not in varying]
    numbers = {_heading(metric): [number(one.value) for one in rows]}
    for heading, of in _FURTHER.items():
        figures = [of(one) for one in rows]
        if any(figures) and figures != [one.value for one in rows]:
            numbers[heading] = [number(figure) for figure in figures]
    if beside:
        numbers["ours"] = [_times(beside.get(_identity(one, one.stack))) for one in rows]

    table = _table()
    for key in varying:
        table.add_column(_HEADINGS.get(key, key), justify="right")
    table.add_column("of")
    for heading in numbers:
        table.add_column(heading, justify="right", no_wrap=True)
    before: dict[str, Any] | None = None
    for one, *cells in zip(rows, *numbers.values(), strict=True):
        same = one.circumstances == before
        if before is not None and not same and beside:
            table.add_section()
        shown = ["" if same else _plain(one.circumstances.get(key, "")) for key in varying]
        table.add_row(*shown, one.stack, *cells)
        before = one.circumstances
    return _titled(", ".join([f"{name}: {_micro(metric)}", *common]), table)


def _verdicts(results: list[Result]) -> Group:
    """A row for each model, length of chain and number of known peers."""
    rows: dict[tuple[str, int, int], dict[str, str]] = {}
    for one in results:
        row = rows.setdefault((one.params["model"], one.params["chain"], one.params.get("known", 0)), {})
        if one.baseline is not None and one.ratio:
            row["over"] = _times(1 / one.ratio)
        else:  # what was measured first had the most rounds
            row.setdefault("floor" if one.stack == "floor" else one.params["peer"], number(one.value))
    models = list(dict.fromkeys(model for model, _, _ in rows))

    table = _table()
    table.add_column("model")
    for heading in ("chain", "known peers", "cold", "seen", "floor", "cold/floor"):
        table.add_column(heading, justify="right", no_wrap=True)
    for model, chain, known in sorted(rows, key=lambda row: (row[2] > 0, models.index(row[0]), row)):
        row = rows[model, chain, known]
        cells = (row.get(column, "") for column in ("cold", "seen", "floor", "over"))
        table.add_row(model, str(chain), f"{known:,}" if known else "", *cells)
    return _titled("verify: CPU µs for a verdict", table)


def _table() -> Table:
    return Table(box=SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))


def _titled(title: str, table: Table) -> Group:
    """A title that may be wider than its table."""
    return Group(Text(title, style="bold"), table)


_FURTHER: Final[dict[str, Callable[[Result], float | None]]] = {
    "p50 µs": lambda one: one.p50_us,
    "p99 µs": lambda one: one.p99_us,
    "CPU µs": lambda one: one.cpu_us,
}
_HEADINGS: Final = {"concurrency": "at once", "size": "bytes", "mib": "MiB"}
_PHRASES: Final = defaultdict(
    lambda: "{}",
    concurrency="{} at once", size="{:,} bytes", key="{}", chain="chain of {}", mib="body of {:,} MiB",
    links="{:,} links", seconds="over {:g} s", end="{} end",
)  # fmt: skip


def _heading(metric: str) -> str:
    """The column's word for what the title says in full."""
    first, _, rest = metric.partition(" ")
    if first.endswith("/s"):
        return "/s"
    return _micro(f"{first} us") if rest.startswith("us") else first


def _micro(metric: str) -> str:
    return re.sub(r"\bus\b", "µs", metric)


def _plain(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def _identity(result: Result, baseline: str | None) -> tuple[str, str | None]:
    return words(result.circumstances), baseline


def _bars(findings: Findings) -> Group:
    """The rows that were measured."""
    table = _table()
    table.add_column("row")
    for column in ("figure", "bar", "goal"):
        table.add_column(column, justify="right", no_wrap=True)
    for key, row in findings.bars().items():
        if row["figure"] is None:
            continue
        note = f"\n({row['note']})" if row["note"] else ""
        table.add_row(
            f"[bold]{key}[/]\n{row['what']}{note}", f"{number(row['figure'])}{BARS[key].unit}",
            _mark(row, "bar"), _mark(row, "goal"), end_section=True,
        )  # fmt: skip
    return _titled("the table to meet: what autolink set itself (see benchmarks/README.md)", table)


def _mark(row: dict[str, Any], which: str) -> str:
    sign = "≤" if row["at_most"] else "≥"
    verdict = "[green]met[/]" if row[f"{which}_met"] else "[red]not met[/]"
    return f"{sign} {row[which]:g} {verdict}"


def _background(console: Console, findings: Findings) -> None:
    """What the figures are to be read with."""
    if any(result.ratio for result in findings.results):
        console.print("ours 2x: ours is twice as good, by rate or by cost", highlight=False)
    if findings.noise:
        noise = findings.as_json()["noise"]["median"]
        console.print(f"noise: the same stack against itself differs by a factor of {noise:.2f} (median)")
    ran = [name for name in STACKS if name == OURS or any(one.stack == name for one in findings.results)]
    for name in ran:
        if STACKS[name].lacks:
            console.print(f"{name} does less: {', '.join(STACKS[name].lacks)}", highlight=False)
    load = f"load {findings.began_with_load:.1f} at the start"
    console.print(", ".join([words(machine()), load]), highlight=False)
    console.print("; ".join(f"{name}: {version}" for name, version in versions(ran).items()), highlight=False)


def number(value: float | None) -> str:
    """Three digits are what these figures bear."""
    if value is None:
        return ""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _times(ratio: float | None) -> str:
    return "" if ratio is None else f"{number(ratio)}x"
