"""The two organisations, and the reading of what happened.

The launcher issues certificates (it never sees an agent's key), starts each process, tells it where to go, and counts
at the end: what honest agents sent against what their receivers verified, and whom echo refused, by echo's own
statistics.
"""

import json
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from subprocess import PIPE
from tempfile import TemporaryDirectory
from typing import Any, Final

import anyio
from anyio.streams.buffered import BufferedByteReceiveStream

from autolink import Credential, CredentialRequest, EntityKind, TrustAnchor
from autolink.demo.on_record import OnRecord
from autolink.identity import dump_chain

TIME: Final = 60.0
"""Seconds for the whole demo."""

KINDS: Final = ("impostor", "expired", "unknown_issuer", "tampered", "replayed", "wrong_recipient")
"""What echo must refuse, once each."""

_LINE: Final = 1 << 20
_ORGANIZATION: Final = EntityKind.ORGANIZATION


@dataclass
class Outcome:
    """What `run_demo` found. `ok` means that every scene went as it should."""

    scenes: list[dict[str, Any]] = field(default_factory=list)
    tls: dict[str, str] = field(default_factory=dict)
    round_trip_ms: float = 0.0
    exchanged: int = 0
    verified: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    processes: int = 0
    registry: dict[str, int] = field(default_factory=dict)
    revocation: dict[str, Any] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Every scene as expected, nothing lost between honest agents, nobody refused who should not be."""
        return (
            bool(self.scenes)
            and all(scene["ok"] for scene in self.scenes)
            and 0 < self.exchanged == self.verified
        )

    def as_json(self) -> dict[str, Any]:
        """The object that `autolink demo --json` prints."""
        return {
            "ok": self.ok, "tls": self.tls, "exchanged": self.exchanged, "verified": self.verified,
            "refused": self.refused, "processes": self.processes, "round_trip_ms": round(self.round_trip_ms, 3),
            "registry": self.registry, "revocation": self.revocation, "scenes": self.scenes,
        }  # fmt: skip


class Actor:
    """One process of the demo, seen from the launcher."""

    def __init__(self, process: anyio.abc.Process) -> None:
        if process.stdout is None or process.stdin is None:
            raise RuntimeError("started without pipes")
        self._stdin = process.stdin
        self._lines = BufferedByteReceiveStream(process.stdout)

    async def hear(self) -> dict[str, Any]:
        """The next line of the process.

        Raises:
            RuntimeError: the process ended.
        """
        try:
            line = await self._lines.receive_until(b"\n", _LINE)
        except (anyio.IncompleteRead, anyio.EndOfStream):
            raise RuntimeError("a process of the demo ended early; its own error is above") from None
        heard: dict[str, Any] = json.loads(line)
        return heard

    async def answer(self, **answer: object) -> None:
        """Answer the process's question."""
        await self._stdin.send(json.dumps(answer).encode() + b"\n")


@asynccontextmanager
async def _actor(role: str) -> AsyncIterator[Actor]:
    """Start a process; closing its pipe, and then ending it, is up to us."""
    command = [sys.executable, "-m", "autolink.demo.cast", role]
    async with await anyio.open_process(command, stdin=PIPE, stdout=PIPE, stderr=None) as process:
        try:
            yield Actor(process)
        finally:
            if process.returncode is None:
                process.terminate()


async def run_demo(show: Callable[[str], object] = lambda _: None) -> Outcome:
    """Play the demo; `show` is told what happens next.

    Raises:
        RuntimeError: a process broke.
        TimeoutError: not done within `TIME` seconds.
    """
    outcome = Outcome()
    with anyio.fail_after(TIME):
        async with AsyncExitStack() as stack:
            await _Play(outcome, show, stack).play()
    return outcome


class _Play:
    def __init__(self, outcome: Outcome, show: Callable[[str], object], stack: AsyncExitStack) -> None:
        yesterday = datetime.now(UTC) - timedelta(days=1)
        self._acme = Credential.self_issued("acme", kind=_ORGANIZATION)
        self._globex = Credential.self_issued("globex", kind=_ORGANIZATION, plain=True, now=yesterday)
        self._false_globex = Credential.self_issued("globex", kind=_ORGANIZATION, plain=True)
        self._initech = Credential.self_issued("initech", kind=_ORGANIZATION)
        self._outcome = outcome
        self._show = show
        self._stack = stack
        self._told: dict[str, Any] = {}
        self._refusal_scenes: list[dict[str, Any]] = []

    async def play(self) -> None:
        both = [self._acme.anchor, self._globex.anchor]
        registry = await self._open_registry()
        self._show("acme starts its echo agent, globex its relay and its caller")
        echo = await self._enter("echo", self._acme, both)
        greeting = await echo.hear()
        self._told = {"echo": greeting["contact"], "echo_id": greeting["id"]}
        relay = await self._enter("relay", self._globex, both)
        self._told["relay"] = (await relay.hear())["contact"]
        caller = await self._enter("caller", self._globex, both)
        honest = await self._conversation(caller)
        await echo.answer()
        await relay.answer()
        reports = [honest, await echo.hear(), await relay.hear()]
        stopped = reports[1]["stopped"] == 1
        self._scene("echo's handler was seen to stop", ok=stopped)
        self._outcome.exchanged = sum(report["sent"] for report in reports)
        self._outcome.verified = sum(report["verified"] for report in reports)
        await self._refusals(both)
        await echo.answer()
        report = await echo.hear()
        refused = self._outcome.refused = dict(sorted(report["refused"].items()))
        self._scene(
            "echo's own count of them",
            f"{len(refused)} kinds, one each",
            ok=refused == dict.fromkeys(KINDS, 1),
        )
        for scene, reason in zip(self._refusal_scenes, report["reasons"], strict=False):
            scene["detail"] += f"; echo's log says: {reason}"
        await relay.answer()
        await relay.hear()  # it has left: it is not going to be on record
        await self._on_record(registry, echo, caller)

    async def _open_registry(self) -> Actor:
        """Started first, and asked last where it is: it starts while the others talk."""
        folder = self._stack.enter_context(TemporaryDirectory(prefix="autolink-demo-"))
        registry = await self._stack.enter_async_context(_actor("registry"))
        self._outcome.processes += 1
        await registry.answer(folder=str(Path(folder, "registry")))
        return registry

    async def _on_record(self, registry: Actor, echo: Actor, caller: Actor) -> None:
        self._show("everybody goes on record in a registry")
        await registry.hear()
        where = await registry.hear()
        done = OnRecord(self._acme, self._globex, self._scene)
        await done.play(where, echo, caller)
        self._outcome.registry = {"registered": done.registered, "proofs_verified": done.proofs}
        self._outcome.revocation = {
            "link_closed_ms": round(done.link_closed_ms), "reconnect_refused": done.reconnect_refused,
        }  # fmt: skip

    async def _conversation(self, caller: Actor) -> dict[str, Any]:
        met = await caller.hear()
        self._outcome.tls = {"version": met["tls"], "group": met["group"]}
        self._outcome.round_trip_ms = met["round_trip_ms"]
        self._scene(f"caller verified {met['verified']}", met["grounds"], ok=met["tls"] == "TLSv1.3")
        called = await caller.hear()
        self._scene("a call and its reply", called["call"], ok=called["call"] == "caller said good day")
        streamed = await caller.hear()
        self._scene(
            "a channel, both ways", str(streamed["channel"]), ok=streamed["channel"] == [2, 4, 6, 8, 10]
        )
        fed = await caller.hear()
        self._scene("publish and subscribe", str(fed["published"]), ok=fed["published"] == [250, 260, 240])
        cancelled = await caller.hear()
        self._scene("a call is cancelled while it runs", ok=cancelled["cancelled"])
        carried = await caller.hear()
        text = "caller said hello from afar, brought by relay"
        self._scene("a message through the relay", carried["forwarded"], ok=carried["forwarded"] == text)
        return await caller.hear()

    async def _refusals(self, both: Sequence[TrustAnchor]) -> None:
        hour = timedelta(hours=1)
        long_ago = datetime.now(UTC) - timedelta(hours=5)
        cases = [
            ("an impostor's globex", "impostor", self._false_globex, {}, "untrusted"),
            ("an expired certificate", "expired", self._globex, {"now": long_ago, "lifetime": hour}, "expired"),
            ("an unknown issuer", "stranger", self._initech, {}, "untrusted"),
            ("a tampered message", "forger", self._globex, {}, "tampered"),
            ("a replayed message", "replayer", self._globex, {}, "replayed"),
            ("a message for somebody else", "misaddresser", self._globex, {}, "wrong_recipient"),
        ]  # fmt: skip
        for what, role, issuer, terms, expected in cases:
            self._show(f"{role} tries {what}")
            rogue = await self._enter(role, issuer, both, **terms)
            told = (await rogue.hear())["told"]
            self._refusal_scenes.append(
                self._scene(f"refused: {what}", f"the sender was told {told!r}", ok=told == expected)
            )

    async def _enter(
        self,
        role: str,
        issuer: Credential,
        anchors: Sequence[TrustAnchor],
        **terms: Any,  # noqa: ANN401
    ) -> Actor:
        """Start a process, issue its certificate, and tell it what it needs."""
        actor = await self._stack.enter_async_context(_actor(role))
        self._outcome.processes += 1
        request = CredentialRequest.from_pem((await actor.hear())["request"].encode())
        chain = issuer.issue(request, kind=EntityKind.AGENT, **terms)
        await actor.answer(
            chain=dump_chain(chain).decode(),
            anchors=[anchor.to_pem().decode() for anchor in anchors],
            **self._told,
        )
        return actor

    def _scene(self, what: str, detail: str = "", *, ok: bool) -> dict[str, Any]:
        scene = {"what": what, "detail": detail, "ok": ok}
        self._outcome.scenes.append(scene)
        self._show(what)
        return scene
