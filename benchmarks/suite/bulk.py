"""`bulk`: one body through a channel, far larger than either end may hold, and the most memory that each end had."""

from collections.abc import Callable
from typing import Any

from benchmarks.harness import Bench, Measure
from benchmarks.measuring import Sample, Usage
from benchmarks.process import Place
from benchmarks.processes import MemoryWatch
from benchmarks.result import Result
from benchmarks.stacks import OURS, STACKS
from benchmarks.stacks.base import Stack

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
    most: dict[str, tuple[float, ...]] = {}
    names = [OURS, *(name for name in able if name == BASELINE)]
    measures = {name: _watched(bench, name, total, most) for name in names}
    contest = bench.contest("bulk", "MiB/s", measures, mib=total >> 20)
    for name, (client, server) in most.items():
        for end, mib in (("client", client), ("server", server)):
            params = {"mib": total >> 20, "end": end}
            bench.result(Result("bulk", name, "MiB of memory above idle", mib, params=params))
    ours = max(most.get(OURS, (0.0,)))
    verdict = "" if ours < ALLOWED_MIB else f", over the {ALLOWED_MIB} allowed"
    bench.row("bulk_vs_asyncio_ssl", contest.ratio(BASELINE), f"{ours:.0f} MiB above idle{verdict}")
    others = [name for name in able if name != BASELINE]
    if others:  # a sixteenth of the body tells as much about their rate
        part = max(1 << 20, total >> 4)
        small = {name: bench.job(name, bulk, total=part) for name in [OURS, *others]}
        bench.contest("bulk", "MiB/s", small, side=True, mib=part >> 20)


def _watched(bench: Bench, name: str, total: int, most: dict[str, tuple[float, ...]]) -> Measure:
    measure: Callable[[], Sample] = bench.job(name, bulk, total=total)

    def watched() -> Sample:
        pair = bench.pair(STACKS[name])
        with MemoryWatch([pair.worker.pid, pair.server.pid]) as watch:
            sample = measure()
        above = tuple(one / (1 << 20) for one in watch.above)
        most[name] = tuple(map(max, zip(above, most.get(name, above), strict=True)))
        return sample

    return watched


