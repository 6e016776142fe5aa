"""An organisation, an agent of it, and a forge for certificates that no honest issuer makes."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.name import _ASN1Type
from cryptography.x509.oid import NameOID

from autolink.identity import Credential, CredentialRequest, EntityKind, Keystore

CHEAP = 16
"""An scrypt cost for tests; one in `test_sealed` uses the real one."""

SECRET = "correct horse"

NOW = datetime(2026, 12, 1, tzinfo=UTC)

Forge = Callable[..., bytes]


@pytest.fixture
def now() -> datetime:
    return NOW


@pytest.fixture
def acme(now: datetime) -> Credential:
    return Credential.self_issued("acme", now=now)


@pytest.fixture
def seller(acme: Credential, now: datetime) -> Credential:
    request = CredentialRequest.new("seller")
    return request.complete(acme.issue(request, kind=EntityKind.AGENT, now=now))


@pytest.fixture
def store(tmp_path: Path) -> Keystore:
    return Keystore(tmp_path / "home", scrypt_n=CHEAP)


@pytest.fixture
def entry(store: Keystore, acme: Credential) -> Path:
    store.save_new("acme", acme, passphrase=SECRET)
    return store.folder("acme")


@pytest.fixture
def forge() -> Forge:
    """Make the DER of a certificate with any common name (in any string type), serial and extensions."""

    def make(
        common_name: str = "mallory",
        *extensions: x509.ExtensionType,
        kind: _ASN1Type = _ASN1Type.UTF8String,
        subject: list[x509.NameAttribute[Any]] | None = None,
        key: Any = None,
        **replaced: Any,
    ) -> bytes:
        key = key or ec.generate_private_key(ec.SECP256R1())
        cn = x509.NameAttribute(NameOID.COMMON_NAME, common_name, kind, _validate=False)
        name = x509.Name([cn] if subject is None else subject)
        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(replaced.get("issuer", name))
            .public_key(replaced.get("public_key", key.public_key()))
            .serial_number(x509.random_serial_number())
            .not_valid_before(NOW)
            .not_valid_after(NOW + timedelta(days=1))
        )
        for extension in extensions:
            builder = builder.add_extension(extension, critical=False)
        return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)

    return make
