"""What a trust model remembers of the feed, for how long, and who learns it. On the real clock: SQLite works in threads."""

from dataclasses import replace
from functools import reduce
from pathlib import Path

import anyio
import pytest

from autolink import Agent, Credential, limits
from autolink.errors import Reason, Refused
from autolink.identity import AutoId
from autolink.messages import instant, microseconds
from autolink.messages.message import TIME_MAX
from autolink.registry.entries import Op
from autolink.registry.feed import Change, sign_change
from autolink.registry.records import SECOND, State
from autolink.registry.told import ToldOf
from autolink.registry.trust import Registered
from autolink.trust import Context, Contradicted, Model, Pinned, SelfCertified
from autolink.trust.presented import present

from .serving import KEY, cast, entry, now, opens, registration, serving, staple
from .test_registered import revoke


async def test_what_a_feed_makes_us_remember_is_bounded_and_what_is_forgotten_still_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody may revoke IDs of his own by the thousand, to have a revocation forgotten."""
    monkeypatch.setattr("autolink.limits.CHANGES_TOLD", 3)
    async with serving(tmp_path) as served:
        players = await cast(served)
        model, size = players.models[0], served.store.head.size

        def tell(auto_id: AutoId, index: int, at: int) -> None:
            told = entry(Op.REVOKE, auto_id, bytes(32))
            model.heed(sign_change(told, State.REVOKED, index=index, at=at, key=KEY))

        long_ago = now() - int(limits.STATUS_AGE * 1_000_000) - 1
        tell(players.caller.auto_id, size - 1, long_ago)
        tell(AutoId(bytes(32)), size, now())
        assert len(model._told) == 1  # nobody believes a status from before that anyway
        assert await opens(served, players) is None
        tell(players.caller.auto_id, size, now())
        assert await opens(served, players) is Reason.REVOKED
        for number in range(1, 10):
            tell(AutoId(bytes([number]) * 32), size + number, now())
        assert len(model._told) == 3
        assert await opens(served, players) is Reason.EXPIRED


async def test_a_change_that_is_told_late_does_not_take_a_newer_one_back(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        players = await cast(served)
        size = served.store.head.size
        for index in (size + 1, size - 2):
            told = entry(Op.ROTATE, players.caller.auto_id, bytes(32))
            players.models[0].heed(sign_change(told, State.ACTIVE, index=index, at=now(), key=KEY))
        assert await opens(served, players) is Reason.REVOKED


@pytest.mark.parametrize("late", [False, True])
async def test_a_rotation_after_a_revocation_gives_nobody_below_time_whom_that_has_ended(
    tmp_path: Path, late: bool
) -> None:
    """In whatever order they are told: only who needs no more than the rotation forgiven has a few seconds."""
    async with serving(tmp_path) as served:
        players = await cast(served)
        size, acme, model = served.store.head.size, players.acme.auto_id, players.models[0]
        changes = [
            sign_change(entry(op, acme, bytes(32)), state, index=size + place, at=now(), key=KEY)
            for place, (op, state) in enumerate([(Op.REVOKE, State.REVOKED), (Op.ROTATE, State.ACTIVE)])
        ]
        for change in reversed(changes) if late else changes:
            model.heed(change)
        assert await opens(served, players) is Reason.REVOKED
        players.echo.replace_trust(SelfCertified())
        players.echo.replace_trust(Registered(served.key))
        players.echo.trust.heed(changes[1])
        assert await opens(served, players) is None


async def test_a_model_that_takes_the_place_of_another_has_heard_what_that_one_has(tmp_path: Path) -> None:
    """A revocation, what is forgotten, and which status is the newest; however either is joined to others."""
    async with serving(tmp_path) as served:
        players = await cast(served)
        size, old = served.store.head.size, players.caller.evidence

        async def after(*trust: Model) -> Reason | None:
            """Whether a link opens when each of these has been in place for a while."""
            for each in trust:
                players.echo.replace_trust(each)
            return await opens(served, players)

        def heard(auto_id: AutoId, index: int, at: int) -> Registered:
            model = Registered(served.key)
            model.heed(
                sign_change(entry(Op.REVOKE, auto_id, bytes(32)), State.REVOKED, index=index, at=at, key=KEY)
            )
            return model

        revoked = heard(players.caller.auto_id, size, now())
        assert await after(SelfCertified(), Registered(served.key)) is None
        fresh = [Registered(served.key, max_age=age) for age in (None, 600.0)]
        assert await after(revoked, SelfCertified() & fresh[0], fresh[1] | Pinned()) is Reason.REVOKED
        for model in (revoked, *fresh):
            assert await after(SelfCertified(), model) is Reason.REVOKED

        forgetful = heard(AutoId(bytes(32)), size, 0)
        told = entry(Op.REVOKE, AutoId(bytes([1]) * 32), bytes(32))
        forgetful.heed(sign_change(told, State.REVOKED, index=size, at=now(), key=KEY))
        assert await after(SelfCertified(), forgetful, Registered(served.key)) is Reason.EXPIRED

        async with served.client(served.join(Agent(players.acme, trust=SelfCertified()))) as client:
            await client.submit(registration(Credential.self_issued("another")))
        assert await after(SelfCertified(), Registered(served.key)) is None
        await staple(served, players.caller)
        assert await opens(served, players) is None
        newer = players.caller.evidence
        players.caller.replace_evidence(*old)
        await after(SelfCertified() & Registered(served.key))
        await revoke(served, players.acme, players.caller.credential)
        await staple(served, players.caller)
        assert await opens(served, players) is Reason.REVOKED
        players.caller.replace_evidence(*newer)
        assert await after(Registered(served.key)) is Reason.MALFORMED


async def test_a_model_that_learns_ends_the_links_that_rest_on_what_it_did_not_know(tmp_path: Path) -> None:
    """It may be in use already, by another agent."""
    async with serving(tmp_path) as served:
        players = await cast(served)
        knowing = served.join(Agent(players.acme, trust=Registered(served.key)))
        told = entry(Op.REVOKE, players.caller.auto_id, bytes(32))
        index = served.store.head.size
        knowing.trust.heed(sign_change(told, State.REVOKED, index=index, at=now(), key=KEY))
        async with (
            served.network.listening(players.echo, "echo:1"),
            players.caller.connect("echo:1", expect=players.echo.peer_id) as link,
        ):
            await link.ping()
            knowing.replace_trust(players.models[0] & SelfCertified())
            with anyio.fail_after(5):
                await link.closed()
            assert isinstance(link.lost, Refused)
            assert link.lost.reason is Reason.REVOKED


async def test_a_log_that_tells_of_a_time_to_come_has_nothing_forgotten_that_counts(tmp_path: Path) -> None:
    """Or an old status of a revoked peer would be believed again: a change of next year, or two of one entry."""
    async with serving(tmp_path) as served:
        players = await cast(served)
        size = served.store.head.size
        for lie in (
            [(AutoId(bytes(32)), size + 1, TIME_MAX)],
            [(players.caller.auto_id, size + 1, 0), (players.caller.auto_id, size, TIME_MAX)],
        ):
            model = Registered(served.key)
            for auto_id, index, at in [(players.caller.auto_id, size, now()), *lie]:
                told = entry(Op.REVOKE, auto_id, bytes(32))
                model.heed(sign_change(told, State.REVOKED, index=index, at=at, key=KEY))
            players.echo.replace_trust(SelfCertified())
            players.echo.replace_trust(model)
            assert await opens(served, players) in (Reason.EXPIRED, Reason.REVOKED)


@pytest.mark.parametrize("backwards", [False, True])
async def test_several_rotations_above_give_no_more_time_than_the_first_of_them(
    tmp_path: Path, backwards: bool
) -> None:
    """Whoever rotates again and again would keep a thief's agent below for ever; in whatever order they are told. A status
    from between two of them has its time from the second."""
    async with serving(tmp_path) as served:
        players = await cast(served)
        size, began = served.store.head.size, now()
        chain = [one.der for one in players.caller.credential.chain]
        told = [
            sign_change(
                entry(Op.ROTATE, players.acme.auto_id, bytes(32)), State.ACTIVE, index=size + place,
                at=began + place * 9 * SECOND, key=KEY,
            )
            for place in range(3)
        ]  # fmt: skip

        async def until(status: bytes, after: float, *changes: Change) -> float | Reason:
            """For how long it is believed, in seconds from the beginning, or why not any more."""
            model = Registered(served.key)
            for change in changes:
                model.heed(change)
            moment = instant(began + int(after * SECOND))
            presented = present(chain, evidence=[status], now=moment)
            try:
                grounds = await model.verify(presented, Context(moment, "inbound"))
            except Contradicted as contradiction:
                return contradiction.reason
            assert grounds.valid_until is not None
            return (microseconds(grounds.valid_until) - began) / SECOND

        (before,) = players.caller.evidence
        changes = told[::-1] if backwards else told
        assert await until(before, 9, *changes) == 10
        assert await until(before, 10.1, *changes) is Reason.EXPIRED
        assert await until(before, 18, told[2]) == 28
        async with served.client(served.join(Agent(players.acme, trust=SelfCertified()))) as client:
            await client.submit(registration(Credential.self_issued("another")))
        await staple(served, players.caller)
        (between,) = players.caller.evidence
        assert await until(between, 18.5, *changes) == 19
        often = [replace(told[0], index=size + place, at=began + place) for place in range(100)]
        assert await until(before, 9, *often) == 10
        assert len(ToldOf.by(often[0]).rotated) == 1
        kept = reduce(ToldOf.beside, map(ToldOf.by, often))
        assert len(kept.rotated) == 4
        assert [kept.forgives_until(size + place) for place in (0, 96, 99)] == [
            began + 10 * SECOND + place for place in (0, 0, 99)
        ]
