"""Kept links: made again whenever they are lost, without doing twice or losing what only the caller can decide on."""

import random

import anyio
import anyio.lowlevel
import pytest

from autolink import CallError, Code, DeliveryUnknown, LinkLost, Reason, Refused, UsageError, limits
from autolink.agent.kept import back_off
from autolink.protocol.frames import LAST_CHANNEL
from autolink.testing import Network
from autolink.trust import IssuedBy, Model


@pytest.fixture
def network():
    return Network(latency=0.01)


@pytest.fixture
def serving(agents, network):
    """(seller, buyer) on one network; `work` sleeps its argument and counts."""
    seller, buyer = agents
    seller.done = []

    @seller.method
    async def work(call, seconds: float) -> float:
        await anyio.sleep(seconds)
        seller.done.append(seconds)
        return seconds

    network.join(buyer)
    return seller, buyer


async def test_a_call_waits_for_a_link_as_long_as_its_deadline_allows(serving, network, virtual_clock):
    seller, buyer = serving
    async with network.listening(seller) as listener:
        contact = listener.contact
    async with buyer.keep_link(contact) as kept:
        assert kept.link is None
        with anyio.move_on_after(100) as scope:
            await kept.call("work", 0.0)
        assert scope.cancelled_caught
        async with anyio.create_task_group() as tasks:
            got = []

            async def call() -> None:
                got.append(await kept.call("work", 1.0))

            tasks.start_soon(call)
            await anyio.sleep(10)
            async with network.listening(seller):
                await anyio.sleep(60)
                assert got == [1.0]


async def test_a_lost_link_is_made_again_and_a_call_in_doubt_is_not_sent_again(
    serving, network, virtual_clock
):
    seller, buyer = serving
    async with network.listening(seller) as listener, buyer.keep_link(listener.contact) as kept:
        assert await kept.call("work", 0.0) == 0.0
        first = kept.link

        async def cut() -> None:
            await anyio.sleep(1)
            network.cut()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(cut)
            with pytest.raises(DeliveryUnknown):
                await kept.call("work", 5.0)
        assert await kept.call("work", 2.0) == 2.0
        assert kept.link is not first
        await anyio.sleep(60)
        assert seller.done == [0.0, 2.0]


async def test_a_call_that_was_still_waiting_for_its_place_goes_to_the_next_link(
    serving, network, monkeypatch, virtual_clock
):
    """Two are out when the link dies, and in doubt; the third was never handed over."""
    seller, buyer = serving
    monkeypatch.setattr(limits, "CHANNELS", 2)
    ended = []
    async with network.listening(seller) as listener, buyer.keep_link(listener.contact) as kept:
        await kept.call("work", 0.0)

        async def call(seconds: float) -> None:
            try:
                ended.append(await kept.call("work", seconds))
            except DeliveryUnknown:
                ended.append("in doubt")

        async with anyio.create_task_group() as tasks:
            for seconds in (5.0, 5.0, 1.0):
                tasks.start_soon(call, seconds)
                await anyio.sleep(0.1)
            network.cut()
    assert ended == ["in doubt", "in doubt", 1.0]


async def test_a_refusal_surfaces_and_trust_given_later_heals_it(acme, globex, network, virtual_clock):
    """The operations raise it at once; the kept link goes on trying."""
    seller = acme.agent("seller", trust=IssuedBy(acme.anchor))
    buyer = globex.agent("buyer", trust=IssuedBy(acme.anchor))
    network.join(buyer)

    @seller.method
    async def echo(call, body) -> object:
        return body

    async with network.listening(seller) as listener, buyer.keep_link(listener.contact) as kept:
        await anyio.sleep(5)
        for _ in range(3):
            with pytest.raises(Refused) as error:
                await kept.call("echo", 1)
            assert (error.value.by, error.value.reason) == ("peer", Reason.UNTRUSTED)
        seller.trust = IssuedBy(globex.anchor)
        await anyio.sleep(60)
        assert await kept.call("echo", 1) == 1


async def test_a_refusal_raised_often_does_not_grow(acme, globex, network, virtual_clock):
    """One exception object with the traceback of its last raise, not of all."""
    seller = acme.agent("seller", trust=IssuedBy(acme.anchor))
    buyer = globex.agent("buyer", trust=IssuedBy(acme.anchor))
    network.join(buyer)
    async with network.listening(seller) as listener, buyer.keep_link(listener.contact) as kept:
        await anyio.sleep(5)
        depths = []
        for _ in range(50):
            with pytest.raises(Refused) as error:
                await kept.ready()
            depths.append(len(error.traceback))
        assert max(depths) == min(depths)


def test_back_off_doubles_with_full_jitter_up_to_a_cap_for_ever():
    """After ten thousand failures too, where two to their power is no float."""
    random.seed(1)
    for failures, most in ((1, 0.1), (2, 0.2), (5, 1.6), (9, 25.6), (10, 30.0), (10_000, 30.0)):
        waits = [back_off(failures) for _ in range(500)]
        assert 0 <= min(waits) < 0.1 * most
        assert 0.9 * most < max(waits) <= most <= limits.RETRY_MAX


async def test_attempts_become_rare_while_nobody_answers(serving, network, virtual_clock):
    seller, buyer = serving
    tries = []

    async def reach(address):
        tries.append(anyio.current_time())
        raise ConnectionRefusedError("nobody")

    buyer.reach = reach
    async with buyer.keep_link("host:1", expect=seller.peer_id):
        await anyio.sleep(3600)
    assert 3600 / limits.RETRY_MAX < len(tries) < 3600 / limits.RETRY_MAX * 4


async def test_a_peer_that_drops_every_link_at_once_is_not_hammered(serving, network, virtual_clock):
    """A link that opens and is lost counts as a failure until one has lasted."""
    seller, buyer = serving
    async with network.listening(seller) as listener, buyer.keep_link(listener.contact) as kept:

        async def drop() -> None:
            while True:
                link = await kept.ready()
                network.cut()
                await link.closed()

        with anyio.move_on_after(600):
            await drop()
        assert buyer.statistics().opened < 600 / limits.RETRY_MAX * 6


async def test_goaway_moves_calls_to_a_new_link_and_loses_none(serving, network, virtual_clock):
    """The peer drains one link after the other under a stream of calls: each is done exactly once."""
    seller, buyer = serving
    numbers = [round(0.3 + n / 1000, 3) for n in range(400)]
    async with network.listening(seller) as listener, buyer.keep_link(listener.contact) as kept:

        async def drain() -> None:
            while True:
                await anyio.sleep(0.7)
                for link in seller.links:
                    link.go_away("age")

        got = []

        async def call(number, delay) -> None:
            await anyio.sleep(delay)
            got.append(await kept.call("work", number))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(drain)
            async with anyio.create_task_group() as callers:
                for index, number in enumerate(numbers):
                    callers.start_soon(call, number, index / 50)
            tasks.cancel_scope.cancel()
        assert sorted(got) == sorted(seller.done) == numbers
        assert buyer.statistics().opened >= 5


async def test_links_that_the_peer_drains_and_never_ends_do_not_gather(serving, network, virtual_clock):
    """It goes on answering our pings, so nothing else ends them."""
    seller, buyer = serving
    async with network.listening(seller) as listener, buyer.keep_link(listener.contact) as kept:
        for _ in range(20):
            await kept.call("work", 0.0)
            far = next(link for link in seller.links if link.protocol.state[0] != "draining")
            far.traffic.control(far.protocol.go_away(far._last_opened_by_peer, "bye"))
            await anyio.sleep(2 * limits.KEEPALIVE)
            assert len(buyer.links) <= 3
        assert len(seller.done) == 20


async def test_a_call_that_the_draining_peer_had_not_looked_at_goes_to_the_next_link(
    serving, network, virtual_clock
):
    """It crosses the GOAWAY on the wire: the peer promises that it has not looked, so it is safe to send it again."""
    seller, buyer = serving
    async with network.listening(seller) as listener, buyer.keep_link(listener.contact) as kept:
        await kept.call("work", 0.0)
        first = kept.link
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(kept.call, "work", 0.5)
            await anyio.lowlevel.checkpoint()
            (far,) = seller.links
            far.go_away("shutdown")  # at the same moment
            await anyio.sleep(0.005)
        assert kept.link is not first
        assert seller.done == [0.0, 0.5]


async def test_a_plain_link_says_unavailable_to_a_call_that_was_not_looked_at(
    serving, network, virtual_clock
):
    seller, buyer = serving
    async with network.listening(seller) as listener, buyer.connect(listener.contact) as link:
        await anyio.sleep(1)
        (far,) = seller.links
        far.go_away("shutdown")
        with pytest.raises(CallError) as error:
            await link.call("work", 0.5)
        assert error.value.code is Code.UNAVAILABLE
        with pytest.raises((UsageError, LinkLost)):  # draining, or drained by now
            await link.call("work", 0.5)


async def test_whoever_waits_for_a_place_when_the_link_begins_to_drain_goes_to_the_next(
    serving, network, virtual_clock
):
    seller, buyer = serving
    async with network.listening(seller) as listener, buyer.keep_link(listener.contact) as kept:
        async with anyio.create_task_group() as tasks:
            for _ in range(limits.CHANNELS + 20):
                tasks.start_soon(kept.call, "work", 100.0)
            await anyio.sleep(1)
            seller.links[0].go_away("age")
            await anyio.sleep(20)
            assert len(seller.links) == 2
            assert seller.statistics().handlers == limits.CHANNELS + 20
        assert len(seller.done) == limits.CHANNELS + 20


async def test_a_link_whose_channel_numbers_are_used_up_is_made_again(serving, network, virtual_clock):
    """A thousand million calls are a day of a busy link."""
    seller, buyer = serving
    async with network.listening(seller) as listener, buyer.keep_link(listener.contact) as kept:
        first = await kept.ready()
        first.protocol._channels._next = LAST_CHANNEL - 4
        with anyio.fail_after(60):
            for number in range(3):
                assert first.lost is None
                assert not first.draining
                await kept.call("work", float(number))
            await kept.call("work", 3.0)
        assert kept.link is not first
    assert seller.done == [0.0, 1.0, 2.0, 3.0]


async def test_channels_and_subscriptions_use_the_link_of_the_moment(serving, network, virtual_clock):
    seller, buyer = serving
    seller.topic("news", of=int)

    @seller.channel
    async def double(channel) -> None:
        async for number in channel:
            await channel.send(2 * number)

    async with network.listening(seller) as listener, buyer.keep_link(listener.contact) as kept:
        for _ in range(3):
            async with kept.open_channel("double", sends=int, receives=int) as channel:
                await channel.send(4)
                assert await channel.receive() == 8
            async with kept.subscribe("news", receives=int) as feed:
                await seller.topics["news"].publish(1)
                assert await feed.receive() == 1
            seller.links[0].go_away("age")
            await anyio.sleep(1)
        with pytest.raises(KeyError):
            async with kept.open_channel("double"):
                raise KeyError("mine")


async def test_a_credential_is_replaced_while_calls_go_on_and_none_is_lost(
    acme, globex, network, virtual_clock
):
    """With a new key, so that the link is drained and made again with it."""
    seller = acme.agent("seller", trust=IssuedBy(globex.anchor))
    buyer = globex.agent("buyer", trust=IssuedBy(acme.anchor))
    network.join(buyer)
    seen = []

    @seller.method
    async def who(call, number: int) -> int:
        await anyio.sleep(0.5)
        seen.append(call.peer.leaf.fingerprint)
        return number

    async with network.listening(seller) as listener, buyer.keep_link(listener.contact) as kept:
        got = []

        async def call(number) -> None:
            await anyio.sleep(number / 10)
            got.append(await kept.call("who", number))

        async with anyio.create_task_group() as tasks:
            for number in range(100):
                tasks.start_soon(call, number)
            await anyio.sleep(4)
            buyer.replace_credential(globex.issue("buyer"))
            await anyio.sleep(2)
            seller.replace_credential(acme.issue("seller"))
        assert sorted(got) == list(range(100))
        assert len(set(seen)) == 2
        assert kept.link.peer.leaf.fingerprint == seller.credential.leaf.fingerprint


@pytest.mark.parametrize("who", ["seller", "buyer"])
async def test_a_credential_replaced_while_a_link_opens_is_like_one_replaced_just_after(
    serving, network, acme, globex, virtual_clock, who
):
    """TLS has shown the old one, so the opening ends with it; then the link is drained, and made anew."""
    seller, buyer = serving
    replaced, judging = (seller, buyer) if who == "seller" else (buyer, seller)
    old = replaced.credential

    class Slow(Model):
        async def verify(self, presented, context):
            if replaced.credential is old:
                replaced.replace_credential((acme if who == "seller" else globex).issue(who))
            return await inner.verify(presented, context)

    inner = judging.trust
    judging.replace_trust(Slow())
    async with network.listening(seller) as listener, buyer.keep_link(listener.contact) as kept:
        assert await kept.call("work", 0.0) == 0.0
        [far] = seller.links
        seen = kept.link.peer if who == "seller" else far.peer
        assert seen.leaf == replaced.credential.leaf != old.leaf
    assert seller.statistics().refused == buyer.statistics().refused == {}


async def test_leaving_the_block_ends_the_link_and_all_its_predecessors(serving, network, virtual_clock):
    seller, buyer = serving
    async with network.listening(seller) as listener:
        async with buyer.keep_link(listener.contact) as kept, anyio.create_task_group() as tasks:

            async def call() -> None:
                with anyio.move_on_after(30):
                    await kept.call("work", 1000.0)

            tasks.start_soon(call)
            await anyio.sleep(1)
            seller.links[0].go_away("age")
            await anyio.sleep(5)
            assert len(buyer.links) == 2
            tasks.cancel_scope.cancel()
        assert buyer.links == ()
        await anyio.sleep(5)
        assert seller.links == ()


@pytest.mark.parametrize("drains", [False, True])
@pytest.mark.parametrize("how", ["connect", "keep_link"])
async def test_leaving_the_block_delivers_what_was_said(serving, network, how, drains, virtual_clock):
    """A reply that still waits for the writer then, also on a link that is draining."""
    seller, buyer = serving
    said = anyio.Event()
    replies = []

    @buyer.method
    async def report(call, body) -> bytes:
        said.set()
        return bytes(900_000)

    async with network.listening(seller) as listener, anyio.create_task_group() as tasks:
        async with getattr(buyer, how)(listener.contact) as link:
            await link.call("work", 0.0)
            (far,) = seller.links

            async def ask() -> None:
                replies.append(len(await far.call("report")))

            tasks.start_soon(ask)
            await said.wait()
            if drains:
                far.go_away("age")
    assert replies == [900_000]


async def test_after_its_block_a_kept_link_is_closed_also_to_those_who_wait_for_it(
    serving, network, virtual_clock
):
    seller, buyer = serving
    ended = []

    async def call(kept) -> None:
        with pytest.raises(anyio.ClosedResourceError):
            await kept.call("work", 0.0)
        ended.append(kept)

    async with network.listening(seller) as listener:
        contact = listener.contact
        async with buyer.keep_link(contact) as served:
            assert await served.call("work", 0.0) == 0.0
    async with anyio.create_task_group() as tasks:
        async with buyer.keep_link(contact) as waiting:  # nobody listens any more
            tasks.start_soon(call, waiting)
            await anyio.sleep(1)
    for kept in (waiting, served):
        with anyio.fail_after(100):
            await call(kept)
        with pytest.raises(anyio.ClosedResourceError):
            async with kept.open_channel("log"):
                pytest.fail("must not be entered")
    assert ended == [waiting, waiting, served]


async def test_nobody_can_be_dialled_at_port_0(serving):
    _, buyer = serving
    for how in (buyer.connect, buyer.keep_link):
        with pytest.raises(UsageError, match="port 0"):
            async with how("127.0.0.1:0", expect=buyer.peer_id):
                pytest.fail("must not be entered")
