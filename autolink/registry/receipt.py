"""A receipt: the log's signed promise to an entry's submitter, given before the entry is looked at.

::

    receipt  [body, signature]
    body     ["autolink/1 receipt", origin, entry, received_at, deadline]

signed with the log's key over ``autolink/1 receipt\\0`` and the body. `entry` is the hash of the entry's body. By the
deadline (microseconds, as `received_at`) the entry is in the log, unless the log's rules refused it at some moment from
its receipt to then: another one for the same place may have been before it. Both can be recomputed from the log by everybody
who has the entry: a receipt for one that was left out although it had to be taken convicts whoever runs it, such as an
operator who withholds a rotation while his own recovery runs out.

That takes a receipt of about the moment at which it is given. One of after that recovery, or of before the entry that the
rotation follows, is of a time when the rules do refuse it: so who submits takes none (`check_fresh`).
"""

from dataclasses import dataclass
from typing import Final, Self, final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from autolink import codec, limits
from autolink.errors import BadSignature, RemoteProtocolError
from autolink.messages import instant
from autolink.messages.merkle import HASH
from autolink.messages.message import TIME_MAX
from autolink.registry import word
from autolink.registry.entries import Entry
from autolink.registry.evidence import against
from autolink.registry.log.note import VerifierKey
from autolink.registry.records import SECOND

TAG: Final = "autolink/1 receipt"
PURPOSE: Final = b"autolink/1 receipt\0"


@final
@dataclass(frozen=True, slots=True)
class Receipt:
    """One promise; see the module."""

    origin: str
    entry: bytes
    received_at: int
    deadline: int
    signature: bytes = b""

    @property
    def body(self) -> bytes:
        """What is signed."""
        return codec.encode([TAG, self.origin, self.entry, self.received_at, self.deadline])

    def to_bytes(self) -> bytes:
        """As it is given, and kept."""
        return codec.encode([self.body, self.signature])

    @classmethod
    def from_untrusted(cls, data: bytes) -> Self:
        """Take a receipt apart.

        Raises:
            RemoteProtocolError: it is none.
        """
        body, signature = word.split_untrusted(data, what="receipt")
        match codec.decode_untrusted(body, what="receipt", nodes=6):
            case [str(tag), str(origin), bytes(entry), int(received_at), int(deadline)] if (
                tag == TAG and len(entry) == HASH
            ):
                pass
            case _:
                raise RemoteProtocolError("receipt: a body that is not an array of five")
        if any(type(one) is not int or not 0 <= one <= TIME_MAX for one in (received_at, deadline)):
            raise RemoteProtocolError("receipt: a time out of range")
        return cls(origin, entry, received_at, deadline, signature)


def sign_receipt(entry_hash: bytes, *, origin: str, now: int, key: Ed25519PrivateKey) -> Receipt:
    """A receipt for an entry that came at `now`."""
    fields = (origin, entry_hash, now, now + int(limits.INCLUSION * SECOND))
    return Receipt(*fields, word.sign(key, PURPOSE, Receipt(*fields).body))


def verify_untrusted(data: bytes, key: VerifierKey, entry: Entry) -> Receipt:
    """A receipt that the log of this key has given for this entry, and that binds it.

    Raises:
        RemoteProtocolError: it is none.
        BadSignature: it is not this log's, or not for this entry.
        Unproved: it is of no time when the log may take that, or its deadline is not within `limits.INCLUSION` of its
            receipt: with both in `evidence`.
    """
    receipt = Receipt.from_untrusted(data)
    word.check(key, PURPOSE, receipt.origin, receipt.body, receipt.signature, what="receipt")
    if receipt.entry != entry.hash:
        raise BadSignature("receipt: for another entry")
    with against(beside(data, entry.to_bytes())):
        if receipt.received_at > entry.expires_at:
            raise BadSignature("receipt: of a time when the entry has expired, so it promises nothing")
        if not 0 <= receipt.deadline - receipt.received_at <= int(limits.INCLUSION * SECOND):
            raise BadSignature(f"receipt: its deadline is not within {limits.INCLUSION:.0f} s of its receipt")
    return receipt


def check_fresh(receipt: Receipt, now: int) -> None:
    """A verified receipt binds the log for the moment at which it came, as far as two clocks agree.

    Its deadline is near its receipt, so whose is not over was not received long ago.

    Args:
        now: when it came, microseconds.

    Raises:
        BadSignature: it begins later than that by more than `limits.SKEW`, or its deadline was over.
    """
    if receipt.received_at > now + int(limits.SKEW * SECOND):
        why = "which is to come"
    elif receipt.deadline < now:
        why = "too long ago"
    else:
        return
    when = f"{instant(receipt.received_at):%F %T} UTC"
    raise BadSignature(f"receipt: of {when}, {why}: it promises nothing, or a clock is wrong")


def beside(receipt: bytes, entry: bytes) -> bytes:
    """A receipt and its entry as one piece of evidence, the array of the two: it names the entry by its hash alone."""
    return codec.encode([receipt, entry])
