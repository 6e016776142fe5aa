"""Pictures of a run, made to be looked at: each answers one question.

    table.png         how far is each row of the table from its bar and its goal?
    concurrency.png   what does the rate do when more callers come at once?
    latency.png       how long do I wait: usually, and when I have bad luck?
    size.png          what does a message cost as it grows?
    growth.png        what does everything cost as links, chains, known peers, a registry and its subscribers grow?

A picture whose benchmarks did not run is left out. A band is the line's noise: a difference within it means nothing.
"""

import textwrap
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from benchmarks import INSTALL
from benchmarks.measuring import PERCENTILES
from benchmarks.report import number
from benchmarks.result import BARS, Findings, Result
from benchmarks.stacks import OURS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ACCENT: Final = "#c2410c"
"""Ours. Everybody else is in a quiet colour."""
OTHERS: Final = (
    "#0f766e",
    "#4338ca",
    "#64748b",
    "#a16207",
    "#be185d",
    "#15803d",
    "#7c3aed",
    "#334155",
    "#0369a1",
)
_INK: Final = "#0f172a"
_UNMET: Final = "#94a3b8"
_WIDTH: Final = 4.8
"""Of one set of axes, in inches."""
_STYLE: Final[dict[Any, Any]] = {
    "figure.dpi": 140, "figure.constrained_layout.use": True, "font.size": 9, "axes.titlesize": 10,
    "axes.titleweight": "bold", "axes.titlelocation": "left", "axes.spines.top": False, "axes.spines.right": False,
    "axes.grid": True, "axes.axisbelow": True, "grid.color": "#e2e8f0", "legend.frameon": False, "lines.linewidth": 1.6,
}  # fmt: skip

_MARKERS: Final = "os^DvPX*h"
_DASHES: Final = ("-", "--", "-.", ":")


class Point(NamedTuple):
    """One measured figure; `noise` is the factor by which ours differed from itself, 1 where that was not measured."""

    x: float
    y: float
    noise: float = 1.0


Points = dict[str, list[Point]]
"""For each label its points."""


@dataclass(frozen=True, slots=True)
class Panel:
    """One set of axes, with units in its words."""

    title: str
    x: str
    y: str
    points: Points
    log_x: bool = True


def missing() -> str | None:
    """None, or what to install."""
    return None if find_spec("matplotlib") else f"plots need matplotlib: {INSTALL}"


def draw(findings: Findings, folder: Path) -> list[Path]:
    """Draw what there are figures for, and return the files."""
    import matplotlib as mpl

    mpl.use("agg")  # no window, no display
    folder.mkdir(exist_ok=True)
    rows = [result for result in findings.results if result.baseline is None]
    drawn = []
    with mpl.rc_context(_STYLE):
        for name, picture in _PICTURES.items():
            if (figure := picture(findings, rows)) is not None:
                path = folder / f"{name}.png"
                figure.savefig(path)
                drawn.append(path)
    return drawn


# --- pictures --------------------------------------------------------------------------------------------------


def _table(findings: Findings, _rows: list[Result]) -> "Figure | None":
    """Each figure over its bar, so that 1 is the bar and further right is better for every row."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    bars = {key: row for key, row in findings.bars().items() if row["figure"] and row["figure"] > 0}
    if not bars:
        return None
    figure, [axes] = _axes(1, (9.5, 1.8 + 0.42 * len(bars)))
    for height, (key, row) in enumerate(reversed(bars.items())):
        reached, goal = (_beyond(row, value) for value in (row["figure"], row["goal"]))
        axes.barh(height, reached - 1, left=1, color=ACCENT if row["bar_met"] else _UNMET, height=0.55)
        axes.plot([goal], [height], marker="|", markersize=15, markeredgewidth=2, color=_INK)
        unit, sign = BARS[key].unit, "≤" if row["at_most"] else "≥"
        axes.annotate(
            f"{number(row['figure'])}{unit} (bar {sign} {row['bar']:g}{unit})",
            (1.01, height), xycoords=axes.get_yaxis_transform(), va="center", fontsize=8,
        )  # fmt: skip
    words = [
        f"{row['what']} ({row['note']})" if row["note"] else row["what"] for row in reversed(bars.values())
    ]
    axes.set_yticks(range(len(bars)), [textwrap.fill(line, 48) for line in words], fontsize=8)
    axes.set_xscale("log")
    axes.set_xticks([0.1, 0.25, 0.5, 1, 2, 4, 10], ["0.1x", "¼x", "½x", "bar", "2x", "4x", "10x"])
    axes.minorticks_off()
    axes.margins(x=0.05, y=0.02)
    axes.axvline(1, color=_INK, linewidth=1)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("times as good as the bar asks (right is better in every row; logarithmic)")
    axes.set_title("the table to meet: each figure against its bar")
    figure.legend(
        handles=[
            Patch(color=ACCENT, label="bar met"), Patch(color=_UNMET, label="bar not met"),
            Line2D([], [], color=_INK, marker="|", markersize=12, markeredgewidth=2, linestyle="", label="goal"),
        ],
        loc="outside lower center", ncols=3, fontsize=8,
    )  # fmt: skip
    return figure


def _beyond(row: dict[str, Any], value: float) -> float:
    bar: float = row["bar"]
    return bar / value if row["at_most"] else value / bar


def _concurrency(findings: Findings, rows: list[Result]) -> "Figure | None":
    handshakes = _points(findings, _select(rows, "handshake", "handshakes/s", key="p256"), "concurrency")
    calls = _points(findings, _select(rows, "call", "calls/s", size=100), "concurrency")
    return _lines(
        Panel("full handshakes with an echo", "at once", "handshakes a second", handshakes),
        Panel("calls of 100 bytes", "at once", "calls a second", calls),
    )


def _latency(_findings: Findings, rows: list[Result]) -> "Figure | None":
    def points(results: list[Result]) -> Points:
        return {
            one.stack: [
                Point(percent, us / 1000)
                for percent, us in zip(PERCENTILES, one.params["latencies_us"], strict=True)
            ]
            for one in results
            if "latencies_us" in one.params
        }

    x, y = "percent of them are done within", "milliseconds"
    handshakes = points(_select(rows, "handshake", "handshakes/s", key="p256", concurrency=16))
    calls = points(_select(rows, "call", "calls/s", size=100, concurrency=32))
    return _lines(
        Panel("a handshake with an echo, 16 at once", x, y, handshakes, log_x=False),
        Panel("a call of 100 bytes, 32 at once", x, y, calls, log_x=False),
    )


def _size(findings: Findings, rows: list[Result]) -> "Figure | None":
    of = _select(rows, "message", "messages/s")
    costs = [one for one in of if one.cpu_us is not None]
    cost = {
        label: [Point(one.params["size"], one.cpu_us or 0) for one in costs if one.stack == label]
        for label in dict.fromkeys(one.stack for one in costs)
    }
    x = "bytes in a message"
    return _lines(
        Panel("messages one way", x, "messages a second", _points(findings, of, "size")),
        Panel("cost of a message", x, "CPU µs of both ends", cost),
    )


def _growth(findings: Findings, rows: list[Result]) -> "Figure | None":
    links: Points = defaultdict(list)
    for one in _select(rows, "growth"):
        links[f"a {one.params['unit']}"].append(Point(_count(one.stack), one.value, findings.noise_of(one)))
    registry: Points = defaultdict(list)
    for one in _select(rows, "registry"):
        if one.cpu_us is not None and one.stack != "floor":
            registry[one.params["unit"]].append(Point(_count(one.stack), one.cpu_us, findings.noise_of(one)))
    closed = _select(rows, "revocation", "ms until the link is closed")
    revoked = {
        share: [
            Point(one.params["subscribers"], (us or 0) / 1000) for one, us in zip(closed, column, strict=True)
        ]
        for share, column in (
            ("half of them", [one.p50_us for one in closed]),
            ("99 %", [one.p99_us for one in closed]),
        )
    }
    memory = [one for one in _select(rows, "idle") if "end" in one.params]
    verdicts = _select(rows, "verify", stack=OURS)
    chain = [one for one in verdicts if one.params["peer"] == "cold" and one.params.get("known") == 0]
    known = [one for one in verdicts if one.params.get("known", 0) > 0]
    return _lines(
        Panel("work while other links are open", "open links", "CPU µs of both ends", links),
        Panel(
            "memory of an idle link", "idle links", "KiB a link",
            _points(findings, memory, "links", lambda one: f"the {one.params['end']}'s end"),
        ),
        Panel(
            "a cold verdict", "certificates in the chain", "CPU µs",
            _points(findings, chain, "chain", lambda one: str(one.params["model"])),
        ),
        Panel(
            "a verdict among many known peers", "peers that the model knows", "CPU µs",
            _points(findings, known, "known", lambda one: f"{one.params['model']}, {one.params['peer']}"),
        ),
        Panel("a registry that grows", "records", "CPU µs", registry),
        Panel("revoked links are closed", "subscribers of the feed", "milliseconds", revoked),
        own_legends=True,
    )  # fmt: skip


def _count(label: str) -> float:
    """Of the things that a label begins with: "5,000 links live"."""
    return float(label.split()[0].replace(",", ""))


_PICTURES: Final = {
    "table": _table,
    "concurrency": _concurrency,
    "latency": _latency,
    "size": _size,
    "growth": _growth,
}


# --- parts of pictures -----------------------------------------------------------------------------------------


def _select(
    rows: Iterable[Result], name: str, metric: str | None = None, *, stack: str | None = None, **params: Any
) -> list[Result]:
    return [
        one
        for one in rows
        if one.name == name
        and metric in (None, one.metric)
        and stack in (None, one.stack)
        and params.items() <= one.circumstances.items()
    ]


def _points(
    findings: Findings, rows: list[Result], x: str, label: Callable[[Result], str] = lambda one: one.stack
) -> Points:
    """A line for each label; ours has its noise."""
    points: Points = defaultdict(list)
    for one in rows:
        noise = findings.noise_of(one) if one.stack == OURS else 1.0
        points[label(one)].append(Point(one.params[x], one.value, noise))
    return points


def _lines(*panels: Panel, own_legends: bool = False) -> "Figure | None":
    """Those panels that have points; a label looks the same in all of them, and keys lie below, outside of the axes."""
    shown = [panel for panel in panels if any(panel.points.values())]
    if not shown:
        return None
    width = _WIDTH * min(len(shown), 2)
    figure, axes = _axes(len(shown), (width, (4.9 if own_legends else 4.4) * ((len(shown) + 1) // 2)))
    styles = _styles(shown)
    for place, panel in zip(axes, shown, strict=True):
        _draw(place, panel, styles)
        if own_legends:
            place.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2, fontsize=8)
    if not own_legends:
        keys: dict[str, Any] = {}
        for place in axes:
            handles, labels = place.get_legend_handles_labels()
            keys |= dict(zip(labels, handles, strict=True))
        columns = int(width // 1.9)
        figure.legend(keys.values(), keys.keys(), loc="outside lower center", ncols=columns, fontsize=8)
    return figure


def _styles(panels: list[Panel]) -> dict[str, dict[str, Any]]:
    """Colours, marks and dashes, so that lines which lie on each other can still be told apart."""
    labels = list(dict.fromkeys(label for panel in panels for label in panel.points if label != OURS))
    styles: dict[str, dict[str, Any]] = {
        label: {
            "color": OTHERS[place % len(OTHERS)], "marker": _MARKERS[place % len(_MARKERS)],
            "linestyle": _DASHES[place % len(_DASHES)],
        }
        for place, label in enumerate(labels)
    }  # fmt: skip
    styles[OURS] = {"color": ACCENT, "marker": "o", "linewidth": 2.6, "zorder": 3}
    return styles


def _draw(axes: "Axes", panel: Panel, styles: dict[str, dict[str, Any]]) -> None:
    for label, points in panel.points.items():
        xs, ys, noises = zip(*sorted(points), strict=True)
        axes.plot(xs, ys, label=label, markersize=5, **styles[label])
        if any(noise > 1 for noise in noises):
            low, high = zip(
                *((y / noise, y * noise) for y, noise in zip(ys, noises, strict=True)), strict=True
            )
            band = f"{label}: noise"
            axes.fill_between(
                xs, low, high, color=styles[label]["color"], alpha=0.15, linewidth=0, label=band
            )
    axes.set_title(panel.title)
    axes.set(xlabel=panel.x, ylabel=panel.y)
    _scale(axes, [point.y for points in panel.points.values() for point in points])
    if panel.log_x:
        ticks = sorted({point.x for points in panel.points.values() for point in points})
        axes.set_xscale("log")
        axes.set_xticks(ticks, [f"{tick:,.0f}" for tick in ticks])
        axes.xaxis.minorticks_off()


def _scale(axes: "Axes", values: list[float]) -> None:
    """From zero, where the figures are near each other; else by powers of ten, with 1, 2 and 5 of each written out."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    if max(values) < 4 * min(values):
        axes.set_ylim(0, 1.15 * max(values))
    else:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(
        FuncFormatter(lambda value, _: f"{value:,.0f}" if value >= 1 else f"{value:g}")
    )


def _axes(count: int, size: tuple[float, float]) -> "tuple[Figure, list[Axes]]":
    from matplotlib.figure import Figure

    figure = Figure(figsize=size)
    columns = min(count, 2)
    return figure, [figure.add_subplot((count + 1) // 2, columns, number + 1) for number in range(count)]
