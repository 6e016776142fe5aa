"""What one organisation gives another, and all it gives: whose certificates to believe."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self, final

from autolink import limits
from autolink.errors import IdentityError, display
from autolink.identity import files
from autolink.identity.autoid import BOUND, AutoId, key_authority
from autolink.identity.certificate import Certificate, dump_chain, load_chain
from autolink.identity.names import is_bound_to, show_name, split_bound
from autolink.identity.rotation import check_rotations


@final
@dataclass(frozen=True)
class TrustAnchor:
    """An authority: one AutoId and its self-issued certificates.

    Several certificates declare several keys of one authority (the plain name that two organisations chose is
    two authorities, and never one anchor). A bound anchor is its AutoId; a plain one is its AutoId and its
    keys.

    Attributes:
        certificates: one or more, self-issued, all of one name; the first one's key names the authority.

    Raises:
        IdentityError: none, too many, not self-issued, of different names, or a bound name with the wrong
            commitment, recovered or not.
    """

    certificates: tuple[Certificate, ...]

    def __post_init__(self) -> None:
        if not 1 <= len(self.certificates) <= limits.CHAIN:
            raise IdentityError(
                f"an anchor is 1 to {limits.CHAIN} certificates, not {len(self.certificates)}"
            )
        for certificate in self.certificates:
            if certificate.common_name != self.name:
                other = show_name(certificate.common_name)
                raise IdentityError(f"one anchor cannot be both {show_name(self.name)!r} and {other!r}")
            if root_authority(certificate) != BOUND and split_bound(self.name) is not None:
                raise IdentityError(
                    f"{show_name(self.name)!r} was recovered over this key, which a registry alone can say: no anchor can"
                )

    @property
    def name(self) -> str:
        return self.certificates[0].common_name

    @property
    def auto_id(self) -> AutoId:
        return AutoId.derive(self.name)

    @property
    def authority(self) -> str:
        """``"bound"`` or ``"sha256:<hex>"``, as in a `PeerId` whose verdict rests on this anchor."""
        return root_authority(self.certificates[0])

    def matches(self, certificate: Certificate) -> bool:
        """Whether a chain's root is this authority: the name, and its commitment or one of the declared keys.

        A bound anchor is its AutoId, so the commitment decides and not the certificate in the file.
        """
        if certificate.common_name != self.name:
            return False
        if split_bound(self.name) is not None:
            return is_bound_to(self.name, certificate.spki, certificate.next_key_hash)
        return any(certificate.spki == own.spki for own in self.certificates)

    @classmethod
    def from_pem(cls, pem: bytes) -> Self:
        """Read the PEM that `to_pem` wrote.

        Raises:
            IdentityError: it holds no certificate, or ones that are no anchor.
        """
        return cls(load_chain(pem))

    def to_pem(self) -> bytes:
        return dump_chain(self.certificates)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read an anchor file.

        Raises:
            IdentityError: the file is too large, or no anchor.
            OSError: it cannot be read.
        """
        try:
            return cls.from_pem(files.read_bounded(path, 2 * limits.CHAIN_BYTES))
        except IdentityError as error:
            raise IdentityError(f"{display(os.fspath(path))}: {error}", error.reason) from None

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it for others to read, in one step; nothing in it is secret.

        Raises:
            OSError: it cannot be written.
        """
        files.write_atomic(os.fspath(path), self.to_pem(), mode=0o644)


def root_authority(certificate: Certificate, rotations: Sequence[Certificate] = ()) -> str:
    """The authority that a self-issued certificate has: bound by its name, its key, or the log that it was recovered in.

    Args:
        certificate: in use now.
        rotations: of a bound name, the certificates that came before it.

    Raises:
        IdentityError: it is not self-issued, its SAN is not the AutoId of its name, or its name is bound to
            another key.
    """
    who = show_name(certificate.common_name)
    if not certificate.self_issued:
        raise IdentityError(f"the certificate of {who!r} is not self-issued")
    if certificate.auto_id != AutoId.derive(certificate.common_name):
        raise IdentityError(f"the certificate of {who!r} claims an id that is not its name's")
    if split_bound(certificate.common_name) is None:
        if rotations:
            raise IdentityError(
                f"the plain name {who!r} commits to no next key: nothing leads to it from other keys"
            )
        return key_authority(certificate.spki_sha256)
    if rotations:
        check_rotations(rotations, certificate)
    elif not is_bound_to(certificate.common_name, certificate.spki, certificate.next_key_hash):
        if certificate.recovered_in is not None:
            return key_authority(certificate.recovered_in)
        raise IdentityError(
            f"the name {who!r} is bound to another key than its certificate's, and no rotations lead there"
        )
    return BOUND
