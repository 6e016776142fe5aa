"""`message`: signed messages one way on one channel, until the receiver has confirmed the count."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from autolink import Credential, limits
from benchmarks.harness import Bench
from benchmarks.measuring import Sample, Usage, lasting
from benchmarks.process import Place
from benchmarks.processes import StackFailed
from benchmarks.result import NEEDS, Result
from benchmarks.stacks import OURS, STACKS
from benchmarks.stacks.base import Session, Stack

SIZES = (100, 1024, 64 * 1024)
UNBATCHED = "autolink, one signature a message"


# --- jobs ----------------------------------------------------------------------------------------------------


async def messages(stack: Stack, place: Place, *, size: int, seconds: float) -> dict[str, Any]:
    """Messages of any stack."""
    async with stack.session(place.folder, place.where) as session:
        return await measured(session, place, size=size, seconds=seconds)


async def measured(session: Session, place: Place, *, size: int, seconds: float) -> dict[str, Any]:
    with Usage(place.server) as usage:
        count = await session.pump(b"x" * size, lasting(seconds))
    return Sample.of(count, usage)


async def unbatched(stack: Stack, place: Place, *, size: int, seconds: float) -> dict[str, Any]:
    """One signature a message, and all else as it is: to the sender every batch is full after its first message."""
    usual = limits.BATCH_BYTES, limits.BATCH_BULK
    limits.BATCH_BYTES = limits.BATCH_BULK = 1  # type: ignore[misc]  # no program can; here it is what is measured
    try:
        async with stack.session(place.folder, place.where) as session:
            with _signatures_counted() as counted:
                sample = await measured(session, place, size=size, seconds=seconds)
            if counted[0] < sample["rate"] * seconds / 2:
                raise RuntimeError("the messages were signed in batches after all")
            return sample
    finally:
        limits.BATCH_BYTES, limits.BATCH_BULK = usual  # type: ignore[misc]


async def batch_size(stack: Stack, place: Place, *, size: int, seconds: float) -> float:
    """Messages to a signature, as the sender signs them."""
    async with stack.session(place.folder, place.where) as session:
        with _signatures_counted() as counted:
            count = await session.pump(b"x" * size, lasting(seconds))
    return count / counted[0]


@contextmanager
def _signatures_counted() -> Iterator[list[int]]:
    counted = [0]
    sign = Credential.sign

    def counting(self: Credential, data: bytes) -> bytes:
        counted[0] += 1
        return sign(self, data)

    Credential.sign = counting  # type: ignore[method-assign]
    try:
        yield counted
    finally:
        Credential.sign = sign  # type: ignore[method-assign]


# --- arrangement ---------------------------------------------------------------------------------------------


def run(bench: Bench) -> None:
    names = [OURS, *(stack.name for stack in bench.able("message"))]
    for size in SIZES:
        side = size != SIZES[0]
        seconds = bench.budget.side_seconds if side else bench.budget.seconds
        measures = {name: bench.job(name, messages, size=size, seconds=seconds) for name in names}
        if not side:
            measures[UNBATCHED] = bench.job(OURS, unbatched, size=size, seconds=seconds)
        contest = bench.contest("message", "messages/s", measures, side=side, size=size)
        if not side:
            bench.row("message_vs_unbatched", contest.ratio(UNBATCHED))
            bench.row("message_vs_nats", contest.ratio(NEEDS["message_vs_nats"]))
    _batch_sizes(bench)


def _batch_sizes(bench: Bench) -> None:
    bench.progress.expect(len(SIZES))
    for size in SIZES:
        bench.progress.slot(f"message · batch size · size {size}")
        worker = bench.pair(STACKS[OURS]).worker
        try:
            reached = worker.do(batch_size, 1, size=size, seconds=bench.budget.side_seconds)
        except StackFailed as failure:
            bench.progress.warn(str(failure))
            continue
        bench.result(Result("message", OURS, "messages per signature", reached, params={"size": size}))
