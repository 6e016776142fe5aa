"""OpenSSL's path validation (RFC 5280, section 6) behind one function, and the only use of its store here.

One store per call: its time belongs to the store, not to the verification, so a shared one would judge one
caller's chain at another's time. Setting the time and verifying is one synchronous step without an await
between.

What the store is not told it does not check: extended key usage, names, key strength, lifetimes, and some
forms that the standard forbids. All that is profile.py's.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from cryptography import x509
from OpenSSL import crypto

from autolink.codec import aware_utc
from autolink.errors import IdentityError, Reason

_Flags: Final = crypto.X509StoreFlags
_STRICT: Final = _Flags.X509_STRICT | _Flags.PARTIAL_CHAIN
_REASONS: Final = {9: Reason.NOT_YET_VALID, 10: Reason.EXPIRED, 23: Reason.REVOKED}
"""X509_V_ERR_CERT_NOT_YET_VALID, _CERT_HAS_EXPIRED and _CERT_REVOKED; everything else is malformed."""


def verify_path(
    leaf: bytes,
    others: Sequence[bytes],
    anchors: Sequence[bytes],
    *,
    now: datetime,
    crls: Sequence[x509.CertificateRevocationList] = (),
) -> tuple[bytes, ...]:
    """Build a valid path from a leaf to an anchor.

    Signatures, issuer names, validity at `now`, basicConstraints, keyCertSign, path lengths, name
    constraints and unknown critical extensions are checked, strictly. An anchor need not be self-issued;
    all of that but its own signature is checked of it too. With `crls`, a fresh one is needed for every
    issuer on the path.

    Args:
        leaf, others, anchors: DER. The caller bounds their number: OpenSSL searches among all of them.
        now: aware.

    Returns:
        DER of the path, leaf first, anchor last.

    Raises:
        IdentityError: there is none; `reason` is EXPIRED, NOT_YET_VALID, REVOKED or MALFORMED.
    """
    try:
        store = crypto.X509Store()
        store.set_flags(_STRICT | (_Flags.CRL_CHECK | _Flags.CRL_CHECK_ALL if crls else 0))
        store.set_time(aware_utc(now))  # pyOpenSSL ignores the zone: it must be UTC
        loaded = {der: _load(der) for der in (leaf, *others, *anchors)}  # an anchor may be the leaf itself
        for anchor in anchors:
            store.add_cert(loaded[anchor])
        for crl in crls:
            store.add_crl(crl)
        context = crypto.X509StoreContext(store, loaded[leaf], [loaded[der] for der in others])
        path = context.get_verified_chain()
    except crypto.X509StoreContextError as error:
        code, depth, text = error.errors
        reason = _REASONS.get(code, Reason.MALFORMED)
        raise IdentityError(f"certificate {depth} from its start: {text}", reason) from None
    except crypto.Error:
        raise IdentityError("OpenSSL cannot read a certificate") from None
    return tuple(crypto.dump_certificate(crypto.FILETYPE_ASN1, certificate) for certificate in path)


def _load(der: bytes) -> crypto.X509:
    return crypto.load_certificate(crypto.FILETYPE_ASN1, der)
