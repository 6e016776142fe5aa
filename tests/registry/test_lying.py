"""A registry that lies: each lie is refused with its reason, and what shows it is kept.

What only an audit or a monitor can find is in `test_monitor` and `test_sources`; what a finder is told, in `test_discovery`.
On the real clock: SQLite works in threads.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from autolink import Agent, Credential
from autolink.errors import BadSignature, CallError, EntryRefused, Reason, Refused, RemoteProtocolError
from autolink.identity import AutoId
from autolink.messages import instant, microseconds
from autolink.messages.message import TIME_MAX
from autolink.registry import word
from autolink.registry.answers import CHANGES, Consistency
from autolink.registry.entries import Op
from autolink.registry.evidence import LogConvicted, Unproved
from autolink.registry.feed import sign_change
from autolink.registry.log.checkpoint import Checkpoint
from autolink.registry.log.checkpoint import verify_untrusted as verify_checkpoint
from autolink.registry.log.note import VerifierKey
from autolink.registry.records import SECOND, State
from autolink.registry.registration import registered
from autolink.registry.status import PURPOSE, Newest, Status
from autolink.registry.status import verify_untrusted as verify_status
from autolink.registry.trust import Registered
from autolink.trust import Context, Contradicted, NotVouched, SelfCertified
from autolink.trust.presented import present

from .serving import (
    KEY,
    ORIGIN,
    Served,
    cast,
    entry,
    issue,
    now,
    opens,
    registration,
    serving,
    signed,
    staple,
    until,
)
from .test_monitor import client as visitor
from .test_monitor import replaced
from .test_registered import contact, forks, register, revoke

pytestmark = pytest.mark.usefixtures("soon")

HOUR = 3600 * SECOND


# --- wrong root, forked log ----------------------------------------------------------------------------------


def shows(served: Served, note: bytes, path: Sequence[bytes] = ()) -> None:
    """What the registry says of its log from now on."""

    async def shown(call: Any, asked: Any) -> Consistency:
        return Consistency(checkpoint=note, path=list(path))

    replaced(served, "consistency", shown)


@pytest.mark.parametrize("more", [False, True])
async def test_a_wrong_root_is_not_gone_on_with_and_both_checkpoints_are_kept(
    tmp_path: Path, more: bool
) -> None:
    """Of a log as long as the one that was seen, and of a longer one with the path that belongs to the right root."""
    async with serving(tmp_path) as served:
        await register(served, "echo")
        async with visitor(served) as client:
            seen = await client.catch_up()
            if more:
                await register(served, "again")
            false = Checkpoint(ORIGIN, served.store.head.size, bytes(32)).signed(KEY)
            right = await client.consistency(seen.size)
            shows(served, false, right.path)
            with pytest.raises(Unproved if more else LogConvicted) as error:
                await client.catch_up()
            assert error.value.evidence == seen.note + b"\n" + false
            assert client.seen.root == seen.root


@pytest.mark.parametrize("more", [0, 1, 2])
async def test_a_forked_log_is_not_gone_on_with_and_both_checkpoints_are_kept(
    tmp_path: Path, more: int
) -> None:
    """The same key, another past: shorter than the one that was seen, as long, or longer."""
    async with serving(tmp_path / "one") as served:
        await register(served, "echo")
        async with visitor(served) as client:
            seen = await client.catch_up()
    async with serving(tmp_path / "other") as served:
        await register(served, *("one", "two")[:more])
        async with visitor(served) as client:
            if not more:
                shows(served, served.store.head.checkpoint)
            client.seen = seen
            with pytest.raises(LogConvicted if more == 1 else Unproved) as error:
                await client.catch_up()
            assert client.seen == seen
            assert error.value.evidence == seen.note + b"\n" + served.store.head.checkpoint
            for note in (seen.note, served.store.head.checkpoint):
                assert verify_checkpoint(note, served.key)


async def test_a_status_from_a_fork_of_another_size_is_not_taken(tmp_path: Path) -> None:
    """Signed, and proved in a log that does not lead to the one that was seen, nor from it."""
    async with serving(tmp_path / "one") as served, serving(tmp_path / "other") as forked:
        acme, _ = await register(served, "echo")
        await register(forked, "one", "two", "three")
        async with visitor(served) as client, visitor(forked) as elsewhere:
            seen, longer = await client.catch_up(), await elsewhere.catch_up()
            entry = registration(acme)
            await elsewhere.submit(entry)
            status = forked.registrar.status(acme.auto_id)
            assert status is not None

            async def false(call: Any, auto_id: bytes) -> bytes:
                return status.to_bytes()

            replaced(served, "status", false)
            assert longer.size > seen.size
            with pytest.raises(Unproved) as unproved:
                await client.status(acme.auto_id)
            assert unproved.value.evidence == seen.note + b"\n" + forked.store.head.checkpoint
            assert client.seen == seen


async def test_statuses_move_what_was_seen_of_a_log_along(tmp_path: Path) -> None:
    """One that is proved in a longer log is gone on from; one of before is found to be on the way."""
    async with serving(tmp_path) as served:
        acme, (echo,) = await register(served, "echo")
        async with visitor(served) as client:
            older = served.registrar.status(acme.auto_id)
            assert older is not None
            await client.catch_up()
            await register(served, "another")
            await client.status(echo.auto_id)
            assert client.seen is not None
            newer = client.seen
            assert newer.size == served.store.head.size

            async def before(call: Any, auto_id: bytes) -> bytes:
                return older.to_bytes()

            replaced(served, "status", before)
            assert (await client.status(acme.auto_id)).checkpoint.size < newer.size
            assert client.seen == newer


async def test_a_forked_log_changes_nothing_of_what_an_agent_shows(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It comes back with the same key and other entries: what was shown before stays, and what shows it is kept."""
    key, evidence = Ed25519PrivateKey.generate(), tmp_path / "evidence"
    async with serving(tmp_path / "one", key=key) as served:
        _, (echo,) = await register(served, "echo")
        agent = served.join(Agent(echo, trust=SelfCertified()))
        seen = served.store.head.checkpoint
        async with registered(agent, contact(served), served.key, evidence=evidence) as standing:
            shown = agent.evidence
            async with serving(tmp_path / "other", key=key) as forked:
                await register(forked, "one", "two")
                forks(served, forked)
                standing.refresh()
                await until(lambda: "what shows that the registry lies is in" in caplog.text)
                assert isinstance(standing.error, Unproved)
                both = seen + b"\n" + forked.store.head.checkpoint
    assert agent.evidence == shown
    (kept,) = evidence.glob("*.evidence")
    assert kept.read_bytes() == both
    assert "does not lead" in kept.with_suffix(".evidence.txt").read_text()


async def test_what_another_key_has_signed_is_not_believed(tmp_path: Path) -> None:
    """Another key signs: nothing that it says is taken, and no entry counts as logged."""
    async with serving(tmp_path) as served:
        acme = Credential.self_issued("acme")
        async with served.client(served.join(Agent(acme, trust=SelfCertified()))) as client:
            await client.submit(registration(acme))
            client.log_key = VerifierKey.of(ORIGIN, Ed25519PrivateKey.generate().public_key())
            with pytest.raises(BadSignature):
                await client.status(acme.auto_id)
            with pytest.raises(BadSignature):
                await client.submit(registration(issue(acme, "echo"), acme))
            with pytest.raises(BadSignature):
                await client.catch_up()


async def test_a_status_that_is_older_than_the_kept_one_is_not_taken_after_a_restart(tmp_path: Path) -> None:
    """Young, true and of the same log: but by the file there is more to say."""
    file, evidence = tmp_path / "kept.status", tmp_path / "evidence"
    async with serving(tmp_path) as served:
        acme, (echo,) = await register(served, "echo")
        old = served.registrar.status(echo.auto_id)
        assert old is not None
        await revoke(served, acme, echo)
        async with registered(
            served.join(Agent(echo, trust=SelfCertified())), contact(served), served.key, kept=file
        ):
            shown = file.read_bytes()

        async def replayed(call: Any, auto_id: bytes) -> bytes:
            return old.to_bytes()

        replaced(served, "status", replayed)
        agent = served.join(Agent(echo, trust=SelfCertified()))
        async with registered(agent, contact(served), served.key, kept=file, evidence=evidence) as standing:
            assert isinstance(standing.error, Unproved)
            assert agent.evidence == (shown,)
        assert file.read_bytes() == shown
    (kept,) = evidence.glob("*.evidence")
    assert kept.read_bytes() == old.to_bytes()


async def test_a_change_of_an_entry_that_there_is_not_silences_no_feed(tmp_path: Path) -> None:
    """All changes up to there would count as heard, on every later link. It is kept beside the checkpoint."""
    evidence = tmp_path / "evidence"
    async with serving(tmp_path) as served:
        acme, (echo, other) = await register(served, "echo", "other")
        model = Registered(served.key)
        agent = served.join(Agent(echo, trust=SelfCertified()))
        async with registered(agent, contact(served), served.key, model, evidence=evidence):
            await until(lambda: served.agent.topics[CHANGES].statistics().subscribers)
            told = entry(Op.REVOKE, AutoId(bytes(32)), bytes(32))
            lie = sign_change(told, State.REVOKED, index=TIME_MAX, at=now(), key=KEY)
            await served.agent.topics[CHANGES].publish(lie.to_bytes())
            await until(lambda: AutoId(bytes(32)) in model._told)
            served.network.cut()
            await revoke(served, acme, other)
            await until(lambda: other.auto_id in model._told)
    (kept,) = evidence.glob("*.evidence")
    assert kept.read_bytes().startswith(lie.to_bytes() + b"\n")


# --- stale status, a proof for another record ----------------------------------------------------------------


async def test_a_stale_status_is_refused_and_a_fresh_one_renews_a_live_link(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        players = await cast(served)
        players.echo.replace_trust(SelfCertified() & Registered(served.key, max_age=0.3))
        async with served.network.listening(players.echo, "echo:1"):
            await staple(served, players.caller)
            async with players.caller.connect("echo:1", expect=players.echo.peer_id) as link:
                await until(lambda: players.echo.links)
                (far,) = players.echo.links
                first = far.peer.valid_until
                await staple(served, players.caller)
                await until(lambda: far.peer.valid_until > first)
                with anyio.fail_after(5):
                    await link.closed()  # nothing renews it now
            with pytest.raises(Refused) as refusal:
                async with players.caller.connect("echo:1", expect=players.echo.peer_id):
                    pass
            assert refusal.value.reason is Reason.EXPIRED


async def test_a_status_older_than_one_that_was_seen_is_refused(tmp_path: Path) -> None:
    """It was true, is young enough, and says active: but who is asked has seen that there is more to say. Not even a
    verdict that was made on it stands, nor a link that rests on it."""
    async with serving(tmp_path) as served:
        players = await cast(served)
        old, own = players.caller.evidence, players.caller.credential
        async with served.network.listening(players.echo, "echo:1"):
            async with players.caller.connect("echo:1", expect=players.echo.peer_id) as link:
                await revoke(served, players.acme, own)
                again = served.join(Agent(own, trust=players.caller.trust))
                await staple(served, again)  # as the owner may do, to whom the link is a thief's
                with pytest.raises(Refused) as refusal:
                    async with again.connect("echo:1", expect=players.echo.peer_id):
                        pass
                assert refusal.value.reason is Reason.REVOKED
                with anyio.fail_after(5):
                    await link.closed()
            again.replace_evidence(*old)
            with pytest.raises(Refused) as refusal:
                async with again.connect("echo:1", expect=players.echo.peer_id):
                    pass
            assert refusal.value.reason is Reason.MALFORMED


@pytest.mark.parametrize(
    ("says", "reason"),
    [
        ({}, None), ({"auto_id": AutoId(bytes(32))}, Reason.IMPOSTOR), ({"key": bytes(32)}, Reason.IMPOSTOR),
        ({"issuers": ()}, Reason.IMPOSTOR), ({"issuers": (bytes(32),)}, Reason.IMPOSTOR),
        ({"certificate": bytes(32)}, Reason.EXPIRED), ({"state": State.REVOKED}, Reason.REVOKED),
        ({"state": State.RECOVERING}, Reason.REVOKED), ({"state": State.DEACTIVATED}, Reason.REVOKED),
        ({"at": 2 * HOUR, "expires_at": HOUR}, Reason.EXPIRED), ({"at": 2 * HOUR, "expires_at": -HOUR}, None),
        ({"at": 8 * 24 * HOUR, "expires_at": -HOUR}, Reason.EXPIRED),
        ({"at": -HOUR, "expires_at": -2 * HOUR}, Reason.NOT_YET_VALID),
        ({"origin": "another.example/log"}, Reason.NOT_VOUCHED), ({"head": bytes(32)}, Reason.MALFORMED),
        ({"signature": bytes(64)}, Reason.MALFORMED),
    ],
)  # fmt: skip
async def test_each_thing_that_a_status_says_must_be_so(
    tmp_path: Path, says: dict[str, Any], reason: Reason | None
) -> None:
    """Signed by the log's own key, all of them; times are how long ago."""
    async with serving(tmp_path) as served:
        caller = (await cast(served)).caller
        moment = datetime.now(UTC)
        times = {name: microseconds(moment) - says[name] for name in ("at", "expires_at") if name in says}
        status = replace(Status.from_untrusted(caller.evidence[0]), **says | times)
        if "signature" not in says:
            status = replace(status, signature=KEY.sign(b"autolink/1 status\0" + status.body))
        judged = present(
            [one.der for one in caller.credential.chain], evidence=[status.to_bytes()], now=moment
        )
        context = Context(moment, "inbound")
        if reason is None:
            grounds = await Registered(served.key).verify(judged, context)
            assert grounds.valid_until == instant(status.expires_at)
            return
        with pytest.raises((Contradicted, NotVouched)) as opinion:
            await Registered(served.key).verify(judged, context)
        assert opinion.value.reason is reason


async def test_fewer_entries_are_older_under_whatever_checkpoint(tmp_path: Path) -> None:
    """Such as those from before a revocation, proved again under the newest one."""
    async with serving(tmp_path) as served:
        caller = (await cast(served)).caller
        verified = verify_status(caller.evidence[0], served.key)
        newest = Newest()
        assert not newest.check(verified)
        larger = replace(verified.checkpoint, size=verified.checkpoint.size + 1)
        fewer = replace(verified, status=replace(verified.status, entries=0), checkpoint=larger)
        with pytest.raises(BadSignature, match="older"):
            newest.check(fewer)
        assert not newest.check(replace(verified, checkpoint=larger))


@pytest.mark.parametrize(
    ("says", "grown", "counted", "believed"),
    [
        ({}, -1, False, True), ({}, -1, True, False), ({}, 0, False, False), ({}, 1, False, False),
        ({"certificate": bytes(32)}, -1, False, False), ({"state": State.REVOKED}, -1, False, False),
        ({"key": bytes(32)}, -1, False, False), ({"issuers": ()}, -1, False, False),
    ],
)  # fmt: skip
async def test_fewer_entries_under_a_smaller_log_are_believed_only_if_they_say_the_same(
    tmp_path: Path, says: dict[str, Any], grown: int, *, counted: bool, believed: bool
) -> None:
    """And not by who reads these entries. Under a log of the same size, or a larger one, they contradict what was seen."""
    async with serving(tmp_path) as served:
        seen = verify_status((await cast(served)).caller.evidence[0], served.key)
    newest = Newest()
    newest.check(replace(seen, status=replace(seen.status, entries=2)))
    size = seen.checkpoint.size + grown
    older = replace(seen, status=replace(seen.status, **says), checkpoint=replace(seen.checkpoint, size=size))
    with nullcontext() if believed else pytest.raises(BadSignature, match="older"):
        assert not newest.check(older, counted=counted)


async def test_a_status_with_the_proof_of_another_record_is_refused(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        players = await cast(served)
        record = served.store.record(players.caller.auto_id)
        assert record is not None
        for place in range(served.store.head.size):
            players.caller.replace_evidence(signed(served, record, place, now()))
            assert await opens(served, players) is (None if place == record.touched else Reason.MALFORMED)


async def test_a_proof_or_status_of_another_record_is_not_taken(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        acme = Credential.self_issued("acme")
        async with served.client(served.join(Agent(acme, trust=SelfCertified()))) as client:
            for credential in (acme, Credential.self_issued("other")):
                await client.submit(registration(credential))
            proof, status = served.registrar.proof, served.registrar.status
            served.registrar.proof = lambda place: proof(1 - place)  # type: ignore[method-assign]
            with pytest.raises(BadSignature, match="another place"):
                await client.proved(0)
            served.registrar.proof = proof  # type: ignore[method-assign]
            served.registrar.status = lambda _: status(acme.auto_id)  # type: ignore[method-assign]
            with pytest.raises(BadSignature, match="another Auto ID"):
                await client.status(AutoId(bytes(32)))
            with pytest.raises(CallError, match="out_of_range"):
                await client.proved(2)
            served.store.read_leaves = lambda start, stop: [b"\x93"]  # type: ignore[method-assign]
            with pytest.raises(EntryRefused):
                await client.first_since(0)
            served.agent.handlers.methods.pop("registry.entries")

            @served.agent.handlers.method("registry.entries")
            async def none(call: Any, places: list[int]) -> list[bytes]:
                return []

            with pytest.raises(RemoteProtocolError, match="does not give"):
                await client.first_since(0)


async def test_two_statuses_by_which_a_log_contradicts_itself_do_not_keep_two_links_judged_for_ever(
    tmp_path: Path,
) -> None:
    """Of as many entries, under one checkpoint, of one time: each would be news after the other."""
    async with serving(tmp_path) as served:
        players = await cast(served)
        (shown,) = players.echo.evidence
        twin = issue(players.acme, "echo")
        key, *issuers = (certificate.spki_sha256 for certificate in twin.chain)
        lie = replace(
            Status.from_untrusted(shown), key=key, issuers=tuple(issuers), certificate=twin.leaf.fingerprint
        )
        signature = word.sign(KEY, PURPOSE, lie.body)
        other = served.join(Agent(twin, trust=SelfCertified()))
        other.replace_evidence(replace(lie, signature=signature).to_bytes())
        players.echo.replace_trust(SelfCertified())
        async with (
            served.network.listening(players.echo, "echo:1"),
            served.network.listening(other, "echo:2"),
            players.caller.connect("echo:1", expect=players.echo.peer_id) as first,
        ):
            await first.ping()
            with pytest.raises(Refused, match="older"):
                async with players.caller.connect("echo:2", expect=players.echo.peer_id) as second:
                    await second.ping()
            with anyio.fail_after(5):
                await anyio.wait_all_tasks_blocked()
            assert first.lost is None
