"""`handshake`: TCP, TLS 1.3 with certificates on both sides, the trust models' verdicts, the first signed echo.

A unit is a whole connection, its end included; its latency ends with the echo.
"""

import ssl
import time
from collections.abc import Awaitable, Callable
from typing import Any

import anyio

from autolink import Agent
from benchmarks import floors, identities
from benchmarks.harness import Bench
from benchmarks.measuring import Sample, Usage, concurrently
from benchmarks.process import Place
from benchmarks.stacks import OURS, STACKS, autolink_stack
from benchmarks.stacks.base import Stack

BODY = b"x" * 100
CONCURRENCY = 16
"""Of the rows in the table to meet."""

PEERS = {
    "handshake_vs_asyncio_ssl": "asyncio+ssl",
    "handshake_vs_trio_ssl": "trio.SSLStream",
    "handshake_vs_grpc": "grpcio",
    "handshake_vs_libp2p": "py-libp2p",
}


# --- jobs ----------------------------------------------------------------------------------------------------


async def handshakes(stack: Stack, place: Place, *, concurrency: int, seconds: float) -> dict[str, Any]:
    """Full handshakes of any stack, by one caller whom the server has seen before."""

    async def once() -> float:
        begun = time.perf_counter()
        async with stack.session(place.folder, place.where) as session:
            await _check(session.echo(BODY))
            return time.perf_counter() - begun

    with Usage(place.server) as usage:
        count, latencies = await concurrently(concurrency, seconds, once)
    return Sample.of(count, usage, latencies)


async def handshakes_in_one_process(
    _stack: Stack, place: Place, *, concurrency: int, seconds: float
) -> dict[str, Any]:
    """The same with both ends here, so that CPU time counts both to the nanosecond. No tickets, as the floor has none."""
    server = autolink_stack.server(place.folder, resume=False)
    async with server.listening("127.0.0.1:0") as listener:
        dial = _dialling(autolink_stack.client(place.folder), str(listener.contact))
        with Usage() as usage:
            count, latencies = await concurrently(concurrency, seconds, dial)
    return Sample.of(count, usage, latencies)


async def strangers(_stack: Stack, place: Place, *, count: int) -> dict[str, Any]:
    """Full handshakes of so many callers, none of whom the server has ever seen, nor they it."""
    agents = _agents(place, count, resume=False)
    latencies: list[float] = []

    async def dial_some() -> None:
        while agents:
            latencies.append(await _dialling(agents.pop(), place.where)())

    with Usage(place.server) as usage:
        async with anyio.create_task_group() as tasks:
            for _ in range(CONCURRENCY):
                tasks.start_soon(dial_some)
    return Sample.of(count, usage, latencies)


async def resumed(_stack: Stack, place: Place, *, count: int) -> dict[str, Any]:
    """Resumed handshakes of callers who were here once; each dials again and again."""
    agents = _agents(place, min(CONCURRENCY, count), resume=True)
    for agent in agents:
        await _dialling(agent, place.where)()
    latencies: list[float] = []

    async def dial_again(agent: Agent, times: int) -> None:
        for _ in range(times):
            latencies.append(await _dialling(agent, place.where, resumed=True)())

    with Usage(place.server) as usage:
        async with anyio.create_task_group() as tasks:
            for agent in agents:
                tasks.start_soon(dial_again, agent, max(1, count // len(agents)))
    return Sample.of(len(latencies), usage, latencies)


def _agents(place: Place, count: int, *, resume: bool) -> list[Agent]:
    root = identities.load(place.folder, "root")
    trust = autolink_stack.trust(place.folder)
    return [
        Agent(identities.issued(root, f"stranger-{number}"), trust=trust, resume=resume)
        for number in range(count)
    ]


def _dialling(agent: Agent, where: str, *, resumed: bool = False) -> Callable[[], Awaitable[float]]:
    async def once() -> float:
        begun = time.perf_counter()
        async with agent.connect(where) as link:
            await _check(link.call("echo", BODY, returns=bytes))
            if link.tls.resumed is not resumed:
                raise RuntimeError(f"a handshake that should {'' if resumed else 'not '}be resumed")
            return time.perf_counter() - begun

    return once


async def _check(echo: Awaitable[bytes]) -> None:
    if await echo != BODY:
        raise RuntimeError("the echo is not what was sent")


# --- arrangement ---------------------------------------------------------------------------------------------


def run(bench: Bench) -> None:
    peers = [stack.name for stack in bench.able("handshake")]
    for concurrency in (CONCURRENCY, 1, 64):
        side = concurrency != CONCURRENCY
        seconds = bench.budget.side_seconds if side else bench.budget.seconds
        contest = bench.contest(
            "handshake", "handshakes/s",
            {name: bench.job(name, handshakes, concurrency=concurrency, seconds=seconds) for name in [OURS, *peers]},
            side=side, concurrency=concurrency, key="p256",
        )  # fmt: skip
        if not side:
            for row, peer in PEERS.items():
                bench.row(row, contest.ratio(peer))
    _key_types(bench)
    _floor(bench)
    _resumed(bench)


def _key_types(bench: Bench) -> None:
    for key in ("ed25519", "ml-dsa-65"):
        able = key == "ed25519" or ssl.OPENSSL_VERSION_INFO >= (3, 5)  # the first with ML-DSA
        peers = [stack.name for stack in bench.peers if stack is STACKS.get("asyncio+ssl") and able]
        bench.contest(
            "handshake", "handshakes/s",
            {
                name: bench.job(
                    name, handshakes, key=key, concurrency=CONCURRENCY, seconds=bench.budget.side_seconds
                )
                for name in [OURS, *peers]
            },
            side=True, warm_up=True, concurrency=CONCURRENCY, key=key,
        )  # fmt: skip


def _floor(bench: Bench) -> None:
    seconds = bench.budget.side_seconds
    for concurrency in (1, CONCURRENCY):
        contest = bench.contest(
            "handshake", "CPU us, both ends in one process",
            {
                OURS: bench.alone(handshakes_in_one_process, concurrency=concurrency, seconds=seconds),
                "floor": bench.alone(floors.handshakes, seconds=seconds),
            },
            by="cpu_us", concurrency=concurrency, key="p256",
        )  # fmt: skip
    bench.row("handshake_vs_floor", contest.ratio("floor"))


def _resumed(bench: Bench) -> None:
    count = bench.budget.strangers
    contest = bench.contest(
        "handshake", "CPU us, both ends",
        {
            "autolink, resumed": bench.job(OURS, resumed, count=count),
            "autolink, full, never seen": bench.job(OURS, strangers, count=count),
        },
        by="cpu_us", concurrency=CONCURRENCY, key="p256", chain=2,
    )  # fmt: skip
    bench.row("resumed_vs_full", contest.ratio("autolink, full, never seen"))
