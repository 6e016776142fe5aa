"""What the harness asks of a stack: autolink, or one of its neighbours.

A stack is one module here that defines `STACK`. What a real program builds once (an `ssl.SSLContext`, an `Agent`) the stack
builds once per process and keeps; what a session needs it makes afresh.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Literal


class Session(ABC):
    """One open connection, mutually authenticated where the stack can."""

    async def echo(self, body: bytes) -> bytes:
        """Ask once and return the reply. Many tasks may do so at once."""
        raise NotImplementedError

    async def pump(self, body: bytes, going: Callable[[], bool]) -> int:
        """Send `body` one way again and again while `going()`, which is asked about every 100 messages.

        Return how many the *receiver* says it got.
        """
        raise NotImplementedError

    async def bulk(self, total: int) -> None:
        """Send `total` bytes one way in pieces that suit the stack, and return when the receiver has counted them."""
        raise NotImplementedError


class Stack(ABC):
    """One way to connect two processes and talk."""

    name: str
    backend: Literal["trio", "asyncio"]  # the event loop of both ends
    lacks: tuple[str, ...] = ()  # what it does not do that autolink does, such as "no signed messages"
    can: frozenset[str]  # of "handshake", "call", "message", "bulk": what there is to compare at all

    @abstractmethod
    def missing(self) -> str | None:
        """None, or in one line what to install ("pip install grpcio", "apt-get install nats-server")."""

    @abstractmethod
    def version(self) -> str:
        """The version of what is measured. Asked only when nothing is missing."""

    @abstractmethod
    async def serve(self, folder: Path, ready: Callable[[str], None]) -> None:
        """Call `ready(where)` once, then serve until cancelled. `folder` is `benchmarks.identities`' layout."""

    @abstractmethod
    def session(self, folder: Path, where: str) -> AbstractAsyncContextManager[Session]:
        """A fresh connection to `where`, by a full handshake. Leaving the block closes it."""
