"""What an agent holds: a private key and the chain that names it; how it issues, and goes on to its next key."""

import os
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self, final
from weakref import WeakSet

from autolink import limits
from autolink.errors import IdentityError, UsageError, no_pickle
from autolink.identity import files, keys
from autolink.identity.anchor import TrustAnchor, root_authority
from autolink.identity.autoid import BOUND, AutoId, PeerId
from autolink.identity.certificate import Certificate, EntityKind, load_chain
from autolink.identity.issuing import build_issued, build_self_issued
from autolink.identity.keys import KeyType, PrivateKey
from autolink.identity.names import make_bound, show_name, split_bound
from autolink.identity.rotation import encode_rotations, split_chain

if TYPE_CHECKING:
    from autolink.identity.request import CredentialRequest

PEM_BYTES = 2 * limits.CHAIN_BYTES
"""Bytes of a PEM file that is read at all: a whole chain in base64."""

ROOTS_MADE_HERE: Final[WeakSet[Certificate]] = WeakSet()
"""Self-issued under a bound name, which nobody can have had before, nor an Auto ID below it. A plain one anybody can."""

UNUSED: Final = "unused-since"
"""A file of the keystore that holds the time at which an identity came here, and is gone once it has taken a forwarded
message: until then a missing memory of such messages is one that never was, not one that was lost."""


@final
class Credential:
    """A private key and its certificate chain.

    Attributes:
        chain: the certificates, leaf first, up to and including the self-issued root.
        private_key: never shown, pickled or copied.
        rotations: where the chain's root is bound to an earlier key than its own, the certificates that lead from there,
            first one first.
        evidence: what a peer needs beside the chain: the rotations, encoded.
        auto_id: recomputed along the names of the chain.
        peer_id: this credential as seen by a verifier whose verdict rests on the chain's root; where that was recovered,
            by one who believes the registry's log that it names.
        folder: where the keystore keeps this identity and its state; None outside a keystore.
        next_key: the key that may follow this one, only right after `self_issued` made it. Keep it elsewhere.
        made_here: its Auto ID is new, so nobody can have acted under it before.
        unused_since: (keystore) when it came to this machine, if it has taken no forwarded message since; else None.
    """

    __slots__ = (
        "__weakref__",
        "auto_id",
        "chain",
        "evidence",
        "folder",
        "made_here",
        "next_key",
        "peer_id",
        "private_key",
        "rotations",
        "unused_since",
    )
    __reduce__ = no_pickle

    def __init__(
        self,
        chain: Sequence[Certificate],
        private_key: PrivateKey,
        *,
        folder: Path | None = None,
        next_key: PrivateKey | None = None,
        made_here: bool = False,
        unused_since: datetime | None = None,
        rotations: Sequence[Certificate] = (),
    ) -> None:
        self.chain = tuple(chain)
        self.rotations = tuple(rotations)
        self.auto_id, authority = check_chain(self.chain, self.rotations)
        self.peer_id = PeerId(self.auto_id, authority)
        self.evidence = (encode_rotations(self.rotations),) if self.rotations else ()
        if self.leaf.spki != keys.spki(private_key.public_key()):
            raise IdentityError(
                f"the private key does not belong to the certificate of {show_name(self.name)!r}"
            )
        self.private_key = private_key
        self.folder = folder
        self.next_key = next_key
        self.made_here = made_here
        self.unused_since = unused_since

    @classmethod
    def self_issued(
        cls,
        name: str,
        *,
        kind: EntityKind = EntityKind.ORGANIZATION,
        key_type: KeyType = KeyType.P256,
        plain: bool = False,
        next_key_hash: bytes | None = None,
        lifetime: timedelta | None = None,
        now: datetime | None = None,
    ) -> Self:
        """Make an identity that needs nobody: a fresh key and the certificate it gives itself.

        Args:
            name: the label of a bound name (1 to 32 of ``a-z0-9-``), or the whole name if `plain`.
            kind: PERSON or ORGANIZATION; digital entities are issued, see `issue`.
            plain: upstream's form, which proves nothing by itself: it needs an anchor, a pin or a registry.
            next_key_hash: SHA-256 of the next key's SPKI, where that key was made elsewhere; None makes it
                here, in `next_key`. A plain name commits to none.
            lifetime: from `now`; None for the longest, `limits.LIFETIME_SELF_ISSUED_DAYS`.
            now: None for the system clock.

        Raises:
            IdentityError: the name, the kind or the lifetime is not allowed.
            UsageError: a plain name with a next key.
        """
        if plain and next_key_hash is not None:
            raise UsageError("a plain name commits to no next key: leave next_key_hash out")
        key = keys.generate(key_type)
        next_key = keys.generate(key_type) if next_key_hash is None and not plain else None
        if next_key is not None:
            next_key_hash = keys.hash_of_key(next_key.public_key())
        if next_key_hash is not None:
            name = make_bound(name, keys.spki(key.public_key()), next_key_hash)
        elif split_bound(name) is not None:
            raise IdentityError(
                f"{show_name(name)!r} has the form of a bound name, and plain=True binds none"
            )
        certificate = build_self_issued(
            name, key, kind=kind, next_key_hash=next_key_hash, lifetime=lifetime, now=_or_system_clock(now)
        )
        bound = next_key_hash is not None
        if bound:
            ROOTS_MADE_HERE.add(certificate)
        return cls((certificate,), key, next_key=next_key, made_here=bound)

    @classmethod
    def load(cls, name: str, *, home: Path | None = None, passphrase: str | None = None) -> "Credential":
        """Load an identity from the keystore (see `Keystore.load`).

        Args:
            home: None for ``$AUTOLINK_HOME``, else the platform's place.
            passphrase: None for ``$AUTOLINK_PASSPHRASE`` (taken out of the environment), or an unencrypted key.

        Raises:
            KeystoreError: there is none of this name, its files are not safe, or the passphrase is wrong.
        """
        # Here: it stores what this module makes.
        from autolink.identity.keystore import Keystore, environment_passphrase

        return Keystore(home).load(
            name, passphrase=environment_passphrase() if passphrase is None else passphrase
        )

    @classmethod
    def from_pem(
        cls,
        chain: str | os.PathLike[str] | bytes,
        key: str | os.PathLike[str] | bytes,
        *,
        passphrase: str | None = None,
    ) -> Self:
        """Use certificates and a PKCS#8 key from PEM files, such as mounted secrets; bytes are the PEM itself.

        Args:
            chain: as `from_key`.
            key: PKCS#8.
            passphrase: of the key, if it is encrypted.

        Raises:
            IdentityError: a file is malformed, the passphrase is wrong, or see `from_key`.
            OSError: a file cannot be read.
        """
        certificates = load_chain(_pem(chain))
        return cls.from_key(certificates, keys.load_private_key(_pem(key), passphrase))

    @classmethod
    def from_key(
        cls, chain: Sequence[Certificate], private_key: PrivateKey, *, rotations: Sequence[Certificate] = ()
    ) -> Self:
        """Join a chain, leaf first, and its key. Validity in time is left to those who are shown it.

        Args:
            chain: up to the root; where that was rotated its earlier certificates follow, as in `certificates`.
            private_key: the leaf's.
            rotations: the earlier certificates, first one first, if they are not in `chain`.

        Raises:
            IdentityError: the chain does not join up to a self-issued root, an id in it is not its name
                path's, a bound root is not bound to its key, or the key is another.
        """
        chain, earlier = split_chain(chain)
        return cls(chain, private_key, rotations=(*rotations, *earlier))

    def rotate(
        self,
        next_key: PrivateKey,
        *,
        next_key_hash: bytes | None = None,
        lifetime: timedelta | None = None,
        now: datetime | None = None,
    ) -> "Credential":
        """This self-issued identity over the key that it has committed to: see `rotated`."""
        return self.rotated(
            self.certificates, next_key, next_key_hash=next_key_hash, lifetime=lifetime, now=now
        )

    @classmethod
    def rotated(
        cls,
        certificates: Sequence[Certificate],
        next_key: PrivateKey,
        *,
        next_key_hash: bytes | None = None,
        lifetime: timedelta | None = None,
        now: datetime | None = None,
    ) -> Self:
        """A self-issued identity over the key that it has committed to. The key in use may be lost: its certificates, which
        are public, are enough. Others believe it once they are shown the rotation (which an agent's HELLO does), or a
        registry has it on record.

        Args:
            certificates: the identity's, see `Credential.certificates`.
            next_key: the one that was kept elsewhere.
            next_key_hash: what to commit to now, SHA-256 of an SPKI; None makes a key for it, in `next_key` of the
                result. Of a plain name the registry alone keeps it.
            lifetime: as in `self_issued`.
            now: None for the system clock.

        Raises:
            IdentityError: this identity was issued, it has committed to another key, or was rotated too often.
        """
        chain, earlier = split_chain(certificates)
        _, authority = check_chain(chain, earlier)
        leaf = chain[0]
        name = show_name(leaf.common_name)
        if len(chain) > 1:
            raise IdentityError(
                f"{name!r} is given another key by its issuer, not by itself: make a new request and have it issued"
            )
        bound = leaf.next_key_hash is not None
        recovered = bound and authority != BOUND  # nothing leads to its keys: the registry has this one too
        if bound and keys.hash_of_key(next_key.public_key()) != leaf.next_key_hash:
            raise IdentityError(f"{name!r} has committed to another next key than this one")
        following = keys.generate(keys.key_type(next_key.public_key())) if next_key_hash is None else None
        if following is not None:
            next_key_hash = keys.hash_of_key(following.public_key())
        if next_key_hash == keys.hash_of_key(next_key.public_key()):
            raise IdentityError(f"the key after this rotation of {name!r} must be another one")
        certificate = build_self_issued(
            leaf.common_name,
            next_key,
            kind=leaf.kind or EntityKind.ORGANIZATION,
            next_key_hash=next_key_hash if bound else None,
            recovered_in=leaf.recovered_in if recovered else None,
            lifetime=lifetime,
            now=_or_system_clock(now),
        )
        rotations = (*earlier, leaf) if bound and not recovered else ()
        return cls((certificate,), next_key, next_key=following, rotations=rotations)

    def mark_used(self) -> None:
        """From now on somebody remembers what this identity has taken; see `unused_since`."""
        self.unused_since = None
        if self.folder is not None:
            (self.folder / UNUSED).unlink(missing_ok=True)

    @property
    def certificates(self) -> tuple[Certificate, ...]:
        """The chain, leaf first, and behind a rotated root its earlier certificates, back to the first: what files hold."""
        return (*self.chain, *reversed(self.rotations))

    @property
    def leaf(self) -> Certificate:
        return self.chain[0]

    @property
    def name(self) -> str:
        """The leaf's common name."""
        return self.leaf.common_name

    @property
    def label(self) -> str:
        """The name for people: without the suffix of a bound one."""
        parts = split_bound(self.name) if len(self.chain) == 1 else None
        return parts[0] if parts else self.name

    @property
    def anchor(self) -> TrustAnchor:
        """What others need to believe this credential and its siblings: the chain's root, of a rotated one the first
        certificate, which its name is bound to.

        Raises:
            IdentityError: the root was recovered: only a registry vouches for it.
        """
        return TrustAnchor((self.rotations[0] if self.rotations else self.chain[-1],))

    @property
    def key_type(self) -> KeyType:
        return self.leaf.key_type

    def sign(self, data: bytes) -> bytes:
        """Sign with the scheme of this kind of key (see `keys.verify`)."""
        return keys.sign(self.private_key, data)

    def issue(
        self,
        request: "CredentialRequest",
        *,
        kind: EntityKind,
        name: str | None = None,
        lifetime: timedelta | None = None,
        may_issue: int | None = None,
        now: datetime | None = None,
    ) -> tuple[Certificate, ...]:
        """Answer a request. Only its key and, unless `name` is given, its name are taken from it.

        Args:
            kind: what the holder is, in our word.
            lifetime: from `now`; None for 90 days or until our own end, whichever is first.
            may_issue: None for a leaf, which links and signs. A number makes an issuer of certificates
                instead, with at most that many issuers below it; an issuer that was itself issued cannot
                link.
            now: None for the system clock.

        Returns:
            The new certificate and our `certificates`, for `CredentialRequest.complete`.

        Raises:
            UsageError: no kind is that.
            IdentityError: we may not issue this, the name or the lifetime is not allowed, or it would outlive
                us.
        """
        if not isinstance(kind, EntityKind):
            raise UsageError("kind= takes an EntityKind, such as EntityKind.AGENT")
        if len(self.chain) + 1 + (may_issue or 0) + (may_issue is not None) > limits.CHAIN:
            raise IdentityError(f"a chain holds at most {limits.CHAIN} certificates")
        certificate = build_issued(
            request.name if name is None else name,
            request.public_key,
            kind=kind,
            issuer=self.leaf,
            issuer_id=self.auto_id,
            issuer_key=self.private_key,
            may_issue=may_issue,
            lifetime=lifetime,
            now=_or_system_clock(now),
        )
        return (certificate, *self.certificates)

    def __repr__(self) -> str:
        return f"<Credential {show_name(self.name)!r} {self.auto_id.short} {self.key_type.value}>"


def check_chain(chain: tuple[Certificate, ...], rotations: Sequence[Certificate] = ()) -> tuple[AutoId, str]:
    """The leaf's id and the root's authority, if the chain joins. Time and profile are not looked at.

    Args:
        rotations: of the root, see `Credential`.

    Raises:
        IdentityError: see `Credential.from_key`.
    """
    if not 1 <= len(chain) <= limits.CHAIN:
        raise IdentityError(f"a credential's chain is 1 to {limits.CHAIN} certificates, not {len(chain)}")
    for certificate, issuer in pairwise(chain):
        if not certificate.is_issued_by(issuer):
            names = (
                f"{show_name(certificate.common_name)!r} was not issued by {show_name(issuer.common_name)!r}"
            )
            raise IdentityError(f"the chain does not join: {names}")
    authority = root_authority(chain[-1], rotations)
    ids = AutoId.derive_path(certificate.common_name for certificate in reversed(chain))
    for certificate, auto_id in zip(reversed(chain), ids, strict=True):
        if certificate.auto_id != auto_id:
            raise IdentityError(
                f"{show_name(certificate.common_name)!r} claims an id that is not its name path's"
            )
    return ids[-1], authority


def _pem(source: str | os.PathLike[str] | bytes) -> bytes:
    return source if isinstance(source, bytes) else files.read_bounded(source, PEM_BYTES)


def _or_system_clock(now: datetime | None) -> datetime:
    """The one place in `identity` that reads a clock: for a person who makes or issues an identity now."""
    return datetime.now(UTC) if now is None else now
