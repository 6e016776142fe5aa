"""Publish and subscribe: what happens to a slow subscriber is declared, and what it lost is counted."""

import anyio
import pytest
from pydantic import BaseModel

from autolink import BodyError, CallError, Code, UsageError
from autolink.testing import link_pair

pytestmark = pytest.mark.anyio


class Price(BaseModel):
    cents: int


async def fill(topic, count, *, start=0):
    for number in range(start, start + count):
        await topic.publish(number)


async def test_every_subscriber_gets_every_publication_in_order_and_typed(agents):
    """Forty subscriptions of one topic over one link; when the block is entered the subscription stands."""
    seller, buyer = agents
    prices = seller.topic("prices", of=Price)
    got = []

    async def watch(link, started) -> None:
        async with link.subscribe("prices", receives=Price) as feed:
            started.set()
            got.append([(await feed.receive()).cents for _ in range(20)])

    async with link_pair(buyer, seller) as (link, _), anyio.create_task_group() as tasks:
        events = [anyio.Event() for _ in range(40)]
        for event in events:
            tasks.start_soon(watch, link, event)
        for event in events:
            await event.wait()
        for cents in range(20):
            await prices.publish(Price(cents=cents))
    assert got == [list(range(20))] * 40
    counts = prices.statistics()
    assert (counts.published, counts.subscribers, counts.dropped, counts.disconnected) == (20, 0, 0, 0)


async def test_a_publication_before_the_subscription_is_neither_seen_nor_lost(agents):
    seller, buyer = agents
    topic = seller.topic("n", of=int)
    await fill(topic, 5)
    async with link_pair(buyer, seller) as (link, _), link.subscribe("n") as feed:
        await topic.publish(5)
        assert await feed.receive() == 5
        assert feed.lost == 0


async def test_an_unknown_topic_is_unimplemented(agents):
    seller, buyer = agents
    async with link_pair(buyer, seller) as (link, _):
        with pytest.raises(CallError) as error:
            async with link.subscribe("nothing"):
                pytest.fail("must not be entered")
        assert error.value.code is Code.UNIMPLEMENTED
        with pytest.raises(UsageError):
            async with link.subscribe(""):
                pytest.fail("must not be entered")


async def test_leaving_the_block_unsubscribes(agents):
    seller, buyer = agents
    topic = seller.topic("n", of=int)
    async with link_pair(buyer, seller) as (link, far):
        async with link.subscribe("n") as feed:
            assert topic.statistics().subscribers == 1
        with pytest.raises(anyio.ClosedResourceError):
            await feed.receive()
        await link.ping()
        await anyio.wait_all_tasks_blocked()
        assert topic.statistics().subscribers == 0
        assert far.statistics().handlers == 0


async def test_drop_oldest_never_waits_and_the_subscriber_counts_what_it_lost(agents):
    """Publications larger than the channel's credit, so that the buffer of 4 overflows."""
    seller, buyer = agents
    topic = seller.topic("big", of=str, overflow="drop_oldest", buffer=4)
    text = "x" * 200_000
    async with link_pair(buyer, seller) as (link, _), link.subscribe("big", receives=str) as feed:
        for number in range(50):
            await topic.publish(f"{number:03}{text}")
        await anyio.wait_all_tasks_blocked()
        first = int((await feed.receive())[:3])
        got = [first]
        while got[-1] < 49:
            got.append(int((await feed.receive())[:3]))
        assert got == sorted(got)
        assert got[-4:] == [46, 47, 48, 49]
        assert feed.lost == 50 - len(got) > 0
        assert topic.statistics().dropped == feed.lost


async def test_wait_makes_the_publisher_as_slow_as_its_slowest_subscriber(agents):
    seller, buyer = agents
    topic = seller.topic("big", of=str, overflow="wait", buffer=2)
    text = "x" * 200_000
    published = 0

    async def publish() -> None:
        nonlocal published
        for number in range(20):
            await topic.publish(f"{number:03}{text}")
            published = number + 1

    async with link_pair(buyer, seller) as (link, _), link.subscribe("big", receives=str) as feed:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(publish)
            await anyio.wait_all_tasks_blocked()
            assert 2 < published < 10
            assert [int((await feed.receive())[:3]) for _ in range(20)] == list(range(20))
        assert feed.lost == 0


async def test_two_publishers_that_wait_do_not_overtake_each_other(agents):
    """One slow and one fast subscriber: the fast one must not see the second publisher's value first."""
    seller, buyer = agents
    topic = seller.topic("big", of=str, buffer=1)
    text = "x" * 300_000
    async with link_pair(buyer, seller) as (link, _), anyio.create_task_group() as tasks:
        async with link.subscribe("big", receives=str) as one, link.subscribe("big", receives=str) as two:
            got = {one: [], two: []}

            async def read(feed) -> None:
                while True:
                    got[feed].append((await feed.receive())[:1])

            async def publish(name) -> None:
                for _ in range(10):
                    await topic.publish(name + text)

            async with anyio.create_task_group() as publishers:
                publishers.start_soon(publish, "a")
                publishers.start_soon(publish, "b")
                tasks.start_soon(read, one)
                for _ in range(5):
                    await anyio.wait_all_tasks_blocked()
                tasks.start_soon(read, two)
            await anyio.wait_all_tasks_blocked()
            assert got[one] == got[two]
            assert len(got[one]) == 20
            assert link.lost is None
            tasks.cancel_scope.cancel()


async def test_disconnect_ends_a_slow_subscription_with_a_reason_and_keeps_the_link(agents):
    seller, buyer = agents
    topic = seller.topic("big", of=str, overflow="disconnect", buffer=2)
    async with link_pair(buyer, seller) as (link, _), link.subscribe("big", receives=str) as feed:
        for _ in range(20):
            await topic.publish("x" * 200_000)
        assert topic.statistics().disconnected == 1
        with pytest.raises(CallError) as error:
            while True:
                await feed.receive()
        assert error.value.code is Code.RESOURCE_EXHAUSTED
        await link.ping()


async def test_a_publication_of_another_type_is_told_to_whoever_is_wrong(agents):
    seller, buyer = agents
    topic = seller.topic("prices", of=Price)
    with pytest.raises(BodyError, match="cents"):
        await topic.publish({"cents": "many"})
    async with link_pair(buyer, seller) as (link, _), link.subscribe("prices", receives=list) as feed:
        await topic.publish(Price(cents=1))
        with pytest.raises(BodyError):
            await feed.receive()


async def test_too_many_subscribers_are_refused(agents, monkeypatch):
    seller, buyer = agents
    seller.topic("n", of=int)
    monkeypatch.setattr("autolink.limits.SUBSCRIBERS", 1)
    async with link_pair(buyer, seller) as (link, _), link.subscribe("n"):
        with pytest.raises(CallError) as error:
            async with link.subscribe("n"):
                pytest.fail("must not be entered")
        assert error.value.code is Code.RESOURCE_EXHAUSTED


async def test_rule_33_a_publication_is_for_the_topic_and_accepted_by_subscribers_only(agents):
    """Its recipient is topic:<publisher>/<name>, and its signed number counts the topic's publications."""
    seller, buyer = agents
    topic = seller.topic("prices", of=int)
    await topic.publish(0)
    async with link_pair(buyer, seller) as (link, _), link.subscribe("prices") as feed:
        await topic.publish(1)
        received = await feed._lane.receive()
        assert received.message.recipient == topic.recipient == f"topic:{seller.auto_id.hex}/prices"
        assert received.message.seq == 1
