"""`autolink.loop`: each run has the functions of its own event loop, and on Trio the time of its own clock."""

import asyncio

import anyio
import trio
from trio.testing import MockClock

from autolink.loop import running_loop


async def times() -> tuple[float, float]:
    return running_loop().current_time(), anyio.current_time()


def test_each_run_of_trio_has_its_own_clock():
    for start in (1000.0, 2000.0):
        clock = MockClock()
        clock.jump(start)
        ours, theirs = trio.run(times, clock=clock)
        assert ours == theirs == clock.current_time()


def test_a_clock_need_not_be_hashable():
    class Clock(trio.abc.Clock):
        __hash__ = None

        def start_clock(self) -> None: ...

        def current_time(self) -> float:
            return 5.0

        def deadline_to_sleep_time(self, deadline: float) -> float:
            return 0.0

    assert trio.run(times, clock=Clock()) == (5.0, 5.0)


def test_a_run_of_asyncio_after_one_of_trio_has_anyios():
    async def functions() -> object:
        return running_loop().current_time

    trio.run(functions)
    assert asyncio.run(functions()) is anyio.current_time
