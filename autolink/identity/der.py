"""Where the parts of a certificate lie in its DER, for what must not be encoded again.

A signature is over bytes, and bytes are what a verifier has: the TBSCertificate is cut out, not built anew
from what a parser made of it. Reading on from there to the names costs next to nothing, and spares parsed
names, which take longer than everything else about a small certificate.

`cut` relies on a strict DER parser having taken the certificate: every length is right and in its shortest form,
and the fields are those of RFC 5280, section 4.1.
"""

from typing import NamedTuple

from autolink.errors import IdentityError


class Parts(NamedTuple):
    """Where the parts of a version 3 certificate lie in its DER, headers included.

    Attributes:
        signed: what the signature is over, the TBSCertificate.
        issuer, subject: a Name.
        spki: the SubjectPublicKeyInfo. The same key may have other encodings: `keys.spki` has the one.
    """

    signed: slice
    issuer: slice
    subject: slice
    spki: slice


def cut(der: bytes) -> Parts:
    """Find the parts of a certificate that a strict parser has taken as version 3.

    Raises:
        IdentityError: what is signed names another signature algorithm than what is not (section 4.1.1.2), or
            the signature is not whole octets.
    """
    begin, _ = _content(der, 0)
    at, end = _content(der, begin)
    version = _content(der, at)[1]
    serial = _content(der, version)[1]
    algorithm = _content(der, serial)[1]
    issuer = _content(der, algorithm)[1]
    validity = _content(der, issuer)[1]
    subject = _content(der, validity)[1]
    spki = _content(der, subject)[1]
    signature = end + algorithm - serial
    if der[serial:algorithm] != der[end:signature]:
        raise IdentityError("a certificate does not sign the algorithm that it is signed with")
    unused_bits = der[_content(der, signature)[0]]  # of the last octet: how a BIT STRING begins
    if unused_bits:
        raise IdentityError("a certificate's signature is not whole octets")
    return Parts(slice(begin, end), slice(algorithm, issuer), slice(validity, subject), slice(subject, spki))


def _content(der: bytes, at: int) -> tuple[int, int]:
    """Where the content of the value at `at` begins and ends."""
    length = der[at + 1]
    if length < 0x80:
        return at + 2, at + 2 + length
    begin = at + 2 + (length & 0x7F)
    return begin, begin + int.from_bytes(der[at + 2 : begin])
