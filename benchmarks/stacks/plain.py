"""Certificates for peers that cannot read an Auto ID's: P-256, one CA, hosts' names, and no extension of our own.

Go's X.509 parser refuses an extension whose OID has an arc above 31 bits, and ours stand under a UUID; rustls wants a host's
name. The work of a handshake is the same: two chains of one certificate and the CA's.
"""

import shutil
from datetime import UTC, datetime, timedelta
from functools import cache
from ipaddress import IPv4Address
from pathlib import Path
from tempfile import mkdtemp

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LIFE = timedelta(days=1)
USAGES = (
    "digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
    "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
)  # fmt: skip


@cache
def plain_identities(folder: Path) -> Path:
    """The sub-folder of `folder` that holds `root.pem` and chain and key of `server` and `client`, made when missing."""
    made = folder / "plain"
    if made.exists():
        return made
    draft = Path(mkdtemp(dir=folder))
    root_key = ec.generate_private_key(ec.SECP256R1())
    root = _certificate("bench root", root_key, "bench root", root_key)
    (draft / "root.pem").write_bytes(root.public_bytes(Encoding.PEM))
    for name in ("server", "client"):
        key = ec.generate_private_key(ec.SECP256R1())
        chain = _certificate(name, key, "bench root", root_key).public_bytes(Encoding.PEM)
        (draft / f"{name}.chain.pem").write_bytes(chain)
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        (draft / f"{name}.key.pem").write_bytes(pem)
    try:
        draft.rename(made)
    except OSError:  # another stack's server was faster: a folder that holds something is not replaced
        shutil.rmtree(draft)
    return made


def _certificate(
    name: str, key: ec.EllipticCurvePrivateKey, issuer: str, issuer_key: ec.EllipticCurvePrivateKey
) -> x509.Certificate:
    now = datetime.now(UTC)
    is_ca = name == issuer
    usage = dict.fromkeys(USAGES, False) | {"key_cert_sign": is_ca, "digital_signature": not is_ca}
    extensions: list[x509.ExtensionType] = [
        x509.SubjectKeyIdentifier.from_public_key(key.public_key()),
        x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()),
    ]
    if not is_ca:
        extensions += [
            x509.SubjectAlternativeName(
                [x509.DNSName("localhost"), x509.IPAddress(IPv4Address("127.0.0.1"))]
            ),
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
        ]
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - LIFE)
        .not_valid_after(now + LIFE)
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(**usage), critical=True)
    )
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(issuer_key, SHA256())
