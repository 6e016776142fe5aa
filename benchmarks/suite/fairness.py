"""`fairness`: a small call's latency while bulk moves, on another channel of its link or on other links of its agent."""

from contextlib import AsyncExitStack
from typing import Any

import anyio

from benchmarks.harness import Bench
from benchmarks.process import Place
from benchmarks.stacks import OURS, autolink_stack
from benchmarks.stacks.autolink_stack import LinkSession
from benchmarks.stacks.base import Stack
from benchmarks.suite.call import measured

SIZE = 100
ENDLESS = 1 << 50
"""Bytes: bulk that goes on until it is cancelled."""

QUIET = "quiet"
SAME = "beside bulk on the same link"


async def calls_beside(
    _stack: Stack, place: Place, *, same: bool, others: int, seconds: float
) -> dict[str, Any]:
    """Calls, one at a time, while bulk moves on this link and on so many others."""
    agent = autolink_stack.client(place.folder)
    async with AsyncExitStack() as open_links:
        session, *rest = [
            LinkSession(await open_links.enter_async_context(agent.connect(place.where)))
            for _ in range(1 + others)
        ]
        busy = [session, *rest] if same else rest
        async with anyio.create_task_group() as moving:
            for one in busy:
                moving.start_soon(one.bulk, ENDLESS)
            if busy:
                # It is under way.
                await measured(session, place, concurrency=1, size=SIZE, seconds=seconds / 4)
            sample = await measured(session, place, concurrency=1, size=SIZE, seconds=seconds)
            moving.cancel_scope.cancel()
    return sample


def run(bench: Bench) -> None:
    seconds, crowd = bench.budget.seconds, bench.budget.crowd
    beside = f"while {crowd} other links move bulk"
    measures = {
        QUIET: bench.job(OURS, calls_beside, same=False, others=0, seconds=seconds),
        SAME: bench.job(OURS, calls_beside, same=True, others=0, seconds=seconds),
        beside: bench.job(OURS, calls_beside, same=False, others=crowd, seconds=seconds),
    }
    contest = bench.contest("fairness", "p99 us of a call", measures, by="p99_us", concurrency=1, size=SIZE)
    bench.row("call_p99_beside_bulk", contest.ratio(SAME))
