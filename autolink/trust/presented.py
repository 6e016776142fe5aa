"""What a peer shows of itself, checked as far as it can be without believing anybody.

`present` is the one procedure from hostile bytes to a chain that is sound in itself. Its numbers stand at
the lines:

1. Bounds: 1 to `limits.CHAIN` certificates and `limits.CHAIN_BYTES`; `limits.EVIDENCE` items and
   `EVIDENCE_BYTES`. Nothing is parsed before.
2. Each certificate is parsed, once: its shape, its key, its name (certificate.py).
3. Each is valid at the time given. Before the signatures, so that an expired one is called expired.
4. The certificates above the leaf are exactly a path, in their order and to its end, that OpenSSL finds valid
   and that fits the profile (issuers.py). A certificate that is not on the path is junk around somebody's leaf
   and refused. The last one is its anchor for the time being. Where these very bytes have been examined before,
   what was found is remembered.
5. The leaf fits the profile below that path (profile.py), and its issuer's key signed it, over these very bytes.
6. The path is complete when its last certificate issued itself (as only a natural entity does) and its own key
   signed it, which OpenSSL does not ask of an anchor. Only then has anybody on it an AutoId: they are recomputed
   from the names, root first, and each certificate's URI must say exactly that.
7. A root whose name has the bound form must hold the key that the name commits to, or the evidence must show the way
   from that key to this one (identity/rotation.py). Any other key is an impostor's, whatever any model thinks; but
   where the root itself names a registry's log that is said to have this key on record in the place of those, the
   verdict refuses it instead, unless a model has found just that log to say so.

What follows is a trust model's: whether this root, or this key, is believed (verdict.py). Nothing here proves
that the peer holds the leaf's key: TLS, or the signature on a message, has done that before.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import final

from autolink import codec, limits
from autolink.errors import BadSignature, IdentityError, Reason, Refused, display
from autolink.identity.autoid import BOUND, AutoId, PeerId, key_authority
from autolink.identity.certificate import Certificate, EntityKind
from autolink.identity.names import show_name, split_bound
from autolink.identity.rotation import check_rotations, rotations_in
from autolink.trust.issuers import MEMORY, Issuers, establish, is_bound, name_path, next_ids
from autolink.trust.profile import check_placed, place_below


@final
@dataclass(frozen=True, slots=True)
class Presented:
    """A chain that is sound in itself, and not believed yet. Only `present` makes one.

    Attributes:
        chain: leaf first; complete up to the self-issued root when `complete`.
        ids: the AutoId of every element of the complete path, root first; empty when it is incomplete.
        bound: the complete path starts at a name that commits to its root's key, or to one that was rotated to it.
        succeeds_in: the path starts at a bound name that does not lead to its root's key, and the root names the log, as an
            authority, in which this key has succeeded those: not sound without that log's word. None otherwise.
        evidence: what the peer sent along for its standing; for trust models to read.
        issuers: what was found about the certificates above the leaf; None when there are none.
        valid_from, valid_until: when every certificate of the chain is valid (aware, both inclusive).
    """

    chain: tuple[Certificate, ...]
    ids: tuple[AutoId, ...]
    bound: bool
    evidence: tuple[bytes, ...]
    issuers: Issuers | None = field(repr=False, compare=False)
    valid_from: datetime
    valid_until: datetime
    succeeds_in: str | None = None

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

    @property
    def fingerprint(self) -> bytes:
        """SHA-256 over the whole chain and the evidence."""
        return fingerprint([certificate.der for certificate in self.chain], self.evidence)

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
    try:
        presented = sound(chain_der, evidence=evidence, now=now)
        root = presented.root
        if presented.complete and not presented.bound and split_bound(root.common_name) is not None:
            presented = _follow_name(presented)  # 7
    except IdentityError as error:
        raise Refused(error.reason, by="us", peer=_claimed(chain_der), detail=str(error)) from error
    return presented


def _follow_name(presented: Presented) -> Presented:
    """From the root's bound name, which does not commit to just its key, to that key."""
    root, rotations = presented.root, rotations_in(presented.evidence)
    if root.recovered_in is not None and not rotations:
        return replace(presented, succeeds_in=key_authority(root.recovered_in))
    check_rotations(rotations, root)
    return replace(presented, bound=True)


def _claimed(chain_der: Sequence[bytes]) -> str:
    """Who a refused chain says to be."""
    try:
        name = Certificate.parse_untrusted(chain_der[0]).common_name
    except (IndexError, IdentityError):
        return ""
    return f"someone who says to be {show_name(name)}"


def sound(chain_der: Sequence[bytes], *, evidence: Sequence[bytes] = (), now: datetime) -> Presented:
    """The procedure without its last step, for whoever knows the rotations of the root: `bound` is said only of a root
    whose name commits to just this key.

    Raises:
        IdentityError: the chain is not sound.
        UsageError: `now` is naive.
    """
    now = codec.aware_utc(now)
    _check_bounds(chain_der, evidence)  # 1
    leaf = Certificate.parse_untrusted(chain_der[0])  # 2
    above = tuple(chain_der[1:])
    issuers = MEMORY.find(above) if above else None
    upper = issuers.chain if issuers else tuple(map(Certificate.parse_untrusted, above))
    chain = (leaf, *upper)
    _check_time(chain, now)  # 3
    if above and issuers is None:
        issuers = establish(upper, now)  # 4
    _check_leaf(leaf, issuers)  # 5
    ids, bound = _name_of(leaf, issuers)
    return Presented(
        chain,
        ids,
        bound,
        tuple(evidence),
        issuers,
        valid_from=max([certificate.not_before for certificate in chain]),
        valid_until=min([certificate.not_after for certificate in chain]),
    )


def sound_issuers(chain_der: Sequence[bytes], *, now: datetime) -> Issuers:
    """As `sound`, of a chain that would stand above a leaf: its first certificate is an issuer's.

    Raises:
        IdentityError: it is not sound.
        UsageError: `now` is naive.
    """
    now = codec.aware_utc(now)
    _check_bounds(chain_der, ())
    issuers = MEMORY.find(tuple(chain_der))
    chain = issuers.chain if issuers else tuple(map(Certificate.parse_untrusted, chain_der))
    _check_time(chain, now)
    return issuers or establish(chain, now)


def _check_leaf(leaf: Certificate, issuers: Issuers | None) -> None:
    check_placed([place_below(issuers.placed[0] if issuers else None, leaf, 0)])
    if issuers:
        try:
            leaf.check_signed_by(issuers.chain[0])
        except BadSignature as error:
            issuer = show_name(issuers.chain[0].common_name)
            raise IdentityError(f"{display(leaf.common_name)} was not issued by {issuer}: {error}") from None


def _name_of(leaf: Certificate, issuers: Issuers | None) -> tuple[tuple[AutoId, ...], bool]:
    """The ids of the whole path, root first, and whether it starts at a name that is bound to just this key."""
    if issuers is None:
        ids = name_path([leaf])  # 6
        return ids, bool(ids) and is_bound(leaf)
    if not issuers.ids:
        return (), False
    return next_ids(issuers.ids, leaf), issuers.bound  # 6


def _check_bounds(chain_der: Sequence[bytes], evidence: Sequence[bytes]) -> None:
    if not 1 <= len(chain_der) <= limits.CHAIN:
        raise IdentityError(f"a chain has 1 to {limits.CHAIN} certificates, not {len(chain_der)}")
    if sum(map(len, chain_der)) > limits.CHAIN_BYTES:
        raise IdentityError(f"the chain is larger than {limits.CHAIN_BYTES} bytes")
    if len(evidence) > limits.EVIDENCE or sum(map(len, evidence)) > limits.EVIDENCE_BYTES:
        raise IdentityError("there is more evidence than is read")


def _check_time(chain: Sequence[Certificate], now: datetime) -> None:
    for certificate in chain:
        if now > certificate.not_after:
            name = display(certificate.common_name)
            text = f"the certificate of {name} expired at {certificate.not_after:%F %T} UTC"
            raise IdentityError(text, Reason.EXPIRED)
        if now < certificate.not_before:
            name = display(certificate.common_name)
            text = f"the certificate of {name} begins at {certificate.not_before:%F %T} UTC"
            raise IdentityError(text, Reason.NOT_YET_VALID)
