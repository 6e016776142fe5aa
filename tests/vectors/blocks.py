"""The formats of docs/spec.md once more, from the text alone: msgpack, hashlib and cryptography, nothing else.

Slow and plain on purpose, and never sharing a line with the package that is tested against it. Keys are constants
(SHA-256 of a label), signatures deterministic (RFC 6979), so every run makes the same bytes.
"""

import base64
import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import msgpack
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.name import _ASN1Type
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

NOW = datetime(2030, 6, 1, 12, 0, tzinfo=UTC)
MICROS = 1906545600000000
SECOND = 1_000_000
ARC = "1.2.840.113556.1.8000.2554.50689.35039.53120.21666.32811.3812954.12835436"
ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


def pack(value):
    return msgpack.packb(value, use_bin_type=True, datetime=True)


def sha256(data):
    return hashlib.sha256(data).digest()


def auto_id(name, issuer=b""):
    return hashlib.blake2b(issuer + name.encode(), digest_size=32).digest()


def uri(identifier):
    return f"autoid:auto:{identifier.hex()}"


# --- keys ---------------------------------------------------------------------------------------------------


def p256(label):
    return ec.derive_private_key(int.from_bytes(sha256(label.encode())) % ORDER, ec.SECP256R1())


def ed(label):
    return ed25519.Ed25519PrivateKey.from_private_bytes(sha256(label.encode()))


def spki(key):
    return key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def sign(key, data):
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key.sign(data)
    return key.sign(data, ec.ECDSA(hashes.SHA256(), deterministic_signing=True))


# --- names and certificates ---------------------------------------------------------------------------------


def suffix(first_key, next_key_hash):
    digest = hashlib.blake2b(b"autolink/1 bound-name\0" + first_key + next_key_hash, digest_size=32).digest()
    return base64.b32encode(digest).decode().lower()[:26]


@dataclass
class Holder:
    """A key and its chain, leaf first."""

    name: str
    key: object
    chain: list
    id: bytes

    @property
    def der(self):
        return [certificate.public_bytes(serialization.Encoding.DER) for certificate in self.chain]


def root(label, *, key=None, name=None, plain=False, **odd):
    """A self-issued organisation; bound unless plain."""
    key = key or p256(label)
    committed = None if plain else sha256(spki(p256(f"{label}'s next key")))
    if name is None:
        name = label if plain else f"{label}~{suffix(spki(key), committed)}"
    identifier = auto_id(name)
    fields = {"place": "root", "kind": "organization", "next_key": committed, **odd}
    made = certificate(name, key, name, key, identifier, **fields)
    return Holder(name, key, [made], identifier)


def rotated(holder, key, *, following="the key after", signer=None, name=None, next_key=b"", **odd):
    """A holder's root over another key, in the name's place; `signer` and `next_key` make it an odd one."""
    committed = next_key if next_key != b"" else sha256(spki(p256(following)))
    identifier = auto_id(name or holder.name)
    made = certificate(
        name or holder.name, key, name or holder.name, signer or key, identifier, place="root", kind="organization",
        next_key=committed, **odd,
    )  # fmt: skip
    return Holder(holder.name, key, [made], holder.id)


def rotations(*holders):
    """The evidence that leads from the first of them on."""
    return pack(["autolink/1 rotations", [holder.der[0] for holder in holders]])


def issued(issuer, name, *, key=None, place="leaf", kind="agent", **odd):
    """What an issuer gives: a leaf, or an issuing certificate with `path_length`."""
    key = key or p256(f"{issuer.name}/{name}")
    identifier = auto_id(name, issuer.id)
    made = certificate(name, key, issuer.name, issuer.key, identifier, place=place, kind=kind, **odd)
    return Holder(name, key, [made, *issuer.chain], identifier)


def certificate(
    name, key, issuer_name, issuer_key, identifier, *, place, kind, path_length=None, next_key=None, uris=None,
    begin=NOW - timedelta(days=1), end=NOW + timedelta(days=100), purposes=True, ca=None, digital_signature=None,
    recovered_in=None, crl_sign=False, issuer_string=_ASN1Type.UTF8String,
):  # fmt: skip
    """One certificate of the profile; the last arguments make it an odd one."""
    ca = place != "leaf" if ca is None else ca
    signs = place != "issuer" if digital_signature is None else digital_signature
    usage = dict.fromkeys(
        ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
         "encipher_only", "decipher_only"), False,
    )  # fmt: skip
    public, issuer_public = key.public_key(), issuer_key.public_key()
    serial = int.from_bytes(sha256(f"{name}/{issuer_name}/{begin}/{end}".encode())[:16]) | 1
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer_name, issuer_string)]))
        .public_key(public)
        .serial_number(serial)
        .not_valid_before(begin)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca, path_length), critical=True)
        .add_extension(
            x509.KeyUsage(digital_signature=signs, key_cert_sign=ca, crl_sign=crl_sign, **usage),
            critical=True,
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    )
    if place != "root":
        named = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_public)
        builder = builder.add_extension(named, critical=False)
    if place == "leaf" and purposes:
        both = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        builder = builder.add_extension(x509.ExtendedKeyUsage(both), critical=False)
    names = [x509.UniformResourceIdentifier(text) for text in ([uri(identifier)] if uris is None else uris)]
    builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    builder = builder.add_extension(private(1, 0x0C, kind.encode()), critical=False)
    if next_key is not None:
        builder = builder.add_extension(private(2, 0x04, next_key), critical=False)
    if recovered_in is not None:
        builder = builder.add_extension(private(3, 0x04, recovered_in), critical=False)
    return sign_x509(builder, issuer_key)


def private(number, tag, content):
    """A private extension: one DER string."""
    return x509.UnrecognizedExtension(
        x509.ObjectIdentifier(f"{ARC}.{number}"), bytes([tag, len(content)]) + content
    )  # fmt: skip


def sign_x509(builder, key):
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return builder.sign(key, None)
    return builder.sign(key, hashes.SHA256(), ecdsa_deterministic=True)


# --- Merkle trees, as RFC 9162 defines them -----------------------------------------------------------------


def leaf_hash(data):
    return sha256(b"\0" + data)


def split(n):
    """The largest power of two below n."""
    return 1 << (n - 1).bit_length() - 1


def tree(leaves):
    """The root over leaf data."""
    if len(leaves) < 2:
        return leaf_hash(leaves[0]) if leaves else sha256(b"")
    k = split(len(leaves))
    return sha256(b"\1" + tree(leaves[:k]) + tree(leaves[k:]))


def path(leaves, index):
    if len(leaves) < 2:
        return []
    k = split(len(leaves))
    if index < k:
        return [*path(leaves[:k], index), tree(leaves[k:])]
    return [*path(leaves[k:], index - k), tree(leaves[:k])]


# --- messages -----------------------------------------------------------------------------------------------


def leaf_fields(
    author, recipient, *, number=0, sent=MICROS, life=60 * SECOND, kind=1, body=b"\xa3tea", **odd
):
    """The twelve fields; `odd` replaces some of them."""
    fields = {
        "id": sha256(f"message {number}".encode())[:16], "seq": number, "author": author, "recipient": recipient,
        "sent_at": sent, "expires_at": sent + life, "kind": kind, "channel": 0, "method": "quote", "timeout": 0,
        "headers": {}, "body": body,
    }  # fmt: skip
    assert set(odd) <= set(fields)
    return list((fields | odd).values())


def preimage(leaf_certificate, link, role, number, count, root_hash, purpose=b"autolink/1 batch\0"):
    numbers = number.to_bytes(8, "big") + count.to_bytes(4, "big")
    return purpose + sha256(leaf_certificate) + link + role + numbers + root_hash


def envelope(signer, leaves, index=0, *, role=b"e", link=bytes(32), number=0, purpose=b"autolink/1 batch\0"):
    """The eleven elements of an Envelope, as a dictionary to change."""
    signed = preimage(signer.der[0], link, role, number, len(leaves), tree(leaves), purpose)
    return {
        "tag": "autolink/1 envelope", "leaf": leaves[index], "index": index, "count": len(leaves),
        "path": path(leaves, index), "link": link, "role": role, "number": number,
        "signature": sign(signer.key, signed), "chain": signer.der, "evidence": [],
    }  # fmt: skip


def pieces_root(content, size=64 * 1024):
    return tree([content[at : at + size] for at in range(0, len(content), size)])
