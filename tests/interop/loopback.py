"""One agent on Trio and one blocking peer in a thread, joined by loopback TCP (second.py is the peer)."""

import socket
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import trio
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from autolink import (
    Agent,
    AutoId,
    TrustAnchor,
)
from autolink.testing import Authority
from autolink.trust import IssuedBy
from tests.interop import second
from tests.interop import second_certificates as certificates
from tests.interop.second import Closed
from tests.interop.second_formats import ERROR, REPLY

ROOT = certificates.self_issued("second")
ME = certificates.issued(certificates.issued(ROOT, "department", ca=True), "peer")
GLOBEX = Authority("globex")
GLOBEX_ROOT = x509.load_pem_x509_certificate(GLOBEX.anchor.to_pem())
LIMITS = {"channels": 16, "credit": 65536, "message": 1048576}


def anchor_of(root):
    """What autolink knows of a self-issued party of the second side."""
    return TrustAnchor.from_pem(root.chain[0].public_bytes(Encoding.PEM))


def second_is_trusted():
    return IssuedBy(anchor_of(ROOT))


def make_agent(handlers=None, trust=None):
    return Agent(GLOBEX.issue("seller"), trust=trust or second_is_trusted(), handlers=handlers)


@asynccontextmanager
async def listening(agent):
    async with agent.listening("127.0.0.1:0") as listener:
        yield urlsplit(listener.contact).port


async def dial(port, conversation, me=ME, hello=None):
    """Run a conversation with the agent as its dialer, in a thread."""

    def run():
        with second.Link.dial(me, GLOBEX_ROOT, port, hello) as link:
            return conversation(link)

    return await trio.to_thread.run_sync(run)


@asynccontextmanager
async def dialled(agent, conversation, hello=None, me=ME):
    """The agent's link to the second implementation, which runs a conversation as listener, in a thread."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def run():
            with second.Link.accept(me, GLOBEX_ROOT, server, hello) as link:
                conversation(link)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, run)
            where = "{}:{}".format(*server.getsockname())
            async with agent.connect(where, expect=AutoId(me.id)) as link:
                yield link


def serve_echo(link):
    """Answer each call on the link, until the peer closes it: with its own argument, or with an error."""
    while True:
        try:
            channel = link.wait("opened")
        except Closed:
            return
        message, _ = link.receive(link.lanes[channel], proof=True)
        if message.method == "echo":
            link.say(channel, REPLY, message.value)
        else:
            link.say(channel, ERROR, ["not_found", "no such method", None])
