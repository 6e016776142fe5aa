"""Checkpoints (c2sp.org/tlog-checkpoint): a log's word on its size and its root, as a signed note.

::

    example.com/log                                  the origin: which log
    20852163                                         its number of entries
    CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=     the root of its tree

    — example.com/log Az3grlgtzPICa5OS8npVmf1Myq/5IZ...

A log's key has the origin as its name, so one configured `VerifierKey` says both which log is meant and who speaks for it.

Two checkpoints of one log between which no proof of consistency can lead convict it (`tree.check_consistency`). So
a log never signs one to which its earlier ones do not lead, not even after a crash.
"""

from dataclasses import dataclass, field
from typing import final

from cryptography.hazmat.primitives.asymmetric import ed25519

from autolink import limits
from autolink.errors import BadSignature, RemoteProtocolError, UsageError, display
from autolink.messages import merkle
from autolink.registry.log.canonical import base64_text, decimal_untrusted, hash_untrusted
from autolink.registry.log.note import Note, VerifierKey, of_another_log, sign_note


@final
@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a log says about itself: what is to be signed, or what `verify_untrusted` found.

    Attributes:
        origin: which log.
        size: how many entries it has.
        root: of the tree over them.
        extensions: further signed lines, opaque. Their use is advised against: nobody can audit them.
        note: the signed note that it was found in, for whoever wants to see it; empty for one that is to be signed.
    """

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...] = ()
    note: bytes = field(default=b"", compare=False, repr=False)

    @property
    def text(self) -> str:
        """The lines that are signed."""
        lines = (self.origin, str(self.size), base64_text(self.root), *self.extensions)
        return "".join(f"{line}\n" for line in lines)

    def signed(self, private_key: ed25519.Ed25519PrivateKey) -> bytes:
        """The signed note, under the origin as the key's name.

        Raises:
            UsageError: a field is one that no reader would accept; the text says which.
            IdentityError: the origin cannot name a key.
        """
        try:
            again = _parse(self.text)
        except RemoteProtocolError as error:
            raise UsageError(str(error)) from None
        if again != self:
            raise UsageError("checkpoint: a newline inside a line")
        return sign_note(self.text, self.origin, private_key)


def verify_untrusted(data: bytes, key: VerifierKey) -> Checkpoint:
    """The checkpoint in a signed note from elsewhere. Whether it is the newest one, nothing in it can say.

    Raises:
        RemoteProtocolError: it is no note, or no checkpoint.
        BadSignature: this key has not signed it, or it is another log's.
    """
    note = Note.from_untrusted(data)
    origin = note.text.partition("\n")[0]
    if key.name not in (origin, *(line.name for line in note.signatures)):
        raise of_another_log(origin, key)
    note.verify(key)
    checkpoint = _parse(note.text, data)
    if checkpoint.origin != key.name:
        raise BadSignature(f"checkpoint: not of the log {display(key.name)}, whose key has signed it")
    return checkpoint


def _parse(text: str, note: bytes = b"") -> Checkpoint:
    lines = text.split("\n", 3 + limits.CHECKPOINT_EXTENSIONS)
    if lines.pop():
        raise RemoteProtocolError(f"checkpoint: more than {limits.CHECKPOINT_EXTENSIONS} extension lines")
    if len(lines) < 3 or not all(lines):
        raise RemoteProtocolError("checkpoint: not three lines or more, none of them empty")
    origin, size, root, *extensions = lines
    checkpoint = Checkpoint(
        origin,
        decimal_untrusted(size, "checkpoint: size"),
        hash_untrusted(root, "checkpoint: root"),
        tuple(extensions),
        note,
    )
    if not checkpoint.size and checkpoint.root != merkle.EMPTY:
        raise RemoteProtocolError("checkpoint: no entries, yet a root over some")
    return checkpoint
