"""What may be said about an Auto ID on record, and how it is signed.

::

    entry      [body, signatures]
    body       ["autolink/1 entry", origin, op, id, previous, expires_at, fields]
    signature  [by, key, value]     over  "autolink/1 entry-signature\\0" ‖ by ‖ SHA-256(key) ‖ SHA-256(body)

All in the one msgpack encoding of `codec`. `origin` names the log, `previous` the entry of the ID that this one
follows, and `expires_at` the time from which nobody may append it: so an entry cannot be replayed elsewhere, out of
order, or later. `by` is the Auto ID that signs and `key` the SPKI that it signs with, written only where neither the
record nor the entry's certificate has it (a key that was committed to by its hash). A signature covers the key that
it was made with, because one ECDSA signature verifies under more than one.

The identity of an entry is the hash of its body. Signatures are no part of it: anybody can make a second valid one
from an ECDSA signature.

Which entries an ID may have, who must have signed them and what follows from them is `state`'s; here is their form.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from functools import cached_property
from typing import Any, Final, Self, final

from autolink import codec, limits
from autolink.errors import BadSignature, EntryRefused, Fault, IdentityError, RemoteProtocolError
from autolink.identity import AutoId, keys
from autolink.identity.keys import PrivateKey, PublicKey
from autolink.messages.message import TIME_MAX

TAG: Final = "autolink/1 entry"
PURPOSE: Final = b"autolink/1 entry-signature\0"
GUARDIAN: Final = b"autolink/1 guardian\0"
HASH: Final = 32
SALT: Final = 16
ORIGIN: Final = 255
"""Bytes of a log's origin."""

FIRST: Final = b""
"""`previous` of the entry that registers an ID."""


class Op(IntEnum):
    """What an entry does. Numbers are written; none is ever used again."""

    REGISTER = 1
    RENEW = 2
    ROTATE = 3
    REVOKE = 4
    DEACTIVATE = 5
    RECOVER = 6
    DELAY = 7
    GUARDIANS = 8
    SERVICE = 9


_FIELDS: Final[dict[Op, tuple[str, ...]]] = {
    Op.REGISTER: ("issuer", "certificate", "next", "guardians", "threshold", "delay"),
    Op.RENEW: ("certificate",),
    Op.ROTATE: ("certificate", "next", "void_from"),
    Op.REVOKE: (),
    Op.DEACTIVATE: (),
    Op.RECOVER: ("certificate", "next", "void_from", "revealed"),
    Op.DELAY: (),
    Op.GUARDIANS: ("guardians", "threshold", "delay"),
    Op.SERVICE: ("service",),
}
"""Which fields each has, in the order in which they are written."""


@final
@dataclass(frozen=True, slots=True)
class Guardians:
    """Who may recover a self-issued ID together, and how long that takes.

    Attributes:
        hashes: a `guardian_hash` each, in ascending order; empty: nobody may (an issued ID's issuer always may).
        threshold: how many of them must sign.
        delay: seconds from a recovery, whoever begins it, to the new key's taking over.
    """

    hashes: tuple[bytes, ...] = ()
    threshold: int = 0
    delay: int = limits.RECOVERY_DELAY


@final
@dataclass(frozen=True, slots=True)
class Signature:
    """One signature of an entry: by which Auto ID, with which key (SPKI DER; empty: its key on record)."""

    by: AutoId
    key: bytes
    value: bytes


@final
@dataclass(frozen=True)
class Entry:
    """One entry, its form checked and nothing else.

    Attributes:
        origin: of the log that it is for.
        op: what it does.
        auto_id: to whom.
        previous: `hash` of the entry that it follows; `FIRST` for a registration.
        expires_at: microseconds since 1970, the last instant at which it may be appended.
        issuer: (REGISTER) who has issued the ID; None for a self-issued one.
        certificate: DER of the ID's new certificate (REGISTER, RENEW, ROTATE, RECOVER), else empty.
        next_key: SHA-256 of the SPKI that may follow that certificate's (REGISTER, ROTATE, RECOVER), else empty.
        guardians: (REGISTER, GUARDIANS) else None.
        void_from: (ROTATE, RECOVER) the log index from which nothing stands that the old key has signed; None: all does.
        revealed: (RECOVER) the guardians that sign: Auto ID and the salt of its `guardian_hash`.
        service: (SERVICE) where the ID is reached and what it offers: its own signed words, unread here.
        signatures: not part of `body`.
    """

    origin: str
    op: Op
    auto_id: AutoId
    previous: bytes
    expires_at: int
    issuer: AutoId | None = None
    certificate: bytes = b""
    next_key: bytes = b""
    guardians: Guardians | None = None
    void_from: int | None = None
    revealed: tuple[tuple[AutoId, bytes], ...] = ()
    service: bytes = b""
    signatures: tuple[Signature, ...] = field(default=(), compare=False)

    @cached_property
    def body(self) -> bytes:
        """What is signed."""
        fields = [_WRITERS[name](self) for name in _FIELDS[self.op]]
        return codec.encode(
            [TAG, self.origin, int(self.op), self.auto_id.value, self.previous, self.expires_at, fields]
        )

    @cached_property
    def hash(self) -> bytes:
        """SHA-256 of the body: what the ID's next entry names as `previous`."""
        return hashlib.sha256(self.body).digest()

    def signed(self, by: AutoId, private_key: PrivateKey, *, reveal: bool = False) -> "Entry":
        """This entry with one more signature.

        Args:
            by: who signs.
            private_key: its key.
            reveal: the record does not have this key yet: write it down.
        """
        spki = keys.spki(private_key.public_key())
        value = keys.sign(private_key, self.preimage(by, spki))
        return self.with_signatures((*self.signatures, Signature(by, spki if reveal else b"", value)))

    def with_signatures(self, signatures: Sequence[Signature]) -> "Entry":
        """The same body under these signatures."""
        changed = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return Entry(**changed | {"signatures": tuple(signatures)})

    def preimage(self, by: AutoId, spki: bytes) -> bytes:
        """The bytes that `by` signs with the key of `spki`."""
        return b"".join((PURPOSE, by.value, hashlib.sha256(spki).digest(), self.hash))

    def check_signature(self, signature: Signature, public_key: PublicKey, spki: bytes) -> None:
        """Verify one of its signatures.

        Args:
            public_key, spki: the key that must have made it, whatever key the signature shows.

        Raises:
            EntryRefused: UNAUTHORISED.
        """
        try:
            keys.verify(public_key, signature.value, self.preimage(signature.by, spki))
        except BadSignature:
            raise EntryRefused(
                Fault.UNAUTHORISED, f"the signature of {signature.by.short} does not verify"
            ) from None

    def to_bytes(self) -> bytes:
        """The entry as it is submitted and logged."""
        signatures = [[one.by.value, one.key, one.value] for one in self.signatures]
        return codec.encode([self.body, signatures])

    @classmethod
    def from_untrusted(cls, data: bytes) -> Self:
        """Parse an entry.

        Raises:
            EntryRefused: MALFORMED, and nothing else.
        """
        if len(data) > limits.ENTRY:
            raise _malformed(f"more than {limits.ENTRY} bytes")
        try:
            body, fields = _parse(data)
        except RemoteProtocolError as error:
            raise _malformed(str(error)) from None
        except IdentityError as error:  # an id that is not 32 bytes
            raise _malformed(str(error)) from None
        entry = cls(**fields)
        # It is in the one encoding, so the property would make just these bytes again.
        entry.__dict__["body"] = body
        return entry


def guardian_hash(guardian: AutoId, salt: bytes) -> bytes:
    """What a record says of a guardian until it signs. The salt, 16 random bytes, keeps it from being guessed."""
    return hashlib.sha256(GUARDIAN + salt + guardian.value).digest()


_OPS: Final = frozenset(op.value for op in Op)

_NODES: Final = 1024
"""Elements of an entry that are unpacked before its shape is looked at: an ordinary one has not so many bytes, and need not
be walked first."""

# --- fields ------------------------------------------------------------------------------------------------

_WRITERS: Final[dict[str, Any]] = {
    "issuer": lambda entry: entry.issuer.value if entry.issuer else None,
    "certificate": lambda entry: entry.certificate,
    "next": lambda entry: entry.next_key,
    "guardians": lambda entry: list(entry.guardians.hashes),
    "threshold": lambda entry: entry.guardians.threshold,
    "delay": lambda entry: entry.guardians.delay,
    "void_from": lambda entry: entry.void_from,
    "revealed": lambda entry: [[guardian.value, salt] for guardian, salt in entry.revealed],
    "service": lambda entry: entry.service,
}


def _parse(data: bytes) -> tuple[bytes, dict[str, Any]]:
    """The body, and the fields of the entry. Each part is looked at here, so the codec need not look at its shape."""
    whole = codec.unpack_untrusted(data, what="entry", nodes=_NODES)
    if not _is_array(whole, bytes, list):
        raise _malformed("not a body and signatures")
    body, signatures = whole
    parts = codec.unpack_untrusted(body, what="entry", nodes=_NODES)
    if not _is_array(parts, str, str, int, bytes, bytes, int, list):
        raise _malformed("a body that is not an array of seven")
    tag, origin, op, auto_id, previous, expires_at, values = parts
    if tag != TAG or op not in _OPS:
        raise _malformed("another tag, or an operation that does not exist")
    op = Op(op)
    _integer(expires_at, 1, TIME_MAX)
    if not 0 < len(origin.encode()) <= ORIGIN:
        raise _malformed(f"an origin that is not 1 to {ORIGIN} bytes")
    if len(previous) != (0 if op is Op.REGISTER else HASH):
        raise _malformed("a previous entry where none can be, or none, or no hash")
    if len(values) != len(_FIELDS[op]):
        raise _malformed(f"{op.name} has other fields")
    parsed = _parse_fields(dict(zip(_FIELDS[op], values, strict=True)))
    return body, parsed | {
        "origin": origin, "op": op, "auto_id": AutoId(auto_id), "previous": previous, "expires_at": expires_at,
        "signatures": tuple(map(_parse_signature, signatures)),
    }  # fmt: skip


def _parse_fields(given: Mapping[str, Any]) -> dict[str, Any]:
    parsed: dict[str, Any] = {}
    if "issuer" in given and (issuer := given["issuer"]) is not None:
        parsed["issuer"] = AutoId(_bytes(issuer, HASH, HASH))
    if "certificate" in given:
        parsed["certificate"] = _bytes(given["certificate"], 1, limits.CERTIFICATE)
    if "next" in given:
        parsed["next_key"] = _bytes(given["next"], HASH, HASH)
    if "guardians" in given:
        parsed["guardians"] = _parse_guardians(given["guardians"], given["threshold"], given["delay"])
    if "void_from" in given and (index := given["void_from"]) is not None:
        parsed["void_from"] = _integer(index, 0, limits.LOG_ENTRIES)
    if "revealed" in given:
        parsed["revealed"] = _parse_revealed(given["revealed"])
    if "service" in given:
        parsed["service"] = _bytes(given["service"], 0, limits.SERVICE)
    return parsed


def _parse_guardians(hashes: object, threshold: object, delay: object) -> Guardians:
    if type(hashes) is not list or len(hashes) > limits.GUARDIANS:
        raise _malformed(f"guardians that are not 0 to {limits.GUARDIANS} hashes")
    listed = tuple(_bytes(one, HASH, HASH) for one in hashes)
    if sorted(set(listed)) != list(listed):
        raise _malformed("guardians that are not in ascending order, each once")
    least = 1 if listed else 0
    return Guardians(
        listed,
        _integer(threshold, least, len(listed)),
        _integer(delay, limits.RECOVERY_DELAY_LEAST, limits.RECOVERY_DELAY_MOST),
    )


def _parse_revealed(value: object) -> tuple[tuple[AutoId, bytes], ...]:
    if type(value) is not list or len(value) > limits.GUARDIANS:
        raise _malformed(f"more than {limits.GUARDIANS} guardians revealed, or no array of them")
    revealed: list[tuple[AutoId, bytes]] = []
    for one in value:
        match one:
            case [bytes(guardian), bytes(salt)] if len(salt) == SALT:
                revealed.append((AutoId(guardian), salt))
            case _:
                raise _malformed(f"a revealed guardian is not an Auto ID and a salt of {SALT} bytes")
    return tuple(revealed)


def _parse_signature(value: Any) -> Signature:  # noqa: ANN401
    if _is_array(value, bytes, bytes, bytes):
        by, key, signature = value
        if len(key) <= limits.CERTIFICATE and 0 < len(signature) <= limits.SIGNATURE:
            return Signature(AutoId(by), key, signature)
    raise _malformed("a signature is not an Auto ID, a key and bytes")


def _is_array(value: object, *types: type) -> bool:
    """Whether a value is an array of just these types; `match` takes ten times as long to say so."""
    return type(value) is list and tuple(map(type, value)) == types


def _bytes(value: object, least: int, most: int) -> bytes:
    if type(value) is not bytes or not least <= len(value) <= most:
        raise _malformed(f"a field that is not {least} to {most} bytes")
    return value


def _integer(value: object, least: int, most: int) -> int:
    if type(value) is not int or not least <= value <= most:
        raise _malformed(f"a field that is not a number from {least} to {most}")
    return value


def _malformed(text: str) -> EntryRefused:
    return EntryRefused(Fault.MALFORMED, f"malformed entry: {text}")


# --- in the log --------------------------------------------------------------------------------------------


def encode_leaf(logged_at: int, entry: bytes) -> bytes:
    """What the log holds of an entry: when it was appended, by the log's clock (microseconds), and its exact bytes."""
    return codec.pack([logged_at, entry])


def decode_leaf_untrusted(leaf: bytes) -> tuple[int, Entry]:
    """The time and the entry of a log's leaf.

    Raises:
        EntryRefused: MALFORMED, and nothing else.
    """
    try:
        fields = codec.decode_untrusted(leaf, what="leaf", nodes=3)
    except RemoteProtocolError as error:
        raise _malformed(str(error)) from None
    match fields:
        case [int(logged_at), bytes(entry)]:
            return _integer(logged_at, 0, TIME_MAX), Entry.from_untrusted(entry)
    raise _malformed("a leaf that is not a time and an entry")
