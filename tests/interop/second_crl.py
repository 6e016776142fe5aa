"""An issuer's revocation list, by a second implementation of docs/spec.md, section 25, alone.

Nothing of autolink is imported here.
"""

from cryptography import x509

from tests.interop.second_certificates import SKEW, Refused, need


def open_crl(der, certificate, size, at):
    """(log size, thisUpdate, serial numbers) of a list that this issuer's certificate on record has signed (section 25)."""
    try:
        crl = x509.load_der_x509_crl(der)
        extensions, bare = list(crl.extensions), not any(list(one.extensions) for one in crl)
    except (ValueError, x509.DuplicateExtension) as error:
        raise Refused("malformed", "no list") from error
    need(len(der) <= 262144 and not der[-len(crl.signature) - 1], "malformed", "size, or unused bits")
    inside = crl.tbs_certlist_bytes
    start = 2 + (inside[1] & 127 if inside[1] & 128 else 0)
    need(inside[start : start + 3] == b"\2\1\1", "malformed", "version")
    usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    need(usage.crl_sign, "certificate", "it signs no lists")
    ours = crl.issuer == certificate.subject and crl.is_signature_valid(certificate.public_key())
    need(ours, "unauthorised", "not the issuer's")
    need(
        {type(one.value) for one in extensions} == {x509.AuthorityKeyIdentifier, x509.CRLNumber},
        "malformed",
        "extensions",
    )
    need(bare and not any(one.critical for one in extensions), "malformed", "extensions")
    identifier = certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    wanted = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier)
    named = crl.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    need(named == wanted, "malformed", "the issuer's key identifier")
    number = crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
    begin, end = (each and int(each.timestamp()) for each in (crl.last_update_utc, crl.next_update_utc))
    need(number & 2**32 - 1 == begin and number >> 32 <= size, "malformed", "number")
    need(end and 0 < end - begin <= 31 * 86400, "malformed", "life")
    need(begin * 10**6 <= at + SKEW and at < end * 10**6, "expired")
    return number >> 32, begin * 10**6, [one.serial_number for one in crl]
