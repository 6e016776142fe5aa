"""The two stacks that are compared: ours, and bare asyncio + `ssl` with mutual TLS.

Each has a server, run in a process of its own, and a client for each benchmark. The bare stack judges nothing, signs
nothing and names nobody: both ends accept any certificate of one CA. Both use P-256 and TLS 1.3.
"""

import asyncio
import ssl
import struct
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from time import perf_counter

import anyio

from autolink import Agent, Channel, Credential, Handlers, TrustAnchor
from autolink.trust import IssuedBy

BODY = b"x" * 100
LENGTH = struct.Struct(">I")


def load_agent(folder: Path, name: str, handlers: Handlers | None = None) -> Agent:
    credential = Credential.from_pem(folder / f"{name}.chain.pem", folder / f"{name}.key.pem")
    return Agent(credential, trust=IssuedBy(TrustAnchor.load(folder / "root.pem")), handlers=handlers)


async def concurrently(count: int, seconds: float, once: Callable[[], Awaitable[None]]) -> float:
    """How many times a second `once` completes when `count` tasks repeat it."""
    done = 0
    begun = perf_counter()
    end = begun + seconds

    async def repeat() -> None:
        nonlocal done
        while perf_counter() < end:
            await once()
            done += 1

    async with anyio.create_task_group() as tasks:
        for _ in range(count):
            tasks.start_soon(repeat)
    return done / (perf_counter() - begun)


# --- autolink ----------------------------------------------------------------------------------------------


async def serve_autolink(folder: Path) -> None:
    handlers = Handlers()

    @handlers.method
    async def echo(call: object, body: object) -> object:
        return body

    @handlers.channel
    async def count(channel: Channel[int, bytes]) -> None:
        received = 0
        async for _ in channel:
            received += 1
        await channel.send(received)

    async with load_agent(folder, "server", handlers).listening("127.0.0.1:0") as listener:
        print(listener.contact, flush=True)
        await anyio.sleep_forever()


async def handshake_autolink(folder: Path, where: str, seconds: float, concurrency: int) -> float:
    agent = load_agent(folder, "client")

    async def once() -> None:
        async with agent.connect(where) as link:
            if await link.call("echo", BODY) != BODY:
                raise RuntimeError("the echo is not what was sent")

    return await concurrently(concurrency, seconds, once)


async def message_autolink(folder: Path, where: str, seconds: float, _concurrency: int) -> float:
    async with (
        load_agent(folder, "client").connect(where) as link,
        link.open_channel("count", sends=bytes, receives=int) as channel,
    ):
        begun, sent = perf_counter(), 0
        while perf_counter() - begun < seconds:
            for _ in range(100):
                await channel.send(BODY)
            sent += 100
        await channel.send_eof()
        if await channel.receive() != sent:
            raise RuntimeError("not everything that was sent arrived")
        return sent / (perf_counter() - begun)


# --- asyncio + ssl -----------------------------------------------------------------------------------------


def bare_context(folder: Path, purpose: ssl.Purpose, name: str) -> ssl.SSLContext:
    context = ssl.create_default_context(purpose, cafile=str(folder / "root.pem"))
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(folder / f"{name}.chain.pem", folder / f"{name}.key.pem")
    return context


async def serve_asyncio(folder: Path) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        kind = await reader.readexactly(1)
        if kind == b"e":
            writer.write(await reader.readexactly(len(BODY)))
        else:
            received = 0
            while size := LENGTH.unpack(await reader.readexactly(4))[0]:
                await reader.readexactly(size)
                received += 1
            writer.write(LENGTH.pack(received))
        await writer.drain()
        writer.close()

    context = bare_context(folder, ssl.Purpose.CLIENT_AUTH, "server")
    server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=context)
    host, port = server.sockets[0].getsockname()
    print(f"{host}:{port}", flush=True)
    await server.serve_forever()


async def handshake_asyncio(folder: Path, where: str, seconds: float, concurrency: int) -> float:
    context = bare_context(folder, ssl.Purpose.SERVER_AUTH, "client")
    context.check_hostname = False
    host, port = where.split(":")

    async def once() -> None:
        reader, writer = await asyncio.open_connection(host, int(port), ssl=context)
        writer.write(b"e" + BODY)
        if await reader.readexactly(len(BODY)) != BODY:
            raise RuntimeError("the echo is not what was sent")
        writer.close()
        await writer.wait_closed()

    return await concurrently(concurrency, seconds, once)


async def message_asyncio(folder: Path, where: str, seconds: float, _concurrency: int) -> float:
    context = bare_context(folder, ssl.Purpose.SERVER_AUTH, "client")
    context.check_hostname = False
    host, port = where.split(":")
    reader, writer = await asyncio.open_connection(host, int(port), ssl=context)
    framed = LENGTH.pack(len(BODY)) + BODY
    writer.write(b"m")
    begun, sent = perf_counter(), 0
    while perf_counter() - begun < seconds:
        for _ in range(100):
            writer.write(framed)
            await writer.drain()
        sent += 100
    writer.write(LENGTH.pack(0))
    if LENGTH.unpack(await reader.readexactly(4))[0] != sent:
        raise RuntimeError("not everything that was sent arrived")
    rate = sent / (perf_counter() - begun)
    writer.close()
    await writer.wait_closed()
    return rate


SERVERS = {"autolink": ("trio", serve_autolink), "asyncio+ssl": ("asyncio", serve_asyncio)}
CLIENTS = {
    ("handshake", "autolink"): ("trio", handshake_autolink),
    ("handshake", "asyncio+ssl"): ("asyncio", handshake_asyncio),
    ("message", "autolink"): ("trio", message_autolink),
    ("message", "asyncio+ssl"): ("asyncio", message_asyncio),
}

if __name__ == "__main__":
    backend, serve = SERVERS[sys.argv[1]]
    anyio.run(serve, Path(sys.argv[2]), backend=backend)
