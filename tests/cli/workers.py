"""A site served with `--workers`: handlers that say which process answers, or keep it busy."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
from anyio.to_thread import run_sync

from autolink import Agent
from tests.cli.market import Market, Process

TWO = ("--workers", "2")

SITE = """
import os
import signal

import anyio

from autolink import Handlers, limits

handlers = Handlers()


@handlers.method(forwarded=True)
async def pid(call, body) -> int:
    return os.getpid()


@handlers.method
async def environment(call, body) -> list[str]:
    return [name for name in os.environ if "PASSPHRASE" in name]


@handlers.method
async def hold(call, path: str) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    print("holding", flush=True)
    await anyio.wait_readable(descriptor)
    os.close(descriptor)
    return os.getpid()


@handlers.method
async def block(call, path: str) -> int:
    print("blocking", flush=True)
    open(path).close()  # the whole process, until somebody writes
    return os.getpid()
"""


def serve(
    site: Market, *options: str, target: str = "site_of_acme:handlers", trust: str = "issuer:acme.pem"
) -> Process:
    server = site.start("-v", "run", target, "--as", "seller", "--trust", trust, *TWO, *options)
    server.contact = server.line()
    return server


def workers_of(server: Process, count: int = 2) -> list[int]:
    """The next `count` that are ready."""
    return [int(re.findall(r"worker (\d+)", server.log_until("is ready"))[0]) for _ in range(count)]


@asynccontextmanager
async def a_link_to_each(buyer: Agent, server: Process, site: Market) -> AsyncIterator[list]:
    """One link to each of two workers: while the first one blocks, only the other can accept."""
    async with buyer.connect(server.contact) as one, anyio.create_task_group() as tasks:
        tasks.start_soon(one.call, "block", str(site.path / "fifo"))
        assert await run_sync(server.line) == "blocking"
        async with buyer.connect(server.contact) as other:
            await run_sync((site.path / "fifo").write_bytes, b"")
            yield [one, other]


async def heard(server: Process, word: str) -> str:
    return await run_sync(server.log_until, word)
