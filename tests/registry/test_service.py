"""A registry that is served, and agents that believe what it says. On the real clock: SQLite works in threads."""

import hashlib
import logging
import threading
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio import to_thread

from autolink import Agent, Credential
from autolink.errors import CallError, Code, EntryRefused, Fault, Refused
from autolink.identity import AutoId, keys
from autolink.messages.merkle import leaf_hash
from autolink.messages.message import TIME_MAX
from autolink.registry import feed, word
from autolink.registry import registrar as registrar_module
from autolink.registry.database import StoreFailed
from autolink.registry.entries import Entry, Op
from autolink.registry.evidence import LogConvicted
from autolink.registry.feed import Change
from autolink.registry.log.checkpoint import Checkpoint
from autolink.registry.policy import Invited, Rate
from autolink.registry.receipt import verify_untrusted as verify_receipt
from autolink.registry.registrar import Appended
from autolink.registry.store import SqliteStore
from autolink.registry.submitter import Submitter, Withheld
from autolink.testing import Network
from autolink.trust import SelfCertified

from .conftest import new_key
from .serving import (
    ORIGIN,
    Served,
    cast,
    entry,
    issue,
    now,
    registration,
    serving,
    until,
)


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


async def test_who_runs_it_is_told_what_becomes_of_every_entry(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Which, of whom, by whom; why not."""
    caplog.set_level(logging.INFO, "autolink.registry")
    acme, mallory = Credential.self_issued("acme"), Credential.self_issued("mallory")
    async with serving(tmp_path, Invited(Rate(anyio.current_time), [acme.auto_id])) as served:
        async with served.client(served.join(Agent(acme, trust=SelfCertified()))) as client:
            await client.submit(registration(acme))
            with pytest.raises(EntryRefused):
                await client.submit(registration(acme))
            head = (await client.place(acme.auto_id)).head
            await client.submit(entry(Op.REVOKE, acme.auto_id, head).signed(acme.auto_id, acme.private_key))
        async with served.client(served.join(Agent(mallory, trust=SelfCertified()))) as client:
            with pytest.raises(EntryRefused):
                await client.submit(registration(mallory))
    told = [record.getMessage() for record in caplog.records if record.name == "autolink.registry"]
    by = f"submitted by {acme.name} ({acme.auto_id.hex[:12]}…)"
    assert told[0] == f"entry 0: register of {acme.auto_id} (active now), {by}"
    assert told[1].startswith(f"refused the register of {acme.auto_id}, {by}: ")
    assert told[1].endswith(" (taken)")
    assert told[2] == f"entry 1: revoke of {acme.auto_id} (revoked now), {by}"
    assert told[3].startswith(f"refused the register of {mallory.auto_id}, submitted by ")
    assert told[3].endswith(" (not_invited)")
    assert all(line.isprintable() for line in told)
    assert len(told) == 4


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


async def test_rule_42_a_change_is_signed_once_however_many_hear_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    signed: list[bytes] = []
    sign = word.sign

    def counted(key: Any, purpose: bytes, body: bytes) -> bytes:
        signed.append(purpose)
        return sign(key, purpose, body)

    monkeypatch.setattr(word, "sign", counted)
    heard: list[Change] = []
    async with serving(tmp_path) as served:
        acme = Credential.self_issued("acme")
        async with served.client(served.join(Agent(acme, trust=SelfCertified()))) as client:
            await client.submit(registration(acme))
            async with anyio.create_task_group() as tasks:
                for number in range(5):
                    reader = Agent(Credential.self_issued(f"reader-{number}"), trust=SelfCertified())
                    tasks.start_soon(_hear, served, reader, heard)
                await until(lambda: served.agent.topics["registry.changes"].statistics().subscribers == 5)
                signed.clear()
                head = (await client.place(acme.auto_id)).head
                revoked = entry(Op.REVOKE, acme.auto_id, head)
                await client.submit(revoked.signed(acme.auto_id, acme.private_key))
                await until(lambda: len(heard) == 5)
                tasks.cancel_scope.cancel()
    assert signed.count(feed.PURPOSE) == 1
    assert len(set(heard)) == 1


async def _hear(served: Served, reader: Agent, heard: list[Change]) -> None:
    async with served.client(served.join(reader)) as client:
        await client.follow(heard.append)


async def test_a_registry_that_signs_another_past_in_its_statuses_is_convicted(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        acme = Credential.self_issued("acme")
        async with served.client(served.join(Agent(acme, trust=SelfCertified()))) as client:
            await client.submit(registration(acme))
            note = served.store.head.checkpoint
            client.seen = Checkpoint(ORIGIN, 1, bytes(32), note=b"another")
            with pytest.raises(LogConvicted) as convicted:
                await client.status(acme.auto_id)
            assert convicted.value.evidence == b"another\n" + note


async def test_rule_39_a_submitter_whose_link_dies_keeps_the_promise(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        acme, going_on = Credential.self_issued("acme"), threading.Event()
        append = served.registrar.append

        def late(entries: Any, **more: Any) -> Any:
            going_on.wait(5)
            return append(entries, **more)

        served.registrar.append = late  # type: ignore[method-assign]
        made = registration(acme)
        async with served.client(served.join(Agent(acme, trust=SelfCertified()))) as client:
            async with client.submitting() as submitter, anyio.create_task_group() as tasks:
                tasks.start_soon(_cut_when_promised, served, submitter)
                with pytest.raises(Withheld) as error:
                    await submitter.submit(made)
            going_on.set()
            verify_receipt(error.value.receipt, served.key, made)
            await until(lambda: served.store.head.size == 1)  # the promise is kept all the same


async def test_rule_39_nothing_is_promised_that_does_not_wait_already(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where there is no room for an entry its submitter waits without a receipt; who leaves then was promised nothing."""
    monkeypatch.setattr("autolink.limits.SUBMISSIONS_ALL", 1)
    async with serving(tmp_path) as served:
        going_on = threading.Event()
        append = served.registrar.append
        monkeypatch.setattr(
            served.registrar, "append", lambda entries, **more: going_on.wait(5) and append(entries, **more)
        )
        first, second = Credential.self_issued("first"), Credential.self_issued("second")
        async with served.client(served.join(Agent(first, trust=SelfCertified()))) as client:
            async with client.submitting() as submitter, anyio.create_task_group() as tasks:
                tasks.start_soon(submitter.submit, registration(first))
                await until(lambda: any(waiting.receipt for waiting in submitter._waiting.values()))
                heard = served.agent.statistics().messages_verified
                tasks.start_soon(submitter.submit, registration(second))
                await until(lambda: served.agent.statistics().messages_verified > heard)
                for _ in range(50):
                    await anyio.lowlevel.checkpoint()
                assert [bool(waiting.receipt) for waiting in submitter._waiting.values()] == [True, False]
                going_on.set()
            assert served.store.head.size == 2


async def _cut_when_promised(served: Served, submitter: Submitter) -> None:
    await until(lambda: any(waiting.receipt for waiting in submitter._waiting.values()))
    served.network.cut()


@pytest.mark.parametrize("cancelled", [False, True])
async def test_what_was_promised_is_appended_before_a_registry_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, cancelled: bool
) -> None:
    """Told to stop, or cancelled, while one entry is written and more wait, changes among them: none is lost, though nobody
    is there to be told."""
    monkeypatch.setattr("autolink.registry.service.GROUP", 1)
    owners, going_on = [Credential.self_issued(name) for name in ("acme", "globex")], threading.Event()
    with anyio.CancelScope() as scope:
        async with AsyncExitStack() as stack:
            served = await stack.enter_async_context(serving(tmp_path))
            caller = served.join(Agent(owners[0], trust=SelfCertified()))
            async with served.client(caller) as client:
                made = [registration(Credential.self_issued("first"))]
                for owner in owners:
                    await client.submit(first := registration(owner))
                    revocation = entry(Op.REVOKE, owner.auto_id, first.hash)
                    made.append(revocation.signed(owner.auto_id, owner.private_key))
                made.append(registration(Credential.self_issued("last")))
                append = served.registrar.append

                def late(entries: Any, **more: Any) -> Any:
                    going_on.wait(5)
                    return append(entries, **more)

                served.registrar.append = late  # type: ignore[method-assign]
                promised: list[Withheld] = []

                async def submit(submitter: Submitter, one: Entry) -> None:
                    try:
                        await submitter.submit(one)
                    except Withheld as error:
                        promised.append(error)

                async with client.submitting() as submitter, anyio.create_task_group() as tasks:
                    for number, one in enumerate(made):
                        tasks.start_soon(submit, submitter, one)
                        await until(lambda wanted=number: _promises(submitter) > wanted)
                    served.network.cut()
            assert len(promised) == len(made)
            going_on.set()
            if cancelled:
                scope.cancel()
    with SqliteStore(tmp_path) as store:
        assert store.head.size == len(owners) + len(made)
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
                    "proof": number, "consistency": [number, None],
                }  # fmt: skip
                for method, body in asked.items():
                    with pytest.raises(CallError) as refusal:
                        await client._link.call(f"registry.{method}", body)
                    assert refusal.value.code in (Code.INVALID_ARGUMENT, Code.OUT_OF_RANGE)
            assert await client.history(acme.auto_id, TIME_MAX) == []
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


async def test_an_entry_that_we_fail_at_keeps_no_other_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Or whoever has found such a fault of ours could end the registry, as often as he likes."""
    async with serving(tmp_path) as served:
        poison, good = (registration(Credential.self_issued(name)) for name in ("poison", "good"))
        apply, failure = registrar_module.apply, Exception("a fault of ours")

        def failing(ledger: Any, one: Entry, **how: Any) -> Any:
            if one.hash == poison.hash:
                raise failure
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
        failure = StoreFailed("the disk")  # that is nobody's entry's doing
        with pytest.raises(StoreFailed):
            served.registrar.append([poison.to_bytes()])
    assert "an entry could not be judged" in caplog.text


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
                "history": [acme.auto_id.value, 0], "changes_since": 0, "consistency": [0, None],
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


async def test_who_was_told_of_an_entry_is_not_told_of_a_shorter_log_while_it_is_being_appended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It can be read once it is committed, which is before the thread that appends goes on."""
    committed, go_on = threading.Event(), threading.Event()
    async with serving(tmp_path) as served:
        acme = Credential.self_issued("acme")
        agent = served.join(Agent(acme, trust=SelfCertified()))
        async with served.client(agent) as writing, served.client(agent) as reading:
            await writing.submit(registration(acme))
            await reading.catch_up()

            def pause(size: int) -> None:
                committed.set()
                assert go_on.wait(30)

            monkeypatch.setattr(served.store._extent, "write", pause)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(writing.submit, registration(issue(acme, "echo"), acme))
                assert await to_thread.run_sync(committed.wait, 30)
                try:
                    status = await reading.status(acme.auto_id)
                    assert status.checkpoint.size == 2
                    assert (await reading.catch_up()).size == 2
                    assert await reading.proved(1)
                finally:
                    go_on.set()
            assert served.store.head.size == 2
