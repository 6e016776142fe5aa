"""A small certificate authority that can make any mistake."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from autolink.identity import AutoId, Certificate, Credential, CredentialRequest, EntityKind
from autolink.trust import Context

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
BOTH = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)


@dataclass
class Forged:
    """A certificate, its key, and what it stands on."""

    x509: x509.Certificate
    key: Any
    auto_id: AutoId
    issuer: "Forged | None"

    @property
    def der(self) -> bytes:
        return self.x509.public_bytes(Encoding.DER)

    @property
    def chain(self) -> list[bytes]:
        return [self.der, *(self.issuer.chain if self.issuer else [])]

    @property
    def certificate(self) -> Certificate:
        return Certificate.parse_untrusted(self.der)


def forge(
    name: str = "echo",
    issuer: Forged | None = None,
    *,
    key: Any = None,
    issues: bool | None = None,
    path_length: int | None = None,
    begin: timedelta = timedelta(minutes=-5),
    end: timedelta = timedelta(days=30),
    names: Sequence[x509.GeneralName] | None = None,
    usage: dict[str, bool] | None = None,
    purposes: Sequence[x509.ObjectIdentifier] | None = None,
    replaced: dict[type[x509.ExtensionType], tuple[x509.ExtensionType, bool] | None] | None = None,
    extra: Sequence[tuple[x509.ExtensionType, bool]] = (),
    subject: x509.Name | None = None,
    issuer_name: x509.Name | None = None,
    signer: Any = None,
    digest: hashes.HashAlgorithm | None = None,
    serial: int | None = None,
) -> Forged:
    """A certificate of the profile, but for what the arguments change. Without `issuer` it is self-issued."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    issues = issuer is None if issues is None else issues
    alone = issuer is None
    auto_id = AutoId.derive(name, issuer.auto_id if issuer else None)
    subject = subject or x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    bits = dict.fromkeys(
        ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
         "key_cert_sign", "crl_sign", "encipher_only", "decipher_only"), False,
    ) | {"digital_signature": alone or not issues, "key_cert_sign": issues} | (usage or {})  # fmt: skip
    above = (issuer.x509 if issuer else None), (issuer.key if issuer else key)
    if names is None:
        names = [x509.UniformResourceIdentifier(auto_id.uri)]
    extensions: dict[type[x509.ExtensionType], tuple[x509.ExtensionType, bool] | None] = {
        x509.BasicConstraints: (x509.BasicConstraints(issues, path_length if issues else None), True),
        x509.KeyUsage: (x509.KeyUsage(**bits), True),
        x509.SubjectKeyIdentifier: (x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False),
        x509.SubjectAlternativeName: (x509.SubjectAlternativeName(names), False) if names else None,
    }
    if issuer:
        identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key())
        extensions[x509.AuthorityKeyIdentifier] = identifier, False
    if not issues:
        extensions[x509.ExtendedKeyUsage] = x509.ExtendedKeyUsage(purposes or BOTH), False
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer_name or (above[0].subject if above[0] else subject))
        .public_key(key.public_key())
        .serial_number(serial or x509.random_serial_number())
        .not_valid_before(NOW + begin)
        .not_valid_after(NOW + end)
    )
    for extension in [*(extensions | (replaced or {})).values(), *extra]:
        if extension:
            builder = builder.add_extension(extension[0], critical=extension[1])
    signing = signer or above[1]
    hashed = digest or (
        hashes.SHA256() if hasattr(signing, "curve") or hasattr(signing, "key_size") else None
    )
    return Forged(builder.sign(signing, hashed), key, auto_id, issuer)


@pytest.fixture(name="forge")
def _forge() -> Callable[..., Forged]:
    return forge


@pytest.fixture
def now() -> datetime:
    return NOW


@pytest.fixture
def inbound() -> Context:
    return Context(NOW, "inbound", address="192.0.2.1:7600")


@pytest.fixture
def dialled() -> Context:
    return Context(NOW, "outbound", address="echo.example:7600", given_by_person=True)


def organisation(name: str, *, plain: bool = False) -> Credential:
    return Credential.self_issued(name, plain=plain, now=NOW)


def agent(name: str, issuer: Credential, *, may_issue: int | None = None) -> Credential:
    request = CredentialRequest.new(name)
    kind = EntityKind.AGENT if may_issue is None else EntityKind.ORGANIZATION
    return request.complete(issuer.issue(request, kind=kind, may_issue=may_issue, now=NOW))


@pytest.fixture(name="organisation")
def _organisation() -> Callable[..., Credential]:
    return organisation


@pytest.fixture(name="agent")
def _agent() -> Callable[..., Credential]:
    return agent


@pytest.fixture
def acme() -> Credential:
    """A bound organisation."""
    return organisation("acme")


@pytest.fixture
def echo(acme: Credential) -> Credential:
    """An agent of acme."""
    return agent("echo", acme)


@pytest.fixture
def ders() -> Callable[[Credential], list[bytes]]:
    """What a credential's holder shows."""
    return lambda credential: [certificate.der for certificate in credential.chain]
