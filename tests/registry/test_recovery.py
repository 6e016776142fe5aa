"""A lost or stolen key: recovery, rotation, and what a thief has done meanwhile."""

from datetime import timedelta
from typing import Any

from cryptography import x509

from autolink import limits
from autolink.errors import Fault
from autolink.identity import OID_NEXT_KEY, keys
from autolink.identity.certificate import encode_key_hash
from autolink.registry.entries import Guardians, Op
from autolink.registry.records import SECOND, Record, State
from tests.trust.conftest import forge

from .conftest import DELAY, Log, Party, new_key
from .test_authority import refused


def test_a_recovery_takes_over_when_its_delay_has_passed_and_not_before(log: Log, acme: Party) -> None:
    key = new_key()
    log.append(acme.revoke())
    begun = log.now
    log.append(acme.recover(key))
    log.now = begun + DELAY * SECOND - 1
    assert log.state(acme) is State.RECOVERING
    log.now += 1
    assert log.state(acme) is State.ACTIVE
    acts = acme.entry(Op.SERVICE, service=b"here again").signed(acme.auto_id, key)
    assert log.append(acts).key == keys.hash_of_key(key.public_key())


def test_an_issuer_recovers_its_own(log: Log, acme: Party, echo: Party) -> None:
    key = new_key()
    record = log.append(echo.recover(key))
    assert record.recovery is not None
    assert record.recovery.by == acme.auto_id
    log.wait(DELAY + 1)
    echo.take_key(key, new_key())
    log.append(echo.renew())
    assert log.state(echo) is State.ACTIVE


def test_after_a_recovery_the_key_committed_to_before_is_worth_nothing(log: Log, acme: Party) -> None:
    log.append(acme.recover())
    rotation = acme.rotate()
    log.wait(DELAY + 1)
    late = acme.rotate()
    assert refused(log, rotation) is Fault.EXPIRED
    assert refused(log, late) is Fault.NOT_COMMITTED


def test_a_cancelled_recovery_may_be_begun_again_with_another_key(log: Log, acme: Party) -> None:
    key, after = new_key(), new_key()
    log.append(acme.recover(key))
    first = acme.next_key
    log.append(acme.rotate(after))
    acme.take_key(first, after)
    assert refused(log, acme.recover(key)) is Fault.KEY_USED
    log.append(acme.recover())


def test_rule_38_what_a_stolen_key_did_is_void_from_the_index_that_its_owner_names(
    log: Log, acme: Party, echo: Party, issued: Any
) -> None:
    theft = len(log.entries)
    planted = issued(acme, "planted")
    log.append(acme.service())
    assert log.state(planted) is State.ACTIVE
    key, after = acme.next_key, new_key()
    record = log.append(acme.rotate(after, void_from=theft))
    assert record.service == b""
    assert log.state(echo) is State.ACTIVE
    assert log.standing(planted).state is State.REVOKED
    assert log.standing(planted).because == acme.auto_id
    # The thief holds planted's keys, but what it was issued with is gone; acme alone can issue it anew.
    assert refused(log, planted.renew()) is Fault.CERTIFICATE
    acme.take_key(key, after)
    log.append(planted.renew())
    assert log.state(planted) is State.ACTIVE


def test_rule_36_a_revocation_of_the_former_key_is_not_said_again_of_the_recovered_one(
    log: Log, acme: Party, issued: Any
) -> None:
    """The issuer's revocation may outlive the delay: whoever has read it in the log cannot end the new key with it."""
    echo = issued(acme, "quick", registered=False)
    log.append(echo.register(guardians=Guardians((), 0, 3600)))
    log.append(echo.recover())
    revocation = echo.revoke(by=acme, expires_at=log.now + 7 * 24 * 3600 * SECOND)
    log.append(revocation)
    assert log.state(echo) is State.RECOVERING
    log.wait(3600)
    assert log.state(echo) is State.ACTIVE
    assert refused(log, revocation) is Fault.STALE
    assert log.append(echo.revoke(by=acme)).revoked_by == acme.auto_id  # it can say so anew


def test_after_a_recovery_what_outruns_a_thief_follows_the_last_entry_before_it(
    log: Log, acme: Party, echo: Party
) -> None:
    key, after = new_key(), new_key()
    begun = log.append(echo.recover(key, next_key=keys.hash_of_key(after.public_key())))
    lengthened = log.append(echo.delay())
    log.wait(2 * DELAY)
    assert log.record(echo).authority == lengthened.head
    echo.take_key(key, after)
    stale = echo.deactivate(previous=begun.head)
    outrunning = echo.deactivate(previous=lengthened.head)
    log.append(echo.service())  # the thief of the new key, in between
    assert refused(log, stale) is Fault.STALE
    assert log.append(outrunning).state is State.DEACTIVATED


def test_rule_38_a_child_renewed_with_the_stolen_key_is_void_until_it_is_renewed_again(
    log: Log, acme: Party, echo: Party
) -> None:
    theft = len(log.entries)
    log.append(echo.renew())
    key, after = acme.next_key, new_key()
    log.append(acme.rotate(after, void_from=theft))
    assert log.state(echo) is State.REVOKED
    acme.take_key(key, after)
    log.wait(2)
    log.append(echo.renew())
    assert log.state(echo) is State.ACTIVE


def test_rule_38_a_recovery_may_say_it_too(log: Log, acme: Party, issued: Any) -> None:
    theft = len(log.entries)
    planted = issued(acme, "planted")
    log.append(acme.recover(void_from=theft))
    assert log.standing(planted).state is State.RECOVERING
    log.wait(DELAY + 1)
    assert log.standing(planted).state is State.REVOKED


def test_what_is_still_to_come_cannot_be_void(log: Log, acme: Party) -> None:
    assert refused(log, acme.rotate(void_from=len(log.entries) + 1)) is Fault.MALFORMED
    log.append(acme.rotate(void_from=len(log.entries)))


def test_rule_38_it_is_said_a_bounded_number_of_times(log: Log, acme: Party, echo: Party) -> None:
    for number in range(limits.VOIDS + 1):
        log.wait(60)
        entry = echo.rotate(after := new_key(), void_from=number)
        if number < limits.VOIDS:
            log.append(entry)
            echo.take_key(echo.next_key, after)
    assert refused(log, entry) is Fault.MALFORMED
    assert len(log.append(echo.rotate(new_key())).voids) == limits.VOIDS


def test_a_revocation_by_a_stolen_key_stands(log: Log, acme: Party, echo: Party) -> None:
    """Ending a key is never undone: whoever lost it by a thief's doing rotates."""
    theft = len(log.entries)
    log.append(echo.revoke(by=acme))
    log.append(acme.rotate(void_from=theft))
    assert log.state(echo) is State.REVOKED


def test_a_record_is_what_it_was_after_a_store_has_kept_it(log: Log, acme: Party, echo: Party) -> None:
    log.append(echo.revoke())
    log.append(echo.rotate(void_from=1))
    log.append(acme.rotate())
    acme.issuer = None
    log.append(acme.recover(void_from=2))
    for record in log.ledger.records.values():
        assert Record.from_bytes(record.to_bytes()) == record


def test_a_bound_name_is_rotated_until_its_evidence_would_be_too_long(
    log: Log, organisation: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr("autolink.limits.ROTATIONS", 3)
    acme, plain = organisation("acme"), organisation("plain", plain=True)
    for party in (acme, plain):
        for _ in range(3):
            key, after = party.next_key, new_key()
            log.append(party.rotate(after))
            party.take_key(key, after)
            log.wait(2)
    assert len(log.record(acme).rotations) == 3
    assert refused(log, acme.rotate()) is Fault.NOT_COMMITTED
    assert log.record(plain).rotations == ()
    log.append(plain.rotate())


def test_a_bound_name_is_rotated_until_its_evidence_would_be_too_large(
    log: Log, organisation: Any, monkeypatch: Any
) -> None:
    acme = organisation("acme")
    key, after = acme.next_key, new_key()
    record = log.append(acme.rotate(after))
    acme.take_key(key, after)
    shown = len(record.rotations[0]) + len(record.certificate)
    monkeypatch.setattr("autolink.limits.ROTATIONS_BYTES", shown - 1)
    assert refused(log, acme.rotate()) is Fault.NOT_COMMITTED
    monkeypatch.setattr("autolink.limits.ROTATIONS_BYTES", shown)
    log.append(acme.rotate())


def test_rule_35_a_renewal_leaves_room_for_the_next_rotation(
    log: Log, organisation: Any, monkeypatch: Any
) -> None:
    """Or a thief's, as large as a certificate may be, would keep the owner from the last one that there was room for."""
    acme, plain = organisation("acme"), organisation("plain", plain=True)
    monkeypatch.setattr("autolink.limits.ROTATIONS_BYTES", len(log.record(acme).certificate) + 100)
    for party in (acme, plain):
        committed = log.record(party).next_key
        large = forge(
            party.credential.name, key=party.key, begin=timedelta(minutes=-4), extra=[
                (x509.UnrecognizedExtension(OID_NEXT_KEY, encode_key_hash(committed)), False),
                (x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.1"), bytes(300)), False),
            ],
        )  # fmt: skip
        if party is acme:
            assert refused(log, party.renew(certificate=large.der)) is Fault.CERTIFICATE
        else:
            log.append(party.renew(certificate=large.der))
    log.append(acme.renew())
    log.append(acme.rotate())
    acme.take_key(acme.next_key, new_key())
    monkeypatch.setattr("autolink.limits.ROTATIONS_BYTES", 1)
    assert refused(log, acme.rotate()) is Fault.NOT_COMMITTED
    log.append(
        acme.renew(certificate=acme.certify(acme.key, log.record(acme).next_key).der)
    )  # no room to lose
