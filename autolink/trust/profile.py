"""The certificate profile, checked: closed by default, one table of rules.

OpenSSL has found the path valid (chain.py); here every certificate on it must be one that this system would
have made. A certificate's place decides what it must be:

=======  =======================================================================================
ALONE    a self-issued Auto ID that links with its own certificate: the whole path
LEAF     the first of a longer path
ISSUER   between the leaf and the root; also the last of a path that stops before its root
ROOT     the self-issued last of a longer path
=======  =======================================================================================

The rules, in the order in which they are applied, each to all certificates before the next (RFC 5280's
section):

 1. version: X.509 v3 (4.1.2.1).
 2. serial: positive, at most 20 octets (4.1.2.2).
 3. key-identifiers: who issues has a subject key identifier; who was issued names exactly its issuer's as
    authority key identifier, by key and not by name and serial; a self-issued one names its own or none
    (4.2.1.1, 4.2.1.2).
 4. extensions: critical only where rules 6 to 8 and 12 check them; no name or policy constraints at all,
    because they would bind names and policies that nobody here has, nor any other that means something to
    OpenSSL's path validation and nothing here; none stands twice (4.2).
 5. key: on the allow-list of keys, RSA in whole octets, and signed by the one kind of signature of its
    issuer's key.
 6. basic-constraints: ALONE, ISSUER and ROOT are CA, critical; LEAF is not. The path below keeps to the
    path length, and every certificate counts, also one that X.509 would call self-issued (4.2.1.9).
 7. key-usage: critical. LEAF signs and nothing else; ISSUER and ROOT sign certificates; ALONE does both
     (4.2.1.3).
 8. extended-key-usage: LEAF is for TLS clients and servers, both; nobody else limits it further (4.2.1.12).
 9. issuer: its name is, byte for byte, its issuer's subject (OpenSSL ignores case and the kind of string); only
    the root's is its own (a key rollover inside a path would hide a name).
10. lifetime: inside the issuer's, and at most the cap.
11. subject: one common name and nothing else (4.1.2.6); its form was checked at parsing.
12. naming: the subjectAltName holds exactly one URI, an Auto ID's, and nothing else (4.2.1.6). Whether it
    is the right one is judged on the whole path in presented.py.

The first six are what standards ask for and OpenSSL lets through, or a stricter form of it; they hold for
any X.509 path. The others are this system's own. Unknown extensions that are not critical may stand: that is
how a newer version speaks.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from typing import Any, Final, TypeVar, cast

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID

from autolink import limits
from autolink.errors import IdentityError
from autolink.identity.autoid import URI_PREFIX
from autolink.identity.certificate import Certificate, Extensions, common_name, index_extensions
from autolink.identity.keys import CERTIFICATE_SIGNATURES, KeyType, key_type

E = TypeVar("E", bound=x509.ExtensionType)


class Place(Enum):
    """Where on its path a certificate stands."""

    ALONE = "the only certificate"
    LEAF = "the leaf"
    ISSUER = "an issuer"
    ROOT = "the root"


@dataclass(frozen=True, slots=True)
class Placed:
    """A certificate on its path: what a rule looks at.

    Attributes:
        subject, issuer_name: its names, for comparison: of a `Certificate` their DER.
        key: the kind of its key, where parsing has found it to be one that is accepted.
        begin, end: its validity (aware, both inclusive).
        issuer: the next on the path; None for the last.
        below: how many certificates stand between this one and the leaf.
    """

    certificate: x509.Certificate
    extensions: Extensions
    subject: bytes | x509.Name
    issuer_name: bytes | x509.Name
    key: KeyType | None
    begin: datetime
    end: datetime
    place: Place
    issuer: "Placed | None"
    below: int

    @property
    def issues(self) -> bool:
        return self.place is not Place.LEAF

    @property
    def self_issued(self) -> bool:
        return self.subject == self.issuer_name

    @property
    def signer(self) -> "Placed | None":
        """Whose key signed it; None where the path stops before its root."""
        return self if self.place in (Place.ALONE, Place.ROOT) else self.issuer

    def find(self, kind: type[E]) -> x509.Extension[E] | None:
        found: x509.Extension[Any] | None = self.extensions.get(kind.oid)
        return found  # nothing of another type stands under this identifier


def check_profile(path: Sequence[x509.Certificate], *, rules: "Sequence[Rule] | None" = None) -> None:
    """Hold every certificate of a path against the profile.

    Args:
        path: leaf first, its signatures verified; at least one.
        rules: some of `RULES`, such as `STANDARD`; None: all.

    Raises:
        IdentityError: one does not fit; the text names the rule and the certificate.
    """
    check_placed(place(path), RULES if rules is None else rules)


def check_placed(placed: "Sequence[Placed]", rules: "Sequence[Rule] | None" = None) -> None:
    """Hold certificates, whose place on their path is known, against the profile.

    Raises:
        IdentityError: see `check_profile`.
    """
    for rule in RULES if rules is None else rules:
        for certificate in placed:
            complaint = rule.check(certificate)
            if complaint:
                raise IdentityError(f"profile rule {rule.name}: {certificate.place.value} {complaint}")


_PLACES: Final = {
    (True, True): Place.ALONE,
    (True, False): Place.LEAF,
    (False, True): Place.ROOT,
    (False, False): Place.ISSUER,
}


def place(path: Sequence[Certificate | x509.Certificate], *, below: int = 0) -> tuple[Placed, ...]:
    """Give each certificate of a path its place.

    Args:
        path: the upper end of one; its last is the path's last.
        below: how many certificates of the path stand below these.

    Raises:
        IdentityError: one has malformed or repeated extensions.
    """
    placed: list[Placed] = []
    for index in reversed(range(len(path))):
        placed.append(place_below(placed[-1] if placed else None, path[index], below + index))
    return tuple(reversed(placed))


def place_below(issuer: Placed | None, certificate: Certificate | x509.Certificate, index: int) -> Placed:
    """Give a certificate its place: `index` is how many stand below it, the leaf included.

    Raises:
        IdentityError: it has malformed or repeated extensions.
    """
    if isinstance(certificate, Certificate):
        parsed, extensions, key = certificate.x509, certificate.extensions, certificate.key_type
        begin, end = certificate.not_before, certificate.not_after
        subject: bytes | x509.Name = certificate.der[certificate.parts.subject]
        issuer_name: bytes | x509.Name = certificate.der[certificate.parts.issuer]
    else:
        parsed, subject, issuer_name, key = certificate, certificate.subject, certificate.issuer, None
        begin, end = parsed.not_valid_before_utc, parsed.not_valid_after_utc
        try:
            extensions = index_extensions(parsed)
        except (x509.DuplicateExtension, ValueError) as error:  # rule 4: none stands twice
            raise IdentityError("profile rule extensions: there are malformed or repeated ones") from error
    its_place = _PLACES[index == 0, issuer is None and subject == issuer_name]
    return Placed(
        parsed, extensions, subject, issuer_name, key, begin, end, its_place, issuer, max(index - 1, 0)
    )


def _version(it: Placed) -> str | None:  # 1
    return None if it.certificate.version is x509.Version.v3 else "is not X.509 version 3"


def _serial(it: Placed) -> str | None:  # 2
    number = it.certificate.serial_number  # 20 octets in DER hold 159 bits: the first one is the sign
    return None if 0 < number < 2**159 else "has a serial number that is not positive or exceeds 20 octets"


def _key_identifiers(it: Placed) -> str | None:  # 3
    own = it.find(x509.SubjectKeyIdentifier)
    authority = it.find(x509.AuthorityKeyIdentifier)
    if (own and own.critical) or (authority and authority.critical):
        return "has a critical key identifier"
    if it.issues and own is None:
        return "issues without a subject key identifier"
    if authority is None:
        return None if it.self_issued else "has no authority key identifier"
    if authority.value.authority_cert_issuer or authority.value.authority_cert_serial_number is not None:
        return "names its issuer's key by name and serial number"
    signers = it.signer.find(x509.SubjectKeyIdentifier) if it.signer else None
    named = authority.value.key_identifier
    if named is None or (signers and named != signers.value.digest):
        return "does not name its issuer's key identifier"
    return None


_MAY_BE_CRITICAL: Final = frozenset(
    {
        ExtensionOID.BASIC_CONSTRAINTS,
        ExtensionOID.KEY_USAGE,
        ExtensionOID.EXTENDED_KEY_USAGE,
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
    }
)
_NEVER: Final = frozenset(
    {
        ExtensionOID.NAME_CONSTRAINTS,
        ExtensionOID.POLICY_CONSTRAINTS,
        ExtensionOID.POLICY_MAPPINGS,
        ExtensionOID.INHIBIT_ANY_POLICY,
        x509.ObjectIdentifier("1.3.6.1.5.5.7.1.7"),  # addresses and ...
        x509.ObjectIdentifier("1.3.6.1.5.5.7.1.8"),  # ... autonomous systems (RFC 3779)
        x509.ObjectIdentifier("1.3.6.1.5.5.7.1.14"),  # proxy certificates (RFC 3820)
        x509.ObjectIdentifier("2.16.840.1.113730.1.1"),  # Netscape's certificate type
    }
)


def _extensions(it: Placed) -> str | None:  # 4
    for oid, extension in it.extensions.items():
        if oid in _NEVER:
            return f"has the extension {oid.dotted_string}, which this profile does not have"
        if extension.critical and oid not in _MAY_BE_CRITICAL:
            return f"has the unknown critical extension {oid.dotted_string}"
    return None


def _key(it: Placed) -> str | None:  # 5
    try:
        if _kind(it) is KeyType.RSA and cast("RSAPublicKey", it.certificate.public_key()).key_size % 8:
            return "has an RSA key that is not a whole number of octets"
        signer = it.signer and _kind(it.signer)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:  # what is off the list may not even load
        return f"or its issuer has a key that is not accepted ({type(error).__name__})"
    if signer and it.certificate.signature_algorithm_oid not in CERTIFICATE_SIGNATURES[signer]:
        return "is signed by an algorithm that does not go with its issuer's key"
    return None


def _kind(it: Placed) -> KeyType:
    return it.key or key_type(it.certificate.public_key())


def _basic_constraints(it: Placed) -> str | None:  # 6
    found = it.find(x509.BasicConstraints)
    if not it.issues:
        return "is a CA, which no leaf may be" if found and found.value.ca else None
    if not (found and found.critical and found.value.ca):
        return "issues but is no CA (critical basicConstraints)"
    length = found.value.path_length
    return (
        None if length is None or it.below <= length else "has a path length below that of the path under it"
    )


def _key_usage(it: Placed) -> str | None:  # 7
    found = it.find(x509.KeyUsage)
    if not (found and found.critical):
        return "has no critical keyUsage"
    usage = found.value
    if it.issues and not usage.key_cert_sign:
        return "may not sign certificates (keyUsage)"
    if it.place in (Place.LEAF, Place.ALONE) and not usage.digital_signature:
        return "may not sign (keyUsage)"
    others = usage.key_encipherment or usage.data_encipherment or usage.key_agreement
    if others or (not it.issues and (usage.key_cert_sign or usage.crl_sign or usage.content_commitment)):
        return "has a keyUsage beyond its place"
    return None


_BOTH_SIDES: Final = {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}


def _extended_key_usage(it: Placed) -> str | None:  # 8
    found = it.find(x509.ExtendedKeyUsage)
    if found is None:
        return None if it.issues else "has no extendedKeyUsage"
    return None if set(found.value) == _BOTH_SIDES else "is for more or less than TLS clients and servers"


def _issuer(it: Placed) -> str | None:  # 9
    if it.issuer and it.issuer_name != it.issuer.subject:
        return "does not name its issuer exactly"
    expected = it.place in (Place.ALONE, Place.ROOT)
    return None if it.self_issued == expected else "has its issuer's name but is not the root"


def _lifetime(it: Placed) -> str | None:  # 10
    days = limits.LIFETIME_SELF_ISSUED_DAYS if it.self_issued else limits.LIFETIME_ISSUED_DAYS
    if not timedelta(0) <= it.end - it.begin <= timedelta(days=days):
        return f"is valid for longer than {days} days"
    if it.issuer is None or (it.issuer.begin <= it.begin and it.end <= it.issuer.end):
        return None
    return "is valid outside its issuer's validity"


def _subject(it: Placed) -> str | None:  # 11
    if isinstance(it.subject, bytes):  # what parsing has found
        return None
    try:
        common_name(it.subject)
    except ValueError:
        return "has a subject that is not one common name"
    return None


def _naming(it: Placed) -> str | None:  # 12
    found = it.find(x509.SubjectAlternativeName)
    names = list(found.value) if found else []
    if len(names) == 1 and isinstance(names[0], x509.UniformResourceIdentifier):
        return None if names[0].value.startswith(URI_PREFIX) else "names a URI that is no Auto ID"
    return "must have exactly one URI as its subjectAltName, and nothing else"


@dataclass(frozen=True, slots=True)
class Rule:
    """One row of the profile.

    Attributes:
        name: as errors and tables show it.
        check: the complaint about one certificate, or None.
    """

    name: str
    check: Callable[[Placed], str | None]


RULES: Final = (
    Rule("version", _version),
    Rule("serial", _serial),
    Rule("key-identifiers", _key_identifiers),
    Rule("extensions", _extensions),
    Rule("key", _key),
    Rule("basic-constraints", _basic_constraints),
    Rule("key-usage", _key_usage),
    Rule("extended-key-usage", _extended_key_usage),
    Rule("issuer", _issuer),
    Rule("lifetime", _lifetime),
    Rule("subject", _subject),
    Rule("naming", _naming),
)
STANDARD: Final = RULES[:6]
"""Those that hold for any X.509 path: what other validators can be compared with."""
