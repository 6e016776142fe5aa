"""Deadlines travel with a call; whoever notices first, the caller sees TimeoutError."""

import anyio
import pytest

from autolink import CallError, Code
from autolink.testing import Network, link_pair


@pytest.fixture
def sleeping(agents):
    seller, buyer = agents
    seller.ended = []

    @seller.method
    async def sleep(call, seconds: float) -> str:
        begun = anyio.current_time()
        try:
            await anyio.sleep(seconds)
        finally:
            seller.ended.append(anyio.current_time() - begun)
        return "slept"

    return seller, buyer


async def test_the_caller_notices_first_and_the_far_handler_is_cancelled(sleeping, virtual_clock):
    seller, buyer = sleeping
    async with link_pair(buyer, seller, network=Network(latency=0.5)) as (link, far):
        with pytest.raises(TimeoutError):
            with anyio.fail_after(2):
                await link.call("sleep", 100.0)
        await anyio.sleep(2)
        assert far.statistics().handlers == 0
        assert seller.ended[0] <= 2


async def test_the_far_end_notices_first_and_the_callers_own_scope_still_says_so(sleeping, virtual_clock):
    """The remaining time runs out there while its answer needs longer than ours: the scope's deadline decides."""
    seller, buyer = sleeping
    async with link_pair(buyer, seller) as (link, _):
        begun = anyio.current_time()
        with anyio.move_on_after(2) as scope:
            await link.call("sleep", 100.0)
        assert scope.cancelled_caught
        assert anyio.current_time() - begun == pytest.approx(2)
        with pytest.raises(TimeoutError):
            with anyio.fail_after(2):
                await link.call("sleep", 100.0)
        await anyio.sleep(1)
        assert seller.ended == [pytest.approx(2), pytest.approx(2)]


async def test_a_far_clock_that_runs_fast_is_a_timeout_too(sleeping, virtual_clock, monkeypatch):
    """The handler is stopped long before our deadline: TimeoutError at once, without waiting for it."""
    seller, buyer = sleeping
    monkeypatch.setattr("autolink.agent.core._microseconds_until", lambda deadline: 1_000_000)
    async with link_pair(buyer, seller) as (link, _):
        begun = anyio.current_time()
        with anyio.fail_after(50), pytest.raises(TimeoutError):
            await link.call("sleep", 100.0)
        assert anyio.current_time() - begun == pytest.approx(1)


async def test_a_deadline_that_has_passed_sends_nothing(sleeping, virtual_clock):
    seller, buyer = sleeping
    async with link_pair(buyer, seller) as (link, far):
        sent = link.statistics().messages_sent
        with pytest.raises(TimeoutError):
            with anyio.fail_after(-1):
                await link.call("sleep", 0.0)
        assert link.statistics().messages_sent == sent
        assert far.statistics().handlers == 0


async def test_a_handlers_own_timeout_is_internal(agents, virtual_clock, caplog):
    """Not the caller's deadline: the caller must not think so."""
    seller, buyer = agents

    @seller.method
    async def gives_up(call, body) -> None:
        with anyio.fail_after(1):
            await anyio.sleep(10)

    async with link_pair(buyer, seller) as (link, _):
        with anyio.fail_after(100), pytest.raises(CallError) as error:
            await link.call("gives_up")
        assert error.value.code is Code.INTERNAL


async def test_without_a_deadline_a_call_waits_for_ever_and_with_an_absurd_one_too(sleeping, virtual_clock):
    seller, buyer = sleeping
    async with link_pair(buyer, seller) as (link, _):
        assert await link.call("sleep", 10_000.0) == "slept"
        with anyio.fail_after(1e12):
            assert await link.call("sleep", 10_000.0) == "slept"


async def test_waiting_for_a_place_among_the_channels_ends_with_the_deadline(sleeping, virtual_clock):
    seller, buyer = sleeping
    async with link_pair(buyer, seller) as (link, far), anyio.create_task_group() as tasks:
        for _ in range(256):
            tasks.start_soon(link.call, "sleep", 100.0)
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(TimeoutError):
            with anyio.fail_after(5):
                await link.call("sleep", 0.0)
        assert far.statistics().handlers == 256
        tasks.cancel_scope.cancel()


async def test_waiting_for_a_place_takes_its_part_of_the_deadline_that_the_handler_gets(
    sleeping, virtual_clock
):
    seller, buyer = sleeping
    left = []

    @seller.method
    async def look(call, body) -> None:
        left.append(anyio.current_effective_deadline() - anyio.current_time())

    async with link_pair(buyer, seller) as (link, _), anyio.create_task_group() as tasks:
        for _ in range(256):
            tasks.start_soon(link.call, "sleep", 5.0)
        await anyio.wait_all_tasks_blocked()
        with anyio.fail_after(7):
            await link.call("look")
    assert left == [pytest.approx(2, abs=0.01)]


async def test_a_handler_calls_back_under_the_deadline_of_its_caller(agents, virtual_clock):
    """Structured concurrency crosses the network twice."""
    seller, buyer = agents
    seen = []

    @buyer.method
    async def look(call, body) -> None:
        seen.append(anyio.current_effective_deadline() - anyio.current_time())

    @seller.method
    async def ask_back(call, body) -> None:
        await call.link.call("look")

    async with link_pair(buyer, seller) as (link, _):
        with anyio.fail_after(7):
            await link.call("ask_back")
    assert seen == [pytest.approx(7, abs=0.01)]
