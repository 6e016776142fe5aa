"""`bulk`: one body through a channel, far larger than either end may hold, and the most memory that each end had."""

from typing import Any

from benchmarks.harness import Bench
from benchmarks.measuring import Sample, Usage
from benchmarks.process import Place
from benchmarks.processes import MemoryWatch
from benchmarks.result import Result
from benchmarks.stacks import OURS, STACKS
from benchmarks.stacks.base import Stack
from benchmarks.suite.handshake import handshakes

BASELINE = "asyncio+ssl"
ALLOWED_MIB = 64


async def bulk(stack: Stack, place: Place, *, total: int) -> dict[str, Any]:
    """A body of `total` bytes; a unit is a MiB."""
    async with stack.session(place.folder, place.where) as session:
        with Usage(place.server) as usage:
            await session.bulk(total)
    return Sample.of(total / (1 << 20), usage)


def run(bench: Bench) -> None:
    total = bench.budget.bulk
    able = [stack.name for stack in bench.able("bulk")]
    names = [OURS, *(name for name in able if name == BASELINE)]
    bench.progress.expect(len(names))
    above = [_memory(bench, name, total) for name in names]
    contest = bench.contest(
        "bulk", "MiB/s", {name: bench.job(name, bulk, total=total) for name in names}, mib=total >> 20
    )
    verdict = "" if above[0] < ALLOWED_MIB else f", over the {ALLOWED_MIB} allowed"
    bench.row("bulk_vs_asyncio_ssl", contest.ratio(BASELINE), f"{above[0]:.0f} MiB above idle{verdict}")
    others = [name for name in able if name != BASELINE]
    if others:  # a sixteenth of the body tells as much about their rate
        part = max(1 << 20, total >> 4)
        small = {name: bench.job(name, bulk, total=part) for name in [OURS, *others]}
        bench.contest("bulk", "MiB/s", small, side=True, mib=part >> 20)


def _memory(bench: Bench, name: str, total: int) -> float:
    """The larger of both ends' high-water marks, MiB above what they held with an open session.

    In fresh processes: what an earlier benchmark has taken from the system, Python would not take again.
    """
    bench.progress.slot(f"bulk · {name} · memory")
    pair = bench.fresh_pair(STACKS[name])
    ends = ("client", "server")
    try:
        pair.worker.do(handshakes, 1, concurrency=1, seconds=0)
        with MemoryWatch([pair.worker.pid, pair.server.pid]) as watch:
            pair.worker.do(bulk, total / (1 << 24), total=total)
    finally:
        pair.end()
    above = dict(zip(ends, (one / (1 << 20) for one in watch.above), strict=True))
    for end, mib in above.items():
        bench.result(Result("bulk", name, "MiB of memory above idle", mib, params={"mib": total >> 20, "end": end}))
    return max(above.values())
