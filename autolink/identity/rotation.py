"""From the first key of a bound name to the key in use.

A bound name commits to its first key and, by a hash, to the second. Whoever shows the second key must also show what
it commits to, or any later key could be claimed: once the second key has been seen, everybody can write its bytes
beside a hash of their own choice. So a step is not a key and a hash but the self-issued certificate that the step's key
signed, which holds both:

    certificate 0      the name commits to its key and to its next-key hash
    certificate 1      its key is what certificate 0 committed to; signed by that key, it commits to the next
    ...
    certificate in use its key is what the last of them committed to

A thief of the first key cannot go on from it, for the name fixes the key after it. A thief of a later one can sign another
certificate of it, with a commitment to a key of his own, and show another way on from there; that this way is not the one
that was taken only a registry can say, which sees each commitment used once.

How old the earlier certificates are does not matter: they say what was committed to, not who acts now.

In files, and in an issuer's answer, the earlier certificates stand behind the chain: leaf, issuers, the root in use, the one
before it, and so on back to the first (`split_chain`). One list in one order, so nobody can hand on half of it.
"""

from collections.abc import Iterable, Sequence
from typing import Final

from autolink import codec, limits
from autolink.errors import IdentityError, Reason, RemoteProtocolError, display
from autolink.identity.autoid import AutoId
from autolink.identity.certificate import Certificate
from autolink.identity.names import is_bound_to

TAG: Final = "autolink/1 rotations"
"""The first element of this kind of evidence."""

_HEAD: Final = codec.encode([TAG, []])[:-1]
"""What an item of it begins with."""


def check_rotations(earlier: Sequence[Certificate], current: Certificate) -> None:
    """Follow a bound name from its first key to the one of `current`.

    Args:
        earlier: the certificates that came before it, first one first.
        current: in use now. That it is signed by its own key, and has its name's AutoId, the caller has seen.

    Raises:
        IdentityError: the way does not lead there; `reason` is IMPOSTOR.
    """
    name = current.common_name
    _check_size([certificate.der for certificate in earlier])
    if not is_bound_to(name, earlier[0].spki, earlier[0].next_key_hash):
        raise _impostor(name, "the first certificate of its rotations is not the one it is bound to")
    committed = earlier[0].next_key_hash
    for step, certificate in enumerate((*earlier[1:], current), 1):
        if certificate.spki_sha256 != committed:
            raise _impostor(name, f"the key of rotation {step} is not the one committed to before")
        committed = certificate.next_key_hash
    auto_id = AutoId.derive(name)
    for step, certificate in enumerate(earlier):  # signatures last: they cost most
        if certificate.common_name != name or certificate.auto_id != auto_id or not certificate.self_issued:
            raise _impostor(name, f"the certificate of rotation {step} is not one that it gave itself")


def split_chain(
    certificates: Sequence[Certificate],
) -> tuple[tuple[Certificate, ...], tuple[Certificate, ...]]:
    """The chain up to its self-issued root, and what stands behind that: the root's earlier certificates, unchecked.

    Returns:
        The chain, leaf first; the earlier certificates, first one first.
    """
    for length, certificate in enumerate(certificates, 1):
        if certificate.names_itself:
            return tuple(certificates[:length]), tuple(reversed(certificates[length:]))
    return tuple(certificates), ()


def encode_rotations(earlier: Iterable[Certificate]) -> bytes:
    """The evidence that shows them."""
    return codec.encode([TAG, [certificate.der for certificate in earlier]])


def rotations_in(evidence: Iterable[bytes]) -> tuple[Certificate, ...]:
    """The rotations that a peer's evidence shows, unchecked; none where there is no such evidence.

    Raises:
        IdentityError: there is, and it is malformed.
    """
    for item in evidence:
        if item.startswith(_HEAD):
            return _decode(item)
    return ()


def _decode(item: bytes) -> tuple[Certificate, ...]:
    try:
        value = codec.decode_untrusted(item, what="rotations", nodes=limits.CONTROL_NODES)
    except RemoteProtocolError as error:
        raise IdentityError(str(error)) from None
    match value:
        case [str(tag), list(ders)] if tag == TAG and all(type(der) is bytes for der in ders):
            _check_size(ders)  # before any is parsed
            return tuple(map(Certificate.parse_untrusted, ders))
    raise IdentityError("rotations: not a tag and certificates")


def _check_size(ders: Sequence[bytes]) -> None:
    if not 1 <= len(ders) <= limits.ROTATIONS:
        raise IdentityError(
            f"bound to another key: {len(ders)} rotations, 1 to {limits.ROTATIONS} can be shown",
            Reason.IMPOSTOR,
        )
    if sum(map(len, ders)) > limits.ROTATIONS_BYTES:
        raise IdentityError(
            f"bound to another key: rotations of more than {limits.ROTATIONS_BYTES} bytes", Reason.IMPOSTOR
        )


def _impostor(name: str, text: str) -> IdentityError:
    return IdentityError(f"{display(name)} is bound to another key: {text}", Reason.IMPOSTOR)
