"""The processes of the demo, one function each: `python -m autolink.demo.cast ROLE`.

A process talks to the launcher in JSON lines: it asks for its certificate (the key never leaves the process), is told
whom it trusts and where to go, does its part, and reports.
"""

import json
import logging
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import anyio
import anyio.to_thread

from autolink import (
    Agent,
    AutoId,
    Call,
    Channel,
    Credential,
    CredentialRequest,
    Envelope,
    EnvelopeRefused,
    Handlers,
    LinkLost,
    Refused,
    TrustAnchor,
)  # fmt: skip
from autolink.demo.on_record import spare_key
from autolink.identity import load_chain
from autolink.registry import (
    Open,
    Rate,
    Registered,
    Registrar,
    RegistryService,
    SqliteStore,
    VerifierKey,
    create_registry,
    load_log_key,
    making,
    registered,
)
from autolink.trust import IssuedBy, SelfCertified

ADDRESS: Final = "127.0.0.1:0"


class Stage:
    """The line to the launcher."""

    async def tell(self, **report: object) -> None:
        """Send one line."""
        print(json.dumps(report), flush=True)
        await anyio.lowlevel.checkpoint()

    async def ask(self, **report: object) -> dict[str, Any]:
        """Send one line and wait for the answer; the launcher's end of the pipe closing ends the process."""
        await self.tell(**report)
        line = await anyio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True)
        if not line:
            sys.exit(0)
        answer: dict[str, Any] = json.loads(line)
        return answer

    async def credential(self, name: str) -> tuple[Credential, dict[str, Any]]:
        """Ask to be issued a certificate under a name; also what the launcher said beside it."""
        request = CredentialRequest.new(name)
        answer = await self.ask(request=request.pem.decode())
        return request.complete(load_chain(answer["chain"].encode()), first_use=True), answer


class Refusals(logging.Handler):
    """Collects the full reasons, which only the refusing agent's own log has."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.reasons: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one line."""
        reason = record.getMessage().partition(": we refused ")[2]
        if reason:
            self.reasons.append(reason)


def trust(answer: dict[str, Any]) -> IssuedBy:
    """The anchors that the launcher gave, as files that two organisations exchanged."""
    return IssuedBy(*[TrustAnchor.from_pem(pem.encode()) for pem in answer["anchors"]])


def counts(agent: Agent) -> dict[str, object]:
    """An agent's statistics, for the launcher."""
    done = agent.statistics()
    return {
        "sent": done.messages_sent,
        "verified": done.messages_verified,
        "refused": {reason.value: count for reason, count in done.refused.items()},
    }


@asynccontextmanager
async def on_record(stage: Stage, agent: Agent, told: dict[str, Any]) -> AsyncIterator[None]:
    """For the block an agent is on record, shows its status, and believes only whom the registry calls active.

    Args:
        told: by the launcher, whose issuer signs the entry too and submits it.
    """
    log_key = VerifierKey.parse(told["log_key"])
    slot = making.Slot.at(log_key.name, datetime.now(UTC))
    entry = making.register(agent.credential, slot, next_key=spare_key())
    await stage.ask(entry=entry.to_bytes().hex())
    agent.replace_trust(agent.trust & Registered(log_key))
    async with registered(agent, told["contact"], log_key):
        await stage.tell(shows_its_status=True)
        yield


async def registry(stage: Stage) -> None:
    """A registry of Auto IDs: an agent like the others, and a folder with its log."""
    folder = Path((await stage.ask())["folder"])
    create_registry(folder, "demo.example/log", None, unencrypted=True)
    with SqliteStore(folder) as store:
        registrar = Registrar(store, load_log_key(folder, None), lambda: time.time_ns() // 1000)
        service = RegistryService(store, registrar, Open(Rate(anyio.current_time)))
        agent = Agent(Credential.self_issued("registry"), trust=SelfCertified(), handlers=service.handlers)
        async with service.running(agent), agent.listening(ADDRESS) as listener:
            await stage.ask(contact=listener.contact, log_key=str(registrar.verifier_key))


async def echo(stage: Stage) -> None:
    """acme's agent: answers, streams, publishes, and refuses whom it should."""
    handlers = Handlers()
    stopped = 0
    slow_runs, stay_runs, stay_ended = anyio.Event(), anyio.Event(), anyio.Event()
    refusals = Refusals()
    logging.getLogger("autolink").addHandler(refusals)

    @handlers.method
    async def hello(call: Call, text: str) -> str:
        return f"{call.peer.name} said {text}"

    @handlers.method(forwarded=True)
    async def note(call: Call, text: str) -> str:
        return f"{call.author.name} said {text}, brought by {call.peer.name}"

    @handlers.method
    async def slow(call: Call, body: None) -> None:
        nonlocal stopped
        slow_runs.set()
        try:
            await anyio.sleep_forever()
        finally:
            stopped += 1

    @handlers.method
    async def slow_is_running(call: Call, body: None) -> None:
        await slow_runs.wait()

    @handlers.method
    async def stay(call: Call, body: None) -> None:
        stay_runs.set()
        try:
            await anyio.sleep_forever()
        finally:
            stay_ended.set()

    @handlers.method
    async def publish(call: Call, prices: list[int]) -> None:
        for price in prices:
            await topic.publish(price)

    @handlers.channel
    async def double(channel: Channel[int, int]) -> None:
        async for number in channel:
            await channel.send(2 * number)

    credential, answer = await stage.credential("echo")
    agent = Agent(credential, trust=trust(answer), handlers=handlers)
    topic = agent.topic("prices", of=int)
    async with agent.listening(ADDRESS) as listener:
        question: dict[str, object] = {"contact": listener.contact, "id": agent.auto_id.hex}
        while "log_key" not in (told := await stage.ask(**question)):
            question = {"stopped": stopped, "reasons": refusals.reasons, **counts(agent)}
        async with on_record(stage, agent, told):
            await stay_runs.wait()
            await stage.tell(stays=True)
            await stay_ended.wait()
            await stage.ask(ended=True)
            await stage.ask(reasons=refusals.reasons)


async def relay(stage: Stage) -> None:
    """globex's agent: passes on what is addressed to echo, without touching a signature."""
    credential, answer = await stage.credential("relay")
    agent = Agent(credential, trust=trust(answer))
    async with agent.keep_link(answer["echo"]) as to_echo, agent.listening(ADDRESS) as listener:

        @agent.forwarder
        async def carry(call: Call, envelope: Envelope) -> Envelope | None:
            return await to_echo.forward(envelope)

        await stage.ask(contact=listener.contact)
        await stage.ask(**counts(agent))
    await stage.ask(left=True)


async def caller(stage: Stage) -> None:
    """globex's other agent: meets echo, talks to it in every way there is, and once through the relay."""
    credential, answer = await stage.credential("caller")
    agent = Agent(credential, trust=trust(answer))
    async with agent.connect(answer["echo"]) as link:
        await stage.tell(
            verified=link.peer.name, grounds=str(link.peer.grounds), tls=link.tls.version, group=link.tls.group,
            round_trip_ms=1000 * min([await link.ping() for _ in range(8)]),
        )  # fmt: skip
        await stage.tell(call=await link.call("hello", "good day", returns=str))
        async with link.open_channel("double", sends=int, receives=int) as channel:
            for number in range(1, 6):
                await channel.send(number)
            await channel.send_eof()
            await stage.tell(channel=[number async for number in channel])
        async with link.subscribe("prices", receives=int) as feed:
            await link.call("publish", [250, 260, 240])
            await stage.tell(published=[await feed.receive() for _ in range(3)], lost=feed.lost)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(link.call, "slow")
            await link.call("slow_is_running")
            tasks.cancel_scope.cancel()
        await link.ping()  # the cancellation is there before the answer to this
        await stage.tell(cancelled=True)
    async with agent.connect(answer["relay"]) as link:
        sealed = await link.forward(agent.sign(AutoId.parse(answer["echo_id"]), "note", "hello from afar"))
        if sealed is None:
            raise RuntimeError("the relay brought no answer")
        verified = await agent.verify(sealed)
        await stage.tell(forwarded=verified.message.value, author=verified.author.name)
    await is_revoked(stage, agent, answer["echo"], await stage.ask(**counts(agent)))


async def is_revoked(stage: Stage, agent: Agent, contact: str, told: dict[str, Any]) -> None:
    """The caller again: it talks to echo while it is on record as active, and tries once more when it is not."""
    # What it is told of itself, the scene shows.
    logging.getLogger("autolink").addHandler(logging.NullHandler())
    async with on_record(stage, agent, told):
        async with agent.connect(contact) as link:
            await stage.tell(grounds=str(link.peer.grounds))
            try:
                await link.call("stay")
            except (LinkLost, Refused):
                await link.closed()
            await stage.tell(ended=True)
        try:
            async with agent.connect(contact):
                await stage.ask(told=None)
        except Refused as refused:
            await stage.ask(told=refused.reason.value)


async def dials(stage: Stage, name: str) -> None:
    """Somebody whom echo must refuse: dials it with the certificate it was given, and reports what it is told."""
    credential, answer = await stage.credential(name)
    agent = Agent(credential, trust=trust(answer))
    try:
        async with agent.connect(answer["echo"]) as link:
            await link.call("hello", "let me in")
        await stage.ask(told=None)
    except Refused as refused:
        await stage.ask(told=refused.reason.value)


async def insider(stage: Stage, crime: Callable[[Agent, AutoId], list[Envelope]]) -> None:
    """A proper member of globex who hands echo an envelope that it must refuse."""
    credential, answer = await stage.credential(sys.argv[1])
    agent = Agent(credential, trust=trust(answer))
    told = None
    async with agent.connect(answer["echo"]) as link:
        for envelope in crime(agent, AutoId.parse(answer["echo_id"])):
            try:
                await link.forward(envelope)
            except EnvelopeRefused as refused:
                told = refused.reason.value
    await stage.ask(told=told)


def tampered(agent: Agent, echo: AutoId) -> list[Envelope]:
    """A signed message with one letter changed."""
    honest = agent.sign(echo, "note", "pay Mallory 10")
    return [replace(honest, leaf=honest.leaf.replace(b"pay Mallory 10", b"pay Mallory 99"))]


def replayed(agent: Agent, echo: AutoId) -> list[Envelope]:
    """One signed message, twice."""
    return 2 * [agent.sign(echo, "note", "pay Mallory 10")]


def misaddressed(agent: Agent, echo: AutoId) -> list[Envelope]:
    """A signed message for somebody else than echo."""
    return [agent.sign(AutoId.derive("somebody else"), "note", "pay Mallory 10")]


CAST: Final[dict[str, Callable[[Stage], Coroutine[Any, Any, None]]]] = {
    "registry": registry,
    "echo": echo,
    "relay": relay,
    "caller": caller,
    "impostor": lambda stage: dials(stage, "caller"),
    "expired": lambda stage: dials(stage, "latecomer"),
    "stranger": lambda stage: dials(stage, "stranger"),
    "forger": lambda stage: insider(stage, tampered),
    "replayer": lambda stage: insider(stage, replayed),
    "misaddresser": lambda stage: insider(stage, misaddressed),
}


def main() -> None:
    """Play the role named on the command line."""
    anyio.run(CAST[sys.argv[1]], Stage(), backend="trio")


if __name__ == "__main__":
    main()
