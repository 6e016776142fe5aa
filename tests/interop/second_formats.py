"""The formats of a second implementation of autolink/1, from docs/spec.md alone: nothing of autolink is imported here.

Values, certificates, messages, batches and Envelopes, with keys of P-256 only. What is received is judged as strictly
as the specification says, but for the profile of certificates, of which only the essence is checked.
"""

import base64
import datetime
import hashlib
import itertools
import os
import struct
import time
import unicodedata
from collections import deque
from dataclasses import dataclass
from typing import NamedTuple

import msgpack
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

CALL, REPLY, ERROR, OPEN, ITEM, END, SUBSCRIBE, PUBLISH, CHUNK, FORWARD = range(1, 11)
FLAGS = {
    CALL: 3,
    REPLY: 2,
    ERROR: 2,
    OPEN: 1,
    ITEM: 0,
    END: 2,
    SUBSCRIBE: 3,
    PUBLISH: 0,
    CHUNK: 0,
    FORWARD: 3,
}
SKEW, LEAF, YEAR_10000 = 60_000_000, 1310720, 253402300800 * 10**6
ARC = "1.2.840.113556.1.8000.2554.50689.35039.53120.21666.32811.3812954.12835436"
NO_LINK = bytes(32)


class Refused(Exception):
    """Args: the class or reason, then what was wrong or who said it."""


def need(condition, reason, *why):
    if not condition:
        raise Refused(reason, *why)


# Values


def encode(value):
    return msgpack.packb(value)


def decode(data):
    try:
        value = msgpack.unpackb(data, ext_hook=_no_extension)
    except (ValueError, TypeError, msgpack.UnpackException, RecursionError) as error:
        raise Refused("malformed", str(error)) from error
    need(_elements(value) <= 65536, "malformed", "elements")
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
    """A key and the chain of certificates for it, the holder's first."""

    key: ec.EllipticCurvePrivateKey
    chain: list[x509.Certificate]
    id: bytes

    @property
    def der(self):
        return [each.public_bytes(Encoding.DER) for each in self.chain]


def self_issued(label):
    """A bound name."""
    key, following = ec.generate_private_key(ec.SECP256R1()), os.urandom(32)
    return _certify(
        f"{label}~{bound_suffix(spki_of(key.public_key()), following)}",
        key,
        None,
        True,
        ".2",
        b"\x04\x20" + following,
    )


def issued(issuer, name, ca=False):
    return _certify(name, ec.generate_private_key(ec.SECP256R1()), issuer, ca, ".1", b"\x0c\x05agent")


def _certify(name, key, issuer, ca, private, private_value):
    public, id_ = key.public_key(), blake((issuer.id if issuer else b"") + name.encode())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    signer, above = (issuer.key, issuer.chain) if issuer else (key, [])
    hour_ago = datetime.datetime.now(datetime.UTC).replace(microsecond=0) - datetime.timedelta(hours=1)
    begin = above[0].not_valid_before_utc if above else hour_ago
    usage = dict.fromkeys(
        ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement"), False
    )
    usage |= {"digital_signature": not (ca and issuer), "key_cert_sign": ca, "crl_sign": False}
    usage |= {"encipher_only": False, "decipher_only": False}
    uri = x509.UniformResourceIdentifier(f"autoid:auto:{id_.hex()}")
    extensions = [x509.UnrecognizedExtension(x509.ObjectIdentifier(ARC + private), private_value)]
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
        .not_valid_after(begin + datetime.timedelta(days=30))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(**usage), critical=True)
    )
    for each in extensions:
        builder = builder.add_extension(each, critical=False)
    return Party(key, [builder.sign(signer, hashes.SHA256()), *above], id_)


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


def check_chain(chain, at, evidence=()):
    """The AutoId of a chain that is sound at a time, or None where it stops before its root."""
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
        need(ca is (place > 0 or (complete and len(chain) == 1)), "malformed", "CA")
        id_ = blake(id_ + name.encode())
        need(not complete or claimed_id(each) == id_, "malformed", "AutoId")
    if complete and "~" in name_of(root) and not is_bound(root, name_of(root)):
        check_rotations(rotations_in(evidence), root)
    return id_ if complete else None


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


# Messages


class Message(NamedTuple):
    """Times are microseconds since 1970."""

    id: bytes
    seq: int
    author: bytes
    recipient: bytes | str
    sent_at: int
    expires_at: int
    kind: int
    channel: int
    method: str
    timeout: int
    headers: dict
    body: bytes

    @property
    def value(self):
        return decode(self.body)

    def leaf(self):
        return encode(list(self))


def new_message(author, recipient, kind, seq=0, channel=0, method="", value=None):
    at = now()
    body = encode(value)
    return Message(os.urandom(16), seq, author, recipient, at, at + SKEW, kind, channel, method, 0, {}, body)


def check_data(body, data):
    """Of a chunk: section "Byte streams"."""
    need(type(body) is list and len(body) == (4 if data else 5), "malformed", "chunk")
    if data:
        need(type(body[2]) is int and type(body[3]) is bytes and len(body[3]) == 32, "malformed", "chunk")
        need(len(data) <= 393_216, "malformed", "chunk")
        need(body[2:] == [len(data), content_root(data)], "untrusted", "data")


def content_root(content):
    return root_of([content[at : at + 65_536] for at in range(0, len(content), 65_536)])


def message_of(leaf):
    need(len(leaf) <= LEAF, "malformed", "size of the leaf")
    fields = decode(leaf)
    need(type(fields) is list and len(fields) == 12, "malformed", "a message is an array of twelve")
    message = Message(*fields)
    types = (bytes, int, bytes, (bytes, str), int, int, int, int, str, int, dict, bytes)
    for name, value, wanted in zip(Message._fields, message, types, strict=True):
        need(isinstance(value, wanted) and type(value) is not bool, "malformed", name)
    bounds = [(message.seq, 2**63), (message.channel, 2**31)]
    bounds += [(each, YEAR_10000) for each in (message.sent_at, message.expires_at, message.timeout)]
    need(all(0 <= value < bound for value, bound in bounds), "malformed", "an integer")
    need(
        len(message.id) == 16 and len(message.author) == 32 and message.kind in FLAGS,
        "malformed",
        "id, author, kind",
    )
    need(message.sent_at < message.expires_at, "malformed", "times")
    _check_recipient(message.recipient)
    need(len(message.method.encode()) <= 255, "malformed", "method")
    texts = [*message.headers, *message.headers.values()]
    need(all(type(each) is str for each in texts), "malformed", "headers")
    need(len(texts) <= 64 and sum(len(each.encode()) for each in texts) <= 8192, "malformed", "headers")
    need(message.kind == FORWARD or len(message.body) <= 1048576, "malformed", "body")
    return message


def _check_recipient(recipient):
    if isinstance(recipient, bytes):
        return need(len(recipient) == 32, "malformed", "recipient")
    head, _, name = recipient.partition("/")
    digits = head.removeprefix("topic:")
    lower_hex = len(digits) == 64 and set(digits) <= set("0123456789abcdef")
    return need(
        head.startswith("topic:") and lower_hex and 1 <= len(name.encode()) <= 255, "malformed", "topic"
    )


# Batches and Envelopes


def root_of(leaves):
    if len(leaves) < 2:
        return sha(b"\0" + leaves[0] if leaves else b"")
    split = 1 << (len(leaves) - 1).bit_length() - 1
    return sha(b"\1" + root_of(leaves[:split]) + root_of(leaves[split:]))


def path_of(leaves, index):
    if len(leaves) == 1:
        return []
    split = 1 << (len(leaves) - 1).bit_length() - 1
    if index < split:
        return [*path_of(leaves[:split], index), root_of(leaves[split:])]
    return [*path_of(leaves[split:], index - split), root_of(leaves[:split])]


def root_from(node, index, count, path):
    """RFC 9162, section 2.1.3.2, from the leaf's hash up; refuses a path of another length."""
    last, path = count - 1, deque(path)
    while last:
        if index % 2 or index < last:
            need(path, "malformed", "path too short")
            other = path.popleft()
            node = sha(b"\1" + (other + node if index % 2 else node + other))
        index, last = index >> 1, last >> 1
    need(not path, "malformed", "path too long")
    return node


def preimage(certificate, link, role, number, count, root):
    return b"autolink/1 batch\0" + sha(certificate) + link + role + struct.pack(">QI", number, count) + root


def sign(party, *signed):
    return party.key.sign(preimage(party.der[0], *signed), ec.ECDSA(hashes.SHA256()))


def verify(certificate, signature, *signed):
    key = certificate.public_key()
    need(isinstance(key, ec.EllipticCurvePublicKey), "malformed", "only P-256 here")
    data = preimage(certificate.public_bytes(Encoding.DER), *signed)
    try:
        key.verify(signature, data, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature as error:
        raise Refused("tampered", "signature") from error


def make_envelope(chain, leaves, index, link, role, number, signature, evidence=()):
    place = [leaves[index], index, len(leaves), path_of(leaves, index)]
    return encode(["autolink/1 envelope", *place, link, role, number, signature, chain, list(evidence)])


def _parse_envelope(data):
    need(len(data) <= LEAF, "malformed", "size")
    fields = decode(data)
    need(
        type(fields) is list and len(fields) == 11 and fields[0] == "autolink/1 envelope",
        "malformed",
        "shape",
    )
    _, index, count, path, link, role, number, signature, chain, evidence = fields[1:]
    types = (bytes, int, int, list, bytes, bytes, int, bytes, list, list)
    need(
        all(type(value) is wanted for value, wanted in zip(fields[1:], types, strict=True)),
        "malformed",
        "types",
    )
    need(all(type(each) is bytes for each in [*path, *chain, *evidence]), "malformed", "types")
    need(
        0 <= index < count <= 65536 and 0 <= number < 2**64 and 1 <= len(signature) <= 4096,
        "malformed",
        "bounds",
    )
    need(len(link) == 32 and role in (b"d", b"l", b"e") and 1 <= len(chain) <= 4, "malformed", "bounds")
    need(all(len(each) == 32 for each in path) and sum(map(len, chain)) <= 65536, "malformed", "bounds")
    need(len(evidence) <= 8 and sum(map(len, evidence)) <= 49152, "malformed", "evidence")
    need(role != b"e" or (link, number, count) == (NO_LINK, 0, 1), "malformed", "signed for no link")
    return fields[1:]


def open_envelope(data, anchor, at, recipient=None):
    """The message in an Envelope, judged in the specification's order; without a recipient only who said it."""
    leaf, index, count, path, link, role, number, signature, chain, evidence = _parse_envelope(data)
    tree = root_from(sha(b"\0" + leaf), index, count, path)
    message, first = message_of(leaf), certificate_of(chain[0])
    need(claimed_id(first) == message.author, "impostor", "author")
    verify(first, signature, link, role, number, count, tree)
    if recipient is not None:
        need(message.recipient == recipient, "wrong_recipient")
        need(at <= message.expires_at + SKEW, "late")
    need(message.sent_at <= at + SKEW, "not_yet_valid")
    need(message.expires_at - message.sent_at <= 24 * 3600 * 10**6, "malformed", "life")
    judged = judge([certificate_of(each) for each in chain], at, anchor, evidence)
    need(judged == message.author, "impostor", "author")
    return message
