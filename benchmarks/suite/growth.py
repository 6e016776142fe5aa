"""`growth`: what a message and a handshake cost while other links are open, from few to thousands.

Each number of links has a server and a client of its own, and they are measured in turn. The open links lie idle: what is
looked for is whatever grows with their number, such as timers, polling and the garbage collector's work.
"""

from typing import Any

from benchmarks.harness import Bench, Measure
from benchmarks.measuring import Sample
from benchmarks.processes import Pair
from benchmarks.stacks import OURS, STACKS
from benchmarks.suite.handshake import CONCURRENCY, handshakes
from benchmarks.suite.holding import bearable, hold
from benchmarks.suite.message import messages


def run(bench: Bench) -> None:
    counts = bearable(bench, bench.budget.live)
    pairs: dict[int, Pair] = {}
    try:
        bench.progress.expect(len(counts))
        for count in counts:
            bench.progress.slot(f"growth · opening {count:,} links")
            pairs[count] = bench.fresh_pair(STACKS[OURS])
            pairs[count].worker.do(hold, count / 50, count=count)
        seconds = bench.budget.seconds
        _measure(bench, pairs, "message", messages, size=100, seconds=seconds)
        _measure(bench, pairs, "handshake", handshakes, concurrency=CONCURRENCY, seconds=seconds)
    finally:
        for pair in pairs.values():
            pair.end()


def _measure(bench: Bench, pairs: dict[int, Pair], unit: str, job: Any, *, seconds: float, **arguments: int) -> None:
    def measure(pair: Pair) -> Measure:
        return lambda: Sample.from_job(pair.worker.do(job, seconds, seconds=seconds, **arguments))

    labels = {count: f"{count:,} links live" for count in pairs}
    measures = {labels[count]: measure(pair) for count, pair in pairs.items()}
    contest = bench.contest("growth", f"CPU us for a {unit}, both ends", measures, by="cpu_us", unit=unit, **arguments)
    if unit == "message" and len(pairs) > 1:
        few, *_, many = pairs
        bench.row("message_cost_5000_vs_10", contest.ratio(labels[many]), f"{many:,} links over {few:,}")
