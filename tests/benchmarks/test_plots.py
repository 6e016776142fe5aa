"""What can be said of a picture without looking at it."""

import pytest

from benchmarks import plots
from benchmarks.result import Findings, Result, comparison

pytestmark = pytest.mark.skipif(plots.missing() is not None, reason=str(plots.missing()))


@pytest.fixture
def drawn(monkeypatch, tmp_path):
    """Draws findings; gives the figures by the names of their files."""

    def draw(findings):
        from matplotlib.figure import Figure

        figures = {}
        save = Figure.savefig

        def keep(figure, path):
            save(figure, path)  # lays it out
            figures[path.stem] = figure

        monkeypatch.setattr(Figure, "savefig", keep)
        assert [path.stem for path in plots.draw(findings, tmp_path)] == list(figures)
        return figures

    return draw


def calls(stack, concurrency, rate):
    return Result("call", stack, "calls/s", rate, params={"concurrency": concurrency, "size": 100})


def labels(axes):
    return axes.get_legend_handles_labels()[1]


def test_a_picture_without_figures_is_left_out(drawn):
    assert drawn(Findings()) == {}
    assert list(drawn(Findings(results=[calls("autolink", 1, 10.0)]))) == ["concurrency"]


def test_the_noise_of_ours_is_a_band(drawn):
    """By its factor to both sides, at every number of callers; another's line has none."""
    results = [calls(stack, many, 100.0 * many) for stack in ("autolink", "grpcio") for many in (1, 32)]
    noise = {comparison("call", results[many].params): 1.25 for many in (0, 1)}
    axes = drawn(Findings(results=results, noise=noise))["concurrency"].axes[0]
    (band,) = axes.collections
    heights = {round(y, 3) for _, y in band.get_paths()[0].vertices}
    assert heights == {80.0, 125.0, 2560.0, 4000.0}
    assert labels(axes) == ["autolink", "autolink: noise", "grpcio"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("at once", "calls a second")


def test_the_table_speaks_in_words_with_units(drawn):
    """A row that may be at most its bar grows to the right, too, when it is better."""
    findings = Findings(
        table={"idle_link_kib": 50.0, "call_vs_floor": 0.25}, notes={"idle_link_kib": "300 links"}
    )
    axes = drawn(findings)["table"].axes[0]
    rows = [label.get_text().replace("\n", " ") for label in axes.get_yticklabels()]
    assert rows == [
        "memory of one end of an idle link, KiB (300 links)",
        "signed call, one at a time, beside its floor, CPU",
    ]
    assert [text.get_text() for text in axes.texts] == ["50.0 KiB (bar ≤ 100 KiB)", "0.25x (bar ≥ 0.5x)"]
    widths = {round(bar.get_y() + bar.get_height() / 2): bar.get_width() for bar in axes.patches}
    assert widths == {0: 1.0, 1: -0.5}


@pytest.mark.parametrize("panels", [1, 2])
def test_no_legend_is_cut_or_lies_over_the_data(drawn, panels):
    """With as many neighbours as there are, in pictures of one set of axes and of two."""
    names = ["autolink", *(f"neighbour.Number{number}" for number in range(8))]
    results = [calls(name, many, 10.0) for name in names for many in (1, 32)]
    results += [
        Result("handshake", name, "handshakes/s", 5.0, params={"concurrency": 1, "key": "p256"})
        for name in names
    ] * (panels - 1)
    results += [
        Result("verify", "autolink", "CPU us", 9.0, params={"model": name, "peer": "cold", "chain": 2, "known": 0})
        for name in names
    ]  # fmt: skip
    figures = drawn(Findings(results=results))
    assert list(figures) == ["concurrency", "growth"]
    assert len(figures["concurrency"].axes) == panels
    for figure in figures.values():
        for legend in [*figure.legends, *filter(None, (axes.get_legend() for axes in figure.axes))]:
            box = legend.get_window_extent()
            assert figure.bbox.x0 <= box.x0 < box.x1 <= figure.bbox.x1
            assert figure.bbox.y0 <= box.y0 < box.y1 <= figure.bbox.y1
            assert not any(box.overlaps(axes.get_window_extent()) for axes in figure.axes)
