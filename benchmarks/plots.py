"""Pictures of a run, made to be looked at: each answers one question.

    table.png         how far is each row of the table from its bar and its goal?
    concurrency.png   what does the rate do when more callers come at once?
    latency.png       how long do I wait: usually, and when I have bad luck?
    size.png          what does a message cost as it grows?
    growth.png        what does everything cost as links, chains and known peers grow?

A picture whose benchmarks did not run is left out.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks import INSTALL
from benchmarks.measuring import PERCENTILES
from benchmarks.result import Findings, Result
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
_STYLE: Final[dict[Any, Any]] = {
    "figure.dpi": 140, "figure.constrained_layout.use": True, "font.size": 9, "axes.titlesize": 10,
    "axes.titleweight": "bold", "axes.titlelocation": "left", "axes.spines.top": False, "axes.spines.right": False,
    "axes.grid": True, "axes.axisbelow": True, "grid.color": "#e2e8f0", "legend.frameon": False, "lines.linewidth": 1.6,
}  # fmt: skip

Points = dict[str, list[tuple[float, float]]]
"""For each stack its points."""


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
    bars = {key: row for key, row in findings.bars().items() if row["figure"]}
    if not bars:
        return None
    figure, axes = _axes(1, (8, 0.8 + 0.32 * len(bars)))
    for height, row in enumerate(reversed(bars.values())):
        reached, goal = (_beyond(row, value) for value in (row["figure"], row["goal"]))
        colour = ACCENT if row["bar_met"] else "#94a3b8"
        axes[0].barh(height, reached - 1, left=1, color=colour, height=0.55)
        axes[0].plot([goal], [height], marker="|", markersize=13, markeredgewidth=2, color="#0f172a")
        axes[0].annotate(
            f" {row['figure']:.3g} ",
            (reached, height),
            va="center",
            ha="left" if reached >= 1 else "right",
            fontsize=8,
        )
    axes[0].set_yticks(range(len(bars)), list(reversed(bars)))
    axes[0].set_xscale("log")
    axes[0].set_xticks([0.1, 0.25, 0.5, 1, 2, 4, 10], ["0.1", "¼", "½", "bar", "2x", "4x", "10x"])
    axes[0].minorticks_off()
    axes[0].margins(x=0.12)
    axes[0].axvline(1, color="#0f172a", linewidth=1)
    axes[0].grid(visible=False, axis="y")
    axes[0].set_title("each figure against its bar; the tick is the goal; right is better")
    return figure


def _beyond(row: dict[str, Any], value: float) -> float:
    bar: float = row["bar"]
    return bar / value if row["at_most"] else value / bar


def _concurrency(_findings: Findings, rows: list[Result]) -> "Figure | None":
    wanted: dict[str, tuple[str, dict[str, Any]]] = {
        "handshake": ("handshakes/s", {"key": "p256"}),
        "call": ("calls/s", {"size": 100}),
    }
    found = {name: _points(rows, name, *which, x="concurrency") for name, which in wanted.items()}
    return _lines(
        found,
        "at once",
        "a second",
        {"handshake": "full handshakes with an echo", "call": "calls of 100 bytes"},
    )


def _latency(_findings: Findings, rows: list[Result]) -> "Figure | None":
    wanted: dict[str, dict[str, Any]] = {
        "handshake": {"concurrency": 16, "key": "p256"},
        "call": {"concurrency": 32, "size": 100},
    }
    found: dict[str, Points] = {}
    for name, params in wanted.items():
        of = [
            one
            for one in _select(rows, name, params)
            if one.metric.endswith("/s") and "latencies_us" in one.params
        ]
        found[name] = {
            one.stack: list(zip(PERCENTILES, (us / 1000 for us in one.params["latencies_us"]), strict=True))
            for one in of
        }
    titles = {"handshake": "a handshake with an echo, 16 at once", "call": "a call of 100 bytes, 32 at once"}
    return _lines(found, "percent of them are done within", "milliseconds", titles, log_x=False)


def _size(_findings: Findings, rows: list[Result]) -> "Figure | None":
    found = {
        "rate": _points(rows, "message", "messages/s", {}, x="size"),
        "cost": _points(rows, "message", "messages/s", {}, x="size", y=lambda one: one.cpu_us),
    }
    titles = {"rate": "messages a second, one way", "cost": "CPU µs of both ends for a message"}
    return _lines(found, "bytes in a message", "", titles)


def _growth(_findings: Findings, rows: list[Result]) -> "Figure | None":
    found: dict[str, Points] = {
        "links": {
            unit: [(_leading_number(one.stack), one.value) for one in _select(rows, "growth", {"unit": unit})]
            for unit in ("message", "handshake")
        },
        "memory": {
            end: [(one.params["links"], one.value) for one in _select(rows, "idle", {"end": end})]
            for end in ("client", "server")
        },
        "chain": _by_model(
            rows, "chain", lambda one: one.params["peer"] == "cold" and one.params.get("known") == 0
        ),
        "known": _by_model(rows, "known", lambda one: one.params.get("known", 0) > 0),
    }
    titles = {
        "links": "CPU µs while links are open", "memory": "KiB for an idle link",
        "chain": "CPU µs for a cold verdict, by certificates in the chain",
        "known": "CPU µs for a verdict, by peers that the model knows",
    }  # fmt: skip
    return _lines(found, "", "", titles)


_PICTURES: Final = {
    "table": _table,
    "concurrency": _concurrency,
    "latency": _latency,
    "size": _size,
    "growth": _growth,
}


# --- parts of pictures -----------------------------------------------------------------------------------------


def _select(rows: Iterable[Result], name: str, params: dict[str, Any]) -> list[Result]:
    return [one for one in rows if one.name == name and params.items() <= one.params.items()]


def _points(
    rows: list[Result], name: str, metric: str, params: dict[str, Any], *, x: str,
    y: Callable[[Result], float | None] = lambda one: one.value,
) -> Points:  # fmt: skip
    points: Points = defaultdict(list)
    for one in _select(rows, name, params):
        if one.metric == metric and x in one.params and (value := y(one)) is not None:
            points[one.stack].append((one.params[x], value))
    return points


def _by_model(rows: list[Result], x: str, wanted: Callable[[Result], bool]) -> Points:
    points: Points = defaultdict(list)
    for one in _select(rows, "verify", {}):
        if wanted(one):
            points[f"{one.params['model']}, {one.params['peer']}"].append((one.params[x], one.value))
    return points


def _leading_number(label: str) -> float:
    return float(label.split()[0].replace(",", ""))


def _lines(
    found: dict[str, Points], x: str, y: str, titles: dict[str, str], *, log_x: bool = True
) -> "Figure | None":
    """One set of axes for each that has points; a label has one colour in all of them."""
    shown = {name: points for name, points in found.items() if any(points.values())}
    if not shown:
        return None
    figure, axes = _axes(len(shown), (4.6 * min(len(shown), 2), 3.8 * ((len(shown) + 1) // 2)))
    labels = list(dict.fromkeys(label for points in shown.values() for label in points))
    colours = dict(zip((label for label in labels if label != OURS), OTHERS * 3, strict=False))
    for place, (name, points) in zip(axes, shown.items(), strict=False):
        for label, line in points.items():
            xs, ys = zip(*sorted(line), strict=True)
            ours = (
                {"color": ACCENT, "linewidth": 2.6, "zorder": 3}
                if label == OURS
                else {"color": colours[label]}
            )
            place.plot(xs, ys, label=label, marker="o", markersize=4, **ours)
        place.set_title(titles[name])
        place.set(xlabel=x, ylabel=y)
        _scale(place, [value for line in points.values() for _, value in line])
        if log_x:
            ticks = sorted({x for line in points.values() for x, _ in line})
            place.set_xscale("log")
            place.set_xticks(ticks, [f"{tick:,.0f}" for tick in ticks])
            place.xaxis.minorticks_off()
        if any(points.keys() != other.keys() for other in shown.values()):
            place.legend(fontsize=7)
    if not axes[0].get_legend():  # one for all
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8)
    return figure


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
