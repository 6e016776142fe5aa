"""What a person reads of a run: narrow tables, and in them only what says something."""

import io
import re

import pytest
from rich.console import Console

from benchmarks import report
from benchmarks.result import Findings, Result
from benchmarks.stacks import STACKS

WIDTH = 80


def shown(*results, **findings):
    """The lines of a report, and none of them is wider than a terminal."""
    file = io.StringIO()
    report.show(Console(file=file, width=WIDTH), Findings(results=list(results), **findings))
    lines = [line.rstrip() for line in file.getvalue().splitlines()]
    assert max(map(len, lines)) <= WIDTH
    return lines


def verdict(peer, value, **more):
    params = {"peer": peer, "model": "IssuedBy", "chain": 2} | more.pop("params", {})
    return Result(
        "verify", more.pop("stack", "autolink"), "CPU us", value, cpu_us=value, params=params, **more
    )


def test_a_verdicts_row_has_cold_seen_and_floor_side_by_side():
    """The comparison with the floor had most rounds, so its figures stand, and not the ones found again beside it."""
    lines = shown(
        verdict("cold", 200.0),
        verdict("cold", 100.0, stack="floor"),
        verdict("cold", 200.0, baseline="floor", ratio=0.5),
        verdict("seen", 1.5),
        verdict("cold", 777.0, params={"known": 0}),
        verdict("seen", 888.0, params={"known": 0}),
        verdict("cold", 250.0, params={"model": "Pinned", "known": 1000}),
    )
    rows = [line.split() for line in lines if line.startswith(("IssuedBy", "Pinned"))]
    assert rows == [
        ["IssuedBy", "2", "200", "1.50", "100", "2.00x"],
        ["Pinned", "2", "1,000", "250"],
    ]


def test_what_is_the_same_in_every_row_stands_in_the_title():
    """And what only repeats another column, or is always empty, has no column."""
    params = {"concurrency": 16, "size": 100}
    lines = shown(
        Result("call", "autolink", "CPU us, both ends", 50.0, cpu_us=50.0, params=params),
        Result("call", "floor", "CPU us, both ends", 25.0, cpu_us=25.0, params=params),
        Result("call", "autolink", "CPU us, both ends", 50.0, baseline="floor", ratio=0.5, params=params),
    )
    assert lines[0] == "call: CPU µs, both ends, 16 at once, 100 bytes"
    assert [line.split() for line in lines[1:5] if "─" not in line] == [
        ["of", "CPU", "µs", "ours"],
        ["autolink", "50.0"],
        ["floor", "25.0", "0.50x"],
    ]


@pytest.mark.parametrize("key", ["p256", "ml-dsa-65"])
def test_the_widest_table_names_every_stack_whole(key):
    """Eight columns, figures of seconds in microseconds."""
    results = [
        Result(
            "handshake", name, "handshakes/s", 1234.0, 3_297_395.0, 3_297_395.0, 36_698.0,
            params={"concurrency": concurrency, "key": kind, "lacks": ["much"]},
        )
        for name in STACKS for concurrency, kind in ((1, "p256"), (64, key))
    ]  # fmt: skip
    text = "\n".join(shown(*results))
    assert "trio.SSLStream" in text
    assert "pyzmq CURVE" in text
    assert key in text


def test_a_figure_of_the_table_has_its_unit():
    lines = shown(table={"idle_link_kib": 68.0, "verify_seen_us": 1.5, "resumed_vs_full": 1.7})
    text = "\n".join(lines)
    assert re.search(r"idle_link_kib +68\.0 KiB +≤ 100 met +≤ 50 not met", text)
    assert re.search(r"verify_seen_us +1\.50 µs +≤ 10 met +≤ 3 met", text)
    assert re.search(r"resumed_vs_full +1\.70x +≥ 1\.4 met +≥ 1\.6 met", text)
