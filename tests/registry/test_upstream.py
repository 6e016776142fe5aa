"""Upstream's own calls, as its benchmarks hold them: they decode, their signatures verify, and their ids are ours."""

import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import load_der_private_key

from autolink.errors import BadSignature, RemoteProtocolError
from autolink.identity import AutoId
from autolink.registry.upstream import Action, Authorisation, UpstreamCertificate, preimage

PALLET = Path(__file__).parents[2].resolve().parent / "shared" / "reference" / "vectors" / "pallet-auto-id"
ISSUER = AutoId.parse("8d66f57e35d26fb7a81de8eb274ebd9e672288dcbf3f7313335e8feeec3e3bf9")
LEAF = AutoId.parse("5c549b317b0f47e81894a9374f244f1cdd062c4a436071d8629f2c69509861a1")


@pytest.fixture
def blob() -> Any:
    if not PALLET.is_dir():
        pytest.skip(f"upstream's own files (Apache-2.0, not copied here) are not at {PALLET}")
    return lambda name: (PALLET / "benchmarks" / name).read_bytes()


@pytest.fixture
def issuer_key(blob: Any) -> Any:
    found = json.loads((PALLET / "test-keys.json").read_text())
    for der in found.values():
        key = load_der_private_key(bytes.fromhex(der), None)
        certificate = UpstreamCertificate.from_untrusted(blob("issuer_register_auto_id_params")).certificate
        if key.public_key() == certificate.public_key():
            return key.public_key()
    raise AssertionError("the issuer's key is not among them")


@pytest.mark.parametrize(
    ("name", "auto_id", "issuer"),
    [
        ("issuer_register_auto_id_params", ISSUER, None),
        ("leaf_register_auto_id_params", LEAF, ISSUER),
        ("issuer_auto_id_renewal", ISSUER, None),
        ("leaf_auto_id_renewal", LEAF, ISSUER),
    ],
)
def test_upstreams_certificates_decode_and_verify(
    name: str, auto_id: AutoId, issuer: AutoId | None, blob: Any, issuer_key: Any
) -> None:
    data = blob(name)
    read = UpstreamCertificate.from_untrusted(data)
    assert (read.auto_id, read.issuer) == (auto_id, issuer)
    read.check_signed_by(issuer_key)
    for changed in (data[:-1], data + b"x", b"\x01" + data[1:], data[:1] + b"\x02" + data[2:]):
        with pytest.raises(RemoteProtocolError):
            UpstreamCertificate.from_untrusted(changed)
    wrong = UpstreamCertificate(read.issuer, read.tbs[:-1] + b"x", read.algorithm, read.signature)
    with pytest.raises(BadSignature):
        wrong.check_signed_by(issuer_key)


@pytest.mark.parametrize(
    ("name", "auto_id", "action"),
    [
        ("issuer_auto_id_revocation_signature", ISSUER, Action.REVOKE),
        ("issuer_auto_id_deactivation_signature", ISSUER, Action.DEACTIVATE),
        ("leaf_auto_id_revocation_signature", LEAF, Action.REVOKE),
    ],
)
def test_upstreams_authorisations_decode_and_verify(
    name: str, auto_id: AutoId, action: Action, blob: Any, issuer_key: Any
) -> None:
    read = Authorisation.from_untrusted(blob(name))
    read.check(issuer_key, auto_id, 0, action)
    for wrong in ((auto_id, 1, action), (auto_id, 0, Action(1 - action)), (AutoId(bytes(32)), 0, action)):
        with pytest.raises(BadSignature):
            read.check(issuer_key, *wrong)


def test_the_ids_are_upstreams(blob: Any) -> None:
    assert (blob("issuer_auto_id"), blob("leaf_auto_id")) == (ISSUER.value, LEAF.value)


def test_an_actions_nonce_is_little_endian() -> None:
    assert preimage(ISSUER, 258, Action.DEACTIVATE) == ISSUER.value + b"\x02\x01" + bytes(30) + b"\x01"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00",
        b"\x00\x00",
        b"\x00\x01" + bytes(31),
        b"\x00\x00\x03",
        b"\x00\x00\x01\x00",
        b"\x00\x00\x02\x00\x00\x00",
        b"\x00\x00\xfe\xff\xff\xff",
        b"\x00\x00\x04a\x04b",
    ],
    ids=str,
)
def test_what_is_no_call_of_upstreams_is_refused(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        UpstreamCertificate.from_untrusted(data)


@pytest.mark.parametrize("data", [b"", b"\x00", b"\x03", b"\x00\x00x", b"\x04", b"\xfe\xff\xff\xff"], ids=str)
def test_what_is_no_authorisation_of_upstreams_is_refused(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        Authorisation.from_untrusted(data)


def test_parts_that_are_no_certificate_are_refused() -> None:
    with pytest.raises(RemoteProtocolError, match="malformed"):
        _ = UpstreamCertificate(None, b"\x30\x00", b"\x30\x00", b"x").certificate
    with pytest.raises(BadSignature, match="kind of key"):
        UpstreamCertificate(None, b"", b"", b"").check_signed_by("no key")
