"""The feed of changes: what an ID's holder no longer is, told to everybody who listens, with one signature each.

::

    change   [body, signature]
    body     ["autolink/1 change", origin, id, op, state, index, at]

signed with the log's key over ``autolink/1 change\\0`` and the body. There is one for each entry after which something that
was said of an ID before may be wrong: it was revoked, deactivated, rotated, is being recovered. A renewal is none. Every
subscriber gets all of them, so the registry does not learn who talks to whom. What a change says is in the entry at
`index`, too: a false one convicts the log.
"""

from dataclasses import dataclass
from typing import Final, Self, final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from autolink import codec
from autolink.errors import RemoteProtocolError
from autolink.identity import AutoId
from autolink.messages.message import TIME_MAX
from autolink.registry import word
from autolink.registry.entries import Entry, Op
from autolink.registry.log.note import VerifierKey
from autolink.registry.records import State

TAG: Final = "autolink/1 change"
PURPOSE: Final = b"autolink/1 change\0"

TELLING: Final = frozenset({Op.ROTATE, Op.REVOKE, Op.DEACTIVATE, Op.RECOVER})
"""Entries after which what was said of an ID before may be wrong."""

_OPS: Final = frozenset(op.value for op in TELLING)
_STATES: Final = frozenset(state.value for state in State)


@final
@dataclass(frozen=True, slots=True)
class Change:
    """One change of an ID, and of what stands below it.

    Attributes:
        origin: which log.
        auto_id: whose.
        op: what the entry did.
        state: the ID's own, after it.
        index: of the entry.
        at: log time, microseconds.
        signature: of the log.
    """

    origin: str
    auto_id: AutoId
    op: Op
    state: State
    index: int
    at: int
    signature: bytes = b""

    @property
    def body(self) -> bytes:
        """What is signed."""
        return codec.encode([
            TAG, self.origin, self.auto_id.value, int(self.op), self.state.value, self.index, self.at,
        ])  # fmt: skip

    def to_bytes(self) -> bytes:
        """As it is published."""
        return codec.encode([self.body, self.signature])

    @property
    def goes_on(self) -> bool:
        """Whether it is a rotation, after which those below are believed as before unless it voids what they rest on."""
        return self.op is Op.ROTATE and self.state is State.ACTIVE

    @classmethod
    def from_untrusted(cls, data: bytes) -> Self:
        """Take a change apart.

        Raises:
            RemoteProtocolError: it is none.
        """
        body, signature = word.split_untrusted(data, what="change")
        match codec.decode_untrusted(body, what="change", nodes=8):
            case [str(tag), str(origin), bytes(auto_id), int(op), str(state), int(index), int(at)] if (
                tag == TAG and len(auto_id) == 32 and op in _OPS and state in _STATES
            ):
                numbers = (op, index, at)
            case _:
                raise RemoteProtocolError(
                    "change: a body that is not an array of seven, or says what there is not"
                )
        if any(type(number) is not int or not 0 <= number <= TIME_MAX for number in numbers):
            raise RemoteProtocolError("change: a number out of range")
        return cls(origin, AutoId(auto_id), Op(op), State(state), index, at, signature)


def sign_change(entry: Entry, state: State, *, index: int, at: int, key: Ed25519PrivateKey) -> Change:
    """The change that an entry, appended at `index`, is."""
    fields = (entry.origin, entry.auto_id, entry.op, state, index, at)
    return Change(*fields, word.sign(key, PURPOSE, Change(*fields).body))


def verify_untrusted(data: bytes, key: VerifierKey) -> Change:
    """A change that the log of this key has signed.

    Raises:
        RemoteProtocolError: it is none.
        BadSignature: the log has not signed it.
    """
    change = Change.from_untrusted(data)
    word.check(key, PURPOSE, change.origin, change.body, change.signature, what="change")
    return change
