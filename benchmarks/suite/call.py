"""`call`: a signed request and its signed reply on one open link."""

import time
from typing import Any

from benchmarks import floors
from benchmarks.harness import Bench
from benchmarks.measuring import Sample, Usage, concurrently
from benchmarks.process import Place
from benchmarks.stacks import OURS, autolink_stack
from benchmarks.stacks.base import Session, Stack


async def calls(stack: Stack, place: Place, *, concurrency: int, size: int, seconds: float) -> dict[str, Any]:
    """Calls of any stack on one session, so many of them at once."""
    async with stack.session(place.folder, place.where) as session:
        return await measured(session, place, concurrency=concurrency, size=size, seconds=seconds)


async def measured(
    session: Session, place: Place, *, concurrency: int, size: int, seconds: float
) -> dict[str, Any]:
    body = b"x" * size

    async def once() -> float:
        begun = time.perf_counter()
        if len(await session.echo(body)) != size:
            raise RuntimeError("the echo is not what was sent")
        return time.perf_counter() - begun

    with Usage(place.server) as usage:
        count, latencies = await concurrently(concurrency, seconds, once)
    return Sample.of(count, usage, latencies)


async def calls_in_one_process(
    stack: Stack, place: Place, *, concurrency: int, size: int, seconds: float
) -> dict[str, Any]:
    """The same with both ends here: CPU time counts both to the nanosecond."""
    server = autolink_stack.server(place.folder, resume=False)
    async with (
        server.listening("127.0.0.1:0") as listener,
        stack.session(place.folder, str(listener.contact)) as session,
    ):
        return await measured(session, place, concurrency=concurrency, size=size, seconds=seconds)


def run(bench: Bench) -> None:
    names = [OURS, *(stack.name for stack in bench.able("call"))]
    for size in (100, 1024):
        for concurrency in (32, 1):
            side = size != 100
            seconds = bench.budget.side_seconds
            measures = {
                name: bench.job(name, calls, concurrency=concurrency, size=size, seconds=seconds)
                for name in names
            }
            contest = bench.contest(
                "call", "calls/s", measures, side=side or concurrency == 1, concurrency=concurrency, size=size
            )
            if concurrency == 32 and not side:
                bench.row("call32_vs_grpc", contest.ratio("grpcio"))
    _floor(bench)


def _floor(bench: Bench) -> None:
    seconds = bench.budget.side_seconds
    measures = {
        OURS: bench.alone(calls_in_one_process, concurrency=1, size=100, seconds=seconds),
        "floor": bench.alone(floors.calls, seconds=seconds),
    }
    contest = bench.contest(
        "call", "CPU us, both ends in one process", measures, by="cpu_us", concurrency=1, size=100
    )
    bench.row("call_vs_floor", contest.ratio("floor"))
