"""Every benchmark runs in its quickest form and finds figures of the right shape. How fast is no test's business.

Beside the baseline, which needs no package. The other neighbours' conversations are in test_stacks.py, which says which of
them are not installed.
"""

import gc
import os
import signal
from math import isfinite

import pytest

from benchmarks import identities, plots
from benchmarks.harness import Bench, Budget
from benchmarks.processes import MemoryWatch, Pair, StackFailed
from benchmarks.result import BARS, NEEDS, Findings
from benchmarks.stacks import STACKS
from benchmarks.suite import SUITE
from benchmarks.suite.handshake import handshakes

TINY = Budget(
    rounds=1, seconds=0.05, side_rounds=1, side_seconds=0.02, bulk=1 << 20, strangers=4, known=(10,), idle=(2, 4),
    idle_seconds=0.05, live=(2, 4), crowd=2, records=(16, 300),
    subscribers=(3,), revocations=2,
)  # fmt: skip

ROWS = {
    "handshake": {key for key in BARS if key.startswith("handshake_")} | {"resumed_vs_full"},
    "verify": {"verify_seen_us", "verify_cold_vs_floor"},
    "call": {"call_vs_floor", "call32_vs_grpc"},
    "message": {"message_vs_unbatched", "message_vs_nats"},
    "bulk": {"bulk_vs_asyncio_ssl"},
    "idle": {"idle_link_kib"},
    "fairness": {"call_p99_beside_bulk"},
    "growth": {"message_cost_5000_vs_10"},
    "registry": set(),
    "revocation": set(),
}
PEERS = ("asyncio+ssl",)


class Aloud:
    """A progress that counts, and prints what was left out."""

    def __init__(self):
        self.expected = self.slots = 0

    def expect(self, slots):
        self.expected += slots

    def slot(self, text):
        self.slots += 1

    def warn(self, line):
        pytest.fail(f"left out: {line}")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("identities")
    identities.make(made)
    return made


@pytest.fixture(scope="module")
def bench(folder):
    running = Bench(folder, TINY, [STACKS[name] for name in PEERS], Findings(), Aloud())
    yield running
    running.end()


@pytest.mark.parametrize("name", SUITE)
def test_a_benchmark_finds_its_rows_of_the_table(name, bench, tmp_path):
    """And results for the JSON and the plots, in as many slots as it said beforehand."""
    findings, progress = bench.findings, bench.progress = Findings(), Aloud()
    SUITE[name](bench)
    assert findings.table.keys() == {key for key in ROWS[name] if NEEDS.get(key) in (None, *PEERS)}
    assert all(value > 0 for key, value in findings.table.items() if key != "idle_link_kib")
    assert findings.results
    for result in findings.results:
        assert result.name == name
        assert isfinite(result.value)
        assert (result.baseline is None) == (result.ratio is None)
    assert progress.slots == progress.expected
    if plots.missing() is None:
        assert all(path.stat().st_size > 1000 for path in plots.draw(findings, tmp_path))


def test_the_table_has_a_row_from_every_benchmark():
    assert set().union(*ROWS.values()) == BARS.keys()


def test_a_stack_whose_server_cannot_start_is_one_line(tmp_path):
    """There are no identities for it."""
    pair = Pair(STACKS["asyncio+ssl"], tmp_path)
    try:
        with pytest.raises(
            StackFailed, match=r"^asyncio\+ssl: its server died with status 1: FileNotFoundError: .*$"
        ):
            _ = pair.worker
    finally:
        pair.end()


def test_a_stack_whose_server_is_gone_is_one_line_and_is_started_again(folder):
    bench = Bench(folder, TINY, [], Findings(), Aloud())
    try:
        measure = bench.job("asyncio+ssl", handshakes, concurrency=1, seconds=0.01)
        assert measure().rate > 0
        pair = bench.pair(STACKS["asyncio+ssl"])
        os.kill(pair.server.pid, signal.SIGKILL)
        with pytest.raises(StackFailed, match=r"^asyncio\+ssl: .*$"):
            pair.worker.do(handshakes, 1, concurrency=1, seconds=0.01)
        assert measure().rate > 0
        assert bench.pair(STACKS["asyncio+ssl"]) is not pair
    finally:
        bench.end()


def test_a_process_that_does_not_answer_in_time_is_ended(folder):
    pair = Pair(STACKS["asyncio+ssl"], folder)
    try:
        worker = pair.worker
        with pytest.raises(StackFailed, match="its client did not answer in 0 s"):
            worker.hear(0.01)
        assert not pair.alive
    finally:
        pair.end()


def test_memory_is_watched_in_the_process_that_takes_it():
    gc.collect()  # what earlier tests have left would be given back meanwhile
    with MemoryWatch([os.getpid()]) as watch:
        taken = bytearray(b"x" * (256 << 20))
        while watch.above[0] < 24 << 20:  # until the watching thread has seen it
            pass
    assert len(taken) == 256 << 20
