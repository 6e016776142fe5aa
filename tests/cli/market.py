"""Real `autolink` processes: a shop that serves, and what is needed to start and to hear it."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from threading import Timer

SHOP = """
import gc
import os

import anyio

from autolink import Call, CallError, Handlers

handlers = Handlers()


@handlers.method
async def echo(call: Call, body: object) -> object:
    return body


@handlers.method
async def odd(call: Call, body: object) -> object:
    return {"bytes": b"\\xff\\x00", "nan": float("nan"), "text": "\\x1b]0;owned\\x07\\u202e[red]\\x7f\\u2028é"}


@handlers.method
async def headers(call: Call, body: object) -> dict[str, str]:
    return dict(call.headers)


@handlers.method
async def fails(call: Call, body: object) -> None:
    raise CallError("failed_precondition", "not\\nnow \\x1b[31m")


@handlers.method
async def environment(call: Call, body: object) -> list[str]:
    return sorted(name for name in os.environ if "PASSPHRASE" in name)


@handlers.method
async def garbage(call: Call, body: object) -> list[int]:
    return list(gc.get_threshold())


@handlers.method
async def forever(call: Call, body: object) -> None:
    print("holding", flush=True)
    await anyio.sleep_forever()


@handlers.method
async def hold(call: Call, path: str) -> str:
    descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    print("holding", flush=True)
    await anyio.wait_readable(descriptor)
    os.close(descriptor)
    return "done"
"""
AUTOLINK = Path(sys.executable).parent / "autolink"


@dataclass
class Process:
    """One `autolink` in a process of its own."""

    process: subprocess.Popen[str]
    contact: str = ""

    def line(self) -> str:
        """The next line on stdout."""
        return self._heard(self.process.stdout.readline).rstrip("\n")

    def log_until(self, word: str) -> str:
        """The next line on stderr with that word."""
        while word not in (line := self._heard(self.process.stderr.readline)):
            pass
        return line

    def _heard(self, readline: Callable[[], str]) -> str:
        """A process that says nothing is ended, so that the test fails instead of waiting."""
        patience = Timer(20, self.process.kill)
        patience.start()
        try:
            line = readline()
        finally:
            patience.cancel()
        assert line, f"it ended without saying so: {self.process.stderr.read()}"
        return line


@dataclass
class Market:
    """A folder with acme, its agents seller and buyer, the stranger bob, and processes that end with the test."""

    path: Path
    environment: dict[str, str]
    running: list[Process] = field(default_factory=list)

    def start(self, *args: str) -> Process:
        process = subprocess.Popen(
            [AUTOLINK, *args], cwd=self.path, env=self.environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        self.running.append(Process(process))
        return self.running[-1]

    def serve(self, *options: str) -> Process:
        server = self.start(*options, "--as", "seller", "--trust", "issuer:acme.pem")
        server.contact = server.line()
        return server

    def end(self) -> None:
        for one in self.running:
            one.process.kill()
            one.process.communicate()
