"""What runs in the processes of a benchmark: `python -m benchmarks.process {serve|work} STACK FOLDER …`.

`serve` is one stack's server; it prints where it listens and serves until SIGTERM. `work` is the other end: it reads jobs
from stdin, one JSON object in a line, and answers each with a line. A job is a module-level coroutine function of the
suite, named `module:function`; all jobs of a process share its event loop, and what one of them leaves in the background
(live links) stays for the next.

Each has a core of its own where the system lets us choose, and ends with its parent: when stdin ends.
"""

import json
import os
import resource
import signal
import sys
import tempfile
import threading
import traceback
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import anyio
from anyio.abc import TaskGroup


@dataclass(frozen=True, slots=True)
class Place:
    """What a job is told about where it runs.

    Attributes:
        folder: the identities.
        where: the server's address; empty in a process that has none.
        server: process id of the server; 0 where there is none.
        background: for what outlives the job.
    """

    folder: Path
    where: str
    server: int
    background: TaskGroup


def main(arguments: list[str]) -> None:
    role, name, folder, core, *server = arguments
    # Before anything starts a thread, which would keep the old affinity.
    if core != "any":
        os.sched_setaffinity(0, {int(core)})
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal tells everybody; the parent decides
    allow_files()
    tempfile.tempdir = folder  # the parent's, who removes it; this process may be killed before it could
    from benchmarks.stacks import STACKS  # imports whatever the neighbours need

    stack = STACKS[name]
    if role == "work":
        where, process = server
        anyio.run(_work, stack, Path(folder), where, int(process), backend=stack.backend)
        return
    try:
        anyio.run(_serve, stack, Path(folder), backend=stack.backend)
    except Exception as error:  # noqa: BLE001  foreign stacks raise anything; the parent says it in one line
        traceback.print_exc()
        sys.exit(in_a_line(error))


def allow_files() -> int:
    """As many open files as this process may have: thousands of links need one each."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = 65_536 if hard == resource.RLIM_INFINITY else hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return most


async def _serve(stack: Any, folder: Path) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with anyio.open_signal_receiver(signal.SIGTERM) as signals:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(stack.serve, folder, _say)
            async for _ in signals:
                tasks.cancel_scope.cancel()


def _end_with_parent() -> None:
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGTERM)


async def _work(stack: Any, folder: Path, where: str, server: int) -> None:
    async with anyio.create_task_group() as background:
        place = Place(folder, where, server, background)
        _say("ready")
        while line := await anyio.to_thread.run_sync(sys.stdin.readline):
            order = json.loads(line)
            module, _, function = order["job"].partition(":")
            job = getattr(import_module(module), function)
            try:
                answer = {"done": await job(stack, place, **order["arguments"])}
            except Exception as error:  # noqa: BLE001  foreign stacks raise anything; the parent says it in one line
                traceback.print_exc()
                answer = {"failed": in_a_line(error)}
            print(json.dumps(answer), flush=True)
        background.cancel_scope.cancel()


def in_a_line(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
