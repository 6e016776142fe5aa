"""An Envelope: one signed message taken out of its batch, with all that is needed to check it anywhere.

It holds the exact leaf bytes, the Merkle path, the rest of what the batch signature covers, the signature,
the signer's whole chain and a list of evidence for a later day. `verify` is the only way to a
`VerifiedMessage`:

1. The shape: every size and count within its bound, every field in its one encoding
   (`Envelope.from_untrusted`).
2. The author named in the leaf is the AutoId that the signer's certificate claims.
3. The signature over the batch that the leaf and its path lead to is that certificate's.
4. If the caller is about to act on it: the recipient is the caller, and the message has not expired.
5. It was not signed after `at`, nor made to live longer than it may.
6. The trust model vouches for the chain at `at`, as it would for a peer's.
7. The AutoId that the chain's names lead to is the author.

Nothing before step 6 believes anybody; steps 2 and 3 cost one signature and protect the trust model and its
cache from chains that no key stands behind.

`at` is the caller's evidence of when the message existed, never the message's own word: a stolen key signs
any past.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Self, final

from autolink import codec, limits
from autolink.errors import (
    BadSignature,
    EnvelopeRefused,
    IdentityError,
    Reason,
    Refused,
    RemoteProtocolError,
    UsageError,
    display,
)  # fmt: skip
from autolink.identity import AutoId, Certificate, Credential
from autolink.messages import merkle
from autolink.messages.batch import ALONE, DIALER, LISTENER, NO_LINK, BatchHeader, sign_batch, verify_batch
from autolink.messages.message import (
    ID,
    Kind,
    Message,
    check_times,
    decode_untrusted,
    encode,
    instant,
    microseconds,
    refusal,
)  # fmt: skip
from autolink.trust import Context, Model, VerdictCache, VerifiedPeer, judge

TAG: Final = "autolink/1 envelope"
"""The first element of an encoded Envelope, so that a file says what it is."""


@final
@dataclass(frozen=True, slots=True)
class Envelope:
    """One signed message and its proof. Parsed or made, nothing in it is verified: see `verify`.

    Attributes:
        leaf: the signed bytes of the message.
        index: of the leaf in its batch.
        count: leaves of the batch.
        path: hashes from the leaf to the root.
        link_id: of the link it was signed for, opaque here; zeros if for none.
        role: who signed: `batch.DIALER`, `LISTENER` or `ALONE`.
        number: of the batch on its link.
        signature: over the batch.
        chain: DER certificates, signer's first, up to the self-issued root.
        evidence: opaque items about time and standing, for trust models that know them.
    """

    leaf: bytes
    index: int
    count: int
    path: tuple[bytes, ...]
    link_id: bytes
    role: bytes
    number: int
    signature: bytes
    chain: tuple[bytes, ...]
    evidence: tuple[bytes, ...] = ()

    def to_bytes(self) -> bytes:
        """The encoded Envelope: what a file holds and a forwarded message carries as its body."""
        return codec.encode([
            TAG, self.leaf, self.index, self.count, list(self.path), self.link_id, self.role, self.number,
            self.signature, list(self.chain), list(self.evidence),
        ])  # fmt: skip

    @classmethod
    def from_untrusted(cls, data: bytes) -> Self:
        """Parse an encoded Envelope (step 1).

        Raises:
            EnvelopeRefused: MALFORMED, and nothing else.
        """
        if len(data) > limits.LEAF:
            raise _malformed(f"more than {limits.LEAF} bytes")
        try:
            fields = codec.decode_untrusted(data, what="envelope", nodes=64)
            if type(fields) is not list or len(fields) != 11 or fields[0] != TAG:
                raise _malformed(f"not an array of eleven that begins with {TAG!r}")
            for place in (4, 9, 10):
                if type(fields[place]) is not list:
                    raise _malformed("path, chain or evidence is no array")
                fields[place] = tuple(fields[place])
            envelope = cls(*fields[1:])
            envelope._check_shape()
            decode_untrusted(envelope.leaf)
        except RemoteProtocolError as error:
            raise _malformed(str(error)) from None
        return envelope

    def _check_shape(self) -> None:
        integers = (self.index, self.count, self.number)
        if any(type(value) is not int for value in integers):
            raise _malformed("index, count or number is no integer")
        if any(type(value) is not bytes for value in (self.leaf, self.link_id, self.role, self.signature)):
            raise _malformed("leaf, link, role or signature is no byte string")
        if any(type(item) is not bytes for item in (*self.path, *self.chain, *self.evidence)):
            raise _malformed("path, chain or evidence holds something else than bytes")
        if not (0 <= self.index < self.count <= 2**limits.PROOF and 0 <= self.number < 2**64):
            raise _malformed("index, count or number out of range")
        if len(self.path) != merkle.path_length(self.index, self.count) or any(
            len(node) != merkle.HASH for node in self.path
        ):
            raise _malformed("a path that index and count do not allow")
        if self.role not in (DIALER, LISTENER, ALONE) or len(self.link_id) != len(NO_LINK):
            raise _malformed("unknown role, or a link id that is not 32 bytes")
        if self.role == ALONE and (self.link_id, self.number, self.count) != (NO_LINK, 0, 1):
            raise _malformed("signed alone, yet with a link, a number or neighbours")
        if not 0 < len(self.signature) <= limits.SIGNATURE:
            raise _malformed(f"a signature that is not 1 to {limits.SIGNATURE} bytes")
        if not 0 < len(self.chain) <= limits.CHAIN or sum(map(len, self.chain)) > limits.CHAIN_BYTES:
            raise _malformed(f"not 1 to {limits.CHAIN} certificates of {limits.CHAIN_BYTES} bytes together")
        if len(self.evidence) > limits.EVIDENCE or sum(map(len, self.evidence)) > limits.EVIDENCE_BYTES:
            raise _malformed(f"more than {limits.EVIDENCE} items of evidence, {limits.EVIDENCE_BYTES} bytes")

    @property
    def claimed(self) -> Message:
        """The message as it describes itself: UNVERIFIED.

        Raises:
            EnvelopeRefused: MALFORMED.
        """
        try:
            return decode_untrusted(self.leaf)
        except RemoteProtocolError as error:
            raise _malformed(str(error)) from None

    def summary(self) -> dict[str, object]:
        """What the envelope claims, for a person or as JSON: UNVERIFIED, peer strings made safe to show."""
        message = self.claimed
        return {
            "author": message.author.hex,
            "recipient": message.recipient.hex
            if isinstance(message.recipient, AutoId)
            else display(message.recipient),
            "kind": message.kind.name.lower(),
            "method": display(message.method),
            "id": message.id.hex(),
            "seq": message.seq,
            "sent_at": instant(message.sent_at).isoformat(),
            "expires_at": instant(message.expires_at).isoformat(),
            "headers": {display(name): display(value) for name, value in message.headers.items()},
            "body_bytes": len(message.body),
            "batch": {"index": self.index, "count": self.count, "number": self.number},
            "link": None if self.role == ALONE else self.link_id.hex(),
            "certificates": len(self.chain),
            "evidence": len(self.evidence),
        }


@final
@dataclass(frozen=True, slots=True)
class VerifiedMessage:
    """What `verify` found, and only `verify` makes.

    Attributes:
        author: who signed, and on what grounds that is believed.
        message: the signed message.
        claimed_time: when its author says that it was signed.
        proved_time: when it existed at the latest, by evidence in the envelope; None without such evidence.
        at: the time for which the caller asked.
    """

    author: VerifiedPeer
    message: Message
    claimed_time: datetime
    proved_time: datetime | None
    at: datetime


def check_signature(envelope: Envelope) -> Message:
    """Steps 2 and 3: the message is signed by the key in the first certificate, under the AutoId which that
    claims.

    **Nobody has vouched for that certificate**: whose it is, only `verify` finds out.

    Raises:
        EnvelopeRefused: MALFORMED, IMPOSTOR (another author than the certificate's), TAMPERED.
    """
    return _check_signature(envelope)[0]


def _check_signature(envelope: Envelope) -> tuple[Message, Certificate]:
    message = envelope.claimed
    try:
        certificate = Certificate.parse_untrusted(envelope.chain[0])
    except IdentityError as error:
        raise refusal(Reason.MALFORMED, message, str(error)) from None
    if certificate.auto_id != message.author:  # 2
        raise refusal(Reason.IMPOSTOR, message, "signed under the certificate of another Auto ID")
    header = BatchHeader(
        certificate.fingerprint, envelope.link_id, envelope.role, envelope.number, envelope.count
    )  # fmt: skip
    try:  # 3
        root = merkle.root_from_path(
            merkle.leaf_hash(envelope.leaf), envelope.index, envelope.count, envelope.path
        )
        verify_batch(certificate, header, root, envelope.signature)
    except BadSignature as error:
        raise refusal(Reason.TAMPERED, message, str(error)) from None
    return message, certificate


async def verify(
    envelope: Envelope,
    *,
    trust: Model,
    at: datetime,
    recipient: AutoId | str | None = None,
    skew: float = limits.SKEW,
    cache: VerdictCache | None = None,
) -> VerifiedMessage:
    """Find out who signed a message (steps 2 to 7 above). Cancelling it leaves nothing behind.

    Args:
        envelope: from anywhere.
        trust: whom the caller believes.
        at: a time at which the caller knows the message to have existed, such as now.
        recipient: the AutoId or topic for which the caller is about to act on it. None asks only who said
            this to whom: then neither the recipient nor the expiry is judged.
        skew: seconds that the author's clock may be off.
        cache: of verdicts about chains.

    Raises:
        EnvelopeRefused: with the reason; nothing else, except what a cancellation raises.
    """
    message = check_signature(envelope)  # 2, 3
    now = microseconds(at)
    if recipient is None:  # nobody acts on it, so it may have expired
        now = min(now, message.expires_at)
    elif message.recipient != recipient:  # 4
        raise refusal(Reason.WRONG_RECIPIENT, message, "it is addressed to somebody else")
    check_times(message, now=now, lifetime=limits.ENVELOPE_LIFETIME, skew=skew)  # 4, 5
    context = Context(now=at, direction="message", address="")
    try:  # 6
        author = await judge(trust, envelope.chain, context=context, evidence=envelope.evidence, cache=cache)
    except Refused as refused:
        raise refusal(refused.reason, message, refused.detail) from refused
    if author.presented.auto_id != message.author:  # 7
        raise refusal(Reason.IMPOSTOR, message, "the chain of names leads to another Auto ID, or to none")
    return VerifiedMessage(author, message, instant(message.sent_at), None, at)


def sign_envelope(
    credential: Credential,
    *,
    recipient: AutoId | str,
    method: str,
    body: bytes,
    now: datetime,
    lifetime: float = limits.MESSAGE_LIFETIME,
    kind: Kind = Kind.CALL,
    headers: Mapping[str, str] | None = None,
    seq: int = 0,
    message_id: bytes | None = None,
    evidence: Sequence[bytes] = (),
) -> Envelope:
    """Sign one message outside any link, for somebody else to carry.

    Args:
        credential: the author's.
        recipient: for whom it is.
        method: what is asked of the recipient.
        body: one encoded value.
        now: when it is signed.
        lifetime: seconds until it expires, at most `limits.ENVELOPE_LIFETIME`.
        kind: what it is for.
        headers: for the recipient.
        seq: the author's count of messages to this recipient.
        message_id: random bytes that salt the leaf; None takes them from the operating system.
        evidence: what is shown of the author's standing, besides the credential's own.

    Raises:
        UsageError: a field that no recipient would accept.
    """
    if not 0 < lifetime <= limits.ENVELOPE_LIFETIME:
        raise UsageError(f"a lifetime is more than 0 and at most {limits.ENVELOPE_LIFETIME:.0f} seconds")
    sent_at = microseconds(now)
    leaf = encode(Message(
        id=os.urandom(ID) if message_id is None else message_id, seq=seq, author=credential.auto_id,
        recipient=recipient, sent_at=sent_at, expires_at=sent_at + int(lifetime * 1_000_000), kind=kind,
        channel=0, method=method, timeout=0, headers=dict(headers or {}), body=body,
    ))  # fmt: skip
    signature = sign_batch(credential, NO_LINK, ALONE, 0, [leaf])
    chain = tuple(certificate.der for certificate in credential.chain)
    shown = (*credential.evidence, *evidence)
    return Envelope(leaf, 0, 1, (), NO_LINK, ALONE, 0, signature, chain, shown)


def export(
    header: BatchHeader,
    leaves: Sequence[bytes],
    index: int,
    *,
    signature: bytes,
    chain: Sequence[bytes],
    evidence: Sequence[bytes] = (),
) -> Envelope:
    """Take one message out of a batch that was verified on a link, as it was signed.

    Raises:
        IndexError: the batch has no such leaf.
    """
    path = merkle.path(merkle.leaf_hashes(leaves), index)
    return Envelope(
        leaves[index], index, header.count, path, header.link_id, header.role, header.number, signature,
        tuple(chain), tuple(evidence),
    )  # fmt: skip


@final
@dataclass(frozen=True, slots=True)
class Equivocation:
    """Proof that one key signed two different messages under one id. Only `prove_equivocation` makes it."""

    author: AutoId
    message_id: bytes
    first: Envelope
    second: Envelope


def prove_equivocation(first: Envelope, second: Envelope) -> Equivocation:
    """Show that an author told two stories: two leaves of one author and id with different bytes, under one
    key.

    The proof is against the key; whose key it is, `verify` says.

    Raises:
        EnvelopeRefused: one of them is not signed as it claims.
        UsageError: both are, and prove nothing: other authors, other keys, other ids, or the same bytes.
    """
    (one, signer), (other, second_signer) = _check_signature(first), _check_signature(second)
    if (one.author, one.id, signer.spki) != (other.author, other.id, second_signer.spki):
        raise UsageError("no equivocation: these are two messages, or signed by two keys")
    if first.leaf == second.leaf:
        raise UsageError("no equivocation: this is one message, twice")
    return Equivocation(one.author, one.id, first, second)


def _malformed(detail: str) -> EnvelopeRefused:
    return EnvelopeRefused(Reason.MALFORMED, by="us", peer="the envelope", detail=detail)
