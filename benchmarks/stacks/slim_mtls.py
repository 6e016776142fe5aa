"""AGNTCY SLIM: two applications, each on mutual TLS to the node between them, without MLS.

The node runs in the server's process, on SLIM's own threads. Its clients leave Nagle's algorithm on, so that each round trip
waits for delayed acknowledgements, 40 ms each way on Linux: the figures of one caller show that and little else. An identity
is a secret that all applications of an organisation share, beside the certificate that the link asks for.
"""

import asyncio
import importlib.util
import socket
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import cache
from importlib.metadata import version
from itertools import count
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING
from uuid import uuid4

import anyio

from benchmarks.stacks import bare
from benchmarks.stacks.base import Session, Stack
from benchmarks.stacks.counting import Count, pieces
from benchmarks.stacks.plain import plain_identities

if TYPE_CHECKING:
    import slim_bindings as slim

SECRET = "shared by all applications of this benchmark"  # noqa: S105  at least 32 bytes
AHEAD = 64  # messages sent beyond the oldest that is not acknowledged
SERVER = "bench", "suite", "server"


class SlimSession(Session):
    def __init__(self, session: "slim.Session") -> None:
        self._session = session
        self._numbers = count()
        self._waiting: dict[int, asyncio.Future[bytes]] = {}

    async def echo(self, body: bytes) -> bytes:
        return await self._ask(bare.CALL, next(self._numbers), body)

    async def pump(self, body: bytes, going: Callable[[], bool]) -> int:
        def bodies() -> Iterator[bytes]:
            while going():
                for _ in range(100):
                    yield body

        return (await self._transfer(bodies())).messages

    async def bulk(self, total: int) -> None:
        (await self._transfer(pieces(total))).check(total)

    async def receive(self) -> None:
        while True:
            message = await self._session.get_message_async(None)
            for _, number, body in bare.Frames().feed(message.payload):
                reply = self._waiting.pop(number)
                if not reply.cancelled():
                    reply.set_result(body)

    async def _transfer(self, bodies: Iterator[bytes]) -> Count:
        number = next(self._numbers)
        sent: deque[slim.CompletionHandle] = deque()
        for body in bodies:
            sent.append(await self._publish(bare.MESSAGE, number, body))
            if len(sent) > AHEAD:
                await sent.popleft().wait_async()
        while sent:
            await sent.popleft().wait_async()
        return Count.unpack(await self._ask(bare.DONE, number))

    async def _ask(self, kind: int, number: int, body: bytes = b"") -> bytes:
        reply = self._waiting[number] = asyncio.get_running_loop().create_future()
        await self._publish(kind, number, body)
        return await reply

    async def _publish(self, kind: int, number: int, body: bytes) -> "slim.CompletionHandle":
        return await self._session.publish_async(bare.frame(kind, number, body), None, None)


class SlimMtls(Stack):
    name = "slim"
    backend = "asyncio"
    lacks = ("messages go through a node that reads them", "one secret is everybody's identity", *bare.LACKS)
    can = frozenset({"handshake", "call", "message", "bulk"})

    def missing(self) -> str | None:
        return None if importlib.util.find_spec("slim_bindings") else "pip install slim-bindings"

    def version(self) -> str:
        return f"slim-bindings {version('slim-bindings')}"

    async def serve(self, folder: Path, ready: Callable[[str], None]) -> None:
        slim = _slim()
        node = slim.create_service("node")
        where = f"127.0.0.1:{_free_port()}"
        await node.run_server_async(_server_config(folder, where))
        try:
            async with _application(folder, where, "server", *SERVER) as (application, _):
                ready(where)
                async with anyio.create_task_group() as tasks:
                    while True:
                        session = await application.listen_for_session_async(None)
                        tasks.start_soon(_answer, session)
        finally:
            with anyio.CancelScope(shield=True):
                await node.shutdown_async()

    @asynccontextmanager
    async def session(self, folder: Path, where: str) -> AsyncIterator[SlimSession]:
        slim = _slim()
        kind = slim.SessionConfig(
            session_type=slim.SessionType.POINT_TO_POINT,
            max_retries=5,
            interval=timedelta(seconds=1),
            metadata={},
            mls_settings=None,
        )
        name = f"client-{uuid4().hex}"
        async with _application(folder, where, "client", *SERVER[:2], name) as (application, connection):
            server = slim.Name(*SERVER)
            await application.set_route_async(server, connection)
            opened = await application.create_session_and_wait_async(kind, server)
            session = SlimSession(opened)
            receiving = asyncio.create_task(session.receive())
            try:
                yield session
            finally:
                receiving.cancel()
                with anyio.CancelScope(shield=True):
                    await application.delete_session_and_wait_async(opened)


async def _answer(session: "slim.Session") -> None:
    answers = bare.Answers()
    while True:
        try:
            message = await session.get_message_async(None)
        except _slim().SlimError.SessionError:
            return  # the client closed it
        if reply := answers.feed(message.payload):
            await session.publish_to_async(message.context, reply, None, None)


@asynccontextmanager
async def _application(
    folder: Path, where: str, holder: str, *name: str
) -> AsyncIterator[tuple["slim.App", int]]:
    """An application that has a connection to the node, and that connection's number."""
    slim = _slim()
    service = slim.create_service(name[-1])
    try:
        # Not the `_async` one: that asks for a runtime which only SLIM's own threads have.
        application = service.create_app_with_secret(slim.Name(*name), SECRET)
        connection = await service.connect_async(_client_config(folder, where, holder))
        await application.subscribe_async(application.name(), connection)
        yield application, connection
    finally:
        with anyio.CancelScope(shield=True):
            await service.shutdown_async()


@cache
def _slim() -> ModuleType:
    """Without its log, which goes to stdout."""
    import slim_bindings as slim

    silent = slim.new_tracing_config_with("off", False, False, slim.new_tracing_config().filters)
    slim.initialize_with_configs(slim.new_runtime_config(), silent, [slim.new_service_config()])
    return slim


def _server_config(folder: Path, where: str) -> "slim.ServerConfig":
    slim = _slim()
    config = slim.new_server_config(where)
    config.tls = slim.TlsServerConfig(
        insecure=False,
        source=_source(folder, "server"),
        client_ca=slim.CaSource.FILE(str(plain_identities(folder) / "root.pem")),
        include_system_ca_certs_pool=False,
        tls_version="tls1.3",
        reload_client_ca_file=False,
    )
    return config


def _client_config(folder: Path, where: str, holder: str) -> "slim.ClientConfig":
    slim = _slim()
    config = slim.new_secure_client_config(f"https://{where}")
    config.tls = slim.TlsClientConfig(
        insecure=False,
        insecure_skip_verify=False,
        source=_source(folder, holder),
        ca_source=slim.CaSource.FILE(str(plain_identities(folder) / "root.pem")),
        include_system_ca_certs_pool=False,
        tls_version="tls1.3",
    )
    once = slim.FixedIntervalBackoff(interval=timedelta(milliseconds=1), max_attempts=1)
    config.backoff = slim.BackoffConfig.FIXED_INTERVAL(once)
    return config


def _source(folder: Path, holder: str) -> "slim.TlsSource":
    made = plain_identities(folder)
    return _slim().TlsSource.FILE(str(made / f"{holder}.chain.pem"), str(made / f"{holder}.key.pem"))


def _free_port() -> int:
    """One that was free a moment ago: the node cannot tell which it chose itself."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


STACK = SlimMtls()
