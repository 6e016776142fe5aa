"""Issuers' own revocation lists: what OpenSSL makes of them, and what a registry takes, serves and says about them."""

import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from autolink import Agent, Credential
from autolink.errors import EntryRefused, Fault, IdentityError, Reason, UsageError
from autolink.identity import Certificate
from autolink.identity.keys import KeyType
from autolink.messages import instant
from autolink.registry.crl import Issued, make_crl, publish, served
from autolink.registry.http import PublicSide
from autolink.registry.records import State
from autolink.trust import SelfCertified
from autolink.trust.chain import verify_path

from .conftest import new_key
from .public import Kept, agent, kept, publish_crl
from .serving import registration, serving


@pytest.fixture
def small(tmp_path: Path) -> Any:
    with kept(tmp_path / "registry") as made:
        yield made


def check(small: Kept, certificate: Certificate, crl: bytes) -> None:
    """What OpenSSL says of a certificate of acme's, with this list."""
    root = small.acme.credential.leaf.der
    lists = [x509.load_der_x509_crl(crl)]
    verify_path(certificate.der, (), (root,), now=instant(small.log.now), crls=lists)


def current(small: Kept) -> Certificate:
    return Certificate.parse_untrusted(small.log.record(small.echo).certificate)


def revoked_in(crl: bytes) -> set[int]:
    return {one.serial_number for one in x509.load_der_x509_crl(crl)}


def test_rule_37_an_issuer_signs_its_own_list_and_openssl_heeds_it(small: Kept) -> None:
    echo = current(small)
    check(small, echo, publish_crl(small))
    small.add(small.echo.revoke(small.acme))
    crl = publish_crl(small)
    with pytest.raises(IdentityError, match="revoked") as refusal:
        check(small, echo, crl)
    assert refusal.value.reason is Reason.REVOKED


def test_rule_37_an_ancestors_revocation_is_the_intermediates_by_its_own_issuer(small: Kept) -> None:
    """Of two issuers in a chain each signs for those right below it, and OpenSSL asks for a list of each."""
    team = agent(small.log, small.acme, "team", may_issue=0)
    below = agent(small.log, team, "agent")
    small.flush()

    def verify(*lists: bytes) -> None:
        verify_path(
            below.credential.leaf.der, (team.credential.leaf.der,), (small.acme.credential.leaf.der,),
            now=instant(small.log.now), crls=list(map(x509.load_der_x509_crl, lists)),
        )  # fmt: skip

    verify(publish_crl(small), publish_crl(small, team))
    small.add(team.revoke(by=small.acme))
    acmes, teams = publish_crl(small), publish_crl(small, team)
    assert revoked_in(acmes) == {team.credential.leaf.x509.serial_number}
    assert not revoked_in(teams)
    with pytest.raises(IdentityError, match="certificate 1 from its start: certificate revoked") as refusal:
        verify(acmes, teams)
    assert refusal.value.reason is Reason.REVOKED


def test_openssls_command_says_the_same(small: Kept, tmp_path: Path) -> None:
    def verify() -> tuple[int, str]:
        crl = x509.load_der_x509_crl(publish_crl(small)).public_bytes(Encoding.PEM)
        (tmp_path / "list.pem").write_bytes(crl)
        command = [
            "openssl",
            "verify",
            "-x509_strict",
            "-crl_check",
            "-CAfile",
            "root.pem",
            "-CRLfile",
            "list.pem",
        ]
        moment = str(int(instant(small.log.now).timestamp()))
        done = subprocess.run(
            [*command, "-attime", moment, "echo.pem"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    (tmp_path / "root.pem").write_bytes(small.acme.credential.leaf.pem)
    (tmp_path / "echo.pem").write_bytes(current(small).pem)
    assert verify() == (0, "echo.pem: OK\n")
    small.add(small.echo.revoke())
    code, said = verify()
    assert code
    assert "certificate revoked" in said


@pytest.mark.parametrize("how", ["revoke", "deactivate", "rotate", "recover"])
def test_a_certificate_is_revoked_when_its_key_has_ended_and_not_before(small: Kept, how: str) -> None:
    first = current(small)
    small.add(small.echo.renew())
    renewed = current(small)
    for certificate in (first, renewed):
        check(small, certificate, publish_crl(small))
    small.add(getattr(small.echo, how)())
    crl = publish_crl(small)
    assert revoked_in(crl) == {first.x509.serial_number, renewed.x509.serial_number}
    small.log.wait(8 * 24 * 3600)  # a recovery has taken place
    if how in ("rotate", "recover"):
        check(small, current(small), publish_crl(small))
        assert current(small).x509.serial_number not in revoked_in(crl)


def test_weakness_1_of_two_certificates_that_share_a_serial_a_list_revokes_both(
    small: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log compares no serials: its key and when it begins keep a certificate from coming back, and a status names it by
    its hash. A list has nothing but serials. So who issues two certificates with one serial has both refused when one has
    ended, by those who go by the list and nobody else. That is its own doing: no other issuer's certificates are in it."""
    monkeypatch.setattr(x509, "random_serial_number", lambda: 7)
    ended, other = (agent(small.log, small.acme, name) for name in ("ended", "other"))
    small.add(ended.revoke())
    crl = publish_crl(small)
    assert revoked_in(crl) == {7}
    with pytest.raises(IdentityError, match="revoked"):
        check(small, other.credential.leaf, crl)
    check(small, current(small), crl)
    assert small.log.state(other) is State.ACTIVE


def test_what_has_run_out_by_itself_is_left_out(small: Kept) -> None:
    small.add(small.echo.revoke())
    assert len(revoked_in(publish_crl(small))) == 1
    small.log.wait(91 * 24 * 3600)
    assert not revoked_in(publish_crl(small))


def test_a_recovery_that_was_cancelled_revokes_the_certificate_that_it_brought(small: Kept) -> None:
    small.add(small.echo.recover())
    recovery = small.log.record(small.echo).recovery
    assert recovery is not None
    coming = Certificate.parse_untrusted(recovery.certificate).x509.serial_number
    assert coming not in revoked_in(publish_crl(small))
    small.add(small.echo.rotate())
    assert coming in revoked_in(publish_crl(small))


@pytest.mark.parametrize("kind", [KeyType.ED25519, KeyType.ML_DSA_65])
def test_lists_are_made_with_every_kind_of_key(kind: KeyType) -> None:
    acme = Credential.self_issued("acme", key_type=kind)
    der = make_crl(acme, Issued(acme.auto_id), size=0, now=acme.leaf.not_before)
    assert x509.load_der_x509_crl(der).signature_algorithm_oid is not None


def test_a_list_that_nobody_could_check_is_not_made(small: Kept) -> None:
    acme, echo = small.acme.credential, small.echo.credential
    now = instant(small.log.now)
    with pytest.raises(UsageError, match="another issuer"):
        make_crl(acme, Issued(echo.auto_id), size=2, now=now)
    with pytest.raises(UsageError, match="lives at most"):
        make_crl(acme, Issued(acme.auto_id), size=2, now=now, lifetime=timedelta(days=32))
    with pytest.raises(IdentityError, match="may not sign"):
        make_crl(echo, Issued(echo.auto_id), size=2, now=now)


# --- at the registry -----------------------------------------------------------------------------------------


def forge(small: Kept, **odd: Any) -> bytes:
    """A list of acme's with something odd about it."""
    credential = odd.get("credential", small.acme.credential)
    now: datetime = instant(small.log.now).replace(microsecond=0)
    begin, end = now + odd.get("begin", timedelta(0)), now + odd.get("end", timedelta(days=7))
    number = odd.get("number", small.store.head.size << 32 | int(begin.timestamp()))
    identifier = credential.leaf.x509.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(odd.get("name", credential.leaf.x509.subject))
        .last_update(begin)
        .next_update(end)
        .add_extension(x509.CRLNumber(number), critical=odd.get("critical", False))
    )
    if odd.get("authority", True):
        authority = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier)
        builder = builder.add_extension(authority, critical=False)
    if "more" in odd:
        builder = builder.add_extension(odd["more"], critical=True)
    for entry in odd.get("entries", ()):
        builder = builder.add_revoked_certificate(entry)
    return builder.sign(odd.get("key", credential.private_key), hashes.SHA256()).public_bytes(Encoding.DER)


def entry(*extensions: Any) -> Any:
    builder = (
        x509.RevokedCertificateBuilder().serial_number(7).revocation_date(datetime(2026, 1, 1, tzinfo=UTC))
    )
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    return builder.build()


def refused(small: Kept, der: bytes, *, whose: Any = None) -> Fault:
    whose = whose or small.acme
    with pytest.raises(EntryRefused) as refusal:
        publish(small.store, whose.auto_id, der, now=instant(small.log.now))
    assert small.store.crl(whose.auto_id) is None
    return refusal.value.fault


def test_the_registry_takes_what_the_issuer_has_signed_and_nothing_else(small: Kept) -> None:
    other = Credential.self_issued("other", now=instant(small.log.now))
    assert refused(small, forge(small, key=new_key())) is Fault.UNAUTHORISED
    assert refused(small, forge(small, credential=other)) is Fault.UNAUTHORISED
    assert refused(small, forge(small, name=other.leaf.x509.subject)) is Fault.UNAUTHORISED
    assert (
        refused(small, forge(small, credential=small.echo.credential), whose=small.echo) is Fault.CERTIFICATE
    )
    point = x509.DeltaCRLIndicator(1)
    days = timedelta(days=1)
    for odd in (
        {"more": point}, {"critical": True}, {"authority": False}, {"number": 7}, {"end": 32 * days},
        {"number": 3 << 32 | int(instant(small.log.now).timestamp())}, {"number": 2**150},
        {"entries": [entry(x509.CRLReason(x509.ReasonFlags.key_compromise))]},
    ):  # fmt: skip
        assert refused(small, forge(small, **odd)) is Fault.MALFORMED
    assert refused(small, forge(small, begin=days, end=2 * days)) is Fault.EXPIRED
    assert refused(small, forge(small, begin=-2 * days, end=-days)) is Fault.EXPIRED
    good = forge(small, entries=[entry()])
    for wrong in (
        b"",
        b"0",
        good[:-1],
        good + b"\0",
        b"x" * (256 * 1024 + 1),
        small.acme.credential.leaf.der,
    ):
        assert refused(small, wrong) is Fault.MALFORMED
    changed = bytearray(good)
    changed[good.index(b"\x02\x01\x07") + 2] ^= 1  # the serial that is revoked
    assert refused(small, bytes(changed)) is Fault.UNAUTHORISED
    checked = publish(small.store, small.acme.auto_id, good, now=instant(small.log.now))
    assert (checked.size, checked.count) == (small.store.head.size, 1)


def test_a_list_changed_byte_by_byte_is_refused_and_nothing_else(small: Kept) -> None:
    """Whatever its parser makes of it, and when: what is wrong with some parts it finds only when they are asked for."""
    good = forge(small, entries=[entry()])
    for place, byte in enumerate(good):
        for other in {0, 1, 2, 5, 0x17, 0x30, 0xFF, byte ^ 1, byte ^ 0x20} - {byte}:
            assert refused(small, good[:place] + bytes([other]) + good[place + 1 :]) is not None


def test_an_older_list_does_not_come_back(small: Kept) -> None:
    first = forge(small)
    small.log.wait(1)
    second = forge(small)
    publish(small.store, small.acme.auto_id, second, now=instant(small.log.now))
    for older in (first, second):
        with pytest.raises(EntryRefused) as refusal:
            publish(small.store, small.acme.auto_id, older, now=instant(small.log.now))
        assert refusal.value.fault is Fault.STALE
    assert small.store.crl(small.acme.auto_id) == second
    with pytest.raises(EntryRefused) as refusal:
        publish(
            small.store, Issued(small.acme.auto_id).issuer.derive("nobody"), first, now=instant(small.log.now)
        )
    assert refusal.value.fault is Fault.UNKNOWN


async def test_rule_37_the_registry_serves_it_and_says_when_it_lags_the_log(small: Kept) -> None:
    transport = httpx.ASGITransport(PublicSide(small.store, small.registrar))
    path = f"/v1/ids/{small.acme.auto_id.hex}"
    async with httpx.AsyncClient(transport=transport, base_url="http://registry") as asking:
        assert (await asking.get(f"{path}/crl")).status_code == 404
        der = publish_crl(small)
        answer = await asking.get(f"{path}/crl")
        assert answer.content == der
        assert answer.headers["content-type"] == "application/pkix-crl"
        assert (answer.headers["crl-lags"], answer.headers["cache-control"]) == (
            "false",
            "public, max-age=60",
        )
        small.add(small.acme.service(), small.echo.renew())
        assert (await asking.get(f"{path}/crl")).headers["crl-lags"] == "false"  # nothing of it has ended
        small.add(small.echo.revoke())
        assert (await asking.get(f"{path}/crl")).headers["crl-lags"] == "true"
        view = (await asking.get(path)).json()["crl"]
        assert (view["lags"], view["size"], view["revoked"]) == (True, 2, 0)
        publish_crl(small)
        view = (await asking.get(path)).json()["crl"]
        assert (view["lags"], view["size"], view["revoked"]) == (False, 5, 2)
        assert view["next_update"] - view["this_update"] == 7 * 24 * 3600 * 1_000_000
        small.log.wait(8 * 24 * 3600)
        assert (await asking.get(f"{path}/crl")).headers["cache-control"] == "public, max-age=0"


def lags(small: Kept) -> bool:
    found = served(small.store, small.log.record(small.acme))
    assert found is not None
    return found.lags


def test_a_list_under_a_former_key_lags(small: Kept) -> None:
    publish_crl(small)
    small.add(small.acme.rotate())
    assert lags(small)


def test_rule_37_a_list_counts_the_entry_before_it_and_lags_at_the_next(small: Kept) -> None:
    small.add(small.echo.revoke())
    publish_crl(small)
    assert not lags(small)
    small.add(small.echo.rotate())
    assert lags(small)


def test_a_revocation_is_in_a_list_of_the_same_second_and_the_clock_never_goes_back(small: Kept) -> None:
    store, acme, now = small.store, small.acme, instant(small.log.now)
    before = store.head.size

    def made(size: int, seconds: int) -> bytes:
        time = now + timedelta(seconds=seconds)
        return make_crl(acme.credential, Issued(acme.auto_id), size=size, now=time)

    publish(store, acme.auto_id, made(before, 0), now=now)
    small.add(small.echo.revoke())
    publish(store, acme.auto_id, made(before + 1, 0), now=now)
    for size, seconds in ((before + 1, 0), (before, 5), (before + 1, -5)):
        with pytest.raises(EntryRefused, match="as new, or newer"):
            publish(store, acme.auto_id, made(size, seconds), now=now)


async def test_a_list_is_published_over_a_link(tmp_path: Path) -> None:
    async with serving(tmp_path) as made:
        acme = Credential.self_issued("acme")
        async with made.client(made.join(Agent(acme, trust=SelfCertified()))) as client:
            await client.submit(registration(acme))
            der = make_crl(acme, Issued(acme.auto_id), size=1, now=instant(made.registrar.now()))
            await client.publish_crl(acme.auto_id, der)
            assert made.store.crl(acme.auto_id) == der
            for wrong, fault in ((der, Fault.STALE), (der[:-1], Fault.MALFORMED)):
                with pytest.raises(EntryRefused) as refusal:
                    await client.publish_crl(acme.auto_id, wrong)
                assert refusal.value.fault is fault
