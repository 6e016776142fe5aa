"""The hostile network itself: what it delays, cuts, splits, holds and counts."""

import anyio
import pytest

from autolink.testing import Authority, Network, link_pair


async def read_all(stream):
    got = []
    try:
        while True:
            got.append(await stream.receive())
    except anyio.EndOfStream:
        return got


async def test_bytes_arrive_after_the_latency_in_order(virtual_clock):
    near, far = Network(latency=3).connection()
    await near.send(b"one")
    await anyio.sleep(1)
    await near.send(b"two")
    begun = anyio.current_time()
    assert await far.receive() == b"one"
    assert anyio.current_time() - begun == pytest.approx(2)
    assert await far.receive() == b"two"
    assert anyio.current_time() - begun == pytest.approx(3)


async def test_a_full_pipe_makes_the_sender_wait_and_the_peak_is_counted(virtual_clock):
    network = Network(capacity=10)
    near, far = network.connection()
    await near.send(b"x" * 10)
    with anyio.move_on_after(5) as scope:
        await near.send(b"y")
    assert scope.cancelled_caught
    assert await far.receive(4) == b"xxxx"
    await near.send(b"y")
    assert network.under_way == 7
    assert network.peak == 10


async def test_a_seed_splits_at_odd_places_always_the_same(virtual_clock):
    def pieces():
        return [len(piece) for piece in got]

    shapes = []
    for seed in (1, 1, 2):
        near, far = Network(seed=seed).connection()
        await near.send(bytes(range(256)) * 100)
        await near.send_eof()
        got = await read_all(far)
        assert b"".join(got) == bytes(range(256)) * 100
        shapes.append(pieces())
    assert shapes[0] == shapes[1] != shapes[2]
    assert len(shapes[0]) > 1


async def test_a_cut_after_some_bytes_lets_those_arrive_and_breaks_both_directions(virtual_clock):
    near, far = Network(cut_after=5).connection()
    await near.send(b"1234567")
    assert await far.receive() == b"12345"
    for broken in (far.receive, near.receive, lambda: near.send(b"x"), lambda: far.send(b"x")):
        with pytest.raises(anyio.BrokenResourceError):
            await broken()


async def test_cutting_loses_what_is_under_way_and_wakes_whoever_waits(virtual_clock):
    network = Network(latency=1)
    near, far = network.connection()
    await near.send(b"lost")
    async with anyio.create_task_group() as tasks:

        async def wait() -> None:
            with pytest.raises(anyio.BrokenResourceError):
                await far.receive()

        tasks.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        network.cut()
    assert network.under_way == 0


async def test_a_pause_holds_every_byte_of_new_connections_too(virtual_clock):
    network = Network()
    resume = network.pause()
    near, far = network.connection()
    await near.send(b"held")
    with anyio.move_on_after(100) as scope:
        await far.receive()
    assert scope.cancelled_caught
    resume()
    assert await far.receive() == b"held"


async def test_ends_are_told_as_anyio_tells_them(virtual_clock):
    near, far = Network().connection()
    await near.send(b"last")
    await near.send_eof()
    with pytest.raises(anyio.ClosedResourceError):
        await near.send(b"more")
    assert await far.receive() == b"last"
    with pytest.raises(anyio.EndOfStream):
        await far.receive()
    await far.aclose()
    with pytest.raises(anyio.EndOfStream):
        await near.receive()
    near, far = Network().connection()
    await far.aclose()
    with pytest.raises(anyio.BrokenResourceError):
        await near.send(b"nobody reads this")


async def test_agents_find_each_other_and_an_address_can_be_taken_over(virtual_clock):
    """Listening twice at one address, one after the other, is a restart."""
    acme = Authority("acme")
    seller, buyer = acme.agent("seller"), acme.agent("buyer")
    network = Network()
    network.join(buyer)
    contacts = []
    for _ in range(2):
        async with (
            network.listening(seller, at="shop:7600") as listener,
            buyer.connect(listener.contact) as link,
        ):
            assert listener.addresses == ("shop:7600",)
            assert link.peer.name == "seller"
            contacts.append(listener.contact)
    assert contacts[0] == contacts[1]
    with pytest.raises(anyio.BrokenResourceError, match="nobody listens"):
        async with buyer.connect(contacts[0]):
            pytest.fail("must not open")


@pytest.mark.parametrize("cut_after", [0, 1, 100, 1000, 5000, 9000])
async def test_a_link_pair_over_a_network_that_cuts_raises_and_leaves_nothing(cut_after, virtual_clock):
    acme = Authority("acme")
    seller, buyer = acme.agent("seller"), acme.agent("buyer")
    with pytest.raises(anyio.BrokenResourceError):
        async with link_pair(buyer, seller, network=Network(cut_after=cut_after)) as (link, _):
            while True:
                await link.ping()
    for agent in (seller, buyer):
        assert agent._links == agent._rows == set()
