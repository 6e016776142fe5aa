"""The parent's hold on the processes of a benchmark (process.py): start, ask, watch the memory of, and end them.

A process that dies or does not answer in time raises `StackFailed`, and is ended with whatever it had started.
"""

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import psutil

from benchmarks.stacks.base import Stack

PATIENCE = 60.0
"""Seconds that a process gets to start, or to answer beyond the time that its job takes by order."""

KEEPS_MEMORY: Final = {"MALLOC_TRIM_THRESHOLD_": str(64 << 20), "MALLOC_MMAP_THRESHOLD_": str(32 << 20)}
"""glibc's malloc does not give large blocks back to the system as soon as they are free, to take them again with a fault for
each page. What a process had allocated before decided whether it did, and asyncio + `ssl` moved 1 GiB in 1.0 or in 3.3 s."""


class StackFailed(Exception):
    """A stack could not be measured; the text is one line that names it."""


def cores() -> tuple[str, str]:
    """One for the client, one for the server; `any` where we cannot choose, or there is but one."""
    if not hasattr(os, "sched_getaffinity"):
        return "any", "any"
    first, *others = sorted(os.sched_getaffinity(0))
    return (str(first), str(others[0])) if others else ("any", "any")


class Process:
    """One process, which speaks in lines."""

    def __init__(self, role: str, stack: Stack, *arguments: str) -> None:
        self.stack = stack
        self._role = "server" if role == "serve" else "client"
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  closed by `end`
        self._popen = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.process", role, stack.name, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            cwd=Path(__file__).parent.parent,
            env=KEEPS_MEMORY | os.environ,
            start_new_session=True,  # Ctrl-C is for the parent
        )

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def alive(self) -> bool:
        return self._popen.poll() is None

    def say(self, line: str) -> None:
        assert self._popen.stdin is not None
        try:
            self._popen.stdin.write(line + "\n")
            self._popen.stdin.flush()
        except BrokenPipeError:
            pass  # it died; `hear` says so

    def hear(self, seconds: float) -> str:
        """Its next line.

        Raises:
            StackFailed: it died first, or took longer.
        """
        assert self._popen.stdout is not None
        too_late = threading.Event()

        def give_up() -> None:
            too_late.set()
            self._popen.kill()

        timer = threading.Timer(seconds, give_up)
        timer.daemon = True
        timer.start()
        try:
            line = self._popen.stdout.readline()
        finally:
            timer.cancel()
        if line:
            return line.strip()
        status = self._popen.wait()
        why = f"did not answer in {seconds:.0f} s" if too_late.is_set() else f"died with status {status}"
        raise StackFailed(f"{self.stack.name}: its {self._role} {why}{self._last_words()}")

    def _last_words(self) -> str:
        self._errors.seek(0)
        last = [line.strip() for line in self._errors if line.strip()][-1:]
        return f": {last[0][:300]}" if last else ""

    def end(self) -> None:
        """End it and what it started."""
        family = _family(self.pid) if self.alive else []
        self._popen.terminate()
        try:
            self._popen.wait(5)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait()
        for one in family:
            if one.is_running():
                one.kill()
        for stream in (self._popen.stdin, self._popen.stdout):
            try:
                if stream is not None:
                    stream.close()
            except BrokenPipeError:
                pass  # what it was to be told, it no longer reads
        self._errors.close()


class Pair:
    """A stack's server and the worker at its other end."""

    def __init__(self, stack: Stack, folder: Path) -> None:
        self.stack = stack
        self._folder = folder
        self._client_core, server_core = cores()
        self.server = Process("serve", stack, str(folder), server_core)

    @cached_property
    def worker(self) -> "Worker":
        """Started when it is first asked for, so that many servers can start meanwhile."""
        where = self.server.hear(PATIENCE)
        return Worker(self.stack, self._folder, self._client_core, where, self.server.pid)

    @property
    def alive(self) -> bool:
        return self.server.alive and ("worker" not in self.__dict__ or self.worker.alive)

    def end(self) -> None:
        if "worker" in self.__dict__:
            self.worker.end()
        self.server.end()


class Worker(Process):
    """A process that does jobs."""

    def __init__(self, stack: Stack, folder: Path, core: str, where: str = "", server: int = 0) -> None:
        super().__init__("work", stack, str(folder), core, where, str(server))
        self.hear(PATIENCE)

    def do(self, job: Callable[..., Any], seconds: float, /, **arguments: Any) -> Any:
        """Have a job done that takes about `seconds`, and return what it returned.

        Raises:
            StackFailed: it failed, or nothing came of it in time.
        """
        self.say(json.dumps({"job": f"{job.__module__}:{job.__qualname__}", "arguments": arguments}))
        answer = json.loads(self.hear(PATIENCE + 10 * seconds))
        if "failed" in answer:
            raise StackFailed(f"{self.stack.name}: {answer['failed']}")
        return answer["done"]


class MemoryWatch:
    """The most memory that each of some processes (with what they started) had during a block, above what it had before.

    Attributes:
        above: in bytes, in the order of `pids`.
    """

    def __init__(self, pids: Iterable[int]) -> None:
        self._pids = list(pids)
        self._before = [memory(pid) for pid in self._pids]
        self.above = [0 for _ in self._pids]
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "MemoryWatch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(0.02):
            for number, pid in enumerate(self._pids):
                self.above[number] = max(self.above[number], memory(pid) - self._before[number])


def memory(pid: int) -> int:
    """Resident bytes of a process and of what it started; 0 once it is gone."""
    total = 0
    for process in _family(pid):
        with suppress(psutil.NoSuchProcess):  # it ended just now
            total += process.memory_info().rss
    return total


def _family(pid: int) -> list[psutil.Process]:
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []
