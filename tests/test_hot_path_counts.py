"""What a message and a call cost, counted and not timed: a heavier hot path fails here on any machine.

Both ends run in this process over a real loopback socket. Counted are signatures made and verified, TLS records,
scheduler steps, and function calls (Python's and C's, as a profiler sees them). Every count below was seen twenty times
in a row; the bounds leave a few percent of room for another version of Python, Trio or AnyIO, and not for another
wrapper on the way of each message. `docs/explanation/performance.md` says what the calls are spent on.
"""

import gc
import sys
from contextlib import asynccontextmanager
from dataclasses import dataclass

import anyio
import pytest
import trio

from autolink import Channel
from autolink.identity import keys
from autolink.testing import Authority
from autolink.trust import IssuedBy

BODY = b"x" * 100


@dataclass
class Counts:
    """What happened in this process while a block ran."""

    signed: int = 0
    verified: int = 0
    records: int = 0
    steps: int = 0
    calls: int = 0

    def per(self, units: int) -> "Counts":
        return Counts(*(getattr(self, name) / units for name in self.__dataclass_fields__))


class _Steps(trio.abc.Instrument):
    def __init__(self, counts: Counts) -> None:
        self.counts = counts

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.counts.steps += 1


@pytest.fixture
async def link():
    """A link over a loopback socket, warmed up, to an agent that echoes calls and counts items."""
    acme = Authority("acme")
    seller = acme.agent("seller", trust=IssuedBy(acme.anchor))
    buyer = acme.agent("buyer", trust=IssuedBy(acme.anchor))

    @seller.method
    async def echo(call: object, body: object) -> object:
        return body

    @seller.channel
    async def count(channel: Channel[int, bytes]) -> None:
        received = 0
        async for _ in channel:
            received += 1
        await channel.send(received)

    @seller.channel
    async def measure(channel: Channel[int, bytes]) -> None:
        async with channel.receive_stream() as chunks:
            await channel.send(sum([len(chunk) async for chunk in chunks]))

    async with seller.listening("127.0.0.1:0") as listener, buyer.connect(listener.contact) as opened:
        for _ in range(20):
            await opened.call("echo", BODY)
        yield opened


@pytest.fixture
def counting(link, monkeypatch):
    """`async with counting() as counts`: what both ends did meanwhile. Steps and calls in passes of their own, or the
    counting of one would count as the other."""
    signing, verifying = keys.sign, keys.verify

    @asynccontextmanager
    async def counted(*, calls: bool = False):
        counts = Counts()

        def sign(*args):
            counts.signed += 1
            return signing(*args)

        def verify(*args):
            counts.verified += 1
            verifying(*args)

        def profile(frame, event, argument):
            if event in ("call", "c_call"):
                counts.calls += 1

        steps, records = _Steps(counts), link.traffic.records
        gc.collect()
        gc.disable()  # a finalizer that runs meanwhile is nobody's cost
        try:
            if calls:
                sys.setprofile(profile)
            else:
                monkeypatch.setattr(keys, "sign", sign)
                monkeypatch.setattr(keys, "verify", verify)
                trio.lowlevel.add_instrument(steps)
            yield counts
        finally:
            sys.setprofile(None)
            monkeypatch.undo()
            if not calls:
                trio.lowlevel.remove_instrument(steps)
            gc.enable()
        counts.records = link.traffic.records - records

    return counted


async def call_one_by_one(link):
    for _ in range(100):
        await link.call("echo", BODY)


async def call_32_at_once(link):
    async def caller() -> None:
        for _ in range(10):
            await link.call("echo", BODY)

    async with anyio.create_task_group() as tasks:
        for _ in range(32):
            tasks.start_soon(caller)


async def send_one_way(link):
    async with link.open_channel("count", sends=bytes, receives=int) as channel:
        for _ in range(2000):
            await channel.send(BODY)
        await channel.send_eof()
        assert await channel.receive() == 2000


async def stream_bytes(link):
    async def source():
        for _ in range(64):
            yield b"x" * 65_536

    async with link.open_channel("measure", receives=int) as channel:
        await channel.send_stream(source())
        assert await channel.receive() == 64 * 65_536


WORK = {
    call_one_by_one: (100, Counts(signed=2, verified=2, records=1, steps=4.1, calls=764)),
    call_32_at_once: (320, Counts(signed=0.12, verified=0.12, records=0.06, steps=2.4, calls=413)),
    send_one_way: (2000, Counts(signed=0.016, verified=0.016, records=0.02, steps=0.08, calls=105)),
    stream_bytes: (64, Counts(signed=0.21, verified=0.21, records=4.3, steps=1.55, calls=248)),
}
"""Units of each work, and the most of everything that one unit may cost at both ends together."""


@pytest.mark.parametrize("work", WORK, ids=lambda work: work.__name__)
async def test_the_hot_path_gets_no_heavier(link, counting, work):
    """Signatures, records, steps and calls of each kind of work stay below their bounds."""
    units, most = WORK[work]
    await work(link)
    async with counting() as counts:
        await work(link)
    async with counting(calls=True) as profiled:
        await work(link)
    counts.calls = profiled.calls
    found = counts.per(units)
    print(work.__name__, found)
    over = {name for name in most.__dataclass_fields__ if getattr(found, name) > getattr(most, name)}
    assert not over, f"{found} where at most {most} is right"
