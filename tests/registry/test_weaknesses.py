"""One test for each weakness of the registry that Auto ID had upstream: ours has none of them."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from autolink import limits
from autolink.errors import EntryRefused, Fault, IdentityError
from autolink.identity import AutoId, Credential, keys
from autolink.registry.entries import FIRST, Entry, Guardians, Op, Signature
from autolink.registry.records import SECOND, State
from autolink.registry.state import apply
from tests.trust.conftest import Forged, forge

from .conftest import DELAY, ORIGIN, Log, Party, new_key
from .test_authority import refused


def registration(log: Log, forged: Forged, issuer: Party, certificate: bytes = b"") -> Entry:
    """Of a certificate of any kind; signed by its key and by the issuer, who has looked at nothing."""
    entry = Entry(
        ORIGIN, Op.REGISTER, forged.auto_id, FIRST, log.now + 3600 * SECOND, issuer=issuer.auto_id,
        certificate=certificate or forged.der, next_key=bytes(32), guardians=Guardians(),
    )  # fmt: skip
    return entry.signed(forged.auto_id, forged.key).signed(issuer.auto_id, issuer.key)


def given(name: str, issuer: Party, **how: Any) -> Forged:
    """A certificate that the issuer's key has signed, of the profile but for what `how` changes."""
    above = Forged(issuer.credential.leaf.x509, issuer.key, issuer.auto_id, None)
    return forge(name, above, **{"begin": timedelta(0)} | how)


def test_weakness_1_a_public_certificate_authorises_nothing(log: Log, acme: Party) -> None:
    """Upstream anybody revoked a root by submitting its own certificate again."""
    certificate = acme.certify(acme.key).der
    assert refused(log, acme.entry(Op.RENEW, certificate=certificate)) is Fault.UNAUTHORISED
    stranger = new_key()
    forged = acme.entry(Op.RENEW, certificate=certificate).signed(acme.auto_id, stranger)
    assert refused(log, forged) is Fault.UNAUTHORISED
    log.wait(10)
    again = acme.renew(certificate=acme.credential.leaf.der)  # nor does it come back under a fresh signature
    assert refused(log, again) is Fault.CERTIFICATE
    assert log.state(acme) is State.ACTIVE
    log.wait(10)
    again = acme.renew(certificate=acme.credential.leaf.der)  # nor does it come back under a fresh signature
    assert refused(log, again) is Fault.CERTIFICATE


def test_weakness_2_a_renewal_does_not_undo_a_revocation(log: Log, acme: Party) -> None:
    log.append(acme.revoke())
    log.wait(10)
    assert refused(log, acme.renew()) is Fault.REVOKED
    assert log.append(acme.rotate()).key != acme.credential.leaf.spki_sha256


def test_weakness_3_a_deactivation_is_for_ever_and_the_name_stays_taken(
    log: Log, acme: Party, organisation: Any
) -> None:
    first = acme.entry(Op.SERVICE, service=b"x").signed(acme.auto_id, acme.key)
    plain = organisation("plain", plain=True)
    log.append(plain.deactivate())
    log.append(acme.recover())
    assert log.append(acme.deactivate()).recovery is None
    assert refused(log, first) is Fault.DEACTIVATED
    assert refused(log, acme.register()) is Fault.TAKEN
    another = organisation("plain", plain=True, registered=False)  # another key under the same name
    assert refused(log, another.register()) is Fault.TAKEN
    log.wait(10 * DELAY)
    assert log.state(acme) is State.DEACTIVATED


def test_weakness_4_a_revoked_intermediate_issues_no_more_and_nothing_below_it_stands(
    log: Log, acme: Party, issued: Any
) -> None:
    team = issued(acme, "team", may_issue=0)
    agent = issued(team, "agent")
    late = issued(team, "late", registered=False)
    log.append(team.revoke(by=acme))
    assert refused(log, late.register()) is Fault.ISSUER
    assert log.standing(agent).state is State.REVOKED
    assert log.standing(agent).because == team.auto_id


def test_weakness_5_an_entry_is_for_one_log_until_one_time(log: Log, acme: Party) -> None:
    service = acme.service()
    with pytest.raises(EntryRefused) as refusal:
        apply(log.ledger, service, origin="another.example/log", now=log.now, index=9)
    assert refusal.value.fault is Fault.WRONG_LOG
    log.wait(3601)
    assert refused(log, service) is Fault.EXPIRED
    log.append(log_again := acme.service())
    assert refused(log, log_again) is Fault.STALE
    assert service.origin == ORIGIN
    assert b"autolink/1" in service.body


def test_weakness_5_an_entry_is_taken_up_to_its_last_instant_and_lives_a_week(log: Log, acme: Party) -> None:
    week = 7 * 24 * 3600 * SECOND
    for late in (-1, week + 1):
        assert refused(log, acme.service(expires_at=log.now + late)) is Fault.EXPIRED
    for good in (0, week):
        log.append(acme.service(expires_at=log.now + good))


def test_weakness_5_what_was_signed_for_something_else_is_no_signature_of_an_entry(
    log: Log, acme: Party
) -> None:
    """The same bytes without the tag that says what they are for."""
    entry = acme.entry(Op.SERVICE, service=b"x")
    preimage = entry.preimage(acme.auto_id, keys.spki(acme.key.public_key()))
    value = keys.sign(acme.key, preimage.removeprefix(b"autolink/1 entry-signature\0"))
    untagged = entry.with_signatures((Signature(acme.auto_id, b"", value),))
    assert refused(log, untagged) is Fault.UNAUTHORISED


def test_weakness_6_a_name_is_registered_by_its_holder_only(log: Log, organisation: Any) -> None:
    """Upstream a third party could publish somebody's certificate, and did not need its key."""
    holder = organisation("holder", registered=False)
    thief = organisation("thief", registered=False)
    entry = holder.register()
    stolen = entry.with_signatures(entry.with_signatures(()).signed(holder.auto_id, thief.key).signatures)
    assert refused(log, stolen) is Fault.UNAUTHORISED
    assert log.append(entry).auto_id == holder.auto_id


def test_weakness_7_a_root_cannot_take_the_id_of_a_name_below_another(
    log: Log, acme: Party, echo: Party, issued: Any, organisation: Any
) -> None:
    """Their ids would be equal: so the name cannot be, and a certificate is its own id's, whoever comes first."""
    name = acme.auto_id.value + b"echo"
    assert AutoId.derive(name) == echo.auto_id
    with pytest.raises(IdentityError, match="longer than 32 bytes"):
        Credential.self_issued("x" * len(name), plain=True)
    root, late = organisation("root", plain=True, registered=False), issued(acme, "late", registered=False)
    for party, fault in ((echo, Fault.TAKEN), (late, Fault.CERTIFICATE)):
        entry = root.register(auto_id=party.auto_id)
        taking = entry.with_signatures(()).signed(party.auto_id, root.key)
        assert refused(log, taking) is fault


def test_weakness_8_what_is_too_large_or_malformed_is_an_error() -> None:
    for data in (b"", b"\x92", bytes(49_153), b"\x92\xc4\x00\x90", b"\x80" * 60_000, b"\xc1"):
        with pytest.raises(EntryRefused) as refusal:
            Entry.from_untrusted(data)
        assert refusal.value.fault is Fault.MALFORMED


def test_weakness_8_what_is_out_of_bounds_in_a_certificate_is_an_error(log: Log, acme: Party) -> None:
    """Upstream a long serial number may have ended the node."""
    unknown = x509.ObjectIdentifier("1.2.3")
    large = given(
        "agent", acme, extra=[(x509.UnrecognizedExtension(unknown, bytes(limits.CERTIFICATE)), False)]
    )
    with pytest.raises(EntryRefused) as refusal:
        Entry.from_untrusted(registration(log, large, acme).to_bytes())
    assert refusal.value.fault is Fault.MALFORMED
    critical = given("agent", acme, extra=[(x509.UnrecognizedExtension(unknown, b""), True)])
    good = given("agent", acme, serial=2**158)
    serial = good.x509.serial_number.to_bytes(20, "big")
    too_long = good.der.replace(b"\x02\x14" + serial, b"\x02\x14\x7f" + b"\xff" * 19)
    negative = good.der.replace(b"\x02\x14" + serial, b"\x02\x14\xff" + b"\x00" * 19)
    for der in (critical.der, too_long, negative, good.der[:-1], good.der + b"\x00"):
        entry = registration(log, good, acme, certificate=der)
        assert refused(log, entry) is Fault.CERTIFICATE


def test_weakness_9_the_algorithm_is_the_keys_and_never_the_entrys(log: Log, acme: Party) -> None:
    """There is no field to choose one, and what the key signed in another way is not signed."""
    assert not {"algorithm", "scheme"} & set(Entry.__dataclass_fields__)
    entry = acme.entry(Op.SERVICE, service=b"x")
    preimage = entry.preimage(acme.auto_id, keys.spki(acme.key.public_key()))
    assert isinstance(acme.key, ec.EllipticCurvePrivateKey)
    otherwise = acme.key.sign(preimage, ec.ECDSA(hashes.SHA384()))
    assert (
        refused(log, entry.with_signatures((Signature(acme.auto_id, b"", otherwise),))) is Fault.UNAUTHORISED
    )
    log.append(entry.signed(acme.auto_id, acme.key))
    short = rsa.generate_private_key(65537, 1024)  # noqa: S505
    for weak in (short, ec.generate_private_key(ec.SECP521R1())):
        forged = replace(given("weak", acme, key=weak), key=new_key())
        assert refused(log, registration(log, forged, acme)) is Fault.CERTIFICATE


@pytest.mark.parametrize(
    "how",
    [
        {"end": timedelta(days=4000)}, {"end": timedelta(seconds=30)}, {"begin": timedelta(minutes=2)},
        {"begin": timedelta(days=-1)}, {"names": []}, {"purposes": [ExtendedKeyUsageOID.CODE_SIGNING]},
        {"names": [x509.UniformResourceIdentifier("autoid:auto:" + "0" * 64)]},
        {"usage": {"digital_signature": False, "key_agreement": True}}, {"usage": {"key_cert_sign": True}},
        {"signer": ec.derive_private_key(7, ec.SECP256R1())}, {"digest": hashes.SHA224()},
    ],
)  # fmt: skip
def test_weakness_10_a_registration_holds_the_certificate_against_the_profile(
    log: Log, acme: Party, how: dict[str, Any]
) -> None:
    """Upstream looked at none of it, and a leaf's key signed nothing."""
    log.wait(60)
    assert refused(log, registration(log, given("agent", acme, **how), acme)) is Fault.CERTIFICATE
    good = registration(log, given("agent", acme), acme)
    nobody = good.with_signatures(good.signatures[1:])  # the issuer alone: nobody has shown the key
    assert refused(log, nobody) is Fault.UNAUTHORISED
    assert log.append(good).auto_id == good.auto_id


def test_weakness_10_who_may_not_issue_registers_nobody_below_it(log: Log, acme: Party, issued: Any) -> None:
    team = issued(acme, "team", may_issue=0)
    echo = issued(acme, "echo")
    for issuer, how in ((team, {"issues": True, "path_length": 0}), (echo, {})):
        # Beyond its pathLen, and not at all.
        entry = registration(log, given("lowest", issuer, **how), issuer)
        assert refused(log, entry) is Fault.CERTIFICATE


def test_weakness_11_a_key_is_rotated(log: Log, acme: Party, echo: Party) -> None:
    for party in (acme, echo):
        before = log.record(party)
        key, after = party.next_key, new_key()
        record = log.append(party.rotate(after))
        party.take_key(key, after)
        assert record.auto_id == before.auto_id
        assert record.key == before.next_key
        log.append(party.service())
    assert log.state(echo) is State.ACTIVE  # also below an issuer with another key now


def test_weakness_12_what_ends_an_issuer_ends_those_below_and_an_issuer_ends_them(
    log: Log, acme: Party, echo: Party
) -> None:
    log.append(echo.deactivate(by=acme))
    assert log.state(echo) is State.DEACTIVATED
    log.append(acme.deactivate())
    assert log.standing(echo).state is State.DEACTIVATED
