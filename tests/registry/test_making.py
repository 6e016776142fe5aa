"""Entries as programs make them: the log takes each, and countersignatures stand where it wants them."""

from datetime import timedelta
from typing import Any

import pytest

from autolink import limits
from autolink.errors import EntryRefused, Fault, UsageError
from autolink.identity import Credential, CredentialRequest, EntityKind, keys
from autolink.messages import instant
from autolink.registry import making
from autolink.registry.answers import Place
from autolink.registry.entries import Entry, Guardians, Op
from autolink.registry.making import Slot
from autolink.registry.records import State

from .conftest import DELAY, ORIGIN, Log, Party, new_key


def slot(log: Log, party: Any = None, **how: Any) -> Slot:
    """Where the next entry goes, as a registry would tell."""
    record = None if party is None else log.ledger.record(party.auto_id)
    place = record and Place(
        head=record.head, authority=record.authority, entries=record.entries, touched=record.touched,
        certificate=record.certificate, rotations=list(record.rotations), delay=record.guardians.delay,
        threshold=record.guardians.threshold, guardians=len(record.guardians.hashes), recovered_at=None,
    )  # fmt: skip
    return Slot.at(ORIGIN, instant(log.now), place, **how)


def hash_of(key: Any) -> bytes:
    return keys.hash_of_key(key.public_key())


def self_issued(log: Log, name: str = "acme", **how: Any) -> Credential:
    return Credential.self_issued(name, now=instant(log.now), lifetime=timedelta(days=365), **how)


def test_a_bound_identity_registers_by_what_its_certificate_says(log: Log) -> None:
    acme = self_issued(log)
    record = log.append(making.register(acme, slot(log)))
    assert record.next_key == acme.leaf.next_key_hash
    assert record.guardians == Guardians()
    with pytest.raises(UsageError, match="say which one may follow"):
        making.register(self_issued(log, "plain", plain=True), slot(log))


def test_an_issued_identity_registers_with_its_issuers_countersignature(
    log: Log, acme: Party, issued: Any
) -> None:
    echo = issued(acme, "echo", registered=False)
    entry = making.register(echo.credential, slot(log), next_key=hash_of(new_key()))
    assert making.missing(entry) == (acme.auto_id,)
    with pytest.raises(UsageError, match="wants no signature"):
        making.countersign(entry, echo.credential)
    signed = making.countersign(Entry.from_untrusted(entry.to_bytes()), acme.credential)
    assert making.missing(signed) == ()
    with pytest.raises(UsageError, match="signed this entry already"):
        making.countersign(signed, acme.credential)
    assert log.append(signed).issuer == acme.auto_id


def test_nobody_countersigns_what_its_own_id_has_not_signed(log: Log, acme: Party, issued: Any) -> None:
    echo = issued(acme, "echo", registered=False)
    entry = making.register(echo.credential, slot(log), next_key=hash_of(new_key()))
    (own,) = entry.signatures
    changed = type(own)(own.by, own.key, own.value[:-1] + bytes([own.value[-1] ^ 1]))
    for signatures in ((), (changed,), (own, own)):
        with pytest.raises(EntryRefused) as refusal:
            making.countersign(entry.with_signatures(signatures), acme.credential)
        assert refusal.value.fault is Fault.UNAUTHORISED
    with pytest.raises(UsageError, match="nobody countersigns"):
        making.countersign(making.delay(acme.credential, slot(log, acme)), acme.credential)


def test_every_kind_of_entry_of_its_own_is_taken(log: Log, acme: Party) -> None:
    log.wait(2)
    certificate = making.renewed(acme.credential, now=instant(log.now), lifetime=timedelta(days=300))
    renewed = Credential((certificate,), acme.key)
    assert log.append(making.renew(renewed, slot(log, acme))).certificate == certificate.der
    assert log.append(making.service(renewed, slot(log, acme), b"here")).service == b"here"
    chosen, _ = making.choose_guardians([], threshold=0, delay=limits.RECOVERY_DELAY_LEAST)
    changed = log.append(making.guardians(acme.auto_id, slot(log, acme), chosen, next_key=acme.next_key))
    assert changed.guardians == chosen
    assert log.append(making.revoke(acme.auto_id, slot(log, acme), by=renewed)).state is State.REVOKED
    ended = making.deactivate(acme.auto_id, slot(log, acme), next_key=acme.next_key)
    assert log.append(ended).state is State.DEACTIVATED


def test_a_rotation_outruns_what_a_thief_has_added(log: Log, acme: Party) -> None:
    """Made before or after them: it names the last entry that the thief cannot have made."""
    early = slot(log, acme)
    log.append(acme.service())
    log.append(acme.revoke())
    log.wait(2)
    rotated = Credential.rotated(acme.credential.certificates, acme.next_key, now=instant(log.now))
    entry = making.rotate(rotated, early, void_from=1)
    assert entry.previous == slot(log, acme).previous(Op.ROTATE)
    record = log.append(entry)
    assert (record.state, record.key) == (State.ACTIVE, hash_of(acme.next_key))
    assert record.voids


def test_an_ancestor_revokes_and_deactivates(log: Log, acme: Party, echo: Party) -> None:
    record = log.append(making.revoke(echo.auto_id, slot(log, echo), by=acme.credential))
    assert record.revoked_by == acme.auto_id
    record = log.append(making.deactivate(echo.auto_id, slot(log, echo), by=acme.credential))
    assert record.deactivated_by == acme.auto_id
    for wrong in ({}, {"next_key": new_key(), "by": acme.credential}):
        with pytest.raises(UsageError, match="or by an ancestor"):
            making.deactivate(echo.auto_id, slot(log, echo), **wrong)


def test_guardians_sign_a_recovery_in_any_order(log: Log, organisation: Any) -> None:
    guards = [organisation(f"guard-{number}") for number in range(3)]
    acme, following = self_issued(log, "acme", plain=True), new_key()
    chosen, salts = making.choose_guardians([guard.auto_id for guard in guards], threshold=2, delay=DELAY)
    log.append(making.register(acme, slot(log), next_key=hash_of(following), guardians=chosen))
    log.wait(2)
    lost = self_issued(log, "acme", plain=True)
    revealed = {guard.auto_id: salts[guard.auto_id] for guard in (guards[2], guards[0])}
    entry = making.recover(lost, slot(log, acme), next_key=hash_of(new_key()), revealed=revealed)
    for guard in (guards[0], guards[2]):
        entry = making.countersign(entry, guard.credential)
    assert making.missing(entry) == ()
    record = log.append(entry)
    assert record.state is State.RECOVERING
    assert record.recovery is not None
    ready = record.recovery.ready_at
    later = log.append(making.delay(acme, slot(log, acme))).recovery
    assert later is not None
    assert later.ready_at == ready + DELAY * 1_000_000


def test_an_issuer_recovers_whom_it_has_issued(log: Log, acme: Party, echo: Party) -> None:
    log.wait(2)
    request = CredentialRequest.new("echo")
    chain = acme.credential.issue(request, kind=EntityKind.AGENT, now=instant(log.now))
    again = request.complete(chain)
    entry = making.recover(again, slot(log, echo), next_key=hash_of(new_key()))
    stranger = self_issued(log, "stranger")
    with pytest.raises(UsageError, match="neither its issuer nor one of its guardians"):
        making.countersign(entry, stranger)
    assert log.append(making.countersign(entry, acme.credential)).state is State.RECOVERING


def test_guardians_that_cannot_be_are_told(acme: Party, echo: Party) -> None:
    ids = [acme.auto_id, echo.auto_id]
    for chosen, threshold in (([*ids, ids[0]], 1), (ids, 3), (ids, 0), ([], 1), (ids * 5, 1)):
        with pytest.raises(UsageError):
            making.choose_guardians(chosen, threshold=threshold)
    for delay in (limits.RECOVERY_DELAY_LEAST - 1, limits.RECOVERY_DELAY_MOST + 1):
        with pytest.raises(UsageError, match="a recovery takes"):
            making.choose_guardians(ids, threshold=1, delay=delay)
    chosen, salts = making.choose_guardians(ids, threshold=2)
    assert making.choose_guardians(ids, threshold=2, salts=salts) == (chosen, salts)


def test_an_entry_that_follows_nothing_known_is_not_made(log: Log, acme: Party, echo: Party) -> None:
    with pytest.raises(UsageError, match="Ask the registry"):
        making.renew(acme.credential, slot(log))
    with pytest.raises(UsageError, match="by its issuer"):
        making.renewed(echo.credential, now=instant(log.now))


def test_the_longest_life_of_an_entry_is_one_that_a_log_with_a_slow_clock_takes(log: Log) -> None:
    entry = making.register(self_issued(log), slot(log, lifetime=making.LIFETIME_MOST))
    log.wait(-limits.SKEW)
    log.append(entry)
