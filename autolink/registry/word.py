"""What a log signs with its key besides checkpoints: a purpose and a body, so that no word of its can be taken for another.

A body begins with a tag and the log's origin. Statuses, receipts and changes are such words.
"""

from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from autolink import codec, limits
from autolink.errors import BadSignature, RemoteProtocolError
from autolink.identity import keys
from autolink.registry.log.note import VerifierKey, of_another_log

SIGNATURE: Final = 64
"""Bytes of an Ed25519 signature (RFC 8032, section 5.1.6)."""


def sign(key: Ed25519PrivateKey, purpose: bytes, body: bytes) -> bytes:
    """The log's signature over a body."""
    return keys.sign(key, purpose + body)


def check(key: VerifierKey, purpose: bytes, origin: str, body: bytes, signature: bytes, *, what: str) -> None:
    """Check that the log of this key has said this.

    Args:
        origin: the log that the body names.
        what: names the word in errors.

    Raises:
        BadSignature: it is another log's, or nobody's.
    """
    if origin != key.name:
        raise of_another_log(origin, key)
    try:
        keys.verify(key.public, signature, purpose + body)
    except BadSignature:
        raise BadSignature(f"{what}: not signed by the log that it names") from None


def split_untrusted(data: bytes, *, what: str) -> tuple[bytes, bytes]:
    """The body and the signature of a word that consists of these two.

    Raises:
        RemoteProtocolError: it does not.
    """
    if len(data) > limits.CONTROL:
        raise RemoteProtocolError(f"{what}: more than {limits.CONTROL} bytes")
    match codec.decode_untrusted(data, what=what, nodes=3):
        case [bytes(body), bytes(signature)] if len(signature) == SIGNATURE:
            return body, signature
    raise RemoteProtocolError(f"{what}: not a body and a signature")
