"""A monitor replays a log, reports what happens in it, and convicts one that lies. On the real clock."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from autolink import Agent, Credential, limits
from autolink.errors import BadSignature, Code, EntryRefused, RemoteProtocolError
from autolink.identity import AutoId
from autolink.registry import making
from autolink.registry.answers import Consistency
from autolink.registry.client import RegistryClient
from autolink.registry.entries import Op, encode_leaf
from autolink.registry.evidence import LogConvicted, Unproved, keep_evidence
from autolink.registry.feed import Change, sign_change
from autolink.registry.log.checkpoint import Checkpoint, verify_untrusted
from autolink.registry.monitor import Monitor
from autolink.registry.records import State
from autolink.registry.watch import Report
from autolink.trust import SelfCertified

from .conftest import ORIGIN
from .serving import KEY, Served, entry, issue, now, registration, serving
from .test_registered import register, revoke


def monitor(served: Served, **how: Any) -> Monitor:
    return Monitor(served.key, clock=lambda: datetime.now(UTC), **how)


async def look(served: Served, watching: Monitor) -> list[Report]:
    reports: list[Report] = []
    async with client(served) as asked:
        await watching.look(asked, reports.append)
    return reports


def client(served: Served) -> Any:
    return served.client(served.join(Agent(Credential.self_issued("visitor"), trust=SelfCertified())))


def replaced(served: Served, method: str, answer: Callable[..., Awaitable[Any]]) -> None:
    """Another answer to a call: the registry lies."""
    del served.agent.handlers.methods[f"registry.{method}"]
    served.agent.handlers.method(f"registry.{method}")(answer)


async def test_every_entry_is_reported_once_and_the_next_run_goes_on(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        acme, (echo, _) = await register(served, "echo", "caller")
        watching = monitor(served)
        first = await look(served, watching)
        assert [(report.what, report.index) for report in first] == [
            ("register", place) for place in range(3)
        ]
        assert (watching.size, verify_untrusted(watching.checkpoint, served.key).size) == (3, 3)
        assert await look(served, watching) == []
        await revoke(served, acme, echo)
        (report,) = await look(served, watching)
        assert (report.what, report.auto_id, report.index) == ("revoke", echo.auto_id, 3)
        assert report.text == "it is revoked now"
        again = monitor(served, seen=[watching.checkpoint], watched=[echo.auto_id])
        assert [report.what for report in await look(served, again)] == ["register", "revoke"]
        later = monitor(served, seen=[watching.checkpoint], since=3)
        assert [(report.what, report.index) for report in await look(served, later)] == [("revoke", 3)]


async def test_a_monitor_may_begin_with_how_those_stand_whom_it_watches(tmp_path: Path) -> None:
    """What was before is replayed and not told; what their issuer does afterwards is."""
    async with serving(tmp_path) as served:
        acme, (echo, caller) = await register(served, "echo", "caller")
        await revoke(served, acme, echo)
        watching = monitor(served, watched=[echo.auto_id, caller.auto_id, AutoId(bytes(32))], since=None)
        reports = await look(served, watching)
        assert [report.auto_id for report in reports if report.what == "unknown"] == [AutoId(bytes(32))]
        standing = {report.auto_id: report.standing for report in reports if report.what == "state"}
        assert {who: where.state for who, where in standing.items() if where} == {
            echo.auto_id: State.REVOKED, caller.auto_id: State.ACTIVE,
        }  # fmt: skip
        assert await look(served, watching) == []
        await revoke(served, acme, acme)
        (report,) = await look(served, watching)
        assert (report.what, report.auto_id, report.index) == ("state", caller.auto_id, 4)
        assert await look(served, monitor(served, since=None)) == []


async def test_a_recovery_is_told_once_it_has_taken_place(tmp_path: Path) -> None:
    """Nothing is logged then: it is the clock that says so. A later run is told when this one has looked."""
    async with serving(tmp_path) as served:
        acme, (echo,) = await register(served, "echo")
        await revoke(served, acme, echo)
        async with client(served) as asked:
            slot = making.Slot.at(ORIGIN, datetime.now(UTC), await asked.place(echo.auto_id))
            begun = making.recover(issue(acme, "echo"), slot, next_key=bytes(32))
            await asked.submit(making.countersign(begun, acme))
        began = datetime.now(UTC)
        clock = [began]
        watching = Monitor(served.key, clock=lambda: clock[0], watched=[echo.auto_id], since=3)
        assert [report.what for report in await look(served, watching)] == ["recover"]
        clock[0] += timedelta(days=8)
        # The registry's word is as old as the clock is ahead, which is told too.
        assert [report.what for report in await look(served, watching)] == ["stale", "recovered"]
        assert [report.what for report in await look(served, watching)] == ["stale"]
        for looked, expected in ((clock[0], ["stale"]), (began, ["stale", "recovered"])):
            later = Monitor(
                served.key, clock=lambda: clock[0], watched=[echo.auto_id], since=watching.size, looked=looked
            )  # fmt: skip
            assert [report.what for report in await look(served, later)] == expected


async def test_each_status_is_compared_after_the_ids_last_entry(tmp_path: Path) -> None:
    """Where the registry fails, or the log goes on while statuses are asked for, in the next round."""
    async with serving(tmp_path) as served:
        acme, (echo, caller) = await register(served, "echo", "caller")
        watching, asked = monitor(served), []
        status, ids = RegistryClient.status, [acme.auto_id, echo.auto_id, caller.auto_id]

        async def look_once(meanwhile: Callable[[], Awaitable[object]] | None) -> None:
            async def observed(self: RegistryClient, auto_id: AutoId) -> Any:
                nonlocal meanwhile
                asked.append(auto_id)
                if meanwhile is not None and auto_id != acme.auto_id:
                    meanwhile, now = None, meanwhile
                    await now()
                return await status(self, auto_id)

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(RegistryClient, "status", observed)
                await look(served, watching)

        async def fail() -> None:
            raise TimeoutError

        with pytest.raises(TimeoutError):
            await look_once(fail)
        assert asked == ids[:2]
        asked.clear()
        await look_once(lambda: revoke(served, acme, caller))
        assert asked == ids[1:]
        assert watching.size == 4
        asked.clear()
        await look_once(None)
        assert asked == [caller.auto_id]
        asked.clear()
        await look_once(None)
        assert asked == []


async def test_changes_that_are_not_looked_at_take_no_more_memory_than_a_few(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        acme, _ = await register(served, "echo")
        watching, made = monitor(served), entry(Op.REVOKE, acme.auto_id, bytes(32))
        change = sign_change(made, State.REVOKED, index=1_000_000, at=now(), key=KEY)
        for _ in range(2 * limits.CHANGES_COMPARED):
            watching.heed(change)
        assert len(watching._told) == limits.CHANGES_COMPARED


async def test_a_change_of_an_entry_that_there_is_not_is_told(tmp_path: Path) -> None:
    """Whoever hears it ends an honest agent's links, and no log that goes on for years would come to that place. Once: the
    feed is heard again from the end of the log on."""
    async with serving(tmp_path) as served:
        acme, (echo,) = await register(served, "echo")
        watching, made = monitor(served), entry(Op.REVOKE, acme.auto_id, bytes(32))
        lie = sign_change(made, State.REVOKED, index=1_000_000, at=now(), key=KEY)
        watching.heed(lie)
        with pytest.raises(Unproved, match="told a change of entry 1000000, and has 2") as unproved:
            await look(served, watching)
        assert unproved.value.evidence == lie.to_bytes() + b"\n" + watching.checkpoint
        assert watching.heard == 2
        await revoke(served, acme, echo)
        assert [report.what for report in await look(served, watching)] == ["revoke"]


async def test_the_feed_is_compared_with_the_log(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        acme, (echo,) = await register(served, "echo")
        watching = monitor(served)
        await revoke(served, acme, echo)
        ((_, data),) = served.store.changes()
        change = Change.from_untrusted(data)
        watching.heed(change)
        assert watching.heard == 3
        later = sign_change(
            entry(Op.REVOKE, acme.auto_id, bytes(32)), State.REVOKED, index=3, at=now(), key=KEY
        )
        honest = served.agent.handlers.methods["registry.consistency"].function

        async def heard_behind(call: Any, asked: tuple[int, int | None]) -> Consistency:
            watching.heed(later)  # the checkpoint is from before it
            return await honest(call, asked)

        replaced(served, "consistency", heard_behind)
        assert len(await look(served, watching)) == 3
        await revoke(served, acme, acme)
        with pytest.raises(LogConvicted, match="entry 3: the change that was told of it is not what it did"):
            await look(served, watching)


async def test_a_change_that_was_told_of_a_registration_convicts(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        acme, _ = await register(served, "echo")
        watching = monitor(served)
        made = entry(Op.REVOKE, acme.auto_id, bytes(32))
        watching.heed(sign_change(made, State.REVOKED, index=1, at=now(), key=KEY))
        with pytest.raises(LogConvicted, match="entry 1: a change was told of it, and it is none"):
            await look(served, watching)


async def test_a_split_view_is_found_by_a_checkpoint_that_another_one_was_shown(tmp_path: Path) -> None:
    """The same key, the same size, another log: both are signed, so the operator is convicted."""
    async with serving(tmp_path / "one") as served, serving(tmp_path / "other") as forked:
        await register(served, "echo", "caller")
        await register(forked, "echo", "caller")
        note = forked.store.head.checkpoint
        with pytest.raises(LogConvicted, match="different pasts") as conviction:
            await look(served, monitor(served, seen=[note]))
        assert conviction.value.evidence == note + b"\n" + served.store.head.checkpoint
        honest = monitor(served, seen=[served.store.head.checkpoint])
        assert len(await look(served, honest)) == 3
    with pytest.raises(RemoteProtocolError):
        monitor(served, seen=[b"nonsense"])
    stranger = Checkpoint(
        ORIGIN, 0, bytes.fromhex("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")
    )
    with pytest.raises(BadSignature):
        monitor(served, seen=[stranger.signed(Ed25519PrivateKey.generate())])


async def test_a_log_that_does_not_go_on_from_what_was_seen_is_not_followed(tmp_path: Path) -> None:
    """It has lost entries: nothing of it is taken, and both checkpoints are kept. It has others: that convicts it."""
    async with serving(tmp_path / "one") as served, serving(tmp_path / "other") as forked:
        await register(served, "echo")
        watching = monitor(served)
        await look(served, watching)
        async with client(forked) as asked:
            await register(forked)
            with pytest.raises(Unproved, match="shows 1 entries, and its log had 2") as unproved:
                await watching.look(asked, lambda report: None)
            assert unproved.value.evidence == watching.checkpoint + b"\n" + forked.store.head.checkpoint
            await register(forked, "one", "two")
            with pytest.raises(LogConvicted, match="different pasts") as convicted:
                await watching.look(asked, lambda report: None)
            assert convicted.value.evidence == watching.checkpoint + b"\n" + forked.store.head.checkpoint
        assert watching.size == 2
        assert await look(served, watching) == []


async def test_a_new_run_does_not_forget_that_the_log_was_longer(tmp_path: Path) -> None:
    """The registry came back from an old copy: what was seen is all that is left of the rest."""
    async with serving(tmp_path / "one") as served, serving(tmp_path / "other") as restored:
        await register(served, "echo", "caller")
        seen = served.store.head.checkpoint
        await register(restored)
        again = monitor(restored, seen=[restored.store.head.checkpoint, seen])
        with pytest.raises(Unproved, match="shows 1 entries, and its log had 3") as unproved:
            await look(restored, again)
        assert unproved.value.evidence == seen + b"\n" + restored.store.head.checkpoint
        assert (again.size, again.checkpoint) == (0, b"")
        await register(restored, "one", "two")
        for watching in (again, monitor(restored, seen=[seen])):
            with pytest.raises(LogConvicted, match="different pasts") as convicted:
                await look(restored, watching)
            assert convicted.value.evidence == seen + b"\n" + restored.store.head.checkpoint


async def test_two_logs_of_one_size_convict(tmp_path: Path) -> None:
    async with serving(tmp_path / "one") as served, serving(tmp_path / "other") as forked:
        watching = monitor(served)
        for each in (served, forked):
            await register(each, "echo")
        await look(served, watching)
        async with client(forked) as asked:
            with pytest.raises(LogConvicted, match="two logs of one size"):
                await watching.look(asked, lambda report: None)


async def test_a_long_log_is_proved_page_by_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autolink.limits.LOG_PAGE", 2)
    async with serving(tmp_path) as served:
        await register(served, "one", "two", "three", "four")
        watching = monitor(served)
        assert len(await look(served, watching)) == 5

        async def swapped(call: Any, places: list[int]) -> list[bytes]:
            return served.store.read_leaves(places[0], places[-1] + 1)[::-1]

        replaced(served, "entries", swapped)
        with pytest.raises(Unproved, match="not those that its log has signed"):
            await look(served, monitor(served))


async def test_entries_that_are_not_those_that_were_signed_are_found(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        acme, _ = await register(served, "echo")

        async def one_other(call: Any, places: list[int]) -> list[bytes]:
            return [encode_leaf(now(), registration(acme).to_bytes()), *served.store.read_leaves(1, 2)]

        async def none(call: Any, places: list[int]) -> list[bytes]:
            return []

        replaced(served, "entries", one_other)
        with pytest.raises(Unproved, match="not those that its log has signed"):
            await look(served, monitor(served))
        replaced(served, "entries", none)
        with pytest.raises(RemoteProtocolError, match="does not give entry 0"):
            await look(served, monitor(served))


async def test_an_entry_that_should_not_have_been_taken_convicts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The operator switched a rule off for himself: whoever replays the log sees it."""
    from autolink.registry import registrar, state

    async with serving(tmp_path) as served:
        acme, _ = await register(served)
        planted = issue(acme, "planted")
        forged = registration(planted, acme).with_signatures(registration(planted, acme).signatures[:1])

        def lenient(*args: Any, **how: Any) -> Any:
            return state.apply(*args, **how)

        monkeypatch.setattr(registrar, "apply", lenient)
        monkeypatch.setattr("autolink.registry.effects.Step._check_signatures", lambda *_: None)
        async with client(served) as asked:
            await asked.submit(forged)
        monkeypatch.undo()
        with pytest.raises(LogConvicted, match="entry 1: unauthorised") as conviction:
            await look(served, monitor(served))
        assert conviction.value.index == 1
        with pytest.raises(EntryRefused):
            raise conviction.value.__cause__ or AssertionError


async def test_a_status_that_does_not_follow_from_the_entries_convicts(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        acme, (echo,) = await register(served, "echo")
        await revoke(served, acme, echo)
        true = served.registrar.status(echo.auto_id)
        assert true is not None
        from dataclasses import replace

        from autolink.identity import keys
        from autolink.registry import status

        said = replace(true, state=State.ACTIVE, at=now())
        false = replace(said, signature=keys.sign(KEY, status.PURPOSE + said.body))

        async def lie(call: Any, auto_id: bytes) -> bytes:
            return false.to_bytes()

        replaced(served, "status", lie)
        with pytest.raises(LogConvicted, match="is not what follows from its entries") as conviction:
            await look(served, monitor(served, watched=[echo.auto_id]))
        assert conviction.value.evidence == false.to_bytes()


async def test_a_stale_and_a_withheld_status_are_reported(tmp_path: Path) -> None:
    """What was true once is no lie: it is reported, and kept."""
    async with serving(tmp_path) as served:
        acme, (echo,) = await register(served, "echo")
        old = served.registrar.status(echo.auto_id)
        assert old is not None
        await revoke(served, acme, echo)

        async def before(call: Any, auto_id: bytes) -> bytes:
            return old.to_bytes()

        replaced(served, "status", before)
        *_, report = await look(served, monitor(served, watched=[echo.auto_id]))
        assert (report.what, report.index, report.evidence) == ("stale", None, old.to_bytes())

        async def nobody(call: Any, auto_id: bytes) -> bytes:
            from autolink.errors import CallError

            raise CallError(Code.NOT_FOUND, "nobody of this name")

        replaced(served, "status", nobody)
        unknown = AutoId(bytes(32))
        *_, report = await look(served, monitor(served, watched=[echo.auto_id, unknown]))
        assert (report.what, report.auto_id) == ("withheld", echo.auto_id)


@pytest.mark.parametrize(("minutes", "told"), [(10, True), (-2, True), (4, False)])
async def test_a_status_is_stale_by_its_time_too(tmp_path: Path, minutes: int, told: bool) -> None:
    """And one of a time to come would be good for too long."""
    async with serving(tmp_path) as served:
        _, (echo,) = await register(served, "echo")
        ours = timedelta(minutes=minutes)
        watching = Monitor(served.key, clock=lambda: datetime.now(UTC) + ours, watched=[echo.auto_id])
        assert ("stale" in [report.what for report in await look(served, watching)]) is told


async def test_what_is_logged_between_the_checkpoint_and_a_status_is_taken_too(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        acme, (echo,) = await register(served, "echo")
        note = served.store.head.checkpoint
        await revoke(served, acme, echo)
        watching, reports = monitor(served), []

        async with client(served) as asked:
            asked.consistency = lambda: _given(note)
            await watching.look(asked, reports.append)
        assert [report.what for report in reports] == ["register", "register", "revoke"]
        assert watching.size == 3


async def _given(note: bytes) -> Consistency:
    return Consistency(checkpoint=note, path=[])


def test_evidence_is_kept_once_with_a_text_beside_it(tmp_path: Path) -> None:
    folder = tmp_path / "evidence"
    path = keep_evidence(folder, "entry-3", b"leaf", "it should not be there")
    assert path.read_bytes() == b"leaf"
    assert (folder / f"{path.name}.txt").read_text() == "it should not be there\n"
    assert keep_evidence(folder, "entry-3", b"leaf", "again") == path
    assert (folder / f"{path.name}.txt").read_text() == "it should not be there\n"
    assert len(list(folder.iterdir())) == 2


async def test_a_registry_that_says_nothing_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("autolink.limits.INCLUSION", 0.05)
    async with serving(tmp_path) as served:

        async def silent(call: Any, asked: Any) -> None:
            await anyio.sleep_forever()

        replaced(served, "consistency", silent)
        with pytest.raises(TimeoutError):
            await look(served, monitor(served))
