"""What has ended is freed then and there: `autolink run` looks for cycles of garbage so seldom that a link in one, with its
TLS connection, would stay for days. Over real sockets."""

import gc
import weakref
from contextlib import suppress
from dataclasses import dataclass, field

import anyio
import pytest
from OpenSSL import SSL

from autolink import LinkLost, codec
from autolink.agent.core import LinkCore
from autolink.protocol.frames import Frame, encode_frame
from autolink.trust import IssuedBy, Pinned


class Noted:
    """All objects of a class that are made from now on, and whether they are gone."""

    def __init__(self, monkeypatch, cls):
        self.made, self._one_gone = [], anyio.Event()
        init = cls.__init__

        def noted(made, *args, **kwargs):
            init(made, *args, **kwargs)
            self.made.append(weakref.ref(made, self._gone))

        monkeypatch.setattr(cls, "__init__", noted)

    def _gone(self, _reference):
        self._one_gone.set()
        self._one_gone = anyio.Event()

    async def all_gone(self, number):
        """When this many were made and none is left. What another task holds is gone when that has run, and what is in a
        cycle never."""
        with anyio.fail_after(5):
            while len(self.made) < number or any(one() is not None for one in self.made):
                await self._one_gone.wait()
        assert len(self.made) == number


@dataclass
class Scene:
    """Whom the seller believes, and what happens when its handler has begun."""

    pins: Pinned
    begun: list = field(default_factory=list)


@pytest.fixture
def collected_never():
    gc.collect()
    gc.disable()
    yield
    gc.enable()


async def left(_link, _scene):
    """Without a word, perhaps before its tasks ran."""


async def talked(link, _scene):
    await link.ping()


async def refused(link, scene):
    await link.ping()
    scene.pins.remove(link.agent.peer_id)
    await link.closed()


async def malformed(link, _scene):
    await link.ping()
    link.traffic.control(encode_frame(Frame.EVIDENCE, codec.encode({"chain": [b"x"], "evidence": 7})))
    await link.closed()


async def lost(link, _scene):
    await link.ping()
    await link._stream.abort()
    await link.closed()


async def lost_while_it_says_something(link, _scene):
    await link.ping()
    await link._stream.abort()
    with suppress(LinkLost):
        await link.call("hang")


async def cancelled(link, scene):
    with anyio.CancelScope() as scope:
        scene.begun.append(scope.cancel)
        await link.call("hang")


async def cut_while_a_handler_works(link, _scene):
    async def call():
        with suppress(LinkLost):
            await link.call("hang")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(call)
        await link.ping()
        await link._stream.abort()


@pytest.mark.anyio
@pytest.mark.parametrize(
    "end", [left, talked, refused, malformed, lost, lost_while_it_says_something, cancelled]
)
async def test_both_ends_of_a_link_are_freed_at_once(acme, globex, monkeypatch, collected_never, end):
    await freed(acme, globex, monkeypatch, end)


async def test_both_ends_of_a_link_that_is_cut_while_a_handler_works_are_freed_at_once(
    acme, globex, monkeypatch, collected_never
):
    """On asyncio a task that was cancelled holds itself."""
    await freed(acme, globex, monkeypatch, cut_while_a_handler_works)


async def freed(acme, globex, monkeypatch, end):
    mallory, links = globex.issue("mallory"), Noted(monkeypatch, LinkCore)
    scene = Scene(Pinned(mallory.peer_id))
    seller = acme.agent("seller", trust=scene.pins)
    buyer = type(seller)(mallory, trust=IssuedBy(acme.anchor))

    @seller.method
    async def hang(call, body) -> None:
        while scene.begun:
            scene.begun.pop()()
        await anyio.sleep_forever()

    async def connected(contact):
        async with buyer.connect(contact) as link:
            await end(link, scene)

    async with seller.listening("127.0.0.1:0") as listener:
        await connected(listener.contact)
        await links.all_gone(2)


@pytest.mark.anyio
async def test_a_connection_that_became_no_link_is_freed_at_once(acme, globex, monkeypatch, collected_never):
    """A stranger may make as many of these as it likes."""
    seller = acme.agent("seller", trust=IssuedBy(globex.anchor))
    async with seller.listening("127.0.0.1:0") as listener:
        host, port = listener.addresses[0].rsplit(":", 1)
        connections = Noted(monkeypatch, SSL.Connection)
        async with await anyio.connect_tcp(host, int(port)) as stranger:
            await stranger.send(b"GET / HTTP/1.0\r\n\r\n")
            with anyio.fail_after(5):
                while True:  # until it is closed
                    try:
                        await stranger.receive()
                    except (anyio.EndOfStream, anyio.BrokenResourceError):
                        break
        await connections.all_gone(1)
