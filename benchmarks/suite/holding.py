"""Links that stay open while something else is measured: each in a task of its own, as an application holds it."""

import os
from typing import Any

import anyio
from anyio.abc import TaskStatus

from autolink import Agent
from benchmarks.harness import Bench
from benchmarks.process import Place, allow_files
from benchmarks.processes import memory
from benchmarks.stacks import autolink_stack
from benchmarks.stacks.base import Stack

OPENING = 16
"""Links that are opened at once."""
SPARE = 200
"""Files that a process needs for other things."""


async def hold(_stack: Stack, place: Place, *, count: int) -> dict[str, Any]:
    """Open links that stay for as long as the process; memory of both ends before and after, in bytes."""
    agent = autolink_stack.client(place.folder)
    async with agent.connect(place.where) as link:  # whatever the first link brings is not the links' own
        await link.call("echo", b"", returns=bytes)
    before = memory(os.getpid()), memory(place.server)
    room = anyio.CapacityLimiter(OPENING)

    async def open_one() -> None:
        async with room:
            await place.background.start(_keep, agent, place.where)

    async with anyio.create_task_group() as tasks:
        for _ in range(count):
            tasks.start_soon(open_one)
    await anyio.sleep(0.5)  # the last replies are read
    after = memory(os.getpid()), memory(place.server)
    return {"client": after[0] - before[0], "server": after[1] - before[1]}


async def _keep(agent: Agent, where: str, *, task_status: TaskStatus[None]) -> None:
    async with agent.connect(where) as link:
        task_status.started()
        await link.closed()
    if link.lost is not None:
        raise RuntimeError(f"a held link was lost: {link.lost}")


def bearable(bench: Bench, counts: tuple[int, ...]) -> list[int]:
    """Those that this system lets a process open files for; of the others a line says so."""
    most = allow_files() - SPARE
    for count in counts:
        if count > most:
            bench.progress.warn(f"{count:,} links are left out: a process may open {most + SPARE:,} files here")
    return [count for count in counts if count <= most]
