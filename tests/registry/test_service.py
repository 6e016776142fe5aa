"""A registry that is served, and agents that believe what it says. On the real clock: SQLite works in threads."""

import hashlib
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from autolink import Agent, Credential, CredentialRequest, EntityKind, limits
from autolink.errors import CallError, Code, EntryRefused, Fault, Reason, Refused
from autolink.identity import AutoId, keys
from autolink.messages import microseconds
from autolink.messages.merkle import leaf_hash
from autolink.registry import registrar as registrar_module
from autolink.registry.client import RegistryClient, Submitter, Withheld
from autolink.registry.entries import FIRST, Entry, Guardians, Op
from autolink.registry.feed import sign_change
from autolink.registry.feed import verify_untrusted as verify_change
from autolink.registry.policy import Invited, Open, Rate
from autolink.registry.receipt import verify_untrusted as verify_receipt
from autolink.registry.records import State
from autolink.registry.registrar import Appended, Registrar
from autolink.registry.service import CHANGES, RegistryService
from autolink.registry.store import SqliteStore, StoreFailed
from autolink.registry.trust import Registered
from autolink.testing import Network
from autolink.trust import Grounds, Model, Pinned, SelfCertified

from .conftest import new_key

ORIGIN = "registry.example/log"
AT = "registry:1"


@dataclass
class Served:
    """A registry that runs, and the network that it is reached in."""

    network: Network
    store: SqliteStore
    registrar: Registrar
    policy: Any
    agent: Agent

    @property
    def key(self) -> Any:
        return self.registrar.verifier_key

    @asynccontextmanager
    async def client(self, agent: Agent) -> AsyncIterator[RegistryClient]:
        async with agent.connect(AT, expect=self.agent.peer_id) as link:
            yield RegistryClient(link, self.key)

    def join(self, agent: Agent) -> Agent:
        self.network.join(agent)
        return agent


def now() -> int:
    return microseconds(datetime.now(UTC))


@asynccontextmanager
async def serving(
    folder: Path, policy: Any = None, key: Any = None, clock: Callable[[], int] = now
) -> AsyncIterator[Served]:
    if not (folder / "log.db").exists():
        SqliteStore.create(folder, ORIGIN)
    with SqliteStore(folder) as store:
        registrar = Registrar(store, key or Ed25519PrivateKey.from_private_bytes(bytes(range(32))), clock)
        policy = policy or Open(Rate(anyio.current_time))
        service = RegistryService(store, registrar, policy)
        agent = Agent(Credential.self_issued("registry"), trust=SelfCertified(), handlers=service.handlers)
        network = Network()
        network.join(agent)
        async with service.running(agent), network.listening(agent, AT):
            yield Served(network, store, registrar, policy, agent)


def entry(op: Op, auto_id: AutoId, previous: bytes, **fields: Any) -> Entry:
    return Entry(ORIGIN, op, auto_id, previous, now() + 60_000_000, **fields)


def registration(credential: Credential, issuer: Credential | None = None) -> Entry:
    following = credential.next_key or new_key()
    made = entry(
        Op.REGISTER, credential.auto_id, FIRST, issuer=issuer.auto_id if issuer else None,
        certificate=credential.leaf.der, next_key=keys.hash_of_key(following.public_key()), guardians=Guardians(),
    ).signed(credential.auto_id, credential.private_key)  # fmt: skip
    return made.signed(issuer.auto_id, issuer.private_key) if issuer else made


def issue(issuer: Credential, name: str) -> Credential:
    request = CredentialRequest.new(name)
    return request.complete(issuer.issue(request, kind=EntityKind.AGENT))


@dataclass
class Cast:
    """acme and two agents of its, all on record, believing whom the registry says is active."""

    acme: Credential
    echo: Agent
    caller: Agent
    models: tuple[Registered, Registered]


async def cast(served: Served) -> Cast:
    acme = Credential.self_issued("acme")
    agents, models = [], (Registered(served.key), Registered(served.key))
    async with served.client(served.join(Agent(acme, trust=SelfCertified()))) as client:
        await client.submit(registration(acme))
        for name, model in zip(("echo", "caller"), models, strict=True):
            credential = issue(acme, name)
            await client.submit(registration(credential, acme))
            agents.append(served.join(Agent(credential, trust=SelfCertified() & model)))
    await staple(served, *agents)
    return Cast(acme, *agents, models)


async def staple(served: Served, *agents: Agent) -> None:
    """Have agents fetch and show their newest status."""
    for agent in agents:
        status = served.registrar.status(agent.auto_id)
        assert status is not None
        agent.replace_evidence(status.to_bytes())


async def test_an_entry_is_submitted_receipted_and_proved(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        acme = Credential.self_issued("acme")
        async with served.client(served.join(Agent(acme, trust=SelfCertified()))) as client:
            logged = await client.submit(registration(acme))
            assert (logged.index, logged.proof.index) == (0, 0)
            assert logged.proof.verify(leaf_hash(logged.leaf), served.key).size == 1
            verified = await client.status(acme.auto_id)
            assert verified.status.entries == 1
            assert await client.history(acme.auto_id) == [0]
            assert await client.entries([0]) == [logged.leaf]
            with pytest.raises(EntryRefused) as refusal:
                await client.submit(registration(acme))
            assert refusal.value.fault is Fault.TAKEN
            with pytest.raises(CallError, match="not_found"):
                await client.status(AutoId(bytes(32)))


async def test_many_entries_are_under_way_on_one_channel(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        acme = Credential.self_issued("acme")
        async with served.client(served.join(Agent(acme, trust=SelfCertified()))) as client:
            await client.submit(registration(acme))
            agents = [issue(acme, f"agent-{number}") for number in range(100)]
            done: list[int] = []

            async def register(credential: Credential) -> None:
                done.append((await submitter.submit(registration(credential, acme))).index)

            async with client.submitting() as submitter, anyio.create_task_group() as tasks:
                for credential in agents:
                    tasks.start_soon(register, credential)
            assert sorted(done) == list(range(1, 101))
            seen = await client.catch_up()
            assert seen.size == 101
            assert await client.catch_up() == seen


async def test_links_open_on_stapled_statuses_without_asking_the_registry(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        async with serving(tmp_path) as served:
            players = await cast(served)
        network = Network()  # the registry is gone
        network.join(players.echo)
        network.join(players.caller)
        await stack.enter_async_context(network.listening(players.echo, "echo:1"))
        async with players.caller.connect("echo:1", expect=players.echo.peer_id) as link:
            assert "Registered: active in" in str(link.peer.grounds)
            assert link.peer.valid_until < datetime.now(UTC) + timedelta(hours=2)


async def test_who_shows_no_status_or_anothers_is_refused(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        players = await cast(served)
        async with served.network.listening(players.echo, "echo:1"):
            shown = players.caller.evidence
            for evidence in ((), players.echo.evidence, (shown[0][:-1],)):
                players.caller.replace_evidence(*evidence)
                with pytest.raises(Refused) as refusal:
                    async with players.caller.connect("echo:1", expect=players.echo.peer_id):
                        pass
                assert refusal.value.by == "peer"
            players.caller.replace_evidence(*shown)
            async with players.caller.connect("echo:1", expect=players.echo.peer_id):
                pass


@pytest.mark.parametrize("whom", ["echo", "acme"])
async def test_a_revocation_ends_live_links_at_both_ends_and_no_new_one_opens(
    tmp_path: Path, whom: str
) -> None:
    async with serving(tmp_path) as served:
        players = await cast(served)
        revoked = players.acme if whom == "acme" else players.echo.credential
        served.policy = None
        async with (
            served.network.listening(players.echo, "echo:1"),
            served.client(served.join(Agent(players.acme, trust=SelfCertified()))) as client,
            anyio.create_task_group() as tasks,
        ):
            for agent, model in zip((players.echo, players.caller), players.models, strict=True):
                tasks.start_soon(_follow, served, agent, model)
            await _until(lambda: served.agent.topics["registry.changes"].statistics().subscribers == 2)
            async with players.caller.connect("echo:1", expect=players.echo.peer_id) as link:
                await _until(lambda: players.echo.links)
                (far,) = players.echo.links
                place = await client.place(revoked.auto_id)
                await client.submit(
                    entry(Op.REVOKE, revoked.auto_id, place.head).signed(
                        players.acme.auto_id, players.acme.private_key
                    )
                )
                with anyio.fail_after(5):
                    await link.closed()
                    await far.closed()
                assert Reason.REVOKED in players.caller.statistics().refused
            with pytest.raises(Refused):
                async with players.caller.connect("echo:1", expect=players.echo.peer_id):
                    pass
            tasks.cancel_scope.cancel()


async def _follow(served: Served, agent: Agent, model: Registered) -> None:
    reader = served.join(Agent(agent.credential, trust=Pinned(served.agent.peer_id)))
    async with served.client(reader) as client:
        await client.follow(model.heed)


async def _until(condition: Any) -> None:
    with anyio.fail_after(5):
        while not condition():
            await anyio.lowlevel.checkpoint()


async def test_rule_41_only_those_who_were_invited_register_themselves(tmp_path: Path) -> None:
    policy = Invited(Rate(anyio.current_time))
    async with serving(tmp_path, policy) as served:
        acme = Credential.self_issued("acme")
        async with served.client(served.join(Agent(acme, trust=SelfCertified()))) as client:
            with pytest.raises(EntryRefused) as refusal:
                await client.submit(registration(acme))
            assert refusal.value.fault is Fault.NOT_INVITED
            policy.invite(acme.auto_id)
            await client.submit(registration(acme))
            await client.submit(registration(issue(acme, "echo"), acme))  # below its own name


async def test_ten_thousand_registrations_from_one_caller_are_too_many(tmp_path: Path) -> None:
    async with serving(tmp_path, Open(Rate(lambda: 0.0, burst=3))) as served:
        acme = Credential.self_issued("acme")
        async with served.client(served.join(Agent(acme, trust=SelfCertified()))) as client:
            await client.submit(registration(acme))
            faults = []
            for number in range(20):
                try:
                    await client.submit(registration(issue(acme, f"agent-{number}"), acme))
                except EntryRefused as refusal:
                    faults.append(refusal.fault)
            assert faults == [Fault.TOO_MANY] * 18
            assert served.store.head.size == 3


async def test_rule_39_a_submitter_whose_link_dies_keeps_the_promise(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        acme, going_on = Credential.self_issued("acme"), threading.Event()
        append = served.registrar.append

        def late(entries: Any) -> Any:
            going_on.wait(5)
            return append(entries)

        served.registrar.append = late  # type: ignore[method-assign]
        made = registration(acme)
        async with served.client(served.join(Agent(acme, trust=SelfCertified()))) as client:
            async with client.submitting() as submitter, anyio.create_task_group() as tasks:
                tasks.start_soon(_cut_when_promised, served, submitter)
                with pytest.raises(Withheld) as error:
                    await submitter.submit(made)
            going_on.set()
            verify_receipt(error.value.receipt, served.key, made)
            await _until(lambda: served.store.head.size == 1)  # the promise is kept all the same


async def test_rule_39_nothing_is_promised_that_does_not_wait_already(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where there is no room for an entry its submitter waits without a receipt; who leaves then was promised nothing."""
    monkeypatch.setattr("autolink.limits.SUBMISSIONS_ALL", 1)
    async with serving(tmp_path) as served:
        going_on = threading.Event()
        append = served.registrar.append
        monkeypatch.setattr(served.registrar, "append", lambda entries: going_on.wait(5) and append(entries))
        first, second = Credential.self_issued("first"), Credential.self_issued("second")
        async with served.client(served.join(Agent(first, trust=SelfCertified()))) as client:
            async with client.submitting() as submitter, anyio.create_task_group() as tasks:
                tasks.start_soon(submitter.submit, registration(first))
                await _until(lambda: any(waiting.receipt for waiting in submitter._waiting.values()))
                heard = served.agent.statistics().messages_verified
                tasks.start_soon(submitter.submit, registration(second))
                await _until(lambda: served.agent.statistics().messages_verified > heard)
                for _ in range(50):
                    await anyio.lowlevel.checkpoint()
                assert [bool(waiting.receipt) for waiting in submitter._waiting.values()] == [True, False]
                going_on.set()
            assert served.store.head.size == 2


async def _cut_when_promised(served: Served, submitter: Submitter) -> None:
    await _until(lambda: any(waiting.receipt for waiting in submitter._waiting.values()))
    served.network.cut()


async def test_what_was_promised_is_appended_before_a_registry_ends(tmp_path: Path) -> None:
    """Told to stop while one entry is written and more wait: none is lost, though nobody is there to be told."""
    async with AsyncExitStack() as stack:
        served = await stack.enter_async_context(serving(tmp_path))
        going_on, append = threading.Event(), served.registrar.append

        def late(entries: Any) -> Any:
            going_on.wait(5)
            return append(entries)

        served.registrar.append = late  # type: ignore[method-assign]
        made = [registration(Credential.self_issued(f"org-{number}")) for number in range(3)]
        promised: list[Withheld] = []

        async def submit(submitter: Submitter, one: Entry) -> None:
            try:
                await submitter.submit(one)
            except Withheld as error:
                promised.append(error)

        caller = served.join(Agent(Credential.self_issued("caller"), trust=SelfCertified()))
        async with served.client(caller) as client, client.submitting() as submitter:
            async with anyio.create_task_group() as tasks:
                for number, one in enumerate(made):
                    tasks.start_soon(submit, submitter, one)
                    await _until(lambda wanted=number: _promises(submitter) > wanted)
                served.network.cut()
        assert len(promised) == 3
        going_on.set()
    with SqliteStore(tmp_path) as store:
        assert store.head.size == 3
        assert all(store.record(one.auto_id) for one in made)


def _promises(submitter: Submitter) -> int:
    return sum(bool(waiting.receipt) for waiting in submitter._waiting.values())


async def test_the_place_of_a_recovered_id_is_behind_its_recovery(tmp_path: Path) -> None:
    """Nobody wrote that it took place, so the record that is kept is still the one from before."""
    later = 0
    async with serving(tmp_path, clock=lambda: now() + later) as served:
        acme = Credential.self_issued("acme")
        echo, other = issue(acme, "echo"), issue(acme, "echo")
        async with served.client(served.join(Agent(acme, trust=SelfCertified()))) as client:
            await client.submit(registration(acme))
            await client.submit(registration(echo, acme))
            place = await client.place(echo.auto_id)
            following = keys.hash_of_key(new_key().public_key())
            recovery = entry(
                Op.RECOVER, echo.auto_id, place.head, certificate=other.leaf.der, next_key=following
            ).signed(echo.auto_id, other.private_key).signed(acme.auto_id, acme.private_key)  # fmt: skip
            await client.submit(recovery)
            begun = await client.place(echo.auto_id)
            assert begun.certificate == echo.leaf.der
            assert begun.recovered_at is not None
            later = begun.recovered_at - now() + 1
            there = await client.place(echo.auto_id)
            assert (there.certificate, there.recovered_at) == (other.leaf.der, None)
            assert there.head == there.authority == recovery.hash
            verified = await client.status(echo.auto_id)
            assert hashlib.sha256(there.certificate).digest() == verified.status.certificate


async def test_numbers_that_no_log_has_are_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with serving(tmp_path) as served:
        acme = Credential.self_issued("acme")
        async with served.client(served.join(Agent(acme, trust=SelfCertified()))) as client:
            await client.submit(registration(acme))
            for number in (-(2**63), -1, 2**63, 2**64 - 1):
                asked = {
                    "history": [acme.auto_id.value, number], "changes_since": number, "entries": [number],
                    "proof": number, "consistency": number,
                }  # fmt: skip
                for method, body in asked.items():
                    with pytest.raises(CallError) as refusal:
                        await client._link.call(f"registry.{method}", body)
                    assert refusal.value.code in (Code.INVALID_ARGUMENT, Code.OUT_OF_RANGE)
            assert await client.history(acme.auto_id, 2**63 - 1) == []
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


async def test_an_entry_that_we_fail_at_keeps_no_other_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Or whoever has found such a fault of ours could end the registry, as often as he likes."""
    async with serving(tmp_path) as served:
        poison, good = (registration(Credential.self_issued(name)) for name in ("poison", "good"))
        apply = registrar_module.apply

        def failing(ledger: Any, one: Entry, **how: Any) -> Any:
            if one.hash == poison.hash:
                raise AssertionError("a fault of ours")
            return apply(ledger, one, **how)

        monkeypatch.setattr(registrar_module, "apply", failing)
        assert [type(one) for one in served.registrar.append([poison.to_bytes(), good.to_bytes()])] == [
            EntryRefused,
            Appended,
        ]
        visitor = served.join(Agent(Credential.self_issued("visitor"), trust=SelfCertified()))
        async with served.client(visitor) as client:
            with pytest.raises(EntryRefused, match="failed at this entry") as refusal:
                await client.submit(poison)
            assert refusal.value.fault is Fault.UNAVAILABLE
            await client.submit(registration(Credential.self_issued("another")))
    assert "an entry could not be judged" in caplog.text


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
            await _until(lambda: topic.statistics().subscribers == 1)
            await client.submit(registration(acme))
            places = [await _register_and_revoke(client, acme, f"agent-{number}") for number in range(3)]
            await _until(lambda: heard == places)
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
            key=Ed25519PrivateKey.from_private_bytes(bytes(range(32))),
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
        key = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))

        async def refused(*evidence: bytes) -> Reason | None:
            players.caller.replace_evidence(*evidence)
            try:
                async with players.caller.connect("echo:1", expect=players.echo.peer_id):
                    return None
            except Refused as refusal:
                return refusal.reason

        async with served.network.listening(players.echo, "echo:1"):
            assert await refused(*shown) is None
            assert await refused() is Reason.UNTRUSTED
            players.echo.replace_trust(Registered(served.key) | SelfCertified())
            assert await refused() is None  # unknown here, and the other model vouches
            for whom, op, state, reason in (
                (players.acme, Op.ROTATE, State.ACTIVE, None), (players.acme, Op.REVOKE, State.REVOKED, Reason.REVOKED),
                (players.caller.credential, Op.ROTATE, State.ACTIVE, Reason.UNTRUSTED),
                (players.caller.credential, Op.DEACTIVATE, State.DEACTIVATED, Reason.REVOKED),
            ):  # fmt: skip
                fresh = Registered(served.key)
                fresh.heed(sign_change(entry(op, whom.auto_id, bytes(32)), state, index=9, at=now(), key=key))
                players.echo.replace_trust(fresh | SelfCertified())
                assert await refused() is reason


async def test_what_a_feed_makes_us_remember_is_bounded_and_what_is_forgotten_still_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody may revoke IDs of his own by the thousand, to have a revocation forgotten."""
    monkeypatch.setattr("autolink.limits.CHANGES_TOLD", 3)
    key = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
    async with serving(tmp_path) as served:
        players = await cast(served)
        model, size = players.models[0], served.store.head.size

        def tell(auto_id: AutoId, index: int, at: int) -> None:
            told = entry(Op.REVOKE, auto_id, bytes(32))
            model.heed(sign_change(told, State.REVOKED, index=index, at=at, key=key))

        async def reason() -> Reason | None:
            try:
                async with players.caller.connect("echo:1", expect=players.echo.peer_id):
                    return None
            except Refused as refusal:
                return refusal.reason

        async with served.network.listening(players.echo, "echo:1"):
            long_ago = now() - int(limits.STATUS_AGE * 1_000_000) - 1
            tell(players.caller.auto_id, size, long_ago)
            tell(AutoId(bytes(32)), size, now())
            assert len(model._told) == 1  # nobody believes a status from before that anyway
            assert await reason() is None
            tell(players.caller.auto_id, size, now())
            assert await reason() is Reason.REVOKED
            for number in range(1, 10):
                tell(AutoId(bytes([number]) * 32), size + number, now())
            assert len(model._told) == 3
            assert await reason() is Reason.EXPIRED


async def test_a_log_that_cannot_be_read_is_told_without_internals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Every handler that reads; an entry that is kept and cannot be proved now leaves its submitter the promise."""
    secret = "/srv/secret/path: disk I/O error"

    def broken(*_: object) -> Any:
        raise StoreFailed(secret)

    async with serving(tmp_path) as served:
        acme = Credential.self_issued("acme")
        async with served.client(served.join(Agent(acme, trust=SelfCertified()))) as client:
            await client.submit(registration(acme))
            for method in ("status", "proof", "consistency"):
                monkeypatch.setattr(served.registrar, method, broken)
            for method in ("record", "read_leaves", "history", "changes"):
                monkeypatch.setattr(served.store, method, broken)
            asked = {
                "status": acme.auto_id.value, "record": acme.auto_id.value, "entries": [0], "proof": 0,
                "history": [acme.auto_id.value, 0], "changes_since": 0, "consistency": 0,
            }  # fmt: skip
            for method, body in asked.items():
                with pytest.raises(CallError, match="^unavailable: the log cannot be read now") as refusal:
                    await client._link.call(f"registry.{method}", body)
                assert secret not in str(refusal.value)
                assert f"cannot be read for {method}: {secret}" in caplog.text
            monkeypatch.undo()
            monkeypatch.setattr(served.registrar, "proof", broken)
            with pytest.raises(Withheld) as withheld:
                await client.submit(made := registration(echo := issue(acme, "echo"), acme))
            verify_receipt(withheld.value.receipt, served.key, made)
            assert isinstance(withheld.value.__cause__, CallError)
            monkeypatch.undo()
            assert (await client.status(echo.auto_id)).status.proof.index == 1
