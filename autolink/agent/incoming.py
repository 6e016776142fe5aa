"""What comes in on a link: each batch is verified, then each of its messages is judged.

The signature over the whole batch comes before any leaf is decoded. Then each message must be from the peer, to us, and on
time, and the bytes beside a chunk must be those that it signs.
"""

from typing import Final

from autolink import limits
from autolink.agent.kinds import FLAGS
from autolink.agent.received import Received, ReceivedBatch
from autolink.errors import BadSignature, Reason, RemoteProtocolError
from autolink.identity import AutoId, Certificate
from autolink.messages import (
    BatchHeader,
    Chunk,
    Kind,
    Message,
    PlainLeaves,
    check_data,
    decode_untrusted,
    merkle,
    verify_batch,
)  # fmt: skip
from autolink.protocol import DATA, BatchReceived
from autolink.trust import Presented

LIFETIME: Final = int(limits.MESSAGE_LIFETIME * 1_000_000)
"""Microseconds for which a message on a link is good."""

_SKEW: Final = int(limits.SKEW * 1_000_000)
_CHUNK_KIND: Final = Kind.CHUNK
_CHUNK: Final = (_CHUNK_KIND, DATA)
"""The one kind that may have another flag than its own: all but the last chunk of a stream have."""


class MessageRefused(RemoteProtocolError):
    """A message on a link is forged, late or meant for somebody else; the link ends, and `reason` is counted."""

    def __init__(self, reason: Reason, text: str) -> None:
        super().__init__(text)
        self.reason = reason


class Incoming:
    """The judge of one link's incoming batches. See the module."""

    __slots__ = ("_chain", "_evidence", "_link_id", "_own_id", "_peer_id", "_plain", "_role", "_signer")

    def __init__(
        self,
        own_id: AutoId,
        peer_id: AutoId,
        signer: Certificate,
        role: bytes,
        link_id: bytes,
        *,
        chain: tuple[bytes, ...],
        evidence: tuple[bytes, ...],
    ) -> None:
        self._own_id, self._peer_id = own_id, peer_id
        self._signer, self._role, self._link_id = signer, role, link_id
        self._chain, self._evidence = chain, evidence
        self._plain = PlainLeaves(peer_id, own_id)

    def prove_by(self, presented: Presented) -> None:
        """Messages from now on are exported with what the peer shows now: of a registry's word, what was shown when the link
        opened may be too old by then. What goes with a renewed certificate does not go with the one that signs here."""
        if presented.leaf.fingerprint == self._signer.fingerprint:
            self._chain = tuple(certificate.der for certificate in presented.chain)
            self._evidence = presented.evidence

    def open(self, event: BatchReceived, now: int) -> list[Received]:
        """Verify a batch, then each of its messages and the data beside it.

        Args:
            event: the batch, as its frame said.
            now: when its bytes were read, microseconds by the link's clock.

        Raises:
            RemoteProtocolError: a wrong signature, or a message that is malformed, not from the peer, not to us, late,
                something else than its frame said, or signs other data than came with it.
        """
        items = event.items
        header = BatchHeader(self._signer.fingerprint, self._link_id, self._role, event.number, len(items))
        hashes = merkle.leaf_hashes([leaf for _, _, leaf, _ in items])
        try:
            verify_batch(self._signer, header, merkle.root(hashes), event.signature)
        except BadSignature:
            raise MessageRefused(
                Reason.TAMPERED, f"batch {event.number} is not signed by the peer's key"
            ) from None
        batch = ReceivedBatch(header, event.signature, hashes, self._chain, self._evidence)
        earliest, latest = now - _SKEW, now + _SKEW
        return [
            self._judged(batch, index, channel, flags, leaf, data, earliest, latest)
            for index, (channel, flags, leaf, data) in enumerate(items)
        ]

    def _judged(
        self, batch: ReceivedBatch, index: int, channel: int, flags: int, leaf: bytes, data: bytes, earliest: int,
        latest: int,
    ) -> Received:  # fmt: skip
        plain = self._plain.read(leaf, channel)
        if plain is not None:
            seq, sent_at, expires_at, kind, body, method, timeout = plain
            message = None
        else:
            message = decode_untrusted(leaf)
            self._check_parties(message)
            seq, sent_at, expires_at, kind, body, method, timeout = (
                message.seq, message.sent_at, message.expires_at, message.kind, message.body, message.method,
                message.timeout,
            )  # fmt: skip
            if message.channel != channel:
                raise _says_otherwise(channel, kind)
        if flags != FLAGS[kind] and (kind, flags) != _CHUNK:
            raise _says_otherwise(channel, kind)
        if expires_at < earliest:
            raise MessageRefused(Reason.LATE, "a message arrived after its time")
        if sent_at > latest:
            raise MessageRefused(Reason.CLOCK_SKEW, "a message is from the future")
        if expires_at - sent_at > LIFETIME:
            raise MessageRefused(
                Reason.MALFORMED, "a message claims to live for longer than one on a link may"
            )
        if kind is not _CHUNK_KIND:
            return Received(kind, seq, body, channel, flags, leaf, batch, index, method, timeout, message)
        return Received(
            kind, seq, body, channel, flags, leaf, batch, index, method, timeout, message, data,
            _chunk(channel, body, data),
        )  # fmt: skip

    def _check_parties(self, message: Message) -> None:
        """It is from the peer, and everything but a publication names us."""
        if message.author != self._peer_id:
            raise MessageRefused(Reason.WRONG_PEER, "a message on this link is not from its peer")
        if message.recipient != self._own_id and message.kind is not Kind.PUBLISH:
            raise MessageRefused(Reason.WRONG_RECIPIENT, "a message on this link is not for us")


def _says_otherwise(channel: int, kind: Kind) -> RemoteProtocolError:
    return RemoteProtocolError(f"channel {channel}: a {kind.name} whose frame says otherwise")


def _chunk(channel: int, body: bytes, data: bytes) -> Chunk:
    """What `check_data` gives: data that its leaf does not sign is as bad as a leaf that is not signed."""
    try:
        return check_data(body, data)
    except BadSignature as error:
        raise MessageRefused(Reason.TAMPERED, f"channel {channel}: {error}") from None
