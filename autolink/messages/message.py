"""A message: what an application sends, as the leaf bytes that its author signs.

A leaf is the codec's array of twelve fields, in `Message`'s order, and it is what is signed, hashed and
carried on: nobody encodes a received message a second time. It names its author and its recipient, so that it
means the same wherever it turns up, and its times, so that it can be late.

`id` is sixteen random bytes and never a counter: once a proof is exported, the hashes of neighbouring leaves
are public, and the id is the salt that keeps them from being guessed. Two different leaves with one author
and one id are a proof of equivocation (`envelope.Equivocation`).

`seq` counts from 0, by one, per (author, recipient, channel); a publication's is its topic's count. On a link
the order is already signed with the batch number; `seq` is for whoever gets messages through a relay: a gap shows
what it kept back, a step down what it reordered.

`encode` and `decode_untrusted` run for every message on both ends, so they are straight-line code.
"""

from datetime import UTC, datetime, timedelta
from enum import IntEnum
from functools import lru_cache
from typing import Any, Final, NamedTuple

from autolink import codec, limits
from autolink.errors import EnvelopeRefused, Reason, RemoteProtocolError, UsageError
from autolink.identity import AutoId

ID: Final = 16
"""Bytes of a message id."""

TIME_MAX: Final = 253_402_300_799_999_999
"""The last microsecond of the year 9999; every time up to it is a datetime."""

SEQ_MAX: Final = 2**63 - 1
CHANNEL_MAX: Final = 2**31 - 1

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_TOPIC: Final = "topic:"


class Kind(IntEnum):
    """What a message is for."""

    CALL = 1
    REPLY = 2
    ERROR = 3
    OPEN = 4
    ITEM = 5
    END = 6
    SUBSCRIBE = 7
    PUBLISH = 8
    CHUNK = 9
    FORWARD = 10


OPENING: Final = frozenset({Kind.CALL, Kind.OPEN, Kind.SUBSCRIBE, Kind.FORWARD})
"""Kinds that open a channel."""

ENDING: Final = frozenset({Kind.REPLY, Kind.ERROR, Kind.END})
"""Kinds that end a channel's direction."""

KINDS: Final = {int(kind): kind for kind in Kind}
"""The kinds by their numbers in a leaf."""


class Message(NamedTuple):
    """One message; nothing here is verified by having been parsed. A tuple because it is made for every
    message.

    Times are microseconds since 1970 UTC. `recipient` is an AutoId, or `topic:<publisher, 64 hex>/<name>` for
    a publication. `channel` is 0 outside a link. `timeout` is in microseconds, 0 for none. `body` is one
    value, encoded, and not yet decoded.
    """

    id: bytes
    seq: int
    author: AutoId
    recipient: AutoId | str
    sent_at: int
    expires_at: int
    kind: Kind
    channel: int
    method: str
    timeout: int
    headers: dict[str, str]
    body: bytes

    @property
    def value(self) -> Any:  # noqa: ANN401
        """The body, decoded to plain values.

        Raises:
            RemoteProtocolError: it is not one encoded value.
        """
        return codec.decode_untrusted(self.body, what="body")


def encode(message: Message) -> bytes:
    """The leaf bytes of a message.

    Raises:
        UsageError: a field is one that no peer would accept; the text says which.
    """
    author, recipient = message[2], message[3]
    fields = list(message)
    fields[2] = author.value
    if type(recipient) is AutoId:
        fields[3] = recipient.value
    fault = _fault(*fields)
    if fault:
        raise UsageError(f"message: {fault}")
    leaf = codec.pack(fields)  # `_fault` has looked at every part
    if len(leaf) > limits.LEAF:
        raise UsageError(f"message: more than {limits.LEAF} bytes")
    return leaf


def decode_untrusted(leaf: bytes) -> Message:
    """Parse leaf bytes from elsewhere: only what `encode` makes is accepted. Author and times are not judged.

    Raises:
        RemoteProtocolError: and nothing else.
    """
    if len(leaf) > limits.LEAF:
        raise RemoteProtocolError(f"message: more than {limits.LEAF} bytes")
    fields = codec.unpack_untrusted(leaf, what="message")
    if type(fields) is not list or len(fields) != 12:
        raise RemoteProtocolError("message: not an array of twelve fields")
    fault = _fault(*fields)
    if fault:
        raise RemoteProtocolError(f"message: {fault}")
    fields[2] = _auto_id(fields[2])
    if type(fields[3]) is bytes:
        fields[3] = _auto_id(fields[3])
    fields[6] = KINDS[fields[6]]
    return Message._make(fields)


_auto_id: Final = lru_cache(maxsize=4096)(AutoId)  # the same few parties in message after message


def _fault(  # one line per field, in their order
    message_id: Any, seq: Any, author: Any, recipient: Any, sent_at: Any, expires_at: Any,  # noqa: ANN401
    kind: Any, channel: Any, method: Any, timeout: Any, headers: Any, body: Any,  # noqa: ANN401
) -> str | None:  # fmt: skip
    """The first fault of a message's fields as they stand in a leaf, or None."""
    if type(message_id) is not bytes or len(message_id) != ID:
        return f"id: not {ID} bytes"
    if type(seq) is not int or not 0 <= seq <= SEQ_MAX:
        return "seq: not an integer from 0 to 2^63 - 1"
    if type(author) is not bytes or len(author) != 32:
        return "author: not 32 bytes"
    if (len(recipient) != 32) if type(recipient) is bytes else not is_topic(recipient):
        return "recipient: neither 32 bytes nor topic:<64 lower-case hex>/<name>"
    if type(sent_at) is not int or type(expires_at) is not int or not 0 <= sent_at < expires_at <= TIME_MAX:
        return "times: not 0 <= sent_at < expires_at < the year 10000, in microseconds"
    if (type(kind) is not int and type(kind) is not Kind) or kind not in KINDS:
        return "kind: unknown"
    if type(channel) is not int or not 0 <= channel <= CHANNEL_MAX:
        return "channel: not an integer from 0 to 2^31 - 1"
    if type(method) is not str or size_of(method) > limits.METHOD:
        return f"method: not a string of at most {limits.METHOD} bytes"
    if type(timeout) is not int or not 0 <= timeout <= TIME_MAX:
        return "timeout: not a number of microseconds"
    if headers != {} and not _are_headers(headers):
        return (
            f"headers: not a map of at most {limits.HEADERS} strings, {limits.HEADERS_BYTES} bytes together"
        )
    if type(body) is not bytes or (len(body) > limits.MESSAGE and kind != Kind.FORWARD):
        return f"body: not bytes, or more than {limits.MESSAGE}"
    return None


def topic(publisher: AutoId, name: str) -> str:
    """The recipient of what `publisher` publishes under `name`.

    Raises:
        UsageError: the name is empty or longer than `limits.METHOD` bytes.
    """
    text = f"{_TOPIC}{publisher.hex}/{name}"
    if not is_topic(text):
        raise UsageError(f"a topic's name has 1 to {limits.METHOD} bytes")
    return text


def is_topic(recipient: object) -> bool:
    """Whether a recipient is `topic:<64 lower-case hex>/<name of 1 to limits.METHOD bytes>`."""
    return (
        type(recipient) is str
        and recipient[:6] == _TOPIC
        and recipient[70:71] == "/"
        and not recipient[6:70].strip("0123456789abcdef")
        and 0 < size_of(recipient[71:]) <= limits.METHOD
    )


def _are_headers(headers: object) -> bool:
    if type(headers) is not dict or len(headers) > limits.HEADERS:
        return False
    total = 0
    for name, value in headers.items():
        if type(name) is not str or type(value) is not str:
            return False
        total += size_of(name) + size_of(value)
    return total <= limits.HEADERS_BYTES


def size_of(text: str) -> int:
    """Bytes as UTF-8. A lone surrogate counts here; the codec refuses it."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def check_times(message: Message, *, now: int, lifetime: float, skew: float = limits.SKEW) -> None:
    """Refuse a message that is late, from the future, or made to live too long.

    Args:
        message: its own times are only a claim.
        now: microseconds since 1970 UTC, by the caller's clock or evidence.
        lifetime: seconds that may lie between its two times.
        skew: seconds that the author's clock may be off.

    Raises:
        EnvelopeRefused: LATE, NOT_YET_VALID, or MALFORMED for the lifetime.
    """
    slack = int(skew * 1_000_000)
    if now > message.expires_at + slack:
        raise refusal(Reason.LATE, message, f"expired {(now - message.expires_at) / 1e6:.0f} s ago")
    if message.sent_at > now + slack:
        raise refusal(
            Reason.NOT_YET_VALID, message, f"sent {(message.sent_at - now) / 1e6:.0f} s in the future"
        )
    if message.expires_at - message.sent_at > lifetime * 1_000_000:
        raise refusal(Reason.MALFORMED, message, f"a lifetime of more than {lifetime:.0f} s")


def refusal(reason: Reason, message: Message, detail: str) -> EnvelopeRefused:
    """Our refusal of one message, naming the author it claims."""
    return EnvelopeRefused(reason, by="us", peer=f"the message of {message.author.short}", detail=detail)


def microseconds(time: datetime) -> int:
    """A time as messages carry it.

    Raises:
        UsageError: the datetime is naive.
    """
    return (codec.aware_utc(time) - _EPOCH) // _MICROSECOND


def instant(microseconds: int) -> datetime:
    """The time, in UTC, that a message's field from 0 to `TIME_MAX` means."""
    return _EPOCH + microseconds * _MICROSECOND
