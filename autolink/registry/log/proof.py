"""Self-contained proofs (c2sp.org/tlog-proof@v1): that an entry is in a log, shown to whoever knows the log's key.

::

    c2sp.org/tlog-proof@v1
    extra <base64>                   only if the application adds something; nothing vouches for it
    index 73894
    <base64>                         the path in the tree, leaf side first, one hash on each line
    ...

    <the checkpoint, a signed note, byte for byte>
"""

from dataclasses import dataclass
from typing import Final, Self, final

from autolink import limits
from autolink.errors import RemoteProtocolError, UsageError
from autolink.messages.merkle import HASH
from autolink.registry.log import checkpoint
from autolink.registry.log.canonical import base64_text, base64_untrusted, decimal_untrusted, hash_untrusted
from autolink.registry.log.checkpoint import Checkpoint
from autolink.registry.log.note import VerifierKey
from autolink.registry.log.tree import check_inclusion

_HEADER: Final = "c2sp.org/tlog-proof@v1"
_EXTRA: Final = "extra "
_INDEX: Final = "index "
_HASHES: Final = limits.LOG_ENTRIES.bit_length()
"""The longest path."""


@final
@dataclass(frozen=True, slots=True)
class LogProof:
    """One entry's place in a log. Parsed or made, nothing in it is verified: see `verify`.

    Attributes:
        index: of the entry, from 0.
        path: hashes from the leaf to the root.
        checkpoint: the signed note, as the log published it, with what witnesses have added.
        extra: bytes that the application adds; empty for none. Verifying does not cover them.
    """

    index: int
    path: tuple[bytes, ...]
    checkpoint: bytes
    extra: bytes = b""

    def to_bytes(self) -> bytes:
        """The text of the proof, in bytes; a file of it is named ``.tlog-proof``.

        Raises:
            UsageError: it is one that no reader would accept; the text says why.
        """
        if not 0 <= self.index <= limits.LOG_ENTRIES:
            raise UsageError(f"log proof: no log has an entry {self.index}")
        if len(self.path) > _HASHES or any(len(each) != HASH for each in self.path):
            raise UsageError(f"log proof: more than {_HASHES} hashes, or one that is not {HASH} bytes")
        lines = [_HEADER]
        if self.extra:
            lines.append(_EXTRA + base64_text(self.extra))
        lines += [f"{_INDEX}{self.index}", *map(base64_text, self.path), "", ""]
        data = "\n".join(lines).encode() + self.checkpoint
        if len(data) > limits.LOG_PROOF:
            raise UsageError(f"log proof: more than {limits.LOG_PROOF} bytes")
        return data

    @classmethod
    def from_untrusted(cls, data: bytes) -> Self:
        """Take a proof apart, in the one way in which `to_bytes` writes it; the checkpoint is left for `verify`.

        Raises:
            RemoteProtocolError: it is none.
        """
        if len(data) > limits.LOG_PROOF:
            raise RemoteProtocolError(f"log proof: more than {limits.LOG_PROOF} bytes")
        head, gap, note = data.partition(b"\n\n")
        if not gap or not head.isascii():
            raise RemoteProtocolError("log proof: no empty line in front of a checkpoint")
        header, *lines = head.decode().split("\n", 3 + _HASHES)
        if header != _HEADER:
            raise RemoteProtocolError("log proof: of another version, or none")
        extra = b""
        if lines and lines[0].startswith(_EXTRA):
            extra = base64_untrusted(lines.pop(0).removeprefix(_EXTRA), "log proof: extra data")
            if not extra:
                raise RemoteProtocolError("log proof: an empty line of extra data")
        if not lines or not lines[0].startswith(_INDEX):
            raise RemoteProtocolError("log proof: no index")
        index = decimal_untrusted(lines.pop(0).removeprefix(_INDEX), "log proof: index")
        if len(lines) > _HASHES:
            raise RemoteProtocolError(f"log proof: more than {_HASHES} hashes")
        return cls(index, tuple(hash_untrusted(line, "log proof: hash") for line in lines), note, extra)

    def verify(self, leaf_hash: bytes, key: VerifierKey) -> Checkpoint:
        """Check that the log of this key has signed a tree with this entry at `index`.

        Args:
            leaf_hash: `merkle.leaf_hash` of the entry, which the caller has.
            key: the log's, by configuration.

        Returns:
            The checkpoint: since when at the latest the entry was in the log, if somebody says when that was signed.

        Raises:
            RemoteProtocolError: the checkpoint is none.
            BadSignature: this log has not signed it, or the path does not lead from the entry to it.
        """
        signed = checkpoint.verify_untrusted(self.checkpoint, key)
        check_inclusion(leaf_hash, self.index, signed.size, signed.root, self.path)
        return signed


def verify_untrusted(data: bytes, leaf_hash: bytes, key: VerifierKey) -> Checkpoint:
    """The checkpoint that a self-contained proof shows an entry under: `LogProof.from_untrusted` and `LogProof.verify`.

    Raises:
        RemoteProtocolError: it is no proof.
        BadSignature: it does not show that this entry is in the log of this key.
    """
    return LogProof.from_untrusted(data).verify(leaf_hash, key)
