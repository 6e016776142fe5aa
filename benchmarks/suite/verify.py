"""`verify`: what a trust model's verdict costs, apart from any network.

*Cold*: the chain was never seen; below an organisation that we know, or (`SelfCertified`, which knows nobody) of one that
is a stranger too. *Seen*: the verdict is in the agent's cache.

The floor of a cold verdict is the bare signature verifications that nobody could leave out: one for each certificate that
somebody else's key signed, and one more for a root that is a stranger, because only its own signature shows that it issued
itself. The root that is our anchor counts nothing: its signature was checked when the anchor was loaded. So a chain of 2
under a known organisation, the table's row, has a floor of one verification, and a stranger's of two.
"""

import os
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, Final

from autolink import AutoId, Credential, PeerId, limits
from autolink.identity import Certificate
from autolink.identity.autoid import BOUND
from autolink.trust import (
    Context,
    IssuedBy,
    KnownAgents,
    Model,
    Pinned,
    SelfCertified,
    VerdictCache,
    judge,
)
from benchmarks import floors, identities
from benchmarks.harness import Bench
from benchmarks.measuring import Sample, Usage, lasting
from benchmarks.process import Place
from benchmarks.stacks import OURS
from benchmarks.stacks.base import Stack

Make = Callable[[Credential, Sequence[PeerId]], Model]
"""From the organisation that we know, and whom we know by name, to the model."""


def _known_agents(_root: Credential, known: Sequence[PeerId]) -> Model:
    path = Path(tempfile.mkdtemp()) / "known_agents"
    path.write_text("".join(f"{peer_id} somebody\n" for peer_id in known))
    path.chmod(0o600)
    return KnownAgents(path, "refuse")


MODELS: Final[dict[str, Make]] = {
    "IssuedBy": lambda root, _: IssuedBy(root.anchor),
    "SelfCertified": lambda _root, _known: SelfCertified(),
    "Pinned": lambda _, known: Pinned(*known),
    "KnownAgents": _known_agents,
    "IssuedBy & Pinned": lambda root, known: IssuedBy(root.anchor) & Pinned(*known),
    "IssuedBy | KnownAgents": lambda root, known: IssuedBy(root.anchor) | _known_agents(root, known),
}
STRANGE_ROOTS: Final = ("SelfCertified",)
KNOWING: Final = {"Pinned": 100_000, "KnownAgents": limits.KNOWN_AGENTS}
"""Models that know peers by name, and how many they may: a file of KnownAgents is bounded, pins are not."""


# --- jobs ----------------------------------------------------------------------------------------------------


async def cold(
    _stack: Stack, place: Place, *, model: str, chain: int, count: int, known: int = 0
) -> dict[str, Any]:
    """Verdicts on so many chains that were never seen."""
    root = identities.load(place.folder, "root")
    peers = [_chain(root, chain, f"agent-{one}", strange_root=model in STRANGE_ROOTS) for one in range(count)]
    trust = MODELS[model](root, [*_others(known), *(peer.peer_id for peer in peers)])
    shown = [[certificate.der for certificate in peer.chain] for peer in peers]
    context = Context(datetime.now(UTC), "inbound")
    _ = trust.epoch  # files have been read
    _forget_parsed_certificates()
    cache = VerdictCache()
    seconds: list[float] = []
    with Usage() as usage:
        for ders in shown:
            begun = time.perf_counter()
            await judge(trust, ders, context=context, cache=cache)
            seconds.append(time.perf_counter() - begun)
    return Sample.of(count, usage, seconds)


async def seen(
    _stack: Stack, place: Place, *, model: str, chain: int, seconds: float, known: int = 0
) -> dict[str, Any]:
    """Verdicts on one peer that was seen before."""
    root = identities.load(place.folder, "root")
    peer = _chain(root, chain, "agent", strange_root=model in STRANGE_ROOTS)
    trust = MODELS[model](root, [*_others(known), peer.peer_id])
    ders = tuple(certificate.der for certificate in peer.chain)
    context = Context(datetime.now(UTC), "inbound")
    cache = VerdictCache()
    await judge(trust, ders, context=context, cache=cache)
    count = 0
    going = lasting(seconds)
    with Usage() as usage:
        while going():
            for _ in range(100):
                await judge(trust, ders, context=context, cache=cache)
            count += 100
    return Sample.of(count, usage)


def _chain(root: Credential, length: int, name: str, *, strange_root: bool) -> Credential:
    """A peer whose chain has `length` certificates, all of them new below the root."""
    issuer = root
    if strange_root or length == 1:
        issuer = Credential.self_issued("stranger")
    for depth in range(length - 2):
        issuer = identities.issued(issuer, f"department-{depth}", may_issue=length - 3 - depth)
    return issuer if length == 1 else identities.issued(issuer, name)


def _others(count: int) -> list[PeerId]:
    return [PeerId(AutoId(os.urandom(32)), BOUND) for _ in range(count)]


@cache
def _somebody() -> list[bytes]:
    return [Credential.self_issued("somebody").leaf.der for _ in range(600)]


def _forget_parsed_certificates() -> None:
    """The process that made the chains has parsed them, and keeps the last few hundred: parse as many others."""
    for der in _somebody():
        Certificate.parse_untrusted(der)


# --- arrangement ---------------------------------------------------------------------------------------------


def run(bench: Bench) -> None:
    count = bench.budget.strangers
    _table_rows(bench, count)
    for model in MODELS:
        for chain in (1, 2, 4):
            if chain == 1 and "IssuedBy" in model:
                continue  # nobody issued it
            _one(bench, model, chain, count, known=0)
    for model, most in KNOWING.items():
        for known in bench.budget.known:
            if known <= most:
                _one(bench, model, 2, count, known=min(known, most - count))


def _table_rows(bench: Bench, count: int) -> None:
    """Beside the floor in alternation, with as many rounds as every row of the table."""
    seconds = bench.budget.side_seconds
    for model, signatures in (("SelfCertified", 2), ("IssuedBy", 1)):
        measures = {
            OURS: bench.alone(cold, model=model, chain=2, count=count),
            "floor": bench.alone(floors.verifications, count=signatures, seconds=seconds),
        }
        contest = bench.contest("verify", "CPU us", measures, by="cpu_us", peer="cold", model=model, chain=2)
    ratio = contest.ratio("floor")
    bench.row("verify_cold_vs_floor", None if ratio is None else 1 / ratio)
    measures = {OURS: bench.alone(seen, model="IssuedBy", chain=2, seconds=seconds)}
    contest = bench.contest("verify", "CPU us", measures, by="cpu_us", peer="seen", model="IssuedBy", chain=2)
    bench.row("verify_seen_us", contest.results()[0].value)


def _one(bench: Bench, model: str, chain: int, count: int, known: int) -> None:
    params: dict[str, Any] = {"model": model, "chain": chain, "known": known}
    seconds = bench.budget.side_seconds / 4
    for peer, measure in (
        ("cold", bench.alone(cold, count=max(2, count // 4), **params)),
        ("seen", bench.alone(seen, seconds=seconds, **params)),
    ):
        bench.contest("verify", "CPU us", {OURS: measure}, by="cpu_us", side=True, peer=peer, **params)
