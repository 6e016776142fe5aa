"""What a peer did, as values: made only from frames that the tables allow, complete and typed."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from autolink.errors import Code, Reason
from autolink.protocol.frames import Item


@dataclass(frozen=True, slots=True)
class Limits:
    """What a side takes: channels open at once, bytes of credit on each, bytes of one message body."""

    channels: int
    credit: int
    message: int


@dataclass(frozen=True, slots=True)
class LinkStatistics:
    """Counts of one link.

    Attributes:
        frames_sent, frames_received, bytes_sent, bytes_received: whole frames, headers included.
        items_sent, items_received: leaves in batches.
        channels_opened, channels_accepted: open now, by us and by the peer.
        frames_since_item: frames of the peer since an item last went either way: what a flood of pings, credits,
            cancels or evidence raises.
        bytes_held: received and not parsed yet.
    """

    frames_sent: int
    frames_received: int
    bytes_sent: int
    bytes_received: int
    items_sent: int
    items_received: int
    channels_opened: int
    channels_accepted: int
    frames_since_item: int
    bytes_held: int


class HelloReceived(NamedTuple):
    """The peer's HELLO.

    Attributes:
        version: the highest protocol version that both speak; None: refuse it with `Reason.VERSION`.
        clock: microseconds since 1970 by the peer's clock.
        software: its own words; show them only through `errors.display`.
        limits: what it takes from us.
        features: names of optional features that it knows.
        chain: DER certificates behind the leaf, only where TLS was resumed.
        evidence: statements about its own standing.
        fields: everything it said, unknown fields included.
    """

    version: int | None
    clock: int
    software: str
    limits: Limits
    features: tuple[str, ...]
    chain: tuple[bytes, ...]
    evidence: tuple[bytes, ...]
    fields: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class AcceptReceived:
    """The peer has judged us and accepted."""


@dataclass(frozen=True, slots=True)
class RefuseReceived:
    """The peer refused; the link is over. `offset`: seconds that it finds our clock ahead, with `clock_skew`."""

    reason: Reason
    offset: float | None


class BatchReceived(NamedTuple):
    """Items under one signature, which is still to be verified over *all* of them. A tuple because most events are one.

    Attributes:
        number: the batch's place in its direction, from 0.
        signature: over the leaves' Merkle root.
        items: channel, flags (`OPENS`, `ENDS`, `DATA`), leaf and data of each; data is not what is signed, its hash is.
        dropped: channels whose items go nowhere: we cancelled them, or a `ChannelRefused` follows.
    """

    number: int
    signature: bytes
    items: list[Item]
    dropped: frozenset[int]


@dataclass(frozen=True, slots=True)
class ChannelRefused:
    """The peer opened a channel that cannot be served: answer with ``cancel(channel, code)``.

    `code` is `unavailable` after our GOAWAY, `resource_exhausted` while handlers of channels that are over on the
    wire still run here.
    """

    channel: int
    code: Code


@dataclass(frozen=True, slots=True)
class CreditReceived:
    """The peer has read `count` bytes of ours on a channel."""

    channel: int
    count: int


@dataclass(frozen=True, slots=True)
class ChannelCancelled:
    """The peer ended a channel and drops what we still send on it.

    `over`: nothing is due from us. Otherwise stop what works for the channel, then `release` it.
    """

    channel: int
    code: Code
    over: bool


@dataclass(frozen=True, slots=True)
class PingReceived:
    """Answer with ``pong(data)``, in the order of arrival."""

    data: bytes


@dataclass(frozen=True, slots=True)
class PongReceived:
    """The answer to our oldest unanswered ping."""

    data: bytes


@dataclass(frozen=True, slots=True)
class EvidenceReceived:
    """Fresh evidence of the peer's standing: DER chain of the same key, statements. Empty where it said nothing."""

    chain: tuple[bytes, ...]
    evidence: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class GoAwayReceived:
    """The peer serves no channel of ours above `last`; it cancels those. `reason`: its own words, for display."""

    last: int
    reason: str


Event = (
    HelloReceived
    | AcceptReceived
    | RefuseReceived
    | BatchReceived
    | ChannelRefused
    | CreditReceived
    | ChannelCancelled
    | PingReceived
    | PongReceived
    | EvidenceReceived
    | GoAwayReceived
)
