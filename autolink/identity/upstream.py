"""Identities made by upstream's Python and TypeScript SDKs, taken over.

Upstream's certificates cannot be used as they are: their issuers lack basicConstraints, they carry no key usage, and
the ids in their SANs are derived in two other ways than the registry's, so that most match no id at all (the
TypeScript SDK gives all leaves of one issuer the same). Worth keeping are the key and the names. From these a new
certificate of our profile is made: at once where the identity is self-issued (as a plain name, which is what upstream
has), else by its issuer, once that has been taken over itself. No certificate of upstream's is ever believed.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Self, cast, final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa

from autolink.errors import IdentityError, UsageError, no_pickle
from autolink.identity import keys
from autolink.identity.autoid import URI_PREFIX, AutoId
from autolink.identity.certificate import PARSER_ERRORS, Certificate, EntityKind, common_name
from autolink.identity.credential import PEM_BYTES, Credential
from autolink.identity.issuing import build_self_issued
from autolink.identity.keys import PrivateKey, PublicKey
from autolink.identity.names import check_common_name, show_name
from autolink.identity.request import CredentialRequest


@final
@dataclass(frozen=True, slots=True)
class UpstreamIdentity:
    """A name and its key, as upstream's SDKs wrote them.

    Attributes:
        name: the subject's common name.
        issuer_name: the issuer's; None if self-issued.
        san: the URI in upstream's certificate, safe to show only through `errors.display`; None without one.
        certificate: upstream's certificate, good for nothing but `was_issued_by`.
    """

    name: str
    issuer_name: str | None
    san: str | None
    private_key: PrivateKey = field(repr=False)
    certificate: x509.Certificate = field(repr=False)
    __reduce__ = no_pickle

    @classmethod
    def from_pem(cls, certificate: bytes, key: bytes, *, passphrase: str | None = None) -> Self:
        """Read a certificate and its PKCS#8 key, both in PEM.

        Raises:
            IdentityError: one is malformed, they do not belong together, the name or the kind of key is not allowed, or
                a self-issued one is not signed by its own key.
        """
        private_key = keys.load_private_key(key, passphrase)
        if len(certificate) > PEM_BYTES:
            raise IdentityError("the certificate is too large")
        try:
            parsed = x509.load_pem_x509_certificate(certificate)
            public_key = parsed.public_key()
            keys.key_type(public_key)
            name, issuer = common_name(parsed.subject), common_name(parsed.issuer)
            uris = _uris(parsed)
        except IdentityError as error:
            raise IdentityError(f"the upstream certificate cannot be taken over: {error}") from None
        except PARSER_ERRORS as error:
            raise IdentityError(f"the upstream certificate is malformed ({type(error).__name__})") from None
        if keys.spki(cast("PublicKey", public_key)) != keys.spki(private_key.public_key()):
            raise IdentityError(f"the private key does not belong to the certificate of {show_name(name)!r}")
        self_issued = parsed.subject == parsed.issuer
        check_common_name(name, issued=not self_issued)
        if self_issued and not _signed_by(parsed, private_key.public_key()):
            raise IdentityError(f"the certificate of {show_name(name)!r} is not signed by its own key")
        return cls(name, None if self_issued else issuer, uris[0] if uris else None, private_key, parsed)

    def was_issued_by(self, issuer: Certificate) -> bool:
        """Whether upstream's certificate was signed by this key under this name."""
        return self.issuer_name == issuer.common_name and _signed_by(self.certificate, issuer.public_key)

    def self_issue(
        self, *, kind: EntityKind = EntityKind.ORGANIZATION, lifetime: timedelta | None = None, now: datetime
    ) -> Credential:
        """The identity under our profile, where it needs nobody else. Its id is what upstream's registry has.

        Raises:
            UsageError: it was issued: see `request`.
            IdentityError: its kind or its lifetime is not allowed.
        """
        if self.issuer_name is not None:
            raise UsageError(
                f"{show_name(self.name)!r} was issued by {show_name(self.issuer_name)!r}: make a request"
            )
        certificate = build_self_issued(
            self.name, self.private_key, kind=kind, next_key_hash=None, lifetime=lifetime, now=now
        )
        return Credential.from_key((certificate,), self.private_key)

    def request(self) -> CredentialRequest:
        """A request for the same name and key, for the issuer that has been taken over."""
        return CredentialRequest.from_key(self.name, self.private_key)

    def auto_id(self, issuer: AutoId | None = None) -> AutoId:
        """The registry's id, to show beside `san`; an issued identity needs its issuer's.

        Raises:
            UsageError: the issuer's id is missing, or there is none.
        """
        if (issuer is None) != (self.issuer_name is None):
            raise UsageError("give the issuer's AutoId for an issued identity, and only for that")
        return AutoId.derive(self.name, issuer)


def _uris(certificate: x509.Certificate) -> list[str]:
    try:
        san = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    uris = san.get_values_for_type(x509.UniformResourceIdentifier)
    return [uri for uri in uris if uri.startswith(URI_PREFIX)]


def _signed_by(certificate: x509.Certificate, public_key: PublicKey) -> bool:
    """Upstream signs with Ed25519, or RSA PKCS#1 v1.5 and SHA-256 (RFC 8017, section 8.2), and nothing else."""
    try:
        if isinstance(public_key, ed25519.Ed25519PublicKey):
            public_key.verify(certificate.signature, certificate.tbs_certificate_bytes)
        elif isinstance(public_key, rsa.RSAPublicKey):
            public_key.verify(
                certificate.signature, certificate.tbs_certificate_bytes, padding.PKCS1v15(), hashes.SHA256()
            )
        else:
            return False
    except (InvalidSignature, UnsupportedAlgorithm):
        return False
    return True
