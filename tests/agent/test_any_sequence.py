"""Any sequence of operations on a pair of links, over a network that splits, delays and cuts, keeps the invariants."""

from datetime import UTC, datetime, timedelta

import anyio
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from autolink import AutolinkError, CallError, Channel, EnvelopeRefused, LinkLost
from autolink.errors import LocalProtocolError
from autolink.testing import Authority, Network, link_pair

ACME = Authority("acme")
START = datetime.now(UTC)  # what messages are dated by goes on as the virtual clock does
DOCUMENTED = (LinkLost, CallError, TimeoutError, EnvelopeRefused, LocalProtocolError, anyio.EndOfStream)

small = st.floats(0, 3)
sizes = st.sampled_from([0, 1, 1000, 60_000, 300_000])
operation = st.one_of(
    st.tuples(st.just("call"), small, sizes),
    st.tuples(st.just("channel"), st.integers(0, 30), sizes),
    st.tuples(st.just("half"), st.integers(0, 30), sizes),
    st.tuples(st.just("stream"), st.integers(0, 12), sizes),
    st.tuples(st.just("subscribe"), st.integers(0, 5), sizes),
    st.tuples(st.just("publish"), st.integers(0, 5), sizes),
    st.tuples(st.just("forward"), small, sizes),
    st.tuples(st.just("unknown"), small, sizes),
    st.tuples(st.just("ping"), small, sizes),
    st.tuples(st.just("drain"), small, sizes),
)
step = st.tuples(st.booleans(), operation, st.floats(0, 2), st.one_of(st.just(100.0), st.floats(0, 4)))
"""Which end does it, what, when it begins, and after how many seconds it is cancelled: two that wait for each other do."""


def agent(name):
    made = ACME.agent(name, clock=lambda: START + timedelta(seconds=anyio.current_time()))

    @made.method("work", forwarded=True)
    async def work(call, body) -> object:
        await anyio.sleep(body[0])
        return body[1]

    @made.channel
    async def echo(channel: Channel[bytes, bytes]) -> None:
        async for item in channel:
            await channel.send(item)

    @made.channel
    async def files(channel: Channel[int, int]) -> None:
        async with channel.receive_stream() as chunks:
            await channel.send(sum([len(chunk) async for chunk in chunks]))

    made.topic("news", of=bytes, overflow="drop_oldest", buffer=2)
    return made


async def perform(link, what, number, size):
    body = b"x" * size
    match what:
        case "call":
            assert await link.call("work", [number, body]) == body
        case "unknown":
            await link.call("nothing", body)
        case "channel" | "half":
            async with link.open_channel("echo", sends=bytes, receives=bytes) as channel:
                for _ in range(number):
                    await channel.send(body)
                    if what == "channel":
                        assert await channel.receive() == body
        case "stream":

            async def source():
                for _ in range(number):
                    yield body

            async with link.open_channel("files") as channel:
                await channel.send_stream(source())
                assert await channel.receive() == number * size
        case "subscribe":
            async with link.subscribe("news", receives=bytes) as feed:
                with anyio.move_on_after(number):
                    while True:
                        await feed.receive()
        case "publish":
            for _ in range(number):
                await link.agent.topics["news"].publish(body)
        case "forward":
            other = link.peer.auto_id
            await link.forward(link.agent.sign(other, "work", [number, body]))
        case "ping":
            await link.ping()
        case "drain":
            await link.drain()


async def run(steps, seed, latency, cut_after):
    one, two = agent("one"), agent("two")
    network = Network(latency=latency, seed=seed, cut_after=cut_after, capacity=32_768)
    try:
        async with link_pair(one, two, network=network) as (link, far):

            async def take(near_end, what, begin, patience) -> None:
                await anyio.sleep(begin)
                try:
                    with anyio.fail_after(patience):
                        await perform(link if near_end else far, *what)
                except DOCUMENTED:
                    return

            async with anyio.create_task_group() as tasks:
                for each in steps:
                    tasks.start_soon(take, *each)
            await anyio.sleep(120)  # what is dead is found, what was cancelled has ended
            for end in (link, far):
                assert end._pings == {}
                assert end.server.running == 0
                if end.lost is None:
                    assert end._lanes == {}
                    assert end.traffic.outbox.size == 0
                    assert end.protocol.statistics().channels_opened == 0
                else:
                    assert isinstance(end.lost, LinkLost), end.lost
    except (AutolinkError, anyio.BrokenResourceError):
        assert cut_after is not None  # it never opened
    for each in (one, two):
        assert each._links == each._rows == set()
    assert all(pipe._finished or pipe._broken for pipe in network._pipes)


@given(
    steps=st.lists(step, min_size=2, max_size=12),
    seed=st.integers(0, 1000),
    latency=st.sampled_from([0.0, 0.05, 1.0]),
    cut_after=st.one_of(st.none(), st.integers(0, 12_000), st.integers(12_000, 1_500_000)),
)
@settings(
    deadline=None, derandomize=True, database=None, max_examples=60, suppress_health_check=list(HealthCheck)
)
def test_any_sequence_of_operations_ends_in_a_result_or_a_documented_error(steps, seed, latency, cut_after):
    """And leaves no lane, task, queue entry or connection; a link that was not cut is alive or was drained."""
    trio.run(run, steps, seed, latency, cut_after, clock=MockClock(autojump_threshold=0))
