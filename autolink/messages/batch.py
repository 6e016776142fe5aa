"""One signature over the messages that waited together.

The signature covers, in one fixed-size preimage, the signer's certificate, the link, the direction, the
batch's number in it, the number of leaves and their Merkle root. Each part stops something:

* the certificate: one signature can verify under two keys, and one key can sit in two certificates;
* link and number: a batch is good once, in its place, with no memory of old ones (and the first batch on a
  resumed link proves the key again, which TLS resumption does not);
* the role: a batch cannot be sent back to who made it;
* the count: without it a leaf's proof fits trees of other sizes (see `merkle`);
* the first bytes: no preimage of another protocol, and none of ours with another purpose, looks like this.

Signature bytes themselves identify nothing: from one valid ECDSA signature anybody makes a second.
"""

import struct
from collections.abc import Sequence
from typing import Final, NamedTuple

from autolink.errors import BadSignature
from autolink.identity import Certificate, Credential, keys
from autolink.messages import merkle

PURPOSE: Final = b"autolink/1 batch\0"

DIALER: Final = b"d"
LISTENER: Final = b"l"
ALONE: Final = b"e"
"""The role in a message that was signed outside any link, to be forwarded: its link id is zeros, its number
0."""

NO_LINK: Final = bytes(32)

_PLACE: Final = struct.Struct(">QI")


class BatchHeader(NamedTuple):
    """What a batch signature covers besides the root. A tuple because it is made for every signature.

    Attributes:
        signer: SHA-256 of the signer's leaf certificate, DER (`Certificate.fingerprint`).
        link_id: 32 bytes: the link's TLS exporter value, or `NO_LINK`.
        role: who of the two signed: `DIALER`, `LISTENER`, or `ALONE`.
        number: of the batch in its direction of the link, from 0, by one.
        count: leaves, at least 1.
    """

    signer: bytes
    link_id: bytes
    role: bytes
    number: int
    count: int  # type: ignore[assignment]  # a tuple's method of that name is not missed

    def preimage(self, root: bytes) -> bytes:
        """The signed bytes: 17 + 32 + 32 + 1 + 8 + 4 + 32."""
        return _preimage(self.signer, self.link_id, self.role, self.number, self.count, root)


def _preimage(signer: bytes, link_id: bytes, role: bytes, number: int, count: int, root: bytes) -> bytes:
    return b"".join((PURPOSE, signer, link_id, role, _PLACE.pack(number, count), root))


def sign_batch(
    credential: Credential, link_id: bytes, role: bytes, number: int, leaves: Sequence[bytes]
) -> bytes:
    """Sign leaves, in their order, as one batch."""
    root = merkle.root(merkle.leaf_hashes(leaves))
    return credential.sign(_preimage(credential.leaf.fingerprint, link_id, role, number, len(leaves), root))


def verify_batch(certificate: Certificate, header: BatchHeader, root: bytes, signature: bytes) -> None:
    """Check a batch signature: for a link and for an Envelope, now or years later, this one function.

    Raises:
        BadSignature: it is not this certificate's over this header and root.
    """
    if header.signer != certificate.fingerprint:
        raise BadSignature("the batch names another certificate")
    keys.verify(certificate.public_key, signature, header.preimage(root))
