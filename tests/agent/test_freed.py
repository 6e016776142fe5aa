"""What has ended is freed then and there: `autolink run` looks for cycles of garbage so seldom that a link in one, with its
TLS connection, would stay for days. Over real sockets."""

import gc
import weakref
from contextlib import suppress

import anyio
import pytest
from OpenSSL import SSL

from autolink import LinkLost, codec
from autolink.agent.core import LinkCore
from autolink.protocol.frames import Frame, encode_frame
from autolink.trust import IssuedBy, Pinned


@pytest.fixture
def collected_never():
    gc.collect()
    gc.disable()
    yield
    gc.enable()


async def left(_link, _pins):
    """Without a word, perhaps before its tasks ran."""


async def talked(link, _pins):
    await link.ping()


async def refused(link, pins):
    await link.ping()
    pins.remove(link.agent.peer_id)
    await link.closed()


async def malformed(link, _pins):
    await link.ping()
    link.traffic.control(encode_frame(Frame.EVIDENCE, codec.encode({"chain": [b"x"], "evidence": 7})))
    await link.closed()


async def lost(link, _pins):
    await link.ping()
    await link._stream.abort()
    await link.closed()


async def lost_while_it_says_something(link, _pins):
    await link.ping()
    await link._stream.abort()
    with suppress(LinkLost):
        await link.call("hang")


async def cancelled(link, _pins):
    with anyio.move_on_after(0.05):
        await link.call("hang")


async def cut_while_a_handler_works(link, _pins):
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
    mallory, made = globex.issue("mallory"), []
    pins = Pinned(mallory.peer_id)
    seller = acme.agent("seller", trust=pins)
    buyer = type(seller)(mallory, trust=IssuedBy(acme.anchor))
    init = LinkCore.__init__

    def noted(self, *args, **kwargs):
        init(self, *args, **kwargs)
        made.append(weakref.ref(self))

    monkeypatch.setattr(LinkCore, "__init__", noted)

    @seller.method
    async def hang(call, body) -> None:
        await anyio.sleep_forever()

    async def connected(contact):
        async with buyer.connect(contact) as link:
            await end(link, pins)

    async with seller.listening("127.0.0.1:0") as listener:
        await connected(listener.contact)
        for _ in range(100):
            if not any(link() for link in made):
                break
            await anyio.sleep(0.01)
        assert len(made) == 2
        assert [link() for link in made] == [None, None]


@pytest.mark.anyio
async def test_a_connection_that_became_no_link_is_freed_at_once(acme, globex, collected_never):
    """A stranger may make as many of these as it likes."""
    seller = acme.agent("seller", trust=IssuedBy(globex.anchor))
    async with seller.listening("127.0.0.1:0") as listener:
        host, port = listener.addresses[0].rsplit(":", 1)

        def connections():
            return sum(type(one) is SSL.Connection for one in gc.get_objects())

        before = connections()
        async with await anyio.connect_tcp(host, int(port)) as stranger:
            await stranger.send(b"GET / HTTP/1.0\r\n\r\n")
            with anyio.fail_after(5):
                while True:  # until it is closed
                    try:
                        await stranger.receive()
                    except (anyio.EndOfStream, anyio.BrokenResourceError):
                        break
        for _ in range(100):
            if connections() <= before:
                break
            await anyio.sleep(0.01)
        assert connections() <= before
