"""Values and certificates of a second implementation, from docs/spec.md alone: nothing of autolink is imported here.

Keys are of P-256 only. Of the profile of certificates only the essence is checked.
"""

import base64
import datetime
import hashlib
import itertools
import time
import unicodedata
from dataclasses import dataclass

import msgpack
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

SKEW, YEAR_10000 = 60_000_000, 253402300800 * 10**6
ARC = "1.2.840.113556.1.8000.2554.50689.35039.53120.21666.32811.3812954.12835436"


class Refused(Exception):
    """Args: the class or reason, then what was wrong or who said it."""


def need(condition, reason, *why):
    if not condition:
        raise Refused(reason, *why)


# Values


def encode(value):
    return msgpack.packb(value)


def decode(data, most=65536):
    try:
        value = msgpack.unpackb(data, ext_hook=_no_extension)
    except (ValueError, TypeError, msgpack.UnpackException, RecursionError) as error:
        raise Refused("malformed", str(error)) from error
    need(_elements(value) <= most, "malformed", "elements")
    need(encode(value) == data, "malformed", "not the one encoding")
    return value


def _no_extension(code, data):
    raise Refused("malformed", f"extension {code}")


def _elements(value, depth=0):
    if isinstance(value, msgpack.Timestamp):
        year = -62135596800 <= value.seconds <= 253402300799
        need(year and value.nanoseconds % 1000 == 0, "malformed", "time")
    if not isinstance(value, list | dict):
        return 1
    need(depth < 32, "malformed", "depth")
    if isinstance(value, list):
        return 1 + sum(_elements(each, depth + 1) for each in value)
    need(all(type(key) is str for key in value), "malformed", "key")
    return 1 + sum(1 + _elements(each, depth + 1) for each in value.values())


def now():
    return time.time_ns() // 1000


# Certificates


def sha(data):
    return hashlib.sha256(data).digest()


def blake(data):
    return hashlib.blake2b(data, digest_size=32).digest()


def spki_of(key):
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def bound_suffix(spki, following):
    return base64.b32encode(blake(b"autolink/1 bound-name\0" + spki + following)).decode()[:26].lower()


@dataclass
class Party:
    """A key and the chain of certificates for it, the holder's first; the key that may follow; the root's earlier ones."""

    key: ec.EllipticCurvePrivateKey
    chain: list[x509.Certificate]
    id: bytes
    next_key: ec.EllipticCurvePrivateKey
    earlier: tuple[x509.Certificate, ...] = ()

    @property
    def der(self):
        return [each.public_bytes(Encoding.DER) for each in self.chain]

    @property
    def next(self):
        return key_hash(self.next_key)

    @property
    def evidence(self):
        """What leads to the key of its root (section 3.6)."""
        ders = [each.public_bytes(Encoding.DER) for each in self.earlier]
        return [encode(["autolink/1 rotations", ders])] if ders else []


def key_hash(private_key):
    return sha(spki_of(private_key.public_key()))


def self_issued(label):
    """A bound name."""
    key, next_key = _new_key(), _new_key()
    name = f"{label}~{bound_suffix(spki_of(key.public_key()), key_hash(next_key))}"
    return _certify(name, key, None, True, next_key)


def rotated(root):
    """The holder of a bound name, gone on to the key that it has committed to."""
    made = _certify(name_of(root.chain[0]), root.next_key, None, True, _new_key(), after=root.chain[0])
    made.earlier = (*root.earlier, root.chain[0])
    return made


def recovered(root, log):
    """The holder of a bound name over a new key, which this log alone can have on record (section 3.8)."""
    return _certify(name_of(root.chain[0]), _new_key(), None, True, _new_key(), after=root.chain[0], log=log)


def issued(issuer, name, ca=False, key=None, after=None):
    """What an issuer gives, perhaps over a key that there is, in the place of an earlier certificate."""
    return _certify(name, key or _new_key(), issuer, ca, _new_key(), after=after)


def _new_key():
    return ec.generate_private_key(ec.SECP256R1())


def _certify(name, key, issuer, ca, next_key, after=None, log=None):
    """A certificate that begins with its issuer's, or a second later than the one that it comes after."""
    public, id_ = key.public_key(), blake((issuer.id if issuer else b"") + name.encode())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    signer, above = (issuer.key, issuer.chain) if issuer else (key, [])
    begin = datetime.datetime.now(datetime.UTC).replace(microsecond=0) - datetime.timedelta(hours=1)
    if after or above:
        begin = (after or above[0]).not_valid_before_utc + datetime.timedelta(seconds=1 if after else 0)
    usage = dict.fromkeys(
        ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement"), False
    )
    usage |= {"digital_signature": not (ca and issuer), "key_cert_sign": ca, "crl_sign": False}
    usage |= {"encipher_only": False, "decipher_only": False}
    uri = x509.UniformResourceIdentifier(f"autoid:auto:{id_.hex()}")
    private = {".1": b"\x0c\x05agent"} if issuer else {".2": b"\x04\x20" + key_hash(next_key)}
    private |= {".3": b"\x04\x20" + log} if log else {}
    extensions = [
        x509.UnrecognizedExtension(x509.ObjectIdentifier(ARC + number), value)
        for number, value in private.items()
    ]
    extensions.append(x509.SubjectAlternativeName([uri]))
    if ca:
        extensions.append(x509.SubjectKeyIdentifier.from_public_key(public))
    else:
        extensions.append(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
        )
    if issuer:
        identifier = above[0].extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        extensions.append(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier))
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(above[0].subject if above else subject)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(above[0].not_valid_after_utc if above else begin + datetime.timedelta(days=30))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(**usage), critical=True)
    )
    for each in extensions:
        builder = builder.add_extension(each, critical=False)
    earlier = issuer.earlier if issuer else ()
    return Party(key, [builder.sign(signer, hashes.SHA256()), *above], id_, next_key, earlier)


def certificate_of(der):
    try:
        return x509.load_der_x509_certificate(der)
    except ValueError as error:
        raise Refused("malformed", "certificate") from error


def claimed_id(certificate):
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    (uri,) = names.get_values_for_type(x509.UniformResourceIdentifier)
    return bytes.fromhex(uri.removeprefix("autoid:auto:"))


def name_of(certificate):
    (attribute,) = certificate.subject
    need(attribute.oid == NameOID.COMMON_NAME, "malformed", "subject")
    return attribute.value


def check_path(chain, at, issuing=False):
    """The AutoId of a chain whose certificates fit at a time, or None where it stops before its root. That a bound root is
    bound is not asked."""
    need(1 <= len(chain) <= 4, "malformed", "length of the chain")
    for each in chain:
        begin, end = (
            int(t.timestamp()) * 10**6 for t in (each.not_valid_before_utc, each.not_valid_after_utc)
        )
        need(begin <= at, "not_yet_valid")
        need(at <= end, "expired")
    root, id_ = chain[-1], b""
    complete = root.subject == root.issuer
    for child, parent in itertools.pairwise([*chain, root] if complete else chain):
        try:
            child.verify_directly_issued_by(parent)
        except (ValueError, TypeError, InvalidSignature) as error:
            raise Refused("malformed", "path") from error
    for place, each in reversed(list(enumerate(chain))):
        name = name_of(each)
        need(unicodedata.is_normalized("NFC", name) and 0 < len(name.encode()) <= 64, "malformed", "name")
        ca = each.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        need(ca is (place > 0 or issuing or (complete and len(chain) == 1)), "malformed", "CA")
        id_ = blake(id_ + name.encode())
        need(not complete or claimed_id(each) == id_, "malformed", "AutoId")
    return id_ if complete else None


def check_chain(chain, at, evidence=()):
    """As `check_path`; a bound root is bound to its key, or the evidence shows how it came to it."""
    id_, root = check_path(chain, at), chain[-1]
    if id_ and "~" in name_of(root) and not is_bound(root, name_of(root)):
        check_rotations(rotations_in(evidence), root)
    return id_


def next_hash(certificate):
    try:
        return certificate.extensions.get_extension_for_oid(x509.ObjectIdentifier(ARC + ".2")).value.value[2:]
    except x509.ExtensionNotFound:
        return b""


def is_bound(certificate, name):
    return name.split("~")[1] == bound_suffix(spki_of(certificate.public_key()), next_hash(certificate))


def rotations_in(evidence):
    """The DER certificates of the first item of that kind."""
    for item in evidence:
        if item.startswith(b"\x92\xb4autolink/1 rotations"):
            value = decode(item)
            need(type(value) is list and len(value) == 2 and type(value[1]) is list, "malformed", "rotations")
            need(all(type(each) is bytes for each in value[1]), "malformed", "rotations")
            return value[1]
    return []


def check_rotations(ders, root):
    """From the first key of a bound name to its root's (section 3.6)."""
    name = name_of(root)
    need(1 <= len(ders) <= 32 and sum(map(len, ders)) <= 40960, "impostor", "rotations")
    earlier = [certificate_of(each) for each in ders]
    need(is_bound(earlier[0], name), "impostor", "the first key")
    for before, after in itertools.pairwise([*earlier, root]):
        need(sha(spki_of(after.public_key())) == next_hash(before), "impostor", "a commitment")
    for each in earlier:
        need(each.subject == each.issuer == root.subject, "impostor", "name of a step")
        need(claimed_id(each) == blake(name.encode()), "impostor", "AutoId of a step")
        try:
            each.verify_directly_issued_by(each)
        except (ValueError, TypeError, InvalidSignature) as error:
            raise Refused("impostor", "signature of a step") from error


def judge(chain, at, anchor, evidence=()):
    """The AutoId of a chain below this anchor, a self-issued certificate: the one trust model there is here."""
    id_ = check_chain(chain, at, evidence)
    need(id_ and name_of(chain[-1]) == name_of(anchor), "unknown_issuer")
    same = spki_of(chain[-1].public_key()) == spki_of(anchor.public_key())
    need(same or "~" in name_of(anchor), "impostor", "the anchor's name, another key")
    need(len(chain) > 1, "not_vouched", "the anchor itself")
    return id_
