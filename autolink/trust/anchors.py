"""The models that hold what they believe in memory: IssuedBy, SelfCertified, Pinned, and UnsafeAnyone."""

from typing import final

from autolink.errors import Reason, UsageError, display
from autolink.identity.anchor import TrustAnchor
from autolink.identity.autoid import BOUND, AutoId, PeerId, key_authority
from autolink.identity.certificate import Certificate
from autolink.identity.names import show_name
from autolink.trust.model import Context, Contradicted, Grounds, Model, NotVouched
from autolink.trust.presented import Presented


@final
class IssuedBy(Model):
    """Believes whom the given organisations have issued, at any depth.

    Authoritative for every id below the name of an anchor: there another key is an impostor's. An anchor's
    own certificate is not issued by it: that one is believed by `Pinned` or `SelfCertified`.

    Args:
        anchors: at least one.

    Raises:
        UsageError: no anchor, or two of one AutoId with different keys (one anchor may declare several keys).
    """

    def __init__(self, *anchors: TrustAnchor) -> None:
        if not anchors:
            raise UsageError("IssuedBy needs at least one trust anchor")
        if not all(isinstance(anchor, TrustAnchor) for anchor in anchors):
            raise UsageError("IssuedBy takes trust anchors: TrustAnchor.load(path), or credential.anchor")
        self._anchors: dict[AutoId, TrustAnchor] = {}
        self._grounds: dict[AutoId, Grounds] = {}
        for anchor in anchors:
            auto_id, text = anchor.auto_id, f"issued below {show_name(anchor.name)}"
            other = self._anchors.setdefault(auto_id, anchor)
            self._grounds.setdefault(auto_id, Grounds("IssuedBy", text, authority=anchor.authority))
            if anchor.authority != BOUND and _keys(anchor) != _keys(other):
                name = show_name(anchor.name)
                raise UsageError(
                    f"two anchors {name!r} have different keys: declare both in one, or drop one"
                )

    async def verify(self, presented: Presented, context: Context) -> Grounds:
        if not presented.complete:
            raise NotVouched("the chain stops before its self-issued root", Reason.UNKNOWN_ISSUER)
        root = presented.root
        anchor = self._anchors.get(presented.ids[0])
        if anchor is None:
            raise NotVouched(f"{show_name(root.common_name)} is none of the anchors", Reason.UNKNOWN_ISSUER)
        if root not in anchor.certificates and not presented.bound and not anchor.matches(root):
            name = show_name(root.common_name)
            raise Contradicted(f"{name} holds another key than the anchor of that name")
        if len(presented.chain) == 1:
            raise NotVouched(f"{show_name(root.common_name)} is an anchor itself, not issued by one")
        return self._grounds[presented.ids[0]]

    def __repr__(self) -> str:
        return f"IssuedBy({', '.join(show_name(anchor.name) for anchor in self._anchors.values())})"


@final
class SelfCertified(Model):
    """Believes every bound path: a stranger, but exactly that stranger. Policy says what strangers may do."""

    async def verify(self, presented: Presented, context: Context) -> Grounds:
        if not presented.bound:
            raise NotVouched("the path does not start at a name that is bound to its key")
        return Grounds("SelfCertified", f"{show_name(presented.names[0])} is bound to its own key")

    def __repr__(self) -> str:
        return "SelfCertified()"


@final
class Pinned(Model):
    """Believes exactly the peers named, and is authoritative for their ids, also where they stand as issuers.

    A PeerId pins an AutoId to its authority, or, as a key principal, one leaf key under whatever name. A
    certificate pins the AutoId it carries to its own key. Pins may change at any time; an empty set
    believes nobody. A PeerId that rests on a registry's log names no key that a peer could show: pinned, it refuses
    all of that name; dial it with `expect`.

    Raises:
        UsageError: one AutoId under two authorities, or a certificate without an AutoId.
    """

    def __init__(self, *pins: PeerId | Certificate) -> None:
        self._ids: dict[AutoId, PeerId] = {}
        self._keys: set[PeerId] = set()
        for pin in pins:
            self.add(pin)

    def add(self, pin: PeerId | Certificate) -> None:
        """Pin one more peer.

        Raises:
            UsageError: its AutoId is pinned to another authority: remove that first.
        """
        peer_id = _as_peer_id(pin)
        if peer_id.auto_id is None:
            self._keys.add(peer_id)
        elif self._ids.setdefault(peer_id.auto_id, peer_id) != peer_id:
            other = self._ids[peer_id.auto_id]
            raise UsageError(f"{peer_id.auto_id} is pinned to {other.authority}: remove that first")
        self._changed()

    def remove(self, pin: PeerId | Certificate) -> None:
        """End a pin; what was not pinned is passed over. Live links that rested on it are judged again."""
        peer_id = _as_peer_id(pin)
        self._keys.discard(peer_id)
        if peer_id.auto_id and self._ids.get(peer_id.auto_id) == peer_id:
            del self._ids[peer_id.auto_id]
        self._changed()

    async def verify(self, presented: Presented, context: Context) -> Grounds:
        pin = None
        for auto_id in presented.ids:  # root first; also an issuer's: below an impostor everybody is one
            pin = self._ids.get(auto_id)
            if pin and presented.denies(pin):
                raise Contradicted(f"{pin.principal} is pinned to another key")
        if pin:
            return Grounds("Pinned", f"pinned as {pin}", authority=pin.authority)
        if self._keys and PeerId(None, key_authority(presented.leaf.spki_sha256)) in self._keys:
            return Grounds("Pinned", "its key is pinned", key_only=True)
        raise NotVouched(f"{show_name(presented.name)} is not pinned")

    def __repr__(self) -> str:
        return f"Pinned({', '.join(map(str, sorted([*self._ids.values(), *self._keys])))})"


@final
class UnsafeAnyone(Model):
    """Believes anyone, as the key that it proved to hold and as nothing more."""

    unsafe = True

    async def verify(self, presented: Presented, context: Context) -> Grounds:
        return Grounds("UnsafeAnyone", "nobody vouches for more than its key", key_only=True)

    def __repr__(self) -> str:
        return "UnsafeAnyone()"


def _as_peer_id(pin: PeerId | Certificate) -> PeerId:
    if isinstance(pin, PeerId):
        return pin
    if not isinstance(pin, Certificate):
        raise UsageError(
            f"Pinned takes peer ids and certificates, such as PeerId.parse(text), not {display(repr(pin))}"
        )
    if pin.auto_id is None:
        raise UsageError("a certificate without an AutoId pins nothing: pin its key, PeerId(None, …)")
    return PeerId(pin.auto_id, key_authority(pin.spki_sha256))


def _keys(anchor: TrustAnchor) -> set[bytes]:
    return {certificate.spki for certificate in anchor.certificates}
