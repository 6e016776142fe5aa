"""Two organisations and their agents, a wall clock on virtual time, cancellation everywhere, and a peer that may lie."""

import itertools
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from os import urandom

import anyio
import pytest
import trio

from autolink import codec, limits
from autolink.messages import DIALER, Kind, Message, encode, sign_batch
from autolink.protocol import LinkProtocol
from autolink.protocol.frames import (
    ENDS,
    OPENS,
    Frame,
    FrameReader,
    encode_batch_frame,
    encode_cancel,
    encode_frame,
)
from autolink.testing import Authority, Network
from autolink.transport import client_context, secure_stream
from autolink.trust import IssuedBy


@pytest.fixture(scope="session")
def acme():
    return Authority("acme")


@pytest.fixture(scope="session")
def globex():
    return Authority("globex")


@pytest.fixture
def agents(acme, globex):
    """(seller of acme, buyer of globex), each trusting the other's organisation."""
    return acme.agent("seller", trust=IssuedBy(globex.anchor)), globex.agent(
        "buyer", trust=IssuedBy(acme.anchor)
    )


class Wall:
    """A wall clock that goes with the run's own (virtual) clock, until somebody steps it."""

    def __init__(self):
        self.start, self.began = datetime.now(UTC), anyio.current_time()

    def __call__(self):
        return self.start + timedelta(seconds=anyio.current_time() - self.began)

    def step(self, seconds):
        self.start += timedelta(seconds=seconds)


@pytest.fixture
def wall():
    """The class: make one inside the run, and give it to the agents as `clock`."""
    return Wall


class _CancelAt(trio.abc.Instrument):
    def __init__(self, scope, step):
        self.scope, self.left = scope, step

    def before_task_step(self, task):
        self.left -= 1
        if self.left == 0:
            self.scope.cancel()


@pytest.fixture
def cancelled_everywhere():
    """Run an operation again and again, cancelled at the 1st, 2nd, … step of any task, until it completes.

    Any task's: so it is met while it waits for each thing that the others do, and not only between two waits.
    `check` is awaited after each; the number of times that it was cancelled comes back.
    """

    async def sweep(operation, check):
        cancelled, completed = 0, 0
        for step in itertools.count(1):
            with anyio.CancelScope() as scope:
                instrument = _CancelAt(scope, step)
                trio.lowlevel.add_instrument(instrument)
                try:
                    await operation()
                finally:
                    trio.lowlevel.remove_instrument(instrument)
            await check(step)
            cancelled += scope.cancelled_caught
            completed += not scope.cancel_called
            if completed:
                break
        return cancelled

    return sweep


class Hostile:
    """A dialler that does the real handshake with a real credential and then says whatever a test wants."""

    def __init__(self, stream, credential, recipient):
        self.stream, self.credential, self.recipient = stream, credential, recipient
        self.protocol = LinkProtocol(True)
        self.batches = 0
        self.reader = FrameReader()
        self.frames = []

    async def greet(self, *, clock=None, **fields):
        hello = {"clock": int((clock or datetime.now(UTC)).timestamp() * 1e6), "software": "hostile/1"}
        await self.stream.send(self.protocol.hello(hello | fields))

    async def open(self):
        """HELLO and ACCEPT, and wait for theirs."""
        await self.greet()
        await self.wait_for(Frame.HELLO)
        await self.accept()
        await self.wait_for(Frame.ACCEPT)

    async def accept(self):
        await self.stream.send(encode_frame(Frame.ACCEPT, codec.encode({"version": 1})))

    async def wait_for(self, wanted):
        """The payload of the next frame of that type; those before it are kept in `frames`."""
        while True:
            while (frame := self.reader.peek()) is None or (payload := self.reader.take()) is None:
                self.reader.feed(await self.stream.receive())
            self.frames.append(frame)
            if frame is wanted:
                return payload

    async def refused(self):
        """The reason in their REFUSE; whatever comes before it is passed over."""
        return codec.decode_untrusted(await self.wait_for(Frame.REFUSE), what="refuse")["reason"]

    def leaf(
        self, kind=Kind.CALL, *, channel=1, seq=0, method="echo", body=None, raw=None, age=0.0, **changes
    ):
        now = int(datetime.now(UTC).timestamp() * 1e6) - int(age * 1e6)
        fields = dict(
            id=urandom(16), seq=seq, author=self.credential.auto_id, recipient=self.recipient, sent_at=now,
            expires_at=now + int(limits.MESSAGE_LIFETIME * 1e6), kind=kind, channel=channel, method=method, timeout=0,
            headers={}, body=codec.encode(body) if raw is None else raw,
        )  # fmt: skip
        return encode(Message(**fields | changes))

    def batch(self, *items, signature=None, role=DIALER, number=None):
        """The frame of items (channel, flags, leaf, perhaps data), signed as it should be unless told otherwise."""
        items = [item if len(item) == 4 else (*item, b"") for item in items]
        number = self.batches if number is None else number
        self.batches += 1
        leaves = [leaf for _, _, leaf, _ in items]
        signature = signature or sign_batch(self.credential, self.stream.link_id, role, number, leaves)
        return b"".join(encode_batch_frame(number, signature, items))

    async def end(self):
        """Hang up, and return what their side ended with: the opening's error, or what the link was lost with."""
        await self.stream.abort()
        await self.over.wait()
        return self.ended[0]

    async def say(self, *items, **how):
        await self.stream.send(self.batch(*items, **how))

    async def call(self, channel=1, **fields):
        await self.say((channel, OPENS | ENDS, self.leaf(channel=channel, **fields)))

    async def cancel(self, *channels):
        await self.stream.send(
            b"".join(encode_frame(Frame.CANCEL, encode_cancel(channel, 1)) for channel in channels)
        )


@pytest.fixture
def hostile(globex):
    """`async with hostile(agent) as peer`: a `Hostile` of globex's on a link that `agent` is opening or has open."""

    @asynccontextmanager
    async def dial(agent, *, credential=None, network=None):
        credential = credential or globex.issue("mallory")
        near, far = (network or Network()).connection()
        async with anyio.create_task_group() as tasks:
            ended, over = [], anyio.Event()

            async def serve():
                try:
                    link = await agent.open_on(far, dialer=False)
                except Exception as error:
                    ended.append(error)
                else:
                    async with link.running():
                        await link.closed()
                    ended.append(link.lost)
                over.set()

            tasks.start_soon(serve)
            stream = await secure_stream(near, client_context(credential), dialer=True)
            peer = Hostile(stream, credential, agent.auto_id)
            peer.ended, peer.over = ended, over
            try:
                yield peer
            finally:
                with anyio.CancelScope(shield=True):
                    await stream.abort()
                tasks.cancel_scope.cancel()

    return dial
