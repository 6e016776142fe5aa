"""`registry`: what a registry's work costs as its log grows, from a thousand records to a million.

Each size has a process of its own, and they are measured in turn: what is looked for is whatever grows with the log. The
units:

- a record, looked up at random, and the proof of its last entry;
- a status: the same, how the ID stands, and the log's signature, in the bytes that are served; and that over HTTP, on
  connections that are kept, by a client on the other core;
- a renewal of an issued ID, signed beforehand, judged and on the disk, in groups of 256 at random. Its floor are the two
  signatures that nobody could leave unverified: the issuer's under the certificate, the holder's under the entry.

Besides: the time to start, and the memory that a process has taken once it has looked into every part of its log.
"""

import os
import time
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, Final

import anyio
from anyio.abc import SocketStream, TaskStatus

from autolink import codec
from autolink.registry.http import PublicSide
from autolink.registry.httpd import serving_http
from autolink.registry.records import SECOND
from autolink.registry.registrar import GROUP, Appended, Registrar
from autolink.registry.store import SqliteStore
from autolink.transport import parse_address
from benchmarks import floors, identities, logs
from benchmarks.harness import Bench, Measure
from benchmarks.measuring import Sample, Usage, concurrently, repeated
from benchmarks.process import Place
from benchmarks.processes import Worker, cores, memory
from benchmarks.result import Result
from benchmarks.stacks import OURS, STACKS
from benchmarks.stacks.base import Stack

HOLDERS: Final = 4096
"""Agents whose entries are made: enough that their records lie all over the file."""
GROUPS: Final = 2
"""Of renewals in one slot."""
CLIENTS: Final = 8
"""Connections over which statuses are asked for."""


# --- jobs ----------------------------------------------------------------------------------------------------


async def fill(_stack: Stack, place: Place, *, records: int, groups: int, seconds: float) -> dict[str, Any]:
    """Make a registry, and so many groups of renewals for it."""
    folder = _folder(place, records)
    holders = min(HOLDERS, records // 2)
    chosen = Random(records)  # noqa: S311  the same ones in every run
    with Usage() as usage:
        made = logs.fill(folder, records, identities.load(place.folder, "root"), holders)
    prepared: list[tuple[int, list[bytes]]] = []
    for number in range(groups):
        now = made.start + (1 + number) * SECOND
        group = chosen.sample(made.holders, min(GROUP, holders))
        prepared.append((now, [holder.renewal(now) for holder in group]))
    _renewals(folder).write_bytes(codec.encode(prepared))
    return Sample.of(records, usage)


@dataclass(slots=True)
class _Open:
    """The registry that this process has open."""

    store: SqliteStore
    registrar: Registrar
    now: int
    renewals: list[tuple[int, list[bytes]]]


_open: dict[int, _Open] = {}


async def start(_stack: Stack, place: Place, *, records: int) -> dict[str, float]:
    """Open a registry, time that, and look into every tile once, as a server has done after a while."""
    folder = _folder(place, records)
    renewals = codec.decode_untrusted(_renewals(folder).read_bytes(), what="renewals", nodes=10_000_000)
    before = memory(os.getpid())
    begun = time.perf_counter()
    store = SqliteStore(folder)
    opened = _Open(store, Registrar(store, logs.KEY, lambda: opened.now), store.head.time, renewals)
    seconds = time.perf_counter() - begun
    _open[records] = opened
    for index in range(0, records, GROUP):
        opened.registrar.proof(index)
        store.record(logs.id_at(index, records))
    return {"milliseconds": seconds * 1e3, "mib": (memory(os.getpid()) - before) / 2**20}


async def lookups(_stack: Stack, _place: Place, *, records: int, seconds: float) -> dict[str, Any]:
    """Records and proofs."""
    opened, chosen = _open[records], Random(records)  # noqa: S311  the same ones in every run

    def once() -> None:
        found = None
        while found is None:  # at some places there is a holder instead
            found = opened.store.record(logs.id_at(chosen.randrange(records), records))
        opened.registrar.proof(found.touched)

    return Sample.of(*repeated(seconds, once))


async def statuses(_stack: Stack, _place: Place, *, records: int, seconds: float) -> dict[str, Any]:
    """Statuses, in bytes."""
    opened, chosen = _open[records], Random(records)  # noqa: S311  the same ones in every run

    def once() -> None:
        found = None
        while found is None:
            found = opened.registrar.status(logs.id_at(chosen.randrange(records), records))
        found.to_bytes()

    return Sample.of(*repeated(seconds, once))


async def serve(_stack: Stack, place: Place, *, records: int) -> str:
    """Serve the public side in the background; returns where."""
    address: str = await place.background.start(_serve, _open[records])
    return address


async def _serve(opened: _Open, *, task_status: TaskStatus[str]) -> None:
    side = PublicSide(opened.store, opened.registrar)
    async with serving_http(side, parse_address("127.0.0.1:0")) as (address,):
        task_status.started(str(address))
        await anyio.sleep_forever()


async def fetches(
    _stack: Stack, _place: Place, *, where: str, server: int, records: int, seconds: float
) -> dict[str, Any]:
    """Statuses, over HTTP."""
    host, _, port = where.rpartition(":")
    held = logs.places_of(min(HOLDERS, records // 2), records)
    synthetic = [place for place in range(1, records) if place not in held]
    chosen, kept = Random(records), list[SocketStream]()  # noqa: S311  the same ones in every run

    async def once() -> float:
        auto_id = logs.id_at(chosen.choice(synthetic), records)
        begun = time.perf_counter()
        connection = kept.pop() if kept else await anyio.connect_tcp(host, int(port))
        await connection.send(f"GET /v1/ids/{auto_id}/status HTTP/1.1\r\nHost: registry\r\n\r\n".encode())
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += await connection.receive()
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 ")
        fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
        while len(body) < int(fields[b"content-length"]):
            body += await connection.receive()
        if fields.get(b"connection") == b"close":
            await connection.aclose()
        else:
            kept.append(connection)
        return time.perf_counter() - begun

    with Usage(server) as usage:
        count, latencies = await concurrently(CLIENTS, seconds, once)
    for connection in kept:
        await connection.aclose()
    return Sample.of(count, usage, latencies)


async def renewals(_stack: Stack, _place: Place, *, records: int, seconds: float) -> dict[str, Any]:
    """Some groups of renewals, each on the disk before the next."""
    opened, count = _open[records], 0
    with Usage() as usage:
        for _ in range(GROUPS):
            opened.now, entries = opened.renewals.pop(0)
            outcomes = opened.registrar.append(entries)
            count += sum(isinstance(outcome, Appended) for outcome in outcomes)
    assert count == GROUPS * len(entries)
    return Sample.of(count, usage)


def _folder(place: Place, records: int) -> Path:
    return place.folder / f"registry-{records}"


def _renewals(folder: Path) -> Path:
    return folder.with_suffix(".renewals")


# --- arrangement ---------------------------------------------------------------------------------------------


def run(bench: Bench) -> None:
    sizes, budget = bench.budget.records, bench.budget
    slots = 1 + budget.side_rounds * (len(sizes) + 1)  # of the smallest, which is measured most often
    workers: dict[int, Worker] = {}
    bench.progress.expect(2 * len(sizes))
    try:
        for records in sizes:
            bench.progress.slot(f"registry · filling {records:,} records")
            bench.alone(fill, records=records, groups=GROUPS * slots, seconds=records / 1000)()
            bench.progress.slot(f"registry · starting with {records:,} records")
            workers[records] = Worker(STACKS[OURS], bench.folder, cores()[0])
            found = workers[records].do(start, records / 1000, records=records)
            for metric, value in (("ms to start", "milliseconds"), ("MiB of memory", "mib")):
                bench.result(Result("registry", _label(records), metric, found[value]))
        _measure(bench, workers, "lookups/s", lookups, "a record and its proof")
        _measure(bench, workers, "statuses/s", statuses, "a status")
        _measure_http(bench, workers)
        _measure(bench, workers, "renewals/s", renewals, "a renewal", floor=2)
    finally:
        for worker in workers.values():
            worker.end()


def _measure(
    bench: Bench, workers: dict[int, Worker], metric: str, job: Any, unit: str, floor: int = 0
) -> None:
    seconds = bench.budget.side_seconds

    def measure(records: int) -> Measure:
        return lambda: Sample.from_job(workers[records].do(job, seconds, records=records, seconds=seconds))

    measures = {_label(records): measure(records) for records in workers}
    if floor:
        measures["floor"] = bench.alone(floors.verifications, count=floor, seconds=seconds)
    bench.contest("registry", metric, measures, side=True, warm_up=True, unit=unit)


def _measure_http(bench: Bench, workers: dict[int, Worker]) -> None:
    """Each registry in its process, on the first core; who asks is on the other one."""
    seconds = bench.budget.side_seconds
    client = Worker(STACKS[OURS], bench.folder, cores()[1])
    try:

        def measure(records: int) -> Measure:
            worker = workers[records]
            where = worker.do(serve, 1, records=records)
            asked = {"where": where, "server": worker.pid, "records": records, "seconds": seconds}
            return lambda: Sample.from_job(client.do(fetches, seconds, **asked))

        measures = {_label(records): measure(records) for records in workers}
        bench.contest("registry", "statuses over HTTP/s", measures, side=True, warm_up=True, unit="a status")
    finally:
        client.end()


def _label(records: int) -> str:
    return f"{records:,} records"
