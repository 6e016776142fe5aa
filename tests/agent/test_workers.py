"""The tasks of handlers: used again on Trio, without a handler seeing anything of the one before it."""

import gc
import weakref
from contextvars import ContextVar

import anyio
import pytest
import trio

from autolink.agent.workers import _KEPT, Workers
from autolink.loop import running_loop
from autolink.testing import link_pair

left_over: ContextVar[object] = ContextVar("left_over", default=None)


class Thing:
    """What a handler may leave behind in its context."""


@pytest.fixture
def asked(agents):
    """(seller, buyer, what each handler saw: its task if that is one of Trio's, its name, what stood in the context)."""
    seller, buyer = agents
    seen = []

    def look():
        task = trio.lowlevel.current_task() if trio.lowlevel.in_trio_run() else None
        seen.append((task, anyio.get_current_task().name, left_over.get()))
        left_over.set(Thing())

    @seller.method
    async def ask(call, body):
        look()
        return body

    @seller.channel
    async def talk(channel):
        look()
        async for item in channel:
            await channel.send(item)

    return seller, buyer, seen


@pytest.mark.anyio
async def test_a_handler_sees_nothing_of_the_one_before_it_in_its_task(asked):
    """On Trio and on asyncio: a context as its starter's, and its own name."""
    seller, buyer, seen = asked
    async with link_pair(buyer, seller) as (link, _):
        for _ in range(4):
            await link.call("ask")
            async with link.open_channel("talk") as channel:
                await channel.send(1)
                assert await channel.receive() == 1
    assert [(name, found) for _, name, found in seen] == [
        ("autolink handler ask", None), ("autolink handler talk", None)
    ] * 4  # fmt: skip


async def test_the_second_task_of_a_link_is_kept(asked):
    """So that the test above says something: from then on handlers that follow each other share it."""
    seller, buyer, seen = asked
    async with link_pair(buyer, seller) as (link, _):
        for _ in range(4):
            await link.call("ask")
    first, *others = [task for task, _, _ in seen]
    assert len(set(others)) == 1
    assert first not in others


async def test_a_task_that_waits_holds_nothing_of_its_last_handler(asked):
    """What a handler has put into its context goes with it."""
    seller, buyer, _ = asked
    things = []

    @seller.method
    async def leave(call, body):
        left_over.set(thing := Thing())
        things.append(weakref.ref(thing))

    async with link_pair(buyer, seller) as (link, _):
        await link.call("ask")  # its answer starts the link's writer, in a copy of the handler's context
        for _ in range(3):
            await link.call("leave")
        gc.collect()
        assert [thing() for thing in things] == [None] * 3


async def test_a_cancelled_handlers_task_is_not_used_again(asked):
    """Its scope stays cancelled: the next handler has another one, and runs."""
    seller, buyer, seen = asked
    stopped = trio.Event()

    @seller.method
    async def wait(call, body):
        seen.append((trio.lowlevel.current_task(), "", None))
        try:
            await trio.sleep_forever()
        finally:
            stopped.set()

    async with link_pair(buyer, seller) as (link, _):
        for _ in range(2):
            await link.call("ask")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(link.call, "wait")
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        await stopped.wait()
        assert await link.call("ask", 5) == 5
        await trio.testing.wait_all_tasks_blocked()
    assert seen[1][0] is seen[2][0] is not seen[3][0]


async def test_a_handler_that_outlives_its_cancellation_gives_its_task_away():
    """It swallowed it, or ended just before: what comes next must not be born cancelled."""
    done = []

    async def work(at, scope):
        done.append((at, trio.lowlevel.current_task()))
        if scope:
            scope[0].cancel()

    async with trio.open_nursery() as nursery:
        workers = Workers(running_loop(), work)
        scope = []
        for at in range(5):
            scope[:] = [workers.start(nursery, "work", at, scope if at == 3 else [])]
            await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert [at for at, _ in done] == [0, 1, 2, 3, 4]
    assert len({task for _, task in done[1:4]}) == 1
    assert done[4][1] is not done[3][1]


async def test_a_limited_number_of_tasks_waits():
    """After a burst of handlers most of their tasks end."""
    gate = trio.Event()

    async def work():
        await gate.wait()

    async with trio.open_nursery() as nursery:
        workers = Workers(running_loop(), work)
        for _ in range(2 * _KEPT):
            workers.start(nursery, "work")
        await trio.testing.wait_all_tasks_blocked()
        assert len(nursery.child_tasks) == 2 * _KEPT
        gate.set()
        await trio.testing.wait_all_tasks_blocked()
        assert len(nursery.child_tasks) == _KEPT
        nursery.cancel_scope.cancel()


async def test_a_task_that_waits_ends_with_its_group():
    """Cancelled, it leaves the list: nobody wakes up a task that has ended."""
    done = []

    async def work():
        done.append(1)

    workers = Workers(running_loop(), work)
    for _ in range(2):
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                workers.start(nursery, "work")
                await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
    assert len(done) == 6


async def test_what_leaves_the_work_leaves_the_group():
    """An error that is no handler's is a bug, and is not swallowed by keeping the task."""

    async def work(error):
        if error is not None:
            raise error

    with pytest.raises(BaseExceptionGroup) as raised:
        async with trio.open_nursery() as nursery:
            workers = Workers(running_loop(), work)
            for error in (None, None, KeyError()):
                workers.start(nursery, "work", error)
                await trio.testing.wait_all_tasks_blocked()
    assert raised.group_contains(KeyError)
