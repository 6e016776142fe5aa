"""What a registry promises by a receipt, and what becomes of it. On the real clock: SQLite works in threads."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest

from autolink import Agent, Credential, codec, limits
from autolink.agent.channel import Channel
from autolink.errors import BadSignature, CallError, EntryRefused, Fault, LinkLost, RemoteProtocolError
from autolink.messages import instant
from autolink.registry import receipt as receipts
from autolink.registry.answers import Answer
from autolink.registry.entries import Entry
from autolink.registry.evidence import Unproved, evident_in
from autolink.registry.log.checkpoint import Checkpoint
from autolink.registry.log.checkpoint import verify_untrusted as verify_checkpoint
from autolink.registry.receipt import Receipt, sign_receipt
from autolink.registry.receipt import verify_untrusted as verify_receipt
from autolink.registry.records import SECOND
from autolink.registry.registrar import Appended
from autolink.registry.registration import registered
from autolink.registry.store import StoreFailed
from autolink.registry.submitter import Withheld, promise_in
from autolink.trust import SelfCertified

from .serving import KEY, ORIGIN, Served, now, registration, serving, until
from .test_monitor import client as visitor
from .test_registered import contact, register

pytestmark = pytest.mark.usefixtures("soon")

HOUR = 3600 * SECOND


async def test_a_promised_entry_that_is_refused_or_not_proved_leaves_the_promise(tmp_path: Path) -> None:
    """Such as a rotation, while a recovery of the operator's runs out."""
    async with serving(tmp_path) as served:
        acme = Credential.self_issued("acme")
        async with visitor(served) as client:
            await client.submit(registration(Credential.self_issued("first")))
            made, append, proof = registration(acme), served.registrar.append, served.registrar.proof

            def refusing(entries: Any, **more: Any) -> Any:
                raise StoreFailed("so it says")

            served.registrar.append = refusing  # type: ignore[method-assign]
            with pytest.raises(EntryRefused) as refusal:
                await client.submit(made)
            assert refusal.value.fault is Fault.UNAVAILABLE
            verify_receipt(refusal.value.receipt, served.key, made)
            served.registrar.append = append  # type: ignore[method-assign]
            served.registrar.proof = lambda place: proof(0)  # type: ignore[method-assign]
            with pytest.raises(Withheld, match="does not prove that it has") as withheld:
                await client.submit(made)
            verify_receipt(withheld.value.receipt, served.key, made)


@pytest.mark.parametrize("lie", [{"logged_at": 1}, {"index": 1}])
async def test_an_answer_about_another_leaf_than_the_proof_does_not_count_as_logged(
    tmp_path: Path, lie: dict[str, int]
) -> None:
    """The proof is right, and of the entry: the registry says that it was logged at another time, or elsewhere."""
    async with serving(tmp_path) as served:
        append, proof = served.registrar.append, served.registrar.proof

        def appended(entries: Any, **more: Any) -> Any:
            (outcome,) = append(entries, **more)
            assert isinstance(outcome, Appended)
            return [replace(outcome, **{name: getattr(outcome, name) + more for name, more in lie.items()})]

        served.registrar.append = appended  # type: ignore[method-assign]
        served.registrar.proof = lambda place: proof(0)  # type: ignore[method-assign]
        async with visitor(served) as client:
            with pytest.raises(Withheld, match="does not prove that it has"):
                await client.submit(registration(Credential.self_issued("acme")))


async def test_rule_39_who_leaves_before_the_receipt_is_out_has_the_promise_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have come through all the same."""
    send = Channel.send

    async def gone(self: Channel[Any, Any], item: Any) -> None:
        if isinstance(item, Answer) and item.receipt:
            raise LinkLost("the submitter is gone")
        await send(self, item)

    monkeypatch.setattr(Channel, "send", gone)
    async with serving(tmp_path) as served:
        made = registration(Credential.self_issued("acme"))
        async with visitor(served) as client:
            with pytest.raises((CallError, LinkLost, RemoteProtocolError)):
                await client.submit(made)
        await until(lambda: served.store.head.size == 1)
        assert served.store.record(made.auto_id) is not None


@pytest.mark.parametrize("how", ["proves", "refuses", "silent"])
async def test_what_an_agent_was_promised_and_not_shown_is_kept_with_the_entry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """Whether the registry proves it wrongly, refuses it after all, or says nothing more until the promise is due. And
    promises take no room from what shows a lie."""
    monkeypatch.setattr("autolink.limits.EVIDENCE_PIECES", 1)
    evidence, taken = tmp_path / "evidence", list[bytes]()
    async with serving(tmp_path) as served:
        _, (echo,) = await register(served, "echo")
        agent = served.join(Agent(echo, trust=SelfCertified()))
        append, proof = served.registrar.append, served.registrar.proof

        def appended(entries: Any, **more: Any) -> Any:
            taken.extend(entries)
            if how == "refuses":
                raise StoreFailed("so it says")
            return append(entries, **more)

        async def silent(channel: Channel[Answer, tuple[int, bytes]]) -> None:
            async for number, data in channel:
                taken.append(data)
                receipt = served.registrar.receipt(Entry.from_untrusted(data).hash)
                await channel.send(Answer(number=number, receipt=receipt.to_bytes()))

        served.registrar.append = appended  # type: ignore[method-assign]
        if how == "proves":
            served.registrar.proof = lambda place: proof(0)  # type: ignore[method-assign]
        if how == "silent":
            monkeypatch.setattr("autolink.registry.submitter._PATIENCE", 0.0)
            del served.agent.handlers.channels["registry.submit"]
            served.agent.handlers.channel("registry.submit")(silent)
        async with registered(
            agent, contact(served), served.key, addresses=["9.9.9.9:1"], evidence=evidence
        ) as standing:
            await until(lambda: [*evidence.glob("*.evidence")])
            assert isinstance(standing.error, EntryRefused if how == "refuses" else Withheld)
            (kept,) = evidence.glob("promise-*.evidence")
            receipt, entry = codec.decode_untrusted(kept.read_bytes(), what="promise", nodes=3)
            assert entry == taken[0]
            verify_receipt(receipt, served.key, Entry.from_untrusted(entry))
            another = Checkpoint(ORIGIN, served.store.head.size, bytes(32)).signed(KEY)
            standing._seen = verify_checkpoint(another, served.key)
            served.network.cut()
            await until(lambda: [*evidence.glob("log-*.evidence")])
    assert len([*evidence.glob("*.evidence")]) == 2


async def test_a_receipt_that_promises_nothing_is_not_taken(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        time = now()
        for changes, says in (
            ({"received_at": time + 14 * 24 * HOUR, "deadline": time + 14 * 24 * HOUR}, "promises nothing"),
            ({"deadline": time + 60 * SECOND + 1}, "not within 60 s"),
            ({"deadline": time - 1}, "not within 60 s"),
            ({"entry": bytes(32)}, "another entry"),
        ):
            made = registration(Credential.self_issued("acme"))  # another key each time: it is taken
            good = sign_receipt(made.hash, origin=ORIGIN, now=time, key=KEY)
            assert verify_receipt(good.to_bytes(), served.key, made) == good
            promising(served, _signed(replace(good, **changes)))
            async with visitor(served) as client:
                with pytest.raises(BadSignature, match=says):
                    await client.submit(made)


def promising(served: Served, *receipts: Receipt) -> None:
    """What the registry says when it receives an entry, from now on; it judges by the clock all the same."""
    said, append = iter(receipts), served.registrar.append
    served.registrar.receipt = lambda _: next(said)  # type: ignore[method-assign]
    served.registrar.append = lambda entries, **_: append(entries)  # type: ignore[method-assign]


@pytest.mark.parametrize(
    ("ahead", "says"), [(-61, "too long ago"), (-60, None), (0, None), (60, None), (61, "to come")]
)
async def test_rule_39_a_receipt_is_of_the_moment_at_which_it_comes(
    tmp_path: Path, ahead: int, says: str | None
) -> None:
    """As far as clocks agree. An operator would date it for when the rules do refuse what it withholds: after the recovery
    that a rotation is to end, or before the entry that it follows."""
    time = now() - 10 * SECOND  # so that no entry has expired in a minute
    async with serving(tmp_path, clock=lambda: time) as served:
        made = registration(Credential.self_issued("acme"))
        promising(served, sign_receipt(made.hash, origin=ORIGIN, now=time + ahead * SECOND, key=KEY))
        agent = Agent(Credential.self_issued("visitor"), trust=SelfCertified(), clock=lambda: instant(time))
        async with served.client(served.join(agent)) as client:
            if says is None:
                assert (await client.submit(made)).index == 0
                return
            with pytest.raises(Unproved, match=says) as unproved:
                await client.submit(made)
            receipt, of_what = codec.decode_untrusted(unproved.value.evidence, what="receipt", nodes=3)
            assert of_what == made.to_bytes()
            verify_receipt(receipt, served.key, made)


async def test_rule_39_a_receipt_binds_for_as_long_as_an_entry_may_take(tmp_path: Path) -> None:
    """What is due at once would be broken by every honest log; and by log time, as the entry's own will be."""
    time = now()
    async with serving(tmp_path, clock=lambda: time) as served:
        async with visitor(served) as client:
            await client.submit(registration(Credential.self_issued("acme")))
        first, time = time, time - HOUR  # set back
        receipt = served.registrar.receipt(bytes(32))
        assert (receipt.received_at, receipt.deadline) == (first, first + int(limits.INCLUSION * SECOND))


async def test_rule_39_the_judgement_is_of_when_the_receipt_came_and_the_first_one_counts(
    tmp_path: Path,
) -> None:
    """However long the rest takes; and a later promise takes nothing back."""
    time, clock = now(), [now()]
    async with serving(tmp_path) as served:
        made = registration(Credential.self_issued("acme"))
        first, second = (sign_receipt(made.hash, origin=ORIGIN, now=time + more, key=KEY) for more in (0, 1))
        agent = Agent(
            Credential.self_issued("visitor"), trust=SelfCertified(), clock=lambda: instant(clock[0])
        )
        del served.agent.handlers.channels["registry.submit"]

        @served.agent.handlers.channel("registry.submit")
        async def late(channel: Channel[Answer, tuple[int, bytes]]) -> None:
            async for number, data in channel:
                await channel.send(Answer(number=number, receipt=first.to_bytes()))
                await until(lambda: any(waiting.receipt for waiting in submitter._waiting.values()))
                clock[0] += HOUR
                await channel.send(Answer(number=number, receipt=second.to_bytes()))
                (outcome,) = served.registrar.append([data])
                assert isinstance(outcome, Appended)
                proof = served.registrar.proof(outcome.index).to_bytes()
                await channel.send(
                    Answer(number=number, index=outcome.index, logged_at=outcome.logged_at, proof=proof)
                )

        async with served.client(served.join(agent)) as client, client.submitting() as submitter:
            assert (await submitter.submit(made)).receipt == first.to_bytes()


async def test_rule_39_a_refusal_after_a_receipt_of_another_time_has_that_as_its_cause(
    tmp_path: Path,
) -> None:
    """It is told as the refusal that it is, and what the log has signed is kept by who keeps what it lies."""
    evidence, later = tmp_path / "evidence", now() + HOUR
    async with serving(tmp_path) as served:
        _, (echo,) = await register(served, "echo")
        given, append = served.registrar.receipt, served.registrar.append
        served.registrar.receipt = lambda entry: sign_receipt(entry, origin=ORIGIN, now=later, key=KEY)  # type: ignore[method-assign]
        served.registrar.append = lambda entries, **_: append(entries)  # type: ignore[method-assign]
        async with visitor(served) as client:
            with pytest.raises(EntryRefused) as refusal:
                await client.submit(registration(echo))
        assert refusal.value.fault is Fault.TAKEN
        assert not promise_in(refusal.value)
        cause = evident_in(refusal.value)
        assert isinstance(cause, Unproved)
        agent = served.join(Agent(echo, trust=SelfCertified()))
        async with registered(
            agent, contact(served), served.key, addresses=["9.9.9.9:1"], evidence=evidence
        ) as standing:
            await until(lambda: [*evidence.glob("*.evidence")])
            assert isinstance(standing.error, Unproved)
            served.registrar.receipt = given  # type: ignore[method-assign]
    (kept,) = evidence.glob("unproved-*.evidence")
    receipt, _ = codec.decode_untrusted(kept.read_bytes(), what="receipt", nodes=3)
    assert Receipt.from_untrusted(receipt).received_at == later
    assert "to come" in kept.with_suffix(".evidence.txt").read_text()


@pytest.mark.parametrize("ahead", [0, 61])
async def test_who_does_not_wait_for_the_outcome_has_been_given_the_promise(
    tmp_path: Path, ahead: int
) -> None:
    """As soon as it has come, and only if it is one."""
    async with serving(tmp_path) as served:
        made, taken = registration(Credential.self_issued("acme")), list[bytes]()
        del served.agent.handlers.channels["registry.submit"]

        @served.agent.handlers.channel("registry.submit")
        async def silent(channel: Channel[Answer, tuple[int, bytes]]) -> None:
            async for number, _ in channel:
                promise = sign_receipt(made.hash, origin=ORIGIN, now=now() + ahead * SECOND, key=KEY)
                await channel.send(Answer(number=number, receipt=promise.to_bytes()))

        async with visitor(served) as client, client.submitting() as submitter:
            with anyio.CancelScope() as scope:

                def promised(promise: bytes) -> None:
                    taken.append(promise)
                    scope.cancel()

                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(lambda: submitter.submit(made, promised=promised))
                    if ahead:
                        await until(lambda: any(one.receipt for one in submitter._waiting.values()))
                        await anyio.wait_all_tasks_blocked()
                        scope.cancel()
        assert len(taken) == (not ahead)
        for promise in taken:
            verify_receipt(promise, served.key, made)


async def test_a_receipt_is_verified_once_however_many_look_at_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    verified: list[bytes] = []
    real = receipts.verify_untrusted

    def verify(data: bytes, *more: Any) -> Receipt:
        verified.append(data)
        return real(data, *more)

    monkeypatch.setattr(receipts, "verify_untrusted", verify)
    async with serving(tmp_path) as served, visitor(served) as client:
        taken: list[bytes] = []
        logged = await client.submit(registration(Credential.self_issued("acme")), promised=taken.append)
    assert verified == taken == [logged.receipt]


def _signed(receipt: Receipt) -> Receipt:
    return replace(receipt, signature=KEY.sign(b"autolink/1 receipt\0" + receipt.body))
