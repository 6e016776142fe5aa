"""KnownAgents: what is learned and when, what contradicts, and the file against its neighbours."""

import fcntl
import os
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from autolink import limits
from autolink.errors import KeystoreError, Reason, Refused, UsageError
from autolink.identity import Credential, PeerId
from autolink.trust import (
    Context,
    IssuedBy,
    KnownAgents,
    Pinned,
    Presented,
    UnsafeAnyone,
    VerdictCache,
    judge,
    known,
)  # fmt: skip

# ruff: noqa: ASYNC240  a test may look at its own small file

Ders = Callable[[Credential], list[bytes]]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "known_agents"


@pytest.fixture
def globex(organisation: Any) -> Credential:
    """A plain organisation: what first use is for."""
    credential: Credential = organisation("globex", plain=True)
    return credential


async def reason_of(model: Any, chain: list[bytes], context: Context, **more: Any) -> Reason:
    with pytest.raises(Refused) as refusal:
        await judge(model, chain, context=context, **more)
    return refusal.value.reason


async def test_rule_22_an_agent_is_learned_when_a_person_dials_it(
    path: Path, globex: Credential, agent: Any, ders: Ders, dialled: Context, inbound: Context
) -> None:
    """First use pins the root's key: then it is known, also inbound, after a restart, and under another leaf key."""
    echo = agent("echo", globex)
    model = KnownAgents(path, on_first="accept")
    before = model.epoch
    peer = await judge(model, ders(echo), context=dialled)
    assert peer.peer_id == echo.peer_id
    assert model.agents == {echo.peer_id: "echo"}
    assert model.epoch > before
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    renewed = agent("echo", globex)
    for again in (model, KnownAgents(path, on_first="refuse")):
        assert (await judge(again, ders(renewed), context=inbound)).peer_id == echo.peer_id


async def test_rule_22_nobody_is_learned_otherwise(
    path: Path, globex: Credential, ders: Ders, dialled: Context
) -> None:
    """Inbound, from a directory's address, from a message, or with on_first='refuse': refused and not written."""
    others = [
        replace(dialled, direction="inbound"),
        replace(dialled, direction="message"),
        replace(dialled, given_by_person=False),
    ]
    for context in others:
        assert (
            await reason_of(KnownAgents(path, on_first="accept"), ders(globex), context) is Reason.NOT_VOUCHED
        )
    assert await reason_of(KnownAgents(path, on_first="refuse"), ders(globex), dialled) is Reason.NOT_VOUCHED
    assert not path.exists()


async def test_rule_22_a_changed_key_is_a_loud_contradiction(
    path: Path, globex: Credential, organisation: Any, agent: Any, ders: Ders, dialled: Context
) -> None:
    """The same AutoId below another root key: refused as an impostor's, whoever else vouches, until it is forgotten."""
    real, fake = agent("echo", globex), agent("echo", organisation("globex", plain=True))
    model = KnownAgents(path, on_first="accept")
    await judge(model, ders(real), context=dialled)
    with pytest.raises(Refused, match="HAS CHANGED") as refusal:
        await judge(model | UnsafeAnyone(), ders(fake), context=dialled)
    assert refusal.value.reason is Reason.IMPOSTOR
    assert model.forget(real.auto_id)
    assert not model.forget(real.auto_id)
    assert (await judge(model, ders(fake), context=dialled)).peer_id == fake.peer_id


async def test_rule_22_first_use_has_no_default(path: Path) -> None:
    """on_first must be said, and ask= goes with "ask" alone."""
    with pytest.raises(TypeError):
        KnownAgents(path)  # type: ignore[call-arg]
    for arguments in ({"on_first": "yes"}, {"on_first": "ask"}, {"on_first": "accept", "ask": print}):
        with pytest.raises(UsageError):
            KnownAgents(path, **arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("answer", [True, False])
async def test_a_person_is_asked_with_the_chain_before_them(
    answer: bool, path: Path, globex: Credential, ders: Ders, dialled: Context
) -> None:
    """on_first="ask" shows what was presented; no is a refusal, and nothing is remembered."""
    shown: list[str] = []

    async def ask(presented: Presented, context: Context) -> bool:
        shown.append(f"{presented.name} {context.address}")
        return answer

    model = KnownAgents(path, on_first="ask", ask=ask)
    if answer:
        await judge(model, ders(globex), context=dialled)
    else:
        assert await reason_of(model, ders(globex), dialled) is Reason.NOT_VOUCHED
    assert shown == [f"globex {dialled.address}"]
    assert (globex.peer_id in model.agents) == answer


async def test_whom_another_model_contradicts_is_not_learned(
    path: Path, globex: Credential, organisation: Any, agent: Any, ders: Ders, dialled: Context
) -> None:
    """Else an impostor refused today would lock the real agent out. Whom another vouches for is not learned."""
    real, fake = agent("echo", globex), agent("echo", organisation("globex", plain=True))
    model = KnownAgents(path, on_first="accept")
    for combined in (model | Pinned(real.peer_id), Pinned(real.peer_id) & model):
        assert await reason_of(combined, ders(fake), dialled) is Reason.IMPOSTOR
    assert await reason_of(model, ders(fake), dialled, expect=real.peer_id) is Reason.IMPOSTOR
    await judge(model | IssuedBy(globex.anchor), ders(real), context=dialled)
    assert model.agents == {}
    await judge(model & IssuedBy(globex.anchor), ders(real), context=dialled)
    assert model.agents == {real.peer_id: "echo"}


async def test_a_person_may_accept_a_stranger(
    path: Path, globex: Credential, acme: Credential, ders: Ders, inbound: Context
) -> None:
    """By its PeerId, bound ones too; listeners are told; another authority for a known id is refused."""
    model, told = KnownAgents(path, on_first="refuse"), []
    model.on_change(lambda: told.append(1))
    for credential in (globex, acme):
        model.accept(credential.peer_id, credential.name)
        assert (await judge(model, ders(credential), context=inbound)).peer_id == credential.peer_id
    assert told == [1, 1]
    with pytest.raises(UsageError, match="forget"):
        model.accept(PeerId(globex.auto_id, "bound"))
    with pytest.raises(UsageError):
        model.accept(PeerId(None, globex.peer_id.authority))


async def test_what_another_process_does_to_the_file_is_seen(
    path: Path, globex: Credential, ders: Ders, inbound: Context
) -> None:
    """Two models of one file: the second sees what the first accepts and forgets, and its epoch moves."""
    ours, theirs = KnownAgents(path, on_first="refuse"), KnownAgents(path, on_first="refuse")
    before = ours.epoch
    theirs.accept(globex.peer_id, "globex")
    assert ours.epoch > before
    await judge(ours, ders(globex), context=inbound)
    theirs.forget(globex.auto_id)
    assert await reason_of(ours, ders(globex), inbound) is Reason.NOT_VOUCHED
    ours.accept(globex.peer_id, "globex")
    path.unlink()
    assert ours.agents == {}


def symlink(path: Path) -> None:
    (path.parent / "other").write_text("")
    path.symlink_to(path.parent / "other")


def group_writable(path: Path) -> None:
    path.write_text("")
    path.chmod(0o620)


def huge(path: Path) -> None:
    path.write_text("#" * (limits.KNOWN_AGENTS * 512 + 1))


def twice(path: Path) -> None:
    path.write_text(f"{64 * 'a'} one\n{64 * 'a'} two\n")


FILES: dict[str, Callable[[Path], object]] = {
    "a link": symlink,
    "a folder": Path.mkdir,
    "a pipe": os.mkfifo,
    "writable by others": group_writable,
    "huge": huge,
    "many lines": lambda path: path.write_text("\n" * (limits.KNOWN_AGENTS + 200)),
    "not text": lambda path: path.write_bytes(b"\xff\xfe"),
    "nonsense": lambda path: path.write_text("echo is my friend\n"),
    "an id twice": twice,
    "a key principal": lambda path: path.write_text(f"key:sha256:{64 * 'a'} somebody\n"),
}


@pytest.mark.parametrize("what", FILES)
def test_a_file_that_cannot_be_relied_on_is_refused(what: str, path: Path) -> None:
    """Its content is whom we trust: what others could have written or nobody can read is an error that names it."""
    FILES[what](path)
    with pytest.raises(KeystoreError, match="known_agents"):
        KnownAgents(path, on_first="refuse")


async def test_a_file_that_breaks_later_refuses_everybody(
    path: Path, globex: Credential, ders: Ders, dialled: Context
) -> None:
    """A model that cannot read what it believes has failed: internal, with and without a cache's look at the epoch."""
    model = KnownAgents(path, on_first="accept")
    await judge(model, ders(globex), context=dialled)
    path.write_text("nonsense\n")
    assert await reason_of(model, ders(globex), dialled) is Reason.INTERNAL
    assert await reason_of(model, ders(globex), dialled, cache=VerdictCache()) is Reason.INTERNAL


def test_the_lock_is_waited_for_and_not_for_ever(
    path: Path, globex: Credential, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process that keeps the lock makes a clear error and no change."""
    monkeypatch.setattr(known, "_LOCK_WAIT", 0.0)
    model = KnownAgents(path, on_first="refuse")
    with Path(f"{path}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(KeystoreError, match="locked"):
            model.accept(globex.peer_id)
    model.accept(globex.peer_id)
    assert list(model.agents) == [globex.peer_id]


def test_a_link_in_the_locks_place_is_not_followed(path: Path, globex: Credential) -> None:
    """Whoever plants a link beside the file gains no file of ours at its end."""
    victim = path.parent / "victim"
    Path(f"{path}.lock").symlink_to(victim)
    with pytest.raises(OSError, match=r"symbolic|link"):
        KnownAgents(path, on_first="refuse").accept(globex.peer_id)
    assert not victim.exists()


def test_a_full_file_learns_nobody(
    path: Path, globex: Credential, acme: Credential, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody known is forgotten to make room for somebody new."""
    monkeypatch.setattr(limits, "KNOWN_AGENTS", 1)
    model = KnownAgents(path, on_first="refuse")
    model.accept(acme.peer_id)
    with pytest.raises(KeystoreError, match="full"):
        model.accept(globex.peer_id)
    assert list(KnownAgents(path, on_first="refuse").agents) == [acme.peer_id]


def test_a_write_that_fails_changes_nothing(
    path: Path, globex: Credential, acme: Credential, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk: the error is raised, the file and what is in memory stay as they were, no temporary file is left."""
    model = KnownAgents(path, on_first="refuse")
    model.accept(acme.peer_id)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            model.accept(globex.peer_id)
    assert list(model.agents) == [acme.peer_id]
    assert sorted(entry.name for entry in path.parent.iterdir()) == ["known_agents", "known_agents.lock"]


def test_a_hostile_name_stays_on_its_line(path: Path, globex: Credential) -> None:
    """A name with a line break cannot add an entry."""
    model = KnownAgents(path, on_first="refuse")
    model.accept(globex.peer_id, f"x\n{64 * 'b'} mallory\x1b[2J")
    assert list(KnownAgents(path, on_first="refuse").agents) == [globex.peer_id]
    assert path.read_text().count("\n") == 2
