"""`idle`: what links cost that nothing happens on: memory, and the CPU time of keeping them."""

from typing import Any

import anyio

from benchmarks.harness import Bench
from benchmarks.measuring import Usage
from benchmarks.process import Place
from benchmarks.result import Result
from benchmarks.stacks import OURS, STACKS
from benchmarks.stacks.base import Stack
from benchmarks.suite.holding import bearable, hold


async def wait(_stack: Stack, place: Place, *, seconds: float) -> float:
    """CPU seconds of both ends while nothing is done."""
    with Usage(place.server) as usage:
        await anyio.sleep(seconds)
    return usage.cpu


def run(bench: Bench) -> None:
    seconds = bench.budget.idle_seconds
    counts = bearable(bench, bench.budget.idle)
    bench.progress.expect(2 * len(counts))
    for count in counts:
        pair = bench.fresh_pair(STACKS[OURS])
        try:
            bench.progress.slot(f"idle · opening {count:,} links")
            taken = pair.worker.do(hold, count / 50, count=count)
            bench.progress.slot(f"idle · {count:,} links for {seconds:.0f} s")
            cpu = pair.worker.do(wait, seconds, seconds=seconds)
        finally:
            pair.end()
        kib = {end: used / count / 1024 for end, used in taken.items()}
        for end, value in kib.items():
            params = {"links": count, "end": end}
            bench.result(Result("idle", OURS, "KiB of memory a link", value, params=params))
        params = {"links": count, "seconds": seconds}
        value = cpu / seconds / count * 1e6
        bench.result(Result("idle", OURS, "CPU us a link and second, both ends", value, params=params))
        bench.row("idle_link_kib", max(kib.values()), f"the larger end, {count:,} links")
