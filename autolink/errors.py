"""What can go wrong, and whose doing it was.

::

    AutolinkError
    ├── UsageError                    you: an argument, an address, a state that this call does not allow
    │   ├── LocalProtocolError        you: an operation that this link's or channel's state forbids
    │   └── SetupError                the machine: a folder, a socket's path or a package that is not as it must be
    ├── IdentityError                 a certificate, request, key or name that is not what it must be
    │   └── KeystoreError             the same, on disk: wrong passphrase, wrong mode, taken name
    ├── BadSignature                  a signature that does not verify; nothing else is known about the bytes
    ├── BodyError                     a body that its type does not allow (ours before sending, theirs on receipt)
    ├── Refused                       a judgement: we refused the peer, or the peer refused us; see `by` and `reason`
    │   └── EnvelopeRefused           the same about a signed message taken alone
    ├── EntryRefused                  a registry does not take an entry, now or ever; see `fault`
    ├── RemoteProtocolError           the peer: it broke the protocol, and the link is over
    │   └── NotAnAgent                whoever answers at an address speaks something else: no link was opened
    ├── CallError                     the far handler's answer, with a `Code`
    ├── DeliveryUnknown               the link died while a call was out: it may or may not have been carried out
    └── LinkLost                      the world: the link is gone (also an anyio.BrokenResourceError)

Around them: `TimeoutError` where a deadline passed, whoever noticed it first; AnyIO's `ClosedResourceError` (your
own code closed it), `EndOfStream` (the clean end) and `BusyResourceError`, with AnyIO's meaning.

Trust models answer with `NotVouched` and `Contradicted`, defined beside them in `autolink.trust`: they are an
opinion on the way to a judgement, and never leave it.

A peer learns a closed code and nothing more: `wire_reason` and `wire_code` are the only two ways out.
"""

import unicodedata
from enum import StrEnum
from typing import Final, Literal, Never

import anyio

from autolink import limits


class Reason(StrEnum):
    """Why somebody was refused. Ours in full; the wire carries only what `wire_reason` lets through."""

    # Facts the refused one knows about itself: these cross the wire.
    EXPIRED = "expired"
    NOT_YET_VALID = "not_yet_valid"
    MALFORMED = "malformed"
    REVOKED = "revoked"
    WRONG_PEER = "wrong_peer"
    VERSION = "version"
    BUSY = "busy"
    CLOCK_SKEW = "clock_skew"
    FULL_HANDSHAKE_NEEDED = "full_handshake_needed"
    INTERNAL = "internal"
    UNTRUSTED = "untrusted"
    # Our policy: on the wire all of these are `untrusted`, so that a stranger cannot ask whom we know.
    UNKNOWN_ISSUER = "unknown_issuer"
    NOT_VOUCHED = "not_vouched"
    IMPOSTOR = "impostor"
    SELF = "self"
    # About one signed message.
    TAMPERED = "tampered"
    REPLAYED = "replayed"
    WRONG_RECIPIENT = "wrong_recipient"
    LATE = "late"


_WIRE_REASONS = frozenset(list(Reason)[: list(Reason).index(Reason.UNTRUSTED) + 1])
_MESSAGE_REASONS = frozenset({Reason.TAMPERED, Reason.REPLAYED, Reason.WRONG_RECIPIENT, Reason.LATE})


def wire_reason(reason: Reason) -> Reason:
    """The reason as the refused party may learn it: a fact about itself, or `untrusted`."""
    return reason if reason in _WIRE_REASONS else Reason.UNTRUSTED


def wire_envelope_reason(reason: Reason) -> Reason:
    """As `wire_reason`, for a forwarded message: what is wrong with the message itself may also be told."""
    return reason if reason in _MESSAGE_REASONS else wire_reason(reason)


class Code(StrEnum):
    """How a call can end other than by its reply: gRPC's status names in lower case."""

    CANCELLED = "cancelled"
    UNKNOWN = "unknown"
    INVALID_ARGUMENT = "invalid_argument"
    DEADLINE_EXCEEDED = "deadline_exceeded"
    NOT_FOUND = "not_found"
    ALREADY_EXISTS = "already_exists"
    PERMISSION_DENIED = "permission_denied"
    RESOURCE_EXHAUSTED = "resource_exhausted"
    FAILED_PRECONDITION = "failed_precondition"
    ABORTED = "aborted"
    OUT_OF_RANGE = "out_of_range"
    UNIMPLEMENTED = "unimplemented"
    INTERNAL = "internal"
    UNAVAILABLE = "unavailable"
    DATA_LOSS = "data_loss"
    UNAUTHENTICATED = "unauthenticated"


class AutolinkError(Exception):
    """The base of everything this package raises on its own account."""


class UsageError(AutolinkError, ValueError):
    """You asked for something that cannot be: the text says what to do instead."""


class LocalProtocolError(UsageError):
    """This link or channel is in a state that does not allow the operation."""


class SetupError(UsageError):
    """The same call would do elsewhere: something that is here, or is missing here, does not allow it."""


class IdentityError(AutolinkError, ValueError):
    """A certificate, request, key or name is not what it must be. `reason` is what the wire may say about it."""

    def __init__(self, text: str, reason: Reason = Reason.MALFORMED) -> None:
        super().__init__(text)
        self.reason = reason


class KeystoreError(IdentityError):
    """An identity on disk cannot be read or written."""


class BadSignature(AutolinkError):
    """A signature does not verify under the key that should have made it."""


class BodyError(AutolinkError, ValueError):
    """A body does not have the type it must have. The text gives paths and kinds, never the values.

    Attributes:
        channel: the one it was received on, when it was an item: its sender gets `invalid_argument`, not `internal`.
    """

    channel: object = None


class Refused(AutolinkError):
    """One party judged the other and said no.

    Attributes:
        reason: why; when `by` is ``"peer"`` only the closed set that crosses the wire.
        by: ``"us"`` or ``"peer"``: who refused.
        peer: the other party, as far as known, safe to show.
        detail: our own full reason, safe to show; when the peer refused, what its TLS has said of it, or nothing.
        offset: with `clock_skew`, how many seconds the refused one's clock is ahead of the other's.
    """

    def __init__(
        self,
        reason: Reason,
        *,
        by: Literal["us", "peer"],
        peer: str = "",
        detail: str = "",
        offset: float | None = None,
    ) -> None:
        self.reason, self.by, self.peer = reason, by, display(peer)
        self.detail = display(detail, limits.DETAIL)
        self.offset = offset
        if offset is not None and not detail:
            self.detail = f"clocks differ by {offset:+.0f} s, {limits.SKEW:.0f} are allowed"
        who = (
            f"we refused {self.peer or 'the peer'}" if by == "us" else f"{self.peer or 'the peer'} refused us"
        )
        super().__init__(f"{who}: {reason.value}" + (f" ({self.detail})" if self.detail else ""))


class EnvelopeRefused(Refused):
    """A signed message, taken alone, was judged and refused: its signature, author, recipient, time or repetition."""


class Fault(StrEnum):
    """Why a registry does not take an entry."""

    MALFORMED = "malformed"
    WRONG_LOG = "wrong_log"
    EXPIRED = "expired"
    STALE = "stale"
    UNAUTHORISED = "unauthorised"
    CERTIFICATE = "certificate"
    TAKEN = "taken"
    UNKNOWN = "unknown"
    KEY_USED = "key_used"
    NOT_COMMITTED = "not_committed"
    REVOKED = "revoked"
    RECOVERING = "recovering"
    NOT_RECOVERING = "not_recovering"
    DEACTIVATED = "deactivated"
    ISSUER = "issuer"
    # A registry's own policy, not the log's rules.
    NOT_INVITED = "not_invited"
    TOO_MANY = "too_many"
    UNAVAILABLE = "unavailable"


class EntryRefused(AutolinkError):
    """A registry does not take an entry: nothing was appended. `fault` says which rule it breaks. `receipt` is the log's
    promise, as it came, if there was one: where the log's rules do allow the `entry` that it is for, it convicts."""

    def __init__(self, fault: Fault, text: str, *, receipt: bytes = b"", entry: bytes = b"") -> None:
        super().__init__(text)
        self.fault, self.receipt, self.entry = fault, receipt, entry


class RemoteProtocolError(AutolinkError):
    """The peer sent something that the protocol does not allow. The link is over; the text never holds its bytes."""


class NotAnAgent(RemoteProtocolError):
    """Whoever answers at an address is no autolink agent, or none that can be understood: no link was opened."""


class CallError(AutolinkError):
    """The far handler's answer. Raise it in a handler to give that answer; any other exception goes as `internal`.

    One that came over a link is no answer of the handler that met it: raised on, it goes as `internal` too.

    Attributes:
        code: what kind of failure.
        message: the handler's own words, as they came; `str()` of the error is safe to show.
        received: it came from a peer.

    Raises:
        UsageError: `code` is none of `Code`.
    """

    def __init__(self, code: Code | str, message: str = "", *, received: bool = False) -> None:
        try:
            self.code = Code(code)
        except ValueError:
            raise UsageError(f"{display(str(code))!r} is no code; use one of {', '.join(Code)}") from None
        self.message = message
        self.received = received
        super().__init__(f"{self.code.value}: {display(message)}" if message else self.code.value)


class LinkLost(AutolinkError, anyio.BrokenResourceError):
    """The link is gone: every pending and later operation on it raises this. `__cause__` says what ended it."""


class NotLocated(LinkLost):
    """There is no link, because nobody could say where the peer is. `__cause__` says why."""


class DeliveryUnknown(AutolinkError):
    """A kept link died while this call was out. It is not sent again: only you know whether that would be safe."""


_BLANK: Final = frozenset(
    "\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u2800\u3164\uffa0"
    + "".join(map(chr, [*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0)]))
)
"""Letters, marks and one symbol that nobody sees: Unicode's Default_Ignorable_Code_Point outside the categories C and Z,
and the empty braille cell."""


def display(text: str, width: int = limits.DISPLAY) -> str:
    """A string from elsewhere, fit for a terminal, a log line or an error.

    Control characters (ESC, CR, LF, NUL), bidirectional formatting, what is invisible, unassigned and private code points
    and lone surrogates are shown as ``\\u{hex}``; the result has at most `width` characters.
    """
    if text.isascii() and text.isprintable() and len(text) <= width:
        return text
    shown = "".join(
        character
        if character == " " or (unicodedata.category(character)[0] not in "CZ" and character not in _BLANK)
        else f"\\u{{{ord(character):x}}}"
        for character in text[: width + 1]
    )
    return shown if len(shown) <= width else shown[: width - 1] + "…"


def no_pickle(value: object) -> Never:
    """For `__reduce__` of what holds a key: neither pickled nor copied.

    Raises:
        TypeError: always.
    """
    raise TypeError(f"{type(value).__name__} cannot be pickled or copied: it holds a private key")
