"""The operations over links in memory: who is asked to resume, and what a receiver may confirm."""

from contextlib import asynccontextmanager
from itertools import pairwise

import anyio
import pytest

from autolink import Channel, Handlers
from autolink.cli.bench.operations import confirmed, resumes
from autolink.errors import BodyError, CallError, Code, LinkLost, RemoteProtocolError
from autolink.testing import Authority, link_pair
from autolink.testing.target import handlers as target


@pytest.mark.parametrize(("share", "count"), [(0, 0), (0.25, 250), (0.3, 300), (1, 1000)])
def test_a_share_of_handshakes_is_spread_evenly(share, count):
    asked = [number for number in range(1000) if resumes(number, share)]
    assert len(asked) == pytest.approx(count, abs=1)
    gaps = {later - earlier for earlier, later in pairwise(asked)}
    assert not gaps or max(gaps) - min(gaps) <= 1


@asynccontextmanager
async def messages_to(handlers, channel):
    acme = Authority("acme")
    seller, buyer = acme.agent("seller", handlers=handlers), acme.agent("buyer")
    async with link_pair(buyer, seller) as (near, _), confirmed(near, channel) as messages:
        yield messages, near


async def test_a_message_is_done_when_the_sink_has_confirmed_it():
    """Also many at once, of which it confirms some together."""
    async with messages_to(target, "sink") as (messages, link):
        await messages.send(b"one")
        async with anyio.create_task_group() as tasks:
            for _ in range(300):
                tasks.start_soon(messages.send, bytes(1000))
        assert link.statistics().messages_verified <= 301
    with pytest.raises(LinkLost):
        await messages.send(b"after its end")


async def test_echo_gives_back_the_body():
    acme = Authority("acme")
    async with link_pair(acme.agent("buyer"), acme.agent("seller", handlers=target)) as (near, _):
        assert await near.call("echo", {"a": [1, b"\xff", None]}) == {"a": [1, b"\xff", None]}


LIES = {
    "more than was sent": ([2], RemoteProtocolError),
    "nothing new": ([0], RemoteProtocolError),
    "less than before": ([1, 1], RemoteProtocolError),
    "no number": (["one"], BodyError),
    "an end": ([], CallError),
    "an error": ([None], CallError),
}


@pytest.mark.parametrize(("said", "error"), LIES.values(), ids=LIES)
async def test_a_receiver_that_confirms_what_cannot_be_fails_the_messages_that_wait(said, error):
    """Each of them, now and later, and nobody waits for ever."""
    handlers = Handlers()

    @handlers.channel
    async def liar(channel: Channel[object, object]) -> None:
        for answer in said:
            await channel.receive()
            if answer is None:
                raise CallError(Code.DATA_LOSS, "lost it")
            await channel.send(answer)

    async with messages_to(handlers, "liar") as (messages, _):
        failed = []

        async def send():
            try:
                await messages.send(b"item")
            except (CallError, RemoteProtocolError, BodyError, LinkLost) as caught:
                failed.append(caught)

        if said == [1, 1]:
            await send()
            assert not failed
        await send()
        await messages.over.wait()
        await send()
        assert [type(each) for each in failed] == [error, error]


async def test_a_receiver_that_takes_nothing_holds_senders_back_until_the_channel_ends():
    """They wait for credit, and learn why there is none to come."""
    handlers, release = Handlers(), anyio.Event()

    @handlers.channel
    async def slow(channel: Channel[object, object]) -> None:
        await release.wait()
        await channel.send("nonsense")
        await anyio.sleep_forever()

    async with messages_to(handlers, "slow") as (messages, _):
        failed = []

        async def send():
            try:
                await messages.send(bytes(60_000))
            except (BodyError, LinkLost) as caught:
                failed.append(type(caught))

        async with anyio.create_task_group() as tasks:
            for _ in range(20):
                tasks.start_soon(send)
            await anyio.wait_all_tasks_blocked()
            release.set()
            await messages.over.wait()
        assert failed == [BodyError] * 20
