"""uAgents: signed envelopes over plain HTTP, by its own ASGI server, dispatcher and client, without Almanac and Agentverse.

There is no link and so no handshake: every message brings a TCP connection of its own and a secp256k1 signature, and replies
are not signed. The server keeps one open question for each sender, so tasks that ask at once each ask in another name.

It is not part of the `bench` extra: its ledger client, cosmpy 0.12.2, pins PyNaCl 1.6.0, and py-libp2p 0.8.1 wants 1.6.2 or
later. Where it is installed instead of libp2p, it is measured.
"""

import asyncio
import importlib.util
import socket
from base64 import b64decode, b64encode
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from functools import cache
from importlib.metadata import version
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

from benchmarks.stacks.base import Session, Stack
from benchmarks.stacks.counting import Count

if TYPE_CHECKING:
    from uagents_core.identity import Identity
    from uagents_core.models import Model


class UagentsSession(Session):
    def __init__(self, server: str, address: str) -> None:
        from uagents.resolver import RulesBasedResolver

        self._models = _models()
        self._destination = address
        self._resolver = RulesBasedResolver({address: f"http://{server}/submit"})
        self._idle: list[Identity] = []
        self._numbers = count()

    async def echo(self, body: bytes) -> bytes:
        reply = await self._ask(self._models.Echo(body=b64encode(body).decode()), self._models.Echo)
        return b64decode(reply.body)

    async def pump(self, body: bytes, going: Callable[[], bool]) -> int:
        from uagents.communication import send_message
        from uagents_core.identity import Identity

        sender = Identity.generate()
        message = self._models.OneWay(body=b64encode(body).decode())
        while going():
            for _ in range(100):
                await send_message(self._destination, message, sender=sender, resolver=self._resolver)
        return (await self._ask(self._models.Counted(of=sender.address), self._models.Counted)).messages

    async def _ask(self, message: "Model", expected: "type[Model]") -> "Model":
        from uagents.communication import send_sync_message
        from uagents_core.identity import Identity

        sender = self._idle.pop() if self._idle else Identity.generate()
        reply = await send_sync_message(
            self._destination, message, response_type=expected, sender=sender, resolver=self._resolver
        )
        if not isinstance(reply, expected):
            raise ConnectionError(str(reply))
        self._idle.append(sender)
        return reply


class UagentsHttp(Stack):
    name = "uAgents"
    backend = "asyncio"
    lacks = (
        "no encryption and no handshake: plain HTTP",
        "a connection for every message",
        "replies are not signed",
        "replayed and expired messages are taken",
        "no trust decision: whoever signs is heard",
        "no X.509, so no names, expiry or revocation",
        "no post-quantum key exchange",
    )
    can = frozenset({"call", "message"})

    def missing(self) -> str | None:
        if importlib.util.find_spec("uagents"):
            return None
        return "pip install uagents, in an environment without libp2p: they want different versions of PyNaCl"

    def version(self) -> str:
        return f"uagents {version('uagents')}"

    async def serve(self, folder: Path, ready: Callable[[str], None]) -> None:
        import uvicorn
        from uagents.asgi import ASGIServer
        from uagents.dispatch import dispatcher
        from uagents_core.identity import Identity

        class Server(uvicorn.Server):
            def capture_signals(self) -> AbstractContextManager[None]:
                return nullcontext()  # they are the benchmark's

        address = Identity.generate().address
        questions: dict[str, asyncio.Future[tuple[str, str]]] = {}
        dispatcher.register(address, _models().Receiver(questions))
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
            application = ASGIServer(port, asyncio.get_running_loop(), questions)
            ready(f"127.0.0.1:{port}/{address}")
            # Its own `serve` would listen on all interfaces.
            await Server(uvicorn.Config(application, log_level="warning", lifespan="off")).serve([listener])

    @asynccontextmanager
    async def session(self, folder: Path, where: str) -> AsyncIterator[UagentsSession]:
        server, _, address = where.partition("/")
        yield UagentsSession(server, address)


@cache
def _models() -> SimpleNamespace:
    """The classes that can only be made with the package there: what is sent, and who receives it."""
    from uagents.dispatch import Sink
    from uagents_core.models import Model

    class Echo(Model):
        body: str

    class OneWay(Model):
        body: str

    class Counted(Model):
        of: str
        messages: int = 0

    class Receiver(Sink):
        def __init__(self, questions: "dict[str, asyncio.Future[tuple[str, str]]]") -> None:
            self._questions = questions
            self._counts: defaultdict[str, Count] = defaultdict(Count)

        async def handle_message(
            self, sender: str, schema_digest: str, message: str, session: object
        ) -> None:
            if schema_digest == digests[OneWay]:
                self._counts[sender].add(message.encode())
                return
            if schema_digest == digests[Counted]:
                of = Counted.model_validate_json(message).of
                message = Counted(of=of, messages=self._counts.pop(of, Count()).messages).model_dump_json()
            self._questions[sender].set_result((message, schema_digest))

        async def handle_rest(self, method: str, endpoint: str, message: object) -> None:
            raise NotImplementedError

    digests = {model: Model.build_schema_digest(model) for model in (Echo, OneWay, Counted)}
    return SimpleNamespace(Echo=Echo, OneWay=OneWay, Counted=Counted, Receiver=Receiver)


STACK = UagentsHttp()
