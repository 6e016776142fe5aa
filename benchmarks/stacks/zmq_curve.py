"""ZeroMQ with CURVE: long-term Curve25519 keys at both ends, and a ZAP handler that lets in the clients of a list.

A ROUTER answers DEALERs. There is no name, no authority and no expiry: who has a listed key is let in. Who is not
let in hears nothing of it: libzmq goes on dialling.
"""

import asyncio
import importlib.util
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import cache
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.stacks.base import Session, Stack
from benchmarks.stacks.counting import Count, pieces

if TYPE_CHECKING:
    import zmq.asyncio

CALL, MESSAGE, DONE = b"c", b"m", b"d"


class ZmqSession(Session):
    def __init__(self, socket: "zmq.asyncio.Socket") -> None:
        self._socket = socket
        self._numbers = (b"%d" % number for number in count())
        self._waiting: dict[bytes, asyncio.Future[bytes]] = {}

    async def echo(self, body: bytes) -> bytes:
        return await self._ask(CALL, next(self._numbers), body)

    async def pump(self, body: bytes, going: Callable[[], bool]) -> int:
        number = next(self._numbers)
        while going():
            for _ in range(100):
                await self._socket.send_multipart([MESSAGE, number, body])
        return Count.unpack(await self._ask(DONE, number)).messages

    async def bulk(self, total: int) -> None:
        number = next(self._numbers)
        for piece in pieces(total):
            await self._socket.send_multipart([MESSAGE, number, piece])
        Count.unpack(await self._ask(DONE, number)).check(total)

    async def receive(self) -> None:
        while True:
            number, body = await self._socket.recv_multipart()
            reply = self._waiting.pop(number)
            if not reply.cancelled():
                reply.set_result(body)

    async def _ask(self, kind: bytes, number: bytes, body: bytes = b"") -> bytes:
        reply = self._waiting[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_multipart([kind, number, body])
        return await reply


class ZmqCurve(Stack):
    name = "pyzmq CURVE"
    backend = "asyncio"
    lacks = (
        "no signed messages",
        "no trust decision beyond a list of keys",
        "no X.509, so no names, expiry or revocation",
        "no post-quantum key exchange",
    )
    can = frozenset({"handshake", "call", "message", "bulk"})

    def missing(self) -> str | None:
        return None if importlib.util.find_spec("zmq") else "pip install pyzmq"

    def version(self) -> str:
        import zmq

        return f"pyzmq {zmq.__version__}, libzmq {zmq.zmq_version()}"

    async def serve(self, folder: Path, ready: Callable[[str], None]) -> None:
        import zmq.asyncio
        from zmq.auth.asyncio import AsyncioAuthenticator

        context = zmq.asyncio.Context()
        authenticator = AsyncioAuthenticator(context)
        authenticator.start()
        try:
            keys(folder, "server"), keys(folder, "client")
            authenticator.configure_curve(location=folder / "curve" / "allowed")
            with context.socket(zmq.ROUTER) as socket:
                socket.curve_publickey, socket.curve_secretkey = keys(folder, "server")
                socket.curve_server = True
                socket.sndhwm = 0  # a ROUTER drops what it cannot queue
                port = socket.bind_to_random_port("tcp://127.0.0.1")
                ready(f"127.0.0.1:{port}")
                await _answer(socket)
        finally:
            authenticator.stop()
            context.destroy(linger=0)

    @asynccontextmanager
    async def session(self, folder: Path, where: str) -> AsyncIterator[ZmqSession]:
        import zmq.asyncio

        with zmq.asyncio.Context.instance().socket(zmq.DEALER) as socket:
            socket.linger = 0
            socket.curve_publickey, socket.curve_secretkey = keys(folder, "client")
            socket.curve_serverkey, _ = keys(folder, "server")
            socket.connect(f"tcp://{where}")
            session = ZmqSession(socket)
            receiving = asyncio.create_task(session.receive())
            try:
                yield session
            finally:
                receiving.cancel()


async def _answer(socket: "zmq.asyncio.Socket") -> None:
    counts: defaultdict[tuple[bytes, bytes], Count] = defaultdict(Count)
    while True:
        client, kind, number, body = await socket.recv_multipart()
        if kind == MESSAGE:
            counts[client, number].add(body)
            continue
        if kind == DONE:
            body = counts.pop((client, number), Count()).pack()
        await socket.send_multipart([client, number, body])


@cache
def keys(folder: Path, name: str) -> tuple[bytes, bytes]:
    """The public and the secret key of `name`, made when first asked for. `allowed` holds the clients' public ones."""
    from zmq.auth import create_certificates, load_certificate

    curve = folder / "curve"
    if not (curve / f"{name}.key_secret").exists():
        curve.mkdir(exist_ok=True)
        (curve / "allowed").mkdir(exist_ok=True)
        create_certificates(curve, name)
        if name == "client":
            (curve / "client.key").rename(curve / "allowed" / "client.key")
    public, secret = load_certificate(curve / f"{name}.key_secret")
    assert secret
    return public, secret


STACK = ZmqCurve()
