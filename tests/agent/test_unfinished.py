"""What a send at once could not finish is nobody's fault and nobody's loss: it goes out, or the link ends as it should."""

import socket
from contextlib import asynccontextmanager

import anyio
import pytest

from autolink import LinkLost, Reason, Refused, codec
from autolink.messages import Kind
from autolink.transport import connect

pytestmark = pytest.mark.anyio

MORE_THAN_FITS = bytes(60_000)


@pytest.fixture
def narrow(agents, tmp_path):
    """`async with narrow() as link`: from the buyer to a seller that echoes, over a socket that takes a few KB at once."""
    seller, buyer = agents

    @seller.method
    async def echo(call, body: bytes) -> bytes:
        return body

    async def reach(address):
        connection = await connect(address)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        return connection

    buyer.reach = reach

    @asynccontextmanager
    async def dial():
        async with (
            seller.listening(f"unix:{tmp_path}/s") as listener,
            buyer.connect(listener.contact) as link,
        ):
            yield link

    return dial


async def test_a_first_call_that_does_not_fit_at_once_is_finished_by_the_writer(narrow):
    """It is posted before the link's tasks have begun to run, so nobody is there yet to be told of the rest."""
    async with narrow() as link:
        with anyio.fail_after(5):
            assert await link.call("echo", MORE_THAN_FITS, returns=bytes) == MORE_THAN_FITS


async def test_a_link_refused_while_a_send_is_unfinished_ends_like_any_other(narrow, agents):
    """What was begun is finished, then the peer is told why; nothing but the refusal is raised."""
    seller, _ = agents
    async with narrow() as link:
        assert await link.call("echo", b"", returns=bytes) == b""
        [far] = seller.links

        lane = await link.open_lane(Kind.CALL, "echo", codec.encode(MORE_THAN_FITS))
        assert link._stream.unfinished
        link.refuse(Refused(Reason.UNTRUSTED, by="us"))  # before the writer's turn
        with pytest.raises(LinkLost):
            await lane.receive()
        await link.closed()
        await far.closed()
    assert isinstance(link.lost, Refused)
    assert isinstance(far.lost, Refused)
    assert far.lost.by == "peer"
