"""How much cryptography a verdict costs, in counts: signatures, parsed certificates, paths given to OpenSSL.

Counted is every call into `cryptography` and OpenSSL by its name, whoever makes it, so that a second look at what
was looked at before fails here and not in a benchmark.
"""

import sys
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from autolink.identity import (
    AutoId,
    Credential,
    CredentialRequest,
    EntityKind,
    KeyType,
    PeerId,
    TrustAnchor,
    key_authority,
)
from autolink.identity.certificate import _parse_once
from autolink.trust import Context, IssuedBy, KnownAgents, Model, Pinned, SelfCertified, VerdictCache, judge

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
COUNTED = {
    "verify": "signatures",
    "verify_directly_issued_by": "signatures",
    "load_der_x509_certificate": "parsed",
    "d2i_X509_bio": "parsed by OpenSSL",
    "X509_verify_cert": "paths",
}
ALL_TYPES = [KeyType.P256, KeyType.ED25519, KeyType.ML_DSA_65]


class Count:
    """What is called inside its block, by the names of COUNTED; or every call."""

    def __init__(self, *, every: bool = False) -> None:
        self.calls: Counter[str] = Counter()
        self._every = every

    def __enter__(self) -> "Count":
        sys.setprofile(self._note)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)

    def _note(self, _frame: FrameType, event: str, called: Any) -> None:
        if self._every:
            self.calls["every"] += event in ("call", "c_call")
        elif event == "c_call" and called.__name__ in COUNTED:
            self.calls[COUNTED[called.__name__]] += 1


async def count(model: Model, chain: list[bytes], context: Context, cache: VerdictCache) -> dict[str, int]:
    with Count() as counted:
        await judge(model, chain, context=context, cache=cache, key_proved_at=context.now)
    return dict(counted.calls)


def company(
    depth: int, now: datetime, kind: KeyType = KeyType.P256
) -> tuple[Credential, Callable[[], list[bytes]]]:
    """A root, and what gives the chain of a new agent `depth` certificates below and with it."""
    root = last = Credential.self_issued("acme", key_type=kind, now=now)

    def issue(name: str, may_issue: int | None) -> Credential:
        request = CredentialRequest.new(name, key_type=kind)
        made = EntityKind.AGENT if may_issue is None else EntityKind.ORGANIZATION
        return request.complete(last.issue(request, kind=made, may_issue=may_issue, now=now))

    for level in range(depth - 2):
        last = issue(f"unit-{level}", depth - 3 - level)

    def agent() -> list[bytes]:
        made = issue("echo", None)
        _parse_once.cache_clear()  # as if another process had issued it
        return [certificate.der for certificate in made.chain]

    return root, agent


@pytest.mark.parametrize("kind", ALL_TYPES)
async def test_a_leaf_never_seen_costs_one_signature_and_one_parse(
    kind: KeyType, now: datetime, inbound: Context
) -> None:
    """Under issuers that were accepted before, at any depth; they themselves are remembered."""
    for depth in (2, 3, 4):
        root, agent = company(depth, now, kind)
        cache, model = VerdictCache(), IssuedBy(root.anchor)
        await judge(model, agent(), context=inbound, cache=cache)
        for _ in range(3):
            assert await count(model, agent(), inbound, cache) == {"signatures": 1, "parsed": 1}


async def test_a_chain_never_seen_costs_two_signatures_and_what_openssl_does(
    now: datetime, inbound: Context
) -> None:
    """The leaf's and the root's own are verified here, those between by OpenSSL, which parses what is above the leaf."""
    for depth in (2, 3, 4):
        root, agent = company(depth, now)
        expected = {"signatures": 2, "parsed": depth, "parsed by OpenSSL": max(depth - 1, 2), "paths": 1}
        assert await count(IssuedBy(root.anchor), agent(), inbound, VerdictCache()) == expected


async def test_a_self_issued_peer_never_seen_costs_one_signature(now: datetime, inbound: Context) -> None:
    """Its own: nothing stands above it."""
    chain = [Credential.self_issued("acme", now=now).leaf.der]
    _parse_once.cache_clear()
    assert await count(SelfCertified(), chain, inbound, VerdictCache()) == {"signatures": 1, "parsed": 1}


async def test_a_peer_seen_before_costs_no_cryptography(now: datetime, inbound: Context) -> None:
    """Neither a signature nor a parse, also when nothing else remembers its certificates."""
    for depth in (2, 4):
        root, agent = company(depth, now)
        cache, model, chain = VerdictCache(), IssuedBy(root.anchor), agent()
        await judge(model, chain, context=inbound, cache=cache)
        _parse_once.cache_clear()
        assert await count(model, [bytes(bytearray(der)) for der in chain], inbound, cache) == {}


async def test_a_change_of_trust_asks_the_model_again_and_opens_no_certificate(
    acme: Credential, echo: Credential, ders: Any, inbound: Context
) -> None:
    """A pin more or less ends every verdict; that the same bytes are a sound chain it does not change."""
    cache, pins = VerdictCache(), Pinned(echo.peer_id)
    await judge(pins, ders(echo), context=inbound, cache=cache)
    pins.add(acme.peer_id)
    assert await count(pins, ders(echo), inbound, cache) == {}
    assert len(cache) == 1


def pins_of_ids(echo: Credential, known: int, _: Path) -> Model:
    return Pinned(echo.peer_id, *(PeerId(AutoId.derive(f"{number}"), "bound") for number in range(known)))


def pins_of_keys(echo: Credential, known: int, _: Path) -> Model:
    keys = [key_authority(echo.leaf.spki_sha256), *(f"sha256:{number:064x}" for number in range(known))]
    return Pinned(*(PeerId(None, key) for key in keys))


def anchors(echo: Credential, known: int, _: Path) -> Model:
    others = (Credential.self_issued("other", now=NOW).anchor for _ in range(known // 50))
    return IssuedBy(TrustAnchor(echo.chain[-1:]), *others)


def known_agents(echo: Credential, known: int, folder: Path) -> Model:
    path = folder / f"known-{known}"
    ids = [echo.auto_id, *(AutoId.derive(f"{number}") for number in range(known))]
    path.write_text("".join(f"{auto_id} someone\n" for auto_id in ids))
    path.chmod(0o600)
    return KnownAgents(path, on_first="refuse")


@pytest.mark.parametrize("make", [pins_of_ids, pins_of_keys, anchors, known_agents])
async def test_what_a_verdict_costs_does_not_grow_with_how_many_are_known(
    make: Callable[[Credential, int, Path], Model],
    echo: Credential,
    ders: Any,
    inbound: Context,
    tmp_path: Path,
) -> None:
    """Every call of a function is counted: as many with thousands of pins, agents or anchors as with a few."""

    async def calls(known: int) -> int:
        model, cache = make(echo, known, tmp_path), VerdictCache()
        await judge(model, ders(echo), context=inbound)
        with Count(every=True) as counted:
            await judge(model, ders(echo), context=inbound, cache=cache)
            await judge(model, ders(echo), context=inbound, cache=cache)
        return counted.calls.total()

    assert await calls(9000) == await calls(50)
