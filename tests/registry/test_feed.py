"""The feed of changes: a revocation ends what rests on the key, whoever reads late or not at all. On the real clock."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from autolink import Agent, Credential, limits
from autolink.errors import BadSignature, Reason, Refused, RemoteProtocolError
from autolink.identity import AutoId
from autolink.registry import making, word
from autolink.registry.answers import CHANGES
from autolink.registry.client import RegistryClient
from autolink.registry.entries import Entry, Op
from autolink.registry.feed import Change, sign_change
from autolink.registry.feed import verify_untrusted as verify_change
from autolink.registry.making import Slot
from autolink.registry.records import State
from autolink.registry.trust import Registered
from autolink.trust import Grounds, Model, NotVouched, Pinned, SelfCertified

from .serving import KEY, ORIGIN, Served, cast, entry, issue, now, opens, registration, serving, until
from .test_monitor import client as visitor
from .test_monitor import replaced


@pytest.mark.parametrize(
    ("whom", "op"),
    [
        ("echo", Op.REVOKE), ("acme", Op.REVOKE), ("echo", Op.DEACTIVATE), ("acme", Op.DEACTIVATE),
        ("echo", Op.RECOVER),
    ],
)  # fmt: skip
async def test_an_end_ends_live_links_at_both_ends_with_its_reason_and_no_new_one_opens(
    tmp_path: Path, whom: str, op: Op
) -> None:
    """Resumed links, too."""
    async with serving(tmp_path) as served:
        players = await cast(served)
        served.policy = None
        async with (
            served.network.listening(players.echo, "echo:1"),
            served.client(served.join(Agent(players.acme, trust=SelfCertified()))) as client,
            anyio.create_task_group() as tasks,
        ):
            for agent, model in zip((players.echo, players.caller), players.models, strict=True):
                tasks.start_soon(_follow, served, agent, model)
            await until(lambda: served.agent.topics["registry.changes"].statistics().subscribers == 2)
            async with (
                players.caller.connect("echo:1", expect=players.echo.peer_id) as link,
                players.caller.connect("echo:1", expect=players.echo.peer_id) as resumed,
            ):
                assert (link.tls.resumed, resumed.tls.resumed) == (False, True)
                await until(lambda: len(players.echo.links) == 2)
                ends = [link, resumed, *players.echo.links]
                ended = players.acme if whom == "acme" else players.echo.credential
                place = await client.place(ended.auto_id)
                await client.submit(_end(op, ended, players.acme, Slot.at(ORIGIN, datetime.now(UTC), place)))
                with anyio.fail_after(5):
                    for end in ends:
                        await end.closed()
                for end in ends:
                    assert isinstance(end.lost, Refused)
                    assert end.lost.reason is Reason.REVOKED
            with pytest.raises(Refused):
                async with players.caller.connect("echo:1", expect=players.echo.peer_id):
                    pass
            tasks.cancel_scope.cancel()


def _end(op: Op, ended: Credential, acme: Credential, slot: Slot) -> Entry:
    """What acme says of itself or of an agent of its."""
    if op is Op.REVOKE:
        return making.revoke(ended.auto_id, slot, by=acme)
    if op is Op.DEACTIVATE:
        own = ended is acme
        return making.deactivate(
            ended.auto_id, slot, next_key=acme.next_key if own else None, by=None if own else acme
        )
    after = issue(acme, ended.leaf.common_name)
    return making.countersign(making.recover(after, slot, next_key=bytes(32)), acme)


async def _follow(served: Served, agent: Agent, model: Registered) -> None:
    reader = served.join(Agent(agent.credential, trust=Pinned(served.agent.peer_id)))
    async with served.client(reader) as client:
        await client.follow(model.heed)


async def test_a_subscriber_that_never_reads_holds_nobody_up(tmp_path: Path) -> None:
    """What waits for it is bounded; then it is let go, and may ask for what it has missed."""
    async with serving(tmp_path) as served:
        acme = Credential.self_issued("acme")
        deaf = served.join(Agent(Credential.self_issued("deaf"), trust=Pinned(served.agent.peer_id)))
        heard: list[int] = []
        async with (
            served.client(deaf) as lazy,
            lazy._link.subscribe(CHANGES, receives=bytes),
            served.client(served.join(Agent(acme, trust=SelfCertified()))) as client,
            anyio.create_task_group() as tasks,
        ):
            topic = served.agent.topics[CHANGES]
            for _ in range(2 * limits.CHANGES_BUFFER):  # more than its credit, and then as many as may wait
                await topic.publish(bytes(1_024))
            assert (topic.statistics().subscribers, topic.statistics().disconnected) == (0, 1)
            tasks.start_soon(client.follow, lambda change: heard.append(change.index))
            await until(lambda: topic.statistics().subscribers == 1)
            await client.submit(registration(acme))
            places = [await _register_and_revoke(client, acme, f"agent-{number}") for number in range(3)]
            await until(lambda: heard == places)
            missed = await lazy._link.call("registry.changes_since", 0, returns=list[tuple[int, bytes]])
            assert [place for place, _ in missed] == places
            tasks.cancel_scope.cancel()


async def _register_and_revoke(client: RegistryClient, acme: Credential, name: str) -> int:
    made = registration(credential := issue(acme, name), acme)
    await client.submit(made)
    revocation = entry(Op.REVOKE, credential.auto_id, made.hash).signed(acme.auto_id, acme.private_key)
    return (await client.submit(revocation)).index


async def test_a_ticket_of_a_revoked_peer_and_a_cached_verdict_open_no_link(tmp_path: Path) -> None:
    """Both ends resume and remember; the one that has heard of the revocation refuses all the same."""
    async with serving(tmp_path) as served:
        players = await cast(served)
        expect = players.echo.peer_id
        async with served.network.listening(players.echo, "echo:1"):
            for resumed in (False, True):
                async with players.caller.connect("echo:1", expect=expect) as link:
                    assert link.tls.resumed is resumed
                    await link.ping()
            async with served.client(served.join(Agent(players.acme, trust=SelfCertified()))) as client:
                place = await client.place(players.caller.auto_id)
                revocation = entry(Op.REVOKE, players.caller.auto_id, place.head)
                signed = revocation.signed(players.acme.auto_id, players.acme.private_key)
                await client.submit(signed)
                (told,) = await client._link.call(
                    "registry.changes_since", 0, returns=list[tuple[int, bytes]]
                )
            players.models[0].heed(verify_change(told[1], served.key))
            with pytest.raises(Refused) as refusal:
                async with players.caller.connect("echo:1", expect=expect):
                    pass
            assert (refusal.value.by, refusal.value.reason) == ("peer", Reason.REVOKED)


async def test_a_revocation_that_is_heard_while_a_link_opens_ends_its_opening(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        players = await cast(served)
        told = sign_change(
            entry(Op.REVOKE, players.caller.auto_id, bytes(32)), State.REVOKED, index=9, at=now(),
            key=KEY,
        )  # fmt: skip

        class Heeding(Model):
            """Vouches, and the feed speaks just then: what was asked before has not heard it."""

            async def verify(self, presented: Any, context: Any) -> Grounds:
                players.models[0].heed(told)
                return Grounds("Heeding", "anyone")

        players.echo.replace_trust(players.models[0] & Heeding())
        async with served.network.listening(players.echo, "echo:1"):
            with pytest.raises(Refused) as refusal:
                async with players.caller.connect("echo:1", expect=players.echo.peer_id):
                    pass
            assert refusal.value.reason is Reason.REVOKED
            assert not players.echo.links


async def test_rule_20_who_is_on_record_is_refused_without_a_status_whoever_else_vouches(
    tmp_path: Path,
) -> None:
    """As far as is known: by a status that was shown before, or by what the feed has told of it or of one above it."""
    async with serving(tmp_path) as served:
        players = await cast(served)
        shown = players.caller.evidence
        joined = players.models[0] | SelfCertified()
        players.echo.replace_trust(joined)

        async def refused(*evidence: bytes) -> Reason | None:
            players.caller.replace_evidence(*evidence)
            return await opens(served, players)

        assert await refused(*shown) is None
        assert await refused() is Reason.UNTRUSTED
        players.echo.replace_trust(SelfCertified())  # so that nothing is known of it
        players.echo.replace_trust(Registered(served.key) | SelfCertified())
        assert await refused() is None  # and the other model vouches
        for whom, op, state, reason in (
            (players.acme, Op.ROTATE, State.ACTIVE, None), (players.acme, Op.REVOKE, State.REVOKED, Reason.REVOKED),
            (players.caller.credential, Op.ROTATE, State.ACTIVE, Reason.UNTRUSTED),
            (players.caller.credential, Op.DEACTIVATE, State.DEACTIVATED, Reason.REVOKED),
        ):  # fmt: skip
            fresh = Registered(served.key)
            fresh.heed(sign_change(entry(op, whom.auto_id, bytes(32)), state, index=9, at=now(), key=KEY))
            players.echo.replace_trust(SelfCertified())
            players.echo.replace_trust(fresh | SelfCertified())
            assert await refused() is reason


async def test_a_status_is_verified_once_and_judged_after_each_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other IDs' changes cost no signature, and what was verified before is not believed for it."""
    async with serving(tmp_path) as served:
        players = await cast(served)
        assert await opens(served, players) is None
        verified: list[str] = []
        check = word.check

        def counted(*args: Any, what: str) -> None:
            verified.append(what)
            check(*args, what=what)

        monkeypatch.setattr(word, "check", counted)
        for number in range(1, 4):
            told = entry(Op.REVOKE, AutoId(bytes([number]) * 32), bytes(32))
            index = served.store.head.size + number
            change = sign_change(told, State.REVOKED, index=index, at=now(), key=KEY)
            for model in players.models:
                model.heed(change)
            assert await opens(served, players) is None
        assert verified == []
        told = entry(Op.REVOKE, players.caller.auto_id, bytes(32))
        players.models[0].heed(sign_change(told, State.REVOKED, index=index + 1, at=now(), key=KEY))
        assert await opens(served, players) is Reason.REVOKED
        assert verified == []


async def test_a_change_judges_only_the_links_again_that_it_is_about(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own, and those of IDs below it; of what was forgotten before its time nobody knows whom it was about."""
    monkeypatch.setattr("autolink.limits.CHANGES_TOLD", 3)
    async with serving(tmp_path) as served:
        players = await cast(served)
        model, index = players.models[0], served.store.head.size
        judged: list[str] = []
        verify = model.verify

        async def counted(presented: Any, context: Any) -> Grounds:
            judged.append(presented.name)
            return await verify(presented, context)

        async def told(auto_id: AutoId, index: int) -> list[str]:
            """Who is judged again."""
            judged.clear()
            change = entry(Op.ROTATE, auto_id, bytes(32))
            model.heed(sign_change(change, State.ACTIVE, index=index, at=now(), key=KEY))
            await anyio.wait_all_tasks_blocked()
            return judged

        async with (
            served.network.listening(players.echo, "echo:1"),
            players.caller.connect("echo:1", expect=players.echo.peer_id) as link,
        ):
            monkeypatch.setattr(model, "verify", counted)
            assert await told(AutoId(bytes(32)), index) == []
            assert await told(players.acme.auto_id, index - 1) == ["caller"]
            assert await told(AutoId(bytes([1]) * 32), index) == []
            assert link.lost is None
            assert await told(AutoId(bytes([2]) * 32), index) == ["caller"]  # the first one is forgotten
            await link.closed()


class Forwarding(Model):
    """Asks another model, as was written before changes were about anybody in particular."""

    def __init__(self, inner: Model) -> None:
        self.inner = inner

    async def verify(self, presented: Any, context: Any) -> Grounds:
        return await self.inner.verify(presented, context)

    def on_change(self, callback: Callable[[], None]) -> Callable[[], None]:
        return self.inner.on_change(callback)


class Sponsored(Model):
    """Believes anybody while the registry has not ended a sponsor, who stands in no chain."""

    def __init__(self, inner: Registered) -> None:
        self.inner = inner
        inner.on_change(self._changed)

    async def verify(self, presented: Any, context: Any) -> Grounds:
        if self.inner._told:
            raise NotVouched("the sponsor has ended")
        return Grounds("Sponsored", "by whom is none of the chain's business")


@pytest.mark.parametrize(
    "wrapped", [Forwarding, lambda inner: SelfCertified() & Forwarding(inner), Sponsored]
)
async def test_a_model_that_forwards_changes_ends_links_though_it_does_not_tell_whom_they_are_about(
    tmp_path: Path, wrapped: Callable[[Model], Model]
) -> None:
    """Neither a cached verdict nor that the changed ID is not in the peer's chain keeps a link."""
    async with serving(tmp_path) as served:
        players = await cast(served)
        model, index = players.models[0], served.store.head.size
        players.echo.replace_trust(wrapped(model))
        whom = AutoId(bytes(32)) if wrapped is Sponsored else players.caller.auto_id
        async with (
            served.network.listening(players.echo, "echo:1"),
            players.caller.connect("echo:1", expect=players.echo.peer_id) as link,
        ):
            await link.ping()
            await anyio.wait_all_tasks_blocked()
            told = entry(Op.REVOKE, whom, bytes(32))
            model.heed(sign_change(told, State.REVOKED, index=index, at=now(), key=KEY))
            with anyio.fail_after(5):
                await link.closed()
        assert await opens(served, players) in (Reason.REVOKED, Reason.UNTRUSTED)


async def test_a_listener_that_fails_keeps_the_feed_and_the_links_that_are_judged_by_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It was there before the agent, and another one takes no argument; whoever reads the feed reads on."""
    async with serving(tmp_path) as served:
        players = await cast(served)
        model, heard = Registered(served.key), []
        model.on_change_of(lambda *about: heard.append(about))
        model.on_change(lambda: 1 // 0)
        model.on_change(lambda: heard.append(()))
        players.echo.replace_trust(model)
        heard.clear()
        async with (
            served.network.listening(players.echo, "echo:1"),
            players.caller.connect("echo:1", expect=players.echo.peer_id) as link,
        ):
            told = entry(Op.REVOKE, players.caller.auto_id, bytes(32))
            model.heed(sign_change(told, State.REVOKED, index=9, at=now(), key=KEY))
            with anyio.fail_after(5):
                await link.closed()
        assert heard == [(players.caller.auto_id,), ()]
        assert "Registered has changed, and somebody who was told failed" in caplog.text


async def test_a_change_that_the_log_has_not_signed_is_not_heeded(tmp_path: Path) -> None:
    """Nor one of another log, nor of an entry that changes nothing of what was said of an ID."""
    async with serving(tmp_path) as served:
        made = entry(Op.REVOKE, AutoId(bytes(32)), bytes(32))
        good = sign_change(made, State.REVOKED, index=3, at=now(), key=KEY)
        data = good.to_bytes()
        assert verify_change(data, served.key) == good
        for place in range(len(data)):
            with pytest.raises((BadSignature, RemoteProtocolError)):
                verify_change(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :], served.key)
        stranger = sign_change(made, State.REVOKED, index=3, at=now(), key=Ed25519PrivateKey.generate())
        elsewhere = sign_change(replace(made, origin="other/log"), State.REVOKED, index=3, at=now(), key=KEY)
        renewed = sign_change(
            replace(made, op=Op.RENEW, certificate=b"x"), State.ACTIVE, index=3, at=now(), key=KEY
        )
        for wrong in (stranger, elsewhere, renewed, replace(good, index=2**63)):
            with pytest.raises((BadSignature, RemoteProtocolError)):
                verify_change(wrong.to_bytes(), served.key)

        async def told(call: Any, start: int) -> list[tuple[int, bytes]]:
            return [(3, stranger.to_bytes())]

        replaced(served, "changes_since", told)
        heeded: list[Change] = []
        async with visitor(served) as client:
            with pytest.raises(BadSignature):
                await client.follow(heeded.append)
        assert not heeded


async def test_changes_that_are_told_again_and_again_do_not_keep_the_feed_back(tmp_path: Path) -> None:
    """A page of what was told already would be asked for for ever, and what is told meanwhile never heard."""
    async with serving(tmp_path) as served:
        told = sign_change(
            entry(Op.REVOKE, AutoId(bytes(32)), bytes(32)), State.REVOKED, index=3, at=now(), key=KEY
        )
        asked: list[int] = []

        async def again(call: Any, start: int) -> list[tuple[int, bytes]]:
            asked.append(start)
            return [(start, told.to_bytes())]

        replaced(served, "changes_since", again)
        heeded: list[Change] = []
        async with visitor(served) as client:
            with anyio.fail_after(5), pytest.raises(RemoteProtocolError, match="told"):
                await client.follow(heeded.append)
        assert asked == [0, 4]
        assert heeded == [told, told]
