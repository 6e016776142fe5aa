"""py-libp2p over TCP with noise and yamux: the other agents' transport that is at home on Trio.

Two of its waits are left out, because they are no work: a dial waits 250 ms for better addresses unless one connection a
peer is its limit, and `disconnect` sleeps for twice 100 ms, so the connection below is closed instead. As a host keeps one
connection to a peer, and a server one from each, every session brings a host and keys of its own, which costs a millisecond.
"""

import importlib.util
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from benchmarks.stacks import bare
from benchmarks.stacks.base import Stack
from benchmarks.stacks.trio_ssl import TrioSession

if TYPE_CHECKING:
    from libp2p.abc import IHost, INetStream

PROTOCOL = "/bench/1"


class NoiseStream:
    """A stream of libp2p's with the words of Trio's, so that the session of the bare stacks runs on it."""

    def __init__(self, stream: "INetStream") -> None:
        self._stream = stream

    async def send_all(self, data: bytes) -> None:
        await self._stream.write(data)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        from libp2p.network.stream.exceptions import StreamEOF, StreamError

        try:
            while data := await self._stream.read(bare.READ):
                yield data
        except StreamEOF:
            return
        except StreamError as error:
            raise trio.BrokenResourceError from error


class Libp2pNoise(Stack):
    name = "py-libp2p"
    backend = "trio"
    lacks = (
        "no signed messages",
        "no trust decision: whoever proves a key is let in",
        "no X.509, so no names, expiry or revocation",
        "no post-quantum key exchange",
    )
    can = frozenset({"handshake", "call", "message", "bulk"})

    def missing(self) -> str | None:
        return None if importlib.util.find_spec("libp2p") else "pip install libp2p"

    def version(self) -> str:
        return f"libp2p {version('libp2p')}"

    async def serve(self, folder: Path, ready: Callable[[str], None]) -> None:
        from libp2p.network.config import ConnectionConfig
        from multiaddr import Multiaddr

        # It remembers a caller for longer than a caller stays, and would turn the next ones away.
        host = _host(connection_config=ConnectionConfig(max_connections=100_000))
        async with host.run([Multiaddr("/ip4/127.0.0.1/tcp/0")]):
            host.set_stream_handler(PROTOCOL, _answer)
            ready(str(host.get_addrs()[0]))
            await trio.sleep_forever()

    @asynccontextmanager
    async def session(self, folder: Path, where: str) -> AsyncIterator[TrioSession]:
        from libp2p.network.config import ConnectionConfig
        from libp2p.peer.peerinfo import info_from_p2p_addr
        from multiaddr import Multiaddr

        server = info_from_p2p_addr(Multiaddr(where))
        host = _host(connection_config=ConnectionConfig(max_connections_per_peer=1))
        async with host.run([]):
            await host.connect(server)
            (connection,) = host.get_network().connections[server.peer_id]
            stream = await host.new_stream(server.peer_id, [PROTOCOL])
            session = TrioSession(NoiseStream(stream))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(session.receive)
                try:
                    yield session
                finally:
                    nursery.cancel_scope.cancel()
                    with trio.CancelScope(shield=True):
                        await connection.muxed_conn.secured_conn.close()


async def _answer(stream: "INetStream") -> None:
    answers = bare.Answers()
    readable = NoiseStream(stream)
    try:
        async for data in readable:
            if reply := answers.feed(data):
                await readable.send_all(reply)
    except trio.BrokenResourceError:
        pass  # the client ended its connection
    finally:
        await stream.close()


def _host(**options: object) -> "IHost":
    """A host with a fresh Ed25519 key, which is its peer id, and a fresh X25519 key for its noise handshakes."""
    from libp2p import new_host
    from libp2p.crypto import ed25519, x25519
    from libp2p.security.noise.transport import PROTOCOL_ID, Transport

    identity = ed25519.create_new_key_pair()
    security = {PROTOCOL_ID: Transport(identity, x25519.create_new_key_pair().private_key)}
    return new_host(key_pair=identity, sec_opt=security, disable_identify_address_discovery=True, **options)


STACK = Libp2pNoise()
