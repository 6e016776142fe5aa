"""An agent that keeps up with its registry: shown, renewed, heeded; down, up again and restarted. On the real clock."""

from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from autolink import Agent, Contact, Credential, limits
from autolink.errors import Reason, UsageError
from autolink.identity import CredentialRequest, EntityKind
from autolink.identity.issuing import BACKDATE
from autolink.registry import making
from autolink.registry.discovery import publish
from autolink.registry.entries import Op
from autolink.registry.evidence import LogConvicted, Unproved
from autolink.registry.log.checkpoint import Checkpoint
from autolink.registry.log.checkpoint import verify_untrusted as verify_checkpoint
from autolink.registry.log.note import VerifierKey
from autolink.registry.records import State
from autolink.registry.registration import registered
from autolink.registry.service_record import describe
from autolink.registry.status import verify_untrusted
from autolink.registry.trust import Registered, models_in
from autolink.testing import Network
from autolink.trust import Pinned, SelfCertified

from .serving import AT, ORIGIN, Served, entry, issue, registration, serving, until

pytestmark = pytest.mark.usefixtures("soon")


def contact(served: Served) -> str:
    return str(Contact(served.agent.peer_id, _address()))


def _address() -> Any:
    from autolink.transport import parse_address

    return parse_address(AT)


async def register(served: Served, *names: str) -> tuple[Credential, list[Credential]]:
    """acme and its agents, on record."""
    acme = Credential.self_issued("acme")
    agents = [issue(acme, name) for name in names]
    async with served.client(served.join(Agent(acme, trust=SelfCertified()))) as client:
        await client.submit(registration(acme))
        for credential in agents:
            await client.submit(registration(credential, acme))
    return acme, agents


async def revoke(served: Served, acme: Credential, credential: Credential) -> None:
    async with served.client(served.join(Agent(acme, trust=SelfCertified()))) as client:
        place = await client.place(credential.auto_id)
        made = entry(Op.REVOKE, credential.auto_id, place.head)
        await client.submit(made.signed(acme.auto_id, acme.private_key))


async def test_registered_agents_link_and_a_revocation_ends_their_link(tmp_path: Path) -> None:
    """Rule 40: nobody asks the registry whether the other one is good; its feed reaches both."""
    async with serving(tmp_path) as served, AsyncExitStack() as stack:
        acme, (echo, caller) = await register(served, "echo", "caller")
        agents = [
            served.join(Agent(each, trust=SelfCertified() & Registered(served.key)))
            for each in (echo, caller)
        ]
        standings = [
            await stack.enter_async_context(registered(agent, contact(served), str(served.key)))
            for agent in agents
        ]
        assert all(each.status and each.status.status.state is State.ACTIVE for each in standings)
        async with (
            served.network.listening(agents[0], "echo:1"),
            agents[1].connect("echo:1", expect=agents[0].peer_id) as link,
        ):
            await revoke(served, acme, caller)
            with anyio.fail_after(5):
                await link.closed()
            assert Reason.REVOKED in agents[0].statistics().refused
        # It was told of its own end by the feed, and shows what is true at once.
        await until(lambda: standings[1].status.status.state is State.REVOKED)  # type: ignore[union-attr]
        assert [each.missing for each in standings] == ["", "we are revoked there"]


async def test_who_is_revoked_is_told_what_that_means_at_each_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """And goes on serving: others do not go by the registry, and a rotation in the keystore is taken up. The kept status
    says it already, which is no reason to say nothing."""
    file = tmp_path / "kept.status"
    async with serving(tmp_path) as served:
        acme, (echo, below) = await register(served, "echo", "below")
        await revoke(served, acme, echo)
        for _ in range(2):
            caplog.clear()
            agent = served.join(Agent(echo, trust=SelfCertified()))
            async with registered(agent, contact(served), served.key, kept=file) as standing:
                assert standing.missing == "we are revoked there"
            assert "says that we are revoked: whoever goes by it refuses us and ends our links" in caplog.text
            assert "until we serve with another key of this ID (`autolink id rotate`" in caplog.text
        await revoke(served, acme, acme)
        async with registered(served.join(Agent(below, trust=SelfCertified())), contact(served), served.key):
            assert f"that we are revoked, because of {acme.auto_id}, above us: whoever" in caplog.text


async def test_a_kept_status_that_is_not_ours_is_not_shown(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(tmp_path) as served:
        acme, (echo,) = await register(served, "echo")
        of_acme = served.registrar.status(acme.auto_id)
        where, log_key = contact(served), served.key
    assert of_acme is not None
    file = tmp_path / "kept.status"
    for data in (of_acme.to_bytes(), b"nonsense"):
        file.write_bytes(data)
        agent = Agent(echo, trust=SelfCertified())
        Network().join(agent)
        async with registered(agent, where, log_key, kept=file):
            assert agent.evidence == ()
    assert "kept.status is not used" in caplog.text


async def test_who_is_not_on_record_is_told_and_shows_its_status_when_it_is(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(tmp_path) as served:
        acme, _ = await register(served)
        late = issue(acme, "late")
        agent = served.join(Agent(late, trust=SelfCertified()))
        async with registered(agent, contact(served), served.key) as standing:
            assert standing.status is None
            assert f"{late.auto_id} is not on record there" in caplog.text
            async with served.client(served.join(Agent(acme, trust=SelfCertified()))) as client:
                await client.submit(registration(late, acme))
            standing.refresh()
            await until(lambda: standing.status is not None)
            assert verify_untrusted(agent.evidence[0], served.key).status.auto_id == late.auto_id


async def test_who_shows_another_certificate_than_is_on_record_can_be_told(tmp_path: Path) -> None:
    """It was renewed here and not there: its peers say that it has expired, which it does not see."""
    async with serving(tmp_path) as served:
        acme, _ = await register(served)
        later = datetime.now(UTC) + timedelta(days=1)
        certificate = making.renewed(acme, now=later, lifetime=timedelta(days=300))
        renewed = Credential((certificate,), acme.private_key)
        for credential, says in ((acme, False), (renewed, True)):
            agent = served.join(Agent(credential, trust=SelfCertified()))
            async with registered(agent, contact(served), served.key) as standing:
                assert ("autolink id renew NAME" in standing.missing) is says


async def test_other_evidence_is_shown_beside_the_status(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        _, (echo,) = await register(served, "echo")
        agent = served.join(Agent(echo, trust=SelfCertified()))
        agent.replace_evidence(b"something else", b"autolink/1 status, not one")
        for _ in range(2):
            async with registered(agent, contact(served), served.key):
                assert agent.evidence[:2] == (b"something else", b"autolink/1 status, not one")
                assert len(agent.evidence) == 3


def forks(served: Served, other: Served) -> None:
    """From now on a registry answers for another log that has the same key."""
    served.store, served.registrar = other.store, other.registrar
    for method in ("consistency", "status"):
        served.agent.handlers.methods[f"registry.{method}"] = other.agent.handlers.methods[
            f"registry.{method}"
        ]


async def test_another_past_is_known_after_a_restart_by_the_kept_status(tmp_path: Path) -> None:
    """Two logs of one size are signed: that convicts. One that is shorter has lost entries."""
    key, file = Ed25519PrivateKey.generate(), tmp_path / "kept.status"
    async with serving(tmp_path / "one", key=key) as served:
        _, (echo,) = await register(served, "echo")
        agent = served.join(Agent(echo, trust=SelfCertified()))
        async with registered(agent, contact(served), served.key, kept=file) as standing:
            assert standing.status is not None
        seen = served.store.head.checkpoint
    for name, others, kind, says in (
        ("same", ["one"], LogConvicted, "two logs of one size"), ("short", [], Unproved, "had 2 before"),
    ):  # fmt: skip
        async with serving(tmp_path / name, key=key) as forked:
            await register(forked, *others)
            restarted = forked.join(Agent(echo, trust=SelfCertified()))
            folder = tmp_path / f"evidence-{name}"
            where = contact(forked)
            async with registered(restarted, where, forked.key, kept=file, evidence=folder) as standing:
                assert isinstance(standing.error, kind)
                assert says in str(standing.error)
            (kept,) = folder.glob("*.evidence")
            assert kept.read_bytes() == seen + b"\n" + forked.store.head.checkpoint


async def test_an_older_status_than_was_shown_is_not_and_its_keeping_has_an_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("autolink.limits.EVIDENCE_PIECES", 2)
    evidence = tmp_path / "evidence"
    async with serving(tmp_path) as served:
        acme, _ = await register(served)
        agent = served.join(Agent(acme, trust=SelfCertified()))
        old = served.registrar.status(acme.auto_id)
        assert old is not None
        await revoke(served, acme, acme)
        async with registered(agent, contact(served), served.key, evidence=evidence) as standing:
            shown = agent.evidence
            assert standing.status is not None

            async def stale(call: Any, auto_id: bytes) -> bytes:
                return old.to_bytes()

            del served.agent.handlers.methods["registry.status"]
            served.agent.handlers.method("registry.status")(stale)
            for _ in range(3):
                standing.error = None
                standing.refresh()
                await until(lambda: standing.error is not None)
                assert "older than one that was seen" in str(standing.error)
    assert agent.evidence == shown
    (kept,) = evidence.glob("*.evidence")
    assert kept.read_bytes() == old.to_bytes()
    assert caplog.text.count("what shows that the registry lies is in") == 2


async def test_evidence_that_cannot_be_kept_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").touch()
    key = Ed25519PrivateKey.generate()
    async with serving(tmp_path, key=key) as served:
        _, (echo,) = await register(served, "echo")
        agent = served.join(Agent(echo, trust=SelfCertified()))
        async with registered(agent, contact(served), served.key, evidence=tmp_path / "file") as standing:
            note = Checkpoint(ORIGIN, 2, bytes(32)).signed(key)
            standing._seen = verify_checkpoint(note, served.key)
            served.network.cut()
            await until(lambda: "cannot be kept" in caplog.text)
            assert isinstance(standing.error, LogConvicted)


async def test_another_dialer_and_another_model_may_be_given(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        acme, (echo,) = await register(served, "echo")
        model = Registered(served.key)
        agent = served.join(Agent(echo, trust=SelfCertified()))
        heeded: list[object] = []
        model.on_change(lambda: heeded.append(1))
        async with registered(agent, contact(served), served.key, model, dialer=echo):
            await until(lambda: served.agent.links)
            assert [link.peer.name for link in served.agent.links] == ["echo"]
            put_in = Registered(served.key)
            agent.replace_trust(SelfCertified() & put_in)
            await revoke(served, acme, acme)
            await until(lambda: heeded)
            assert acme.auto_id in put_in._told


async def test_changes_from_before_any_status_that_is_believed_are_not_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(tmp_path) as served:
        acme, (echo, other) = await register(served, "echo", "other")
        await revoke(served, acme, other)
        async with served.client(served.join(Agent(echo, trust=SelfCertified()))) as client:
            assert await client.first_since(0) == 0
            assert await client.first_since(2**62) == served.store.head.size
            leaves = [await client.proved(place) for place in range(served.store.head.size)]
            assert leaves == await client.entries(range(served.store.head.size))


def test_models_are_found_in_composed_ones() -> None:
    key, other = (VerifierKey.of(ORIGIN, Ed25519PrivateKey.generate().public_key()) for _ in range(2))
    ours, theirs = Registered(key), Registered(other)
    assert list(models_in((Pinned() | SelfCertified()) & (ours | theirs), key)) == [ours]
    assert list(models_in(SelfCertified(), key)) == []


async def test_a_contact_that_is_none_is_told(tmp_path: Path) -> None:
    agent = Agent(Credential.self_issued("acme"), trust=SelfCertified())
    with pytest.raises(UsageError):
        async with registered(
            agent, "nowhere", VerifierKey.of(ORIGIN, Ed25519PrivateKey.generate().public_key())
        ):
            pass


# --- a certificate that is renewed ------------------------------------------------------------------------------


def renewed(acme: Credential, credential: Credential) -> Credential:
    """The same key, in a certificate that begins a second later, as if the request had been issued again then."""
    request = CredentialRequest.from_key(credential.leaf.common_name, credential.private_key)
    later = credential.leaf.not_before + BACKDATE + timedelta(seconds=1)
    return request.complete(acme.issue(request, kind=EntityKind.AGENT, now=later))


async def put_on_record(served: Served, credential: Credential) -> None:
    async with served.client(served.join(Agent(credential, trust=SelfCertified()))) as client:
        place = await client.place(credential.auto_id)
        await client.submit(making.renew(credential, making.Slot.at(ORIGIN, datetime.now(UTC), place)))


@pytest.mark.parametrize("first", ["taken", "on record"])
async def test_a_renewed_certificate_is_used_when_it_is_on_record_and_no_link_is_lost(
    tmp_path: Path, first: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Whether the agent hears of it first or the registry, whose feed does not tell: it shows what fits at every moment."""
    async with serving(tmp_path) as served, AsyncExitStack() as stack:
        acme, (echo, caller) = await register(served, "echo", "caller")
        serves, calls = (
            served.join(Agent(each, trust=SelfCertified() & Registered(served.key)))
            for each in (echo, caller)
        )
        standing = await stack.enter_async_context(registered(serves, contact(served), served.key))
        await stack.enter_async_context(registered(calls, contact(served), served.key))
        await stack.enter_async_context(served.network.listening(serves, "echo:1"))
        link = await stack.enter_async_context(calls.connect("echo:1", expect=serves.peer_id))
        newer = renewed(acme, echo)

        async def links_still() -> None:
            await link.ping()
            async with calls.connect("echo:1", expect=serves.peer_id) as another:
                await another.ping()

        if first == "taken":
            standing.go_on_with(newer)
            await until(lambda: "another certificate of ours on record" in caplog.text)
        else:
            await put_on_record(served, newer)
            standing.refresh()
            await until(lambda: "another certificate of ours on record" in caplog.text)
        assert serves.credential is echo
        await links_still()
        if first == "taken":
            await put_on_record(served, newer)
        else:
            standing.go_on_with(newer)
        await until(lambda: serves.credential is newer)
        await until(lambda: link.peer.presented.leaf == newer.leaf)
        await links_still()
        assert caplog.text.count("another certificate of ours on record") == 1
        assert caplog.text.count("has the certificate that we use") == 1


async def test_who_has_no_status_that_fits_does_not_wait_with_another_certificate(tmp_path: Path) -> None:
    """Nobody who asks the registry believes it now, and the others do either way."""
    async with serving(tmp_path) as served:
        acme, (echo,) = await register(served, "echo")
        late, newer = issue(acme, "late"), renewed(acme, echo)
        unknown = served.join(Agent(late, trust=SelfCertified()))
        async with registered(unknown, contact(served), served.key) as standing:
            again = renewed(acme, late)
            standing.go_on_with(again)
            assert unknown.credential is again
            with pytest.raises(UsageError, match="another ID"):
                standing.go_on_with(echo)
        agent = served.join(Agent(newer, trust=SelfCertified()))
        async with registered(agent, contact(served), served.key) as standing:
            assert standing.status is not None  # and does not fit: it says why nobody believes us
            standing.go_on_with(echo)
            assert agent.credential is echo


async def test_workers_that_took_a_certificate_before_it_was_on_record_have_a_fitting_status_soon_after(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path) as served:
        acme, (echo,) = await register(served, "echo")
        newer = renewed(acme, echo)
        agent = served.join(Agent(newer, trust=SelfCertified()))
        async with registered(agent, contact(served), served.key) as standing:
            await put_on_record(served, newer)
            await until(
                lambda: standing.status and standing.status.status.certificate == newer.leaf.fingerprint
            )


async def test_workers_are_believed_when_one_has_seen_an_entry_that_changes_nothing_of_how_they_stand(
    tmp_path: Path,
) -> None:
    """The feed tells nothing of a service record that one of them has published, or of other guardians: until the others
    renew their status, minutes later, theirs counts fewer entries."""
    async with serving(tmp_path) as served, AsyncExitStack() as stack:
        _, (echo, caller) = await register(served, "echo", "caller")
        agents = [served.join(Agent(echo, trust=SelfCertified())) for _ in range(2)]
        standings = [
            await stack.enter_async_context(registered(agent, contact(served), served.key))
            for agent in agents
        ]
        async with served.client(served.join(Agent(caller, trust=SelfCertified()))) as client:
            record = describe(agents[0].handlers, ["9.9.9.9:1"], now=datetime.now(UTC))
            await publish(client, echo, record, now=datetime.now(UTC))
        standings[0].refresh()
        await until(lambda: standings[0].status.status.entries == 2)  # type: ignore[union-attr]
        asks = served.join(Agent(caller, trust=SelfCertified() & Registered(served.key)))
        for number, agent in enumerate([*agents, agents[0]], 1):
            async with (
                served.network.listening(agent, f"echo:{number}"),
                asks.connect(f"echo:{number}", expect=agent.peer_id),
            ):
                pass


async def test_a_certificate_that_ends_is_not_waited_with(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        acme, (echo,) = await register(served, "echo")
        clock = [datetime.now(UTC)]
        agent = served.join(Agent(echo, trust=SelfCertified(), clock=lambda: clock[0]))
        newer = renewed(acme, echo)
        async with registered(agent, contact(served), served.key) as standing:
            standing.go_on_with(newer)
            assert agent.credential is echo
            served.network.cut()
            clock[0] += timedelta(hours=1, minutes=1)
            await until(lambda: agent.credential is newer)


async def test_a_status_is_renewed_long_before_those_who_ask_for_a_young_one_refuse_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every `STATUS_REFRESH` seconds, here at once; the least `max_age` of the command line is two of these."""
    assert 2 * limits.STATUS_REFRESH <= limits.STATUS_LIFETIME
    monkeypatch.setattr("autolink.limits.STATUS_REFRESH", 0.0)
    async with serving(tmp_path) as served:
        _, (echo,) = await register(served, "echo")
        agent = served.join(Agent(echo, trust=SelfCertified()))
        async with registered(agent, contact(served), served.key) as standing:
            first = standing.status
            await until(lambda: standing.status.status.at > first.status.at)  # type: ignore[union-attr]


# --- a rotation above -------------------------------------------------------------------------------------------


async def rotate(served: Served, acme: Credential) -> None:
    next_key = acme.next_key
    assert next_key is not None
    rotated = acme.rotate(next_key)
    async with served.client(served.join(Agent(acme, trust=SelfCertified()))) as client:
        place = await client.place(acme.auto_id)
        await client.submit(making.rotate(rotated, making.Slot.at(ORIGIN, datetime.now(UTC), place)))


async def test_a_rotation_above_costs_no_link_of_those_who_show_what_is_true_after_it(tmp_path: Path) -> None:
    """What was issued before it goes on, so "nobody else has to do anything"."""
    async with serving(tmp_path) as served, AsyncExitStack() as stack:
        acme, (echo, caller) = await register(served, "echo", "caller")
        models = [Registered(served.key) for _ in range(2)]
        agents = [
            served.join(Agent(each, trust=SelfCertified() & model))
            for each, model in zip((echo, caller), models, strict=True)
        ]
        for agent in agents:
            await stack.enter_async_context(registered(agent, contact(served), served.key))
        await stack.enter_async_context(served.network.listening(agents[0], "echo:1"))
        link = await stack.enter_async_context(agents[1].connect("echo:1", expect=agents[0].peer_id))
        before = link.peer.valid_until
        await rotate(served, acme)
        await until(lambda: all(acme.auto_id in model._told for model in models))
        await until(lambda: link.peer.valid_until > before)  # the fresh one's hour, not the grace
        await link.ping()
        assert not any(agent.statistics().refused for agent in agents)


@pytest.mark.parametrize("evidence", ["old", "fresh"])
async def test_after_a_rotation_above_an_old_status_is_too_old_and_not_a_revocation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, evidence: str
) -> None:
    monkeypatch.setattr("autolink.limits.ROTATION_GRACE", -60.0)
    async with serving(tmp_path) as served, AsyncExitStack() as stack:
        acme, (echo, caller) = await register(served, "echo", "caller")
        serves = served.join(Agent(echo, trust=SelfCertified() & Registered(served.key)))
        calls = served.join(Agent(caller, trust=SelfCertified()))
        await stack.enter_async_context(registered(serves, contact(served), served.key))
        await stack.enter_async_context(served.network.listening(serves, "echo:1"))
        status = served.registrar.status(caller.auto_id)
        calls.replace_evidence(status.to_bytes())  # type: ignore[union-attr]
        link = await stack.enter_async_context(calls.connect("echo:1", expect=serves.peer_id))
        await rotate(served, acme)
        with anyio.fail_after(5):
            await link.closed()
        assert serves.statistics().refused == {Reason.EXPIRED: 1}
        if evidence == "fresh":
            fresh = served.registrar.status(caller.auto_id)
            calls.replace_evidence(fresh.to_bytes())  # type: ignore[union-attr]
            async with calls.connect("echo:1", expect=serves.peer_id) as another:
                await another.ping()
