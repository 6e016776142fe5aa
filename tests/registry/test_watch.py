"""What is told of the IDs that somebody watches: how they really stand, whosever entry or whatever time has brought it."""

from collections.abc import Iterable
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from autolink.identity import keys
from autolink.registry.audit import Audit
from autolink.registry.entries import Op, encode_leaf
from autolink.registry.log.note import VerifierKey
from autolink.registry.records import State
from autolink.registry.watch import Report, Watch

from .conftest import DELAY, ORIGIN, Log, Party, new_key

KEY = VerifierKey.of(ORIGIN, Ed25519PrivateKey.from_private_bytes(bytes(range(32))).public_key())


def told(log: Log, watched: Iterable[Party] | None = None, *, after: int = 0) -> list[Report]:
    """What is reported of a log as it is now, of the entries from `after` on."""
    reports: list[Report] = []
    audit = Audit(KEY, recovered=lambda record: reports.extend(watch.recovered(record)))
    watch = Watch(audit.ledger, None if watched is None else frozenset(one.auto_id for one in watched))
    for at, entry in zip(log.times, log.entries, strict=True):
        if audit.size == after:
            reports.clear()
        reports += watch.entry(audit.take(encode_leaf(at, entry.to_bytes())))
    audit.pass_time(log.now)
    return reports


def stands(report: Report) -> tuple[Any, ...]:
    """What, by which entry, the state, and of an ID that is not active because of whom."""
    assert report.standing is not None
    state, because = report.standing.state, report.standing.because
    return report.what, report.index, state, None if state is State.ACTIVE else because


def test_what_an_issuer_suffers_is_told_of_those_below_who_are_watched(
    log: Log, acme: Party, echo: Party, issued: Any
) -> None:
    """Two levels up; nobody else is told of, and nothing that changes nothing."""
    team = issued(acme, "team", may_issue=0)
    deep = issued(team, "deep")
    after = len(log.entries)
    log.append(acme.service())
    log.append(team.revoke(by=acme))
    log.append(acme.revoke())
    log.append(acme.rotate())
    assert [stands(report) for report in told(log, [deep], after=after)] == [
        ("state", after + 1, State.REVOKED, team.auto_id)
    ]
    reports = told(log, [echo], after=after)
    assert [stands(report) for report in reports] == [
        ("state", after + 2, State.REVOKED, acme.auto_id),
        ("state", after + 3, State.ACTIVE, None),
    ]
    who = acme.auto_id
    assert reports[0].text == f"it is revoked now, because of {who}, by entry {after + 2} of {who}"
    assert told(log, [], after=after) == []


def test_an_entry_of_one_whose_issuer_has_voided_it_does_not_say_that_it_is_active(
    log: Log, acme: Party, issued: Any
) -> None:
    after = len(log.entries)
    thiefs = issued(acme, "thiefs")
    log.append(acme.rotate(void_from=after))
    log.append(thiefs.service())
    expected = [
        ("register", after, State.ACTIVE, None),
        ("state", after + 1, State.REVOKED, acme.auto_id),
        ("service", after + 2, State.REVOKED, acme.auto_id),
    ]
    reports = told(log, [thiefs], after=after)
    assert [stands(report) for report in reports] == expected
    assert reports[-1].text == f"it is revoked now, because of {acme.auto_id}"
    registered, rotated, served = told(log, after=after)
    assert [stands(one) for one in (registered, served)] == expected[::2]
    below = f"; whom its former key has put on record from entry {after} on is revoked, with all below"
    assert rotated.text == f"it is active now{below}"


def test_of_a_whole_log_it_is_said_that_others_are_below(log: Log, acme: Party, echo: Party) -> None:
    log.append(echo.revoke(by=acme))
    log.append(acme.revoke())
    leaf, root = told(log)[-2:]
    assert leaf.text == "it is revoked now"
    assert root.text == "it is revoked now, and with it all below it"


def test_a_recovery_takes_place_without_an_entry(log: Log, acme: Party, echo: Party) -> None:
    """Told in its place between the entries, at its own time, of the ID and of whom it brings back."""
    after, key = len(log.entries), new_key()
    log.append(acme.recover(key, void_from=after))
    ready_at = log.times[-1] + DELAY * 1_000_000
    spki = f"sha256:{keys.hash_of_key(key.public_key()).hex()[:8]}…"
    began, below = told(log, [acme, echo], after=after)
    assert stands(began) == ("recover", after, State.RECOVERING, acme.auto_id)
    assert f"it is recovering now, and {spki} takes over at 2026-11-28 " in began.text
    assert stands(below) == ("state", after, State.RECOVERING, acme.auto_id)
    log.wait(DELAY)
    for _ in range(2):  # by the clock alone, then with an entry of the ID's own behind it
        took, back = told(log, [acme, echo], after=after)[2:4]
        assert (stands(took), stands(back)) == (
            ("recovered", None, State.ACTIVE, None),
            ("state", None, State.ACTIVE, None),
        )
        assert [int(report.at.timestamp()) for report in (took, back)] == [ready_at // 1_000_000] * 2
        assert (
            f"its key is {spki}; it is active now; whom its former key has put on record from entry"
            in took.text
        )
        assert back.text == f"it is active now, by the recovery of {acme.auto_id}"
        log.append(acme.entry(Op.SERVICE).signed(acme.auto_id, key))
    assert [report.what for report in told(log, after=after)] == [
        "recover",
        "recovered",
        "service",
        "service",
    ]


def test_a_recovery_that_was_cancelled_does_not_take_place(log: Log, acme: Party, echo: Party) -> None:
    after = len(log.entries)
    log.append(acme.recover())
    log.append(acme.delay())
    log.wait(DELAY)
    assert [report.what for report in told(log, [acme, echo], after=after)] == ["recover", "state", "delay"]
    log.append(acme.rotate())
    log.wait(2 * DELAY)
    assert [stands(report) for report in told(log, [acme, echo], after=after)[-2:]] == [
        ("rotate", after + 2, State.ACTIVE, None),
        ("state", after + 2, State.ACTIVE, None),
    ]
