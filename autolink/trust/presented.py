"""What a peer shows of itself, checked as far as it can be without believing anybody.

`present` is the one procedure from hostile bytes to a chain that is sound in itself. Its numbers stand at
the lines:

1. Bounds: 1 to `limits.CHAIN` certificates and `limits.CHAIN_BYTES`; `limits.EVIDENCE` items and
   `EVIDENCE_BYTES`. Nothing is parsed before.
2. Each certificate is parsed, once: its shape, its key, its name (certificate.py).
3. Each is valid at the time given. Before the signatures, so that an expired one is called expired.
4. OpenSSL finds exactly the chain that was shown, in its order and to its end, to be a valid path
   (chain.py). A certificate that is not on the path is junk around somebody's leaf and refused. The last
   one is its anchor for the time being.
5. Every certificate fits the profile (profile.py).
6. The path is complete when its last certificate issued itself (as only a natural entity does) and its own key
   signed it, which OpenSSL does not ask of an anchor. Only then has anybody on it an AutoId: they are recomputed
   from the names, root first, and each certificate's URI must say exactly that.
7. A root whose name has the bound form must hold the key that the name commits to. Another key is an
   impostor, whatever any model thinks. (After a rotation `evidence` will show the way from the first key to
   this one.)

What follows is a trust model's: whether this root, or this key, is believed (verdict.py). Nothing here proves
that the peer holds the leaf's key: TLS, or the signature on a message, has done that before.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import final

from autolink import codec, limits
from autolink.errors import IdentityError, Reason, Refused, display
from autolink.identity.autoid import BOUND, AutoId, PeerId, key_authority
from autolink.identity.certificate import Certificate, EntityKind
from autolink.identity.names import is_bound_to, show_name, split_bound
from autolink.trust.chain import verify_path
from autolink.trust.profile import check_profile


@final
@dataclass(frozen=True, slots=True)
class Presented:
    """A chain that is sound in itself, and not believed yet. Only `present` makes one.

    Attributes:
        chain: leaf first; complete up to the self-issued root when `complete`.
        ids: the AutoId of every element of the complete path, root first; empty when it is incomplete.
        bound: the complete path starts at a name that commits to its root's key.
        evidence: what the peer sent along for its standing, unread.
        fingerprint: SHA-256 over the whole chain and the evidence.
        valid_from, valid_until: when every certificate of the chain is valid (aware, both inclusive).
    """

    chain: tuple[Certificate, ...]
    ids: tuple[AutoId, ...]
    bound: bool
    evidence: tuple[bytes, ...]
    fingerprint: bytes
    valid_from: datetime
    valid_until: datetime

    @property
    def leaf(self) -> Certificate:
        return self.chain[0]

    @property
    def root(self) -> Certificate:
        """The last certificate: the self-issued root when `complete`, else merely where the path stops."""
        return self.chain[-1]

    @property
    def complete(self) -> bool:
        return bool(self.ids)

    @property
    def auto_id(self) -> AutoId | None:
        """The leaf's, recomputed along the complete path; None when it is incomplete."""
        return self.ids[-1] if self.ids else None

    @property
    def name(self) -> str:
        """The leaf's common name: its issuer's word, or its own. Not to be believed before the verdict."""
        return self.leaf.common_name

    @property
    def names(self) -> tuple[str, ...]:
        """Common names, root first; when `complete`, what the ids were computed from."""
        return tuple(certificate.common_name for certificate in reversed(self.chain))

    @property
    def kind(self) -> EntityKind | None:
        """The issuer's word; of a self-issued certificate its own."""
        return self.leaf.kind

    def shows(self, peer_id: PeerId) -> bool:
        """Whether this chain, once its holder proved the leaf's key, is that peer's.

        True for its AutoId with `bound` on a bound path, or with the key of any certificate on the path:
        whoever holds that key has signed the rest, and the ids have fixed its place. For a key principal:
        the leaf's key.
        """
        if peer_id.auto_id is None:
            return peer_id.authority == key_authority(self.leaf.spki_sha256)
        if peer_id.auto_id != self.auto_id:
            return False
        if peer_id.authority == BOUND:
            return self.bound
        return any(peer_id.authority == key_authority(certificate.spki_sha256) for certificate in self.chain)

    def denies(self, peer_id: PeerId) -> bool:
        """Whether this chain has that peer's AutoId, its holder's or an issuer's, without that peer's key."""
        if peer_id.auto_id not in self.ids:
            return False
        if peer_id.authority == BOUND:
            return not self.bound
        above = self.chain[len(self.chain) - 1 - self.ids.index(peer_id.auto_id) :]
        return all(peer_id.authority != key_authority(certificate.spki_sha256) for certificate in above)

    def __str__(self) -> str:
        return "/".join(show_name(name) for name in self.names)


def fingerprint(chain_der: Sequence[bytes], evidence: Sequence[bytes]) -> bytes:
    """SHA-256 over a whole chain and its evidence, in an encoding that no other list of bytes shares."""
    return hashlib.sha256(codec.encode([list(chain_der), list(evidence)])).digest()


def present(chain_der: Sequence[bytes], *, evidence: Sequence[bytes] = (), now: datetime) -> Presented:
    """Check a chain by the procedure above.

    Args:
        chain_der: DER certificates as shown, leaf first.
        evidence: as shown.
        now: the time to judge at (aware).

    Raises:
        Refused: by us: MALFORMED, EXPIRED, NOT_YET_VALID or IMPOSTOR.
        UsageError: `now` is naive.
    """
    now = codec.aware_utc(now)
    chain: tuple[Certificate, ...] = ()
    try:
        _check_bounds(chain_der, evidence)  # 1
        chain = tuple(map(Certificate.parse_untrusted, chain_der))  # 2
        _check_time(chain, now)  # 3
        if verify_path(chain_der[0], chain_der[1:-1], chain_der[-1:], now=now) != tuple(chain_der):  # 4
            raise IdentityError("the chain holds a certificate that is not on its path")
        check_profile([certificate.x509 for certificate in chain])  # 5
        ids = _name_path(chain)  # 6
        bound = bool(ids) and _check_bound(chain[-1])  # 7
    except IdentityError as error:
        claimed = f"someone who says to be {show_name(chain[0].common_name)}" if chain else ""
        raise Refused(error.reason, by="us", peer=claimed, detail=str(error)) from error
    return Presented(
        chain,
        ids,
        bound,
        tuple(evidence),
        fingerprint(chain_der, evidence),
        valid_from=max(certificate.not_before for certificate in chain),
        valid_until=min(certificate.not_after for certificate in chain),
    )


def _check_bounds(chain_der: Sequence[bytes], evidence: Sequence[bytes]) -> None:
    if not 1 <= len(chain_der) <= limits.CHAIN:
        raise IdentityError(f"a chain has 1 to {limits.CHAIN} certificates, not {len(chain_der)}")
    if sum(map(len, chain_der)) > limits.CHAIN_BYTES:
        raise IdentityError(f"the chain is larger than {limits.CHAIN_BYTES} bytes")
    if len(evidence) > limits.EVIDENCE or sum(map(len, evidence)) > limits.EVIDENCE_BYTES:
        raise IdentityError("there is more evidence than is read")


def _check_time(chain: Sequence[Certificate], now: datetime) -> None:
    for certificate in chain:
        name = display(certificate.common_name)
        if now > certificate.not_after:
            text = f"the certificate of {name} expired at {certificate.not_after:%F %T} UTC"
            raise IdentityError(text, Reason.EXPIRED)
        if now < certificate.not_before:
            text = f"the certificate of {name} begins at {certificate.not_before:%F %T} UTC"
            raise IdentityError(text, Reason.NOT_YET_VALID)


def _name_path(chain: Sequence[Certificate]) -> tuple[AutoId, ...]:
    """The ids of a complete path, root first; empty for an incomplete one."""
    root = chain[-1]
    if root.x509.subject != root.x509.issuer:
        return ()
    if not root.self_issued:
        raise IdentityError(f"the certificate of {display(root.common_name)} is not signed by its own key")
    if root.kind and not root.kind.natural:
        raise IdentityError(f"{display(root.common_name)} issued itself, which no {root.kind} may")
    path = chain[::-1]
    ids = AutoId.derive_path(certificate.common_name for certificate in path)
    for certificate, auto_id in zip(path, ids, strict=True):
        if certificate.auto_id != auto_id:
            raise IdentityError(
                f"the certificate of {display(certificate.common_name)} has not its name's AutoId"
            )
    return ids


def _check_bound(root: Certificate) -> bool:
    """Whether the root's name is bound; if it is, it holds the key it is bound to."""
    if split_bound(root.common_name) is None:
        return False
    if not is_bound_to(root.common_name, root.spki, root.next_key_hash):
        raise IdentityError(f"{display(root.common_name)} is bound to another key", Reason.IMPOSTOR)
    return True
