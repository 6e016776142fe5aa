"""gRPC's asyncio API over its own HTTP/2 and TLS, mutual, with bodies as they are instead of protocol buffers.

Its TLS is BoringSSL, which offers X25519MLKEM768 first as autolink does: on a handshake the two do the same key exchange.
"""

import importlib.util
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import cache
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from benchmarks.stacks import bare
from benchmarks.stacks.base import Session, Stack
from benchmarks.stacks.counting import Count, pieces

if TYPE_CHECKING:
    import grpc

_OPTIONS = [
    (
        "grpc.use_local_subchannel_pool",
        1,
    ),  # else channels to one address share one connection and one handshake
    ("grpc.enable_http_proxy", 0),
    (
        "grpc.ssl_target_name_override",
        "server",
    ),  # it always compares a name: here the certificate's common name
]


class GrpcSession(Session):
    def __init__(self, channel: "grpc.aio.Channel") -> None:
        self._echo = channel.unary_unary("/bench/Echo")
        self._count = channel.stream_unary("/bench/Count")

    async def echo(self, body: bytes) -> bytes:
        return await self._echo(body)

    async def pump(self, body: bytes, going: Callable[[], bool]) -> int:
        call = self._count()
        while going():
            for _ in range(100):
                await call.write(body)
        await call.done_writing()
        return Count.unpack(await call).messages

    async def bulk(self, total: int) -> None:
        call = self._count()
        for piece in pieces(total):
            await call.write(piece)
        await call.done_writing()
        Count.unpack(await call).check(total)


class GrpcAio(Stack):
    name = "grpcio"
    backend = "asyncio"
    lacks = bare.JUDGES_LITTLE
    can = frozenset({"handshake", "call", "message", "bulk"})

    def missing(self) -> str | None:
        return None if importlib.util.find_spec("grpc") else "pip install grpcio"

    def version(self) -> str:
        return f"grpcio {version('grpcio')}"

    async def serve(self, folder: Path, ready: Callable[[str], None]) -> None:
        grpc = _import_grpc()

        server = grpc.aio.server()
        methods = {
            "Echo": grpc.unary_unary_rpc_method_handler(_echo),
            "Count": grpc.stream_unary_rpc_method_handler(_count),
        }
        server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("bench", methods)])
        credentials = grpc.ssl_server_credentials(
            [_pair(folder, "server")], (folder / "root.pem").read_bytes(), require_client_auth=True
        )
        port = server.add_secure_port("127.0.0.1:0", credentials)
        await server.start()
        try:
            ready(f"127.0.0.1:{port}")
            await server.wait_for_termination()
        finally:
            await server.stop(None)

    @asynccontextmanager
    async def session(self, folder: Path, where: str) -> AsyncIterator[GrpcSession]:
        grpc = _import_grpc()

        async with grpc.aio.secure_channel(where, _client_credentials(folder), _OPTIONS) as channel:
            yield GrpcSession(channel)


async def _echo(body: bytes, _context: object) -> bytes:
    return body


async def _count(bodies: AsyncIterator[bytes], _context: object) -> bytes:
    count = Count()
    async for body in bodies:
        count.add(body)
    return count.pack()


def _import_grpc() -> ModuleType:
    """Quietly: that a certificate holds no host's name is a line in the server's log for every handshake otherwise."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    return importlib.import_module("grpc")


@cache
def _client_credentials(folder: Path) -> "grpc.ChannelCredentials":
    grpc = _import_grpc()
    return grpc.ssl_channel_credentials((folder / "root.pem").read_bytes(), *_pair(folder, "client"))


def _pair(folder: Path, name: str) -> tuple[bytes, bytes]:
    """Key and chain of `name`, as PEM."""
    return (folder / f"{name}.key.pem").read_bytes(), (folder / f"{name}.chain.pem").read_bytes()


STACK = GrpcAio()
