"""Signed notes (c2sp.org/signed-note): a text, an empty line, and a line for each signature over the text.

::

    any text, empty lines included

    — example.com/log <base64 of the key's id (4 bytes) and the signature>

A signature line names its key by name and id together. A reader verifies those of the keys that it was given, and passes
over all others, whose keys or algorithms it does not know. Whoever hands a note on keeps them.

The id is short and proves nothing. Trust comes from a `VerifierKey` that the reader was configured with, never from a note.
"""

from dataclasses import dataclass
from hashlib import sha256
from typing import Final, Self, final

from cryptography.hazmat.primitives.asymmetric import ed25519

from autolink import limits
from autolink.errors import BadSignature, IdentityError, RemoteProtocolError, UsageError, display
from autolink.identity import keys
from autolink.registry.log.canonical import base64_text, base64_untrusted

_ED25519: Final = b"\x01"
"""The signature type of plain Ed25519. The others that are assigned belong to witnesses, or to logs that are not ours."""

_MARK: Final = "\N{EM DASH} "
_ID: Final = 4
_CONTROLS: Final = frozenset(map(chr, range(0x20))) - {"\n"}


@final
@dataclass(frozen=True, slots=True)
class VerifierKey:
    """An Ed25519 key under a name: whose signatures a reader believes. `str` gives its text form.

    Attributes:
        name: of the signer, by custom a URL without its scheme.
        public_key: 32 bytes (RFC 8032, section 5.1.5).

    Raises:
        IdentityError: the name is empty, or holds a space, plus or control character; or the key is not one that
            `keys.verify` would use.
    """

    name: str
    public_key: bytes

    def __post_init__(self) -> None:
        if not is_name(self.name):
            raise IdentityError(
                f"{display(self.name)!r} cannot name a log's key: no spaces, plus or control characters"
            )
        if len(self.public_key) != 32:
            raise IdentityError("an Ed25519 key is 32 bytes")
        keys.key_type(self.public)

    @classmethod
    def of(cls, name: str, public_key: keys.PublicKey) -> Self:
        """The verifier key of a key object.

        Raises:
            IdentityError: as above, or it is no Ed25519 key.
        """
        if not isinstance(public_key, ed25519.Ed25519PublicKey):
            raise IdentityError("a log signs with an Ed25519 key")
        return cls(name, public_key.public_bytes_raw())

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the text form, ``name+<id in hexadecimal>+<base64 of type and key>``, in the one way in which it is written.

        Raises:
            IdentityError: it is not that, or of another type than Ed25519.
        """
        name, _, rest = text.partition("+")
        encoded = rest.partition("+")[2]
        try:
            kind_and_key = base64_untrusted(encoded, "verifier key")
        except RemoteProtocolError as error:
            raise IdentityError(str(error)) from None
        if kind_and_key[:1] != _ED25519:
            raise IdentityError("verifier key: not name+id+key, or not of type Ed25519")
        key = cls(name, kind_and_key[1:])
        if str(key) != text:
            raise IdentityError("verifier key: its id is another key's, or it is not written in the one way")
        return key

    def __str__(self) -> str:
        return f"{self.name}+{self.key_id.hex()}+{base64_text(_ED25519 + self.public_key)}"

    @property
    def key_id(self) -> bytes:
        """4 bytes by which signature lines tell keys of one name apart."""
        return sha256(self.name.encode() + b"\n" + _ED25519 + self.public_key).digest()[:_ID]

    def verify(self, signature: bytes, text: str) -> None:
        """Check one signature over a note's text.

        Raises:
            BadSignature: it does not verify.
        """
        try:
            keys.verify(self.public, signature, text.encode())
        except BadSignature as error:
            raise BadSignature(f"note: {error} under the key of {display(self.name)}") from None

    @property
    def public(self) -> ed25519.Ed25519PublicKey:
        """The key as an object."""
        return ed25519.Ed25519PublicKey.from_public_bytes(self.public_key)


def key_given(key: VerifierKey | str) -> VerifierKey:
    """A log's key that a caller gave, or its text form.

    Raises:
        UsageError: it is neither.
        IdentityError: the text is no verifier key.
    """
    if isinstance(key, VerifierKey):
        return key
    if isinstance(key, str):
        return VerifierKey.parse(key)
    raise UsageError(f"a log's key is a VerifierKey, or its text form, not {display(repr(key), 80)}")


@final
@dataclass(frozen=True, slots=True)
class Signature:
    """One signature line. Parsed, nothing in it is verified.

    Attributes:
        name: of the key.
        key_id: 4 bytes.
        signature: at least one byte; what it is depends on the key.
    """

    name: str
    key_id: bytes
    signature: bytes

    def __str__(self) -> str:
        return f"{_MARK}{self.name} {base64_text(self.key_id + self.signature)}"


@final
@dataclass(frozen=True, slots=True)
class Note:
    """A text and what claims to be signatures over it: the text is to be ignored until `verify` has returned.

    Attributes:
        text: ends with a newline.
        signatures: in their order, those of unknown keys and algorithms too.
    """

    text: str
    signatures: tuple[Signature, ...]

    def to_bytes(self) -> bytes:
        """The note as it is published: of a parsed one, the bytes that it was parsed from."""
        return "".join((self.text, "\n", *(f"{line}\n" for line in self.signatures))).encode()

    @classmethod
    def from_untrusted(cls, data: bytes) -> Self:
        """Take a note apart; verify nothing.

        Raises:
            RemoteProtocolError: it is longer than `limits.NOTE`, has no signature line or more than
                `limits.NOTE_SIGNATURES`, or is not a note at all.
        """
        if len(data) > limits.NOTE:
            raise RemoteProtocolError(f"note: more than {limits.NOTE} bytes")
        try:
            whole = data.decode()
        except UnicodeDecodeError:
            raise RemoteProtocolError("note: not UTF-8") from None
        if not _CONTROLS.isdisjoint(whole):
            raise RemoteProtocolError("note: control characters")
        text, gap, block = whole.rpartition("\n\n")
        if not gap or not block.endswith("\n"):
            raise RemoteProtocolError("note: does not end in an empty line and lines of signatures")
        lines = block[:-1].split("\n", limits.NOTE_SIGNATURES)
        if len(lines) > limits.NOTE_SIGNATURES:
            raise RemoteProtocolError(f"note: more than {limits.NOTE_SIGNATURES} signatures")
        return cls(text + "\n", tuple(map(_line_untrusted, lines)))

    def verify(self, key: VerifierKey) -> None:
        """Check what the note says that this key has signed. Lines of other keys are passed over.

        Raises:
            BadSignature: it says nothing, or any of it is false.
        """
        wanted = (key.name, key.key_id)
        found = {line.signature for line in self.signatures if (line.name, line.key_id) == wanted}
        if not found:
            raise self._of_another_key(key)
        for signature in found:
            key.verify(signature, self.text)

    def _of_another_key(self, key: VerifierKey) -> BadSignature:
        """As `of_another_log`: the ids of two keys of one name, as in their text form, tell which is which."""
        text = f"note: not signed by this key of {display(key.name)}"
        other = next((line.key_id.hex() for line in self.signatures if line.name == key.name), None)
        return BadSignature(
            text if other is None else f"{text} (+{key.key_id.hex()}+…), but by another (+{other}+…)"
        )


def of_another_log(name: str, key: VerifierKey) -> BadSignature:
    """The error for what another log says than the key's, in words for whoever has given the wrong key."""
    return BadSignature(
        f"this registry's log is {display(name)}; the log key given is of {display(key.name)}"
    )


def sign_note(text: str, name: str, private_key: ed25519.Ed25519PrivateKey) -> bytes:
    """Sign a text under a name.

    Raises:
        UsageError: the text does not end with a newline, holds another control character or a lone surrogate, or is
            longer than a note can be.
        IdentityError: as `VerifierKey.of`.
    """
    key = VerifierKey.of(name, private_key.public_key())
    if not text.endswith("\n") or not _CONTROLS.isdisjoint(text) or not _is_encodable(text):
        raise UsageError("a note's text is UTF-8, ends with a newline and holds no other control characters")
    signature = Signature(name, key.key_id, keys.sign(private_key, text.encode()))
    data = Note(text, (signature,)).to_bytes()
    if len(data) > limits.NOTE:
        raise UsageError(f"a signed note has at most {limits.NOTE} bytes")
    return data


def _line_untrusted(line: str) -> Signature:
    name, _, encoded = line.removeprefix(_MARK).partition(" ")
    if not line.startswith(_MARK) or not is_name(name):
        raise RemoteProtocolError("note: a signature line that is none")
    data = base64_untrusted(encoded, "note: signature")
    if len(data) <= _ID:
        raise RemoteProtocolError("note: a signature line without a signature")
    return Signature(name, data[:_ID], data[_ID:])


def is_name(name: str) -> bool:
    """Whether a key, and so a log, may be called this."""
    if not name or "+" in name or not _CONTROLS.isdisjoint(name) or any(map(str.isspace, name)):
        return False
    return _is_encodable(name)


def _is_encodable(text: str) -> bool:
    """No lone surrogates, which UTF-8 has no bytes for."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
