"""NATS: two `nats-py` clients on mutual TLS with nkeys, and between them the broker, `nats-server`, as they are deployed.

A broker has no end-to-end flow control: what a subscriber does not take in time is dropped. So a transfer keeps at most two
windows unconfirmed, and goes on with the second while the receiver's word on the first is on its way.
"""

import asyncio
import json
import logging
import os
import re
import shutil
import subprocess
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import anyio

from benchmarks.stacks import bare
from benchmarks.stacks.base import Session, Stack
from benchmarks.stacks.counting import Count, pieces
from benchmarks.stacks.plain import plain_identities

if TYPE_CHECKING:
    from nats.aio.client import Client
    from nats.aio.msg import Msg

PATIENCE = 30  # seconds for one answer; nats-py's half second is short when 64 handshakes share a core
WINDOW = 4096, 4 * 2**20  # messages, bytes
CONFIG = """\
listen: "127.0.0.1:-1"
tls {{ cert_file: {cert}, key_file: {key}, ca_file: {ca}, verify: true, timeout: 30 }}
authorization {{ users: [ {{ nkey: {server} }}, {{ nkey: {client} }} ], timeout: 30 }}
"""


class NatsSession(Session):
    def __init__(self, client: "Client") -> None:
        self._client = client
        self._names = (f"{client.client_id}-{number}" for number in count())

    async def echo(self, body: bytes) -> bytes:
        return (await self._client.request("bench.echo", body, PATIENCE)).data

    async def pump(self, body: bytes, going: Callable[[], bool]) -> int:
        def bodies() -> Iterator[bytes]:
            while going():
                for _ in range(100):
                    yield body

        return (await self._transfer(bodies())).messages

    async def bulk(self, total: int) -> None:
        (await self._transfer(pieces(total))).check(total)

    async def _transfer(self, bodies: Iterator[bytes]) -> Count:
        """Publish all, never more than two windows ahead of the receiver; what that counted."""
        name = next(self._names)
        publish, subject = self._client.publish, f"bench.count.{name}"
        messages = octets = 0
        async with anyio.create_task_group() as tasks:
            confirmed = anyio.Event()
            confirmed.set()
            for body in bodies:
                await publish(subject, body)
                messages += 1
                octets += len(body)
                if messages >= WINDOW[0] or octets >= WINDOW[1]:
                    await confirmed.wait()
                    confirmed = anyio.Event()
                    tasks.start_soon(self._confirm, subject, confirmed)
                    messages = octets = 0
        reply = await self._client.request(f"bench.done.{name}", b"", PATIENCE)
        return Count.unpack(reply.data)

    async def _confirm(self, subject: str, confirmed: anyio.Event) -> None:
        await self._client.request(subject, b"", PATIENCE)
        confirmed.set()


class NatsServer(Stack):
    name = "nats"
    backend = "asyncio"
    lacks = ("messages go through a broker that reads them", *bare.LACKS)
    can = frozenset({"handshake", "call", "message", "bulk"})

    def missing(self) -> str | None:
        try:
            version("nats-py")
            version("nkeys")
        except PackageNotFoundError:
            return "pip install nats-py[nkeys]"
        return None if _binary() else "apt-get install nats-server"

    def version(self) -> str:
        shown = subprocess.run([_binary() or "", "--version"], capture_output=True, text=True, check=True)
        return f"nats-py {version('nats-py')}, {shown.stdout.strip()}"

    async def serve(self, folder: Path, ready: Callable[[str], None]) -> None:
        config = await anyio.to_thread.run_sync(_make_config, folder)
        async with _broker(config) as where:
            receiver = await _connect(folder, where, "server")
            try:
                await _answer(receiver)
                ready(where)
                await anyio.sleep_forever()
            finally:
                with anyio.CancelScope(shield=True):
                    await receiver.close()

    @asynccontextmanager
    async def session(self, folder: Path, where: str) -> AsyncIterator[NatsSession]:
        client = await _connect(folder, where, "client")
        try:
            yield NatsSession(client)
        finally:
            await client.close()


async def _connect(folder: Path, where: str, name: str) -> "Client":
    import nats

    logging.getLogger("asyncio").addFilter(_of_interest)
    return await nats.connect(
        f"tls://{where}",
        tls=bare.client_context(plain_identities(folder), name),
        nkeys_seed_str=seed(folder, name),
        allow_reconnect=False,
        connect_timeout=PATIENCE,
    )


def _of_interest(record: logging.LogRecord) -> bool:
    """Not how nats-py starts TLS, which asyncio deplores once at the end of every connection."""
    return "eof_received() has no effect" not in record.getMessage()


async def _answer(receiver: "Client") -> None:
    """Echo requests; count what comes under each name, and tell the count where a message asks for a reply."""
    counts: defaultdict[str, Count] = defaultdict(Count)

    async def received(message: "Msg") -> None:
        _, kind, *name = message.subject.split(".")
        if kind == "echo":
            await message.respond(message.data)
        elif kind == "done":
            await message.respond(counts.pop(name[0], Count()).pack())
        elif message.reply:
            await message.respond(b"")
        else:
            counts[name[0]].add(message.data)

    await receiver.subscribe("bench.>", cb=received)  # one subscription: only within one is there an order
    await receiver.flush(PATIENCE)


@asynccontextmanager
async def _broker(config: Path) -> AsyncIterator[str]:
    """`nats-server` while the block runs; where it listens, which its log tells."""
    command = [_binary() or "nats-server", "--config", str(config)]
    with _every_core():
        process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
    assert process.stderr
    try:
        where = await _listening(process.stderr)
        draining = asyncio.create_task(process.stderr.read())  # a full pipe would stop it
        try:
            yield where
        finally:
            draining.cancel()
    finally:
        if process.returncode is None:
            process.terminate()
        with anyio.CancelScope(shield=True):
            await process.wait()


@contextmanager
def _every_core() -> Iterator[None]:
    """What is started in the block may use them all: on the receiver's one core, the broker would be half as fast."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    ours = os.sched_getaffinity(0)
    os.sched_setaffinity(0, range(os.cpu_count() or 1))
    try:
        yield
    finally:
        os.sched_setaffinity(0, ours)


async def _listening(log: asyncio.StreamReader) -> str:
    where, lines = "", []
    while line := (await log.readline()).decode():
        lines.append(line)
        if found := re.search(r"Listening for client connections on (\S+)", line):
            where = found[1]
        if "Server is ready" in line:
            return where
    raise RuntimeError(f"nats-server did not start: {''.join(lines)}")


def _make_config(folder: Path) -> Path:
    import nkeys

    seeds = {name: seed(folder, name).encode() for name in ("server", "client")}
    keys = {name: nkeys.from_seed(bytearray(seed)).public_key.decode() for name, seed in seeds.items()}
    files = {"cert": "server.chain.pem", "key": "server.key.pem", "ca": "root.pem"}
    quoted = {word: json.dumps(str(plain_identities(folder) / file)) for word, file in files.items()}
    config = folder / "nats.conf"
    config.write_text(CONFIG.format(**quoted, **keys))
    return config


@cache
def seed(folder: Path, name: str) -> str:
    """The nkey of `name`, made when first asked for."""
    file = folder / f"{name}.nkey"
    if not file.exists():
        import nkeys

        file.touch(0o600)
        file.write_bytes(nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_USER))
    return file.read_text()


def _binary() -> str | None:
    path = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin"  # where Debian puts it
    return shutil.which("nats-server", path=path)


STACK = NatsServer()
