"""What TLS itself decides about a peer, and what it leaves to judgement.

A trust model is asynchronous, uses our own clock and may know certificates of which OpenSSL knows nothing, so
it cannot run inside OpenSSL's verification. What no trust model could want is refused right there, before our
own certificate is shown to the peer; everything else is accepted for now, and judged before the first
application byte.

The callback refuses, in this order:

1. an ALPN other than `autolink/1`: the peer is not talking to us;
2. more certificates than limits.CHAIN, not counting (at a dialer) those behind the self-issued root, which are to show that
   it was rotated; (at a dialer) what the caller's `expect` objects to: an impostor never sees our certificate;
3. every error of OpenSSL's but two kinds. The issuer is unknown (it always is: no store is loaded here, whom
   we believe is not TLS's business); a validity time is over or has not come (judged again with the caller's
   clock). So signatures along the chain, CA flags, path lengths, purposes and critical extensions are
   OpenSSL's to refuse;
4. any certificate of the chain with a key or a signature algorithm that is off the list.

(At a dialer) a chain that has passed once is not examined again, but its ALPN, its length and what the caller expects are.

TLS then checks CertificateVerify, so a chain that arrives in `SecureStream.peer_chain` is one whose leaf's
key the peer holds, and nothing more.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final, Protocol

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.x509.oid import SignatureAlgorithmOID as Algorithm
from OpenSSL import SSL
from OpenSSL.SSL import X509VerificationCodes as Codes

from autolink import limits
from autolink.errors import Reason, SetupError
from autolink.identity.certificate import PARSER_ERRORS
from autolink.identity.keys import key_type
from autolink.transport import _openssl

ALPN: Final = b"autolink/1"
"""The one protocol name; it also is the version of the wire format (RFC 7301)."""

TlsContext = SSL.Context
"""What `client_context` and `server_context` make."""

Expect = Callable[[tuple[bytes, ...]], str | None]
"""Looks at the chain a listener presents (DER, leaf first) and says what is wrong with it, or None."""

_JUDGED_LATER: Final = frozenset(
    {
        Codes.ERR_UNABLE_TO_GET_ISSUER_CERT,
        Codes.ERR_DEPTH_ZERO_SELF_SIGNED_CERT,
        Codes.ERR_SELF_SIGNED_CERT_IN_CHAIN,
        Codes.ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY,
        Codes.ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE,
        Codes.ERR_CERT_NOT_YET_VALID,
        Codes.ERR_CERT_HAS_EXPIRED,
    }
)

_CIPHERSUITES: Final = b"TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256:TLS_AES_128_GCM_SHA256"

_ALGORITHMS: Final = frozenset(
    {
        Algorithm.ECDSA_WITH_SHA256,
        Algorithm.ECDSA_WITH_SHA384,
        Algorithm.ECDSA_WITH_SHA512,
        Algorithm.ED25519,
        Algorithm.ML_DSA_65,
        Algorithm.RSA_WITH_SHA256,
        Algorithm.RSA_WITH_SHA384,
        Algorithm.RSA_WITH_SHA512,
        Algorithm.RSASSA_PSS,  # with a hash that OpenSSL's security level 2 allows
    }
)


_YES, _NO, _ENOUGH = _openssl.Answer

_passed: Final[OrderedDict[tuple[bytes, ...], None]] = OrderedDict()
"""Chains of listeners that have passed 2 to 4, the newest `limits.CHAINS_PASSED`. That they do is a fact about their bytes:
no clock and nobody's trust has a say in it."""


class HasX509(Protocol):
    """A certificate, for what TLS needs of it."""

    @property
    def x509(self) -> x509.Certificate: ...


class TlsIdentity(Protocol):
    """What TLS needs of a Credential: its chain (leaf first, root included), the root's earlier certificates (first one
    first) and the leaf's private key."""

    @property
    def chain(self) -> Sequence[HasX509]: ...

    @property
    def rotations(self) -> Sequence[HasX509]: ...

    @property
    def private_key(self) -> PrivateKeyTypes: ...


@dataclass(frozen=True, slots=True)
class TlsInfo:
    """What was negotiated, in OpenSSL's names: version ``TLSv1.3``, group ``X25519MLKEM768`` and so on.

    Attributes:
        resumed: a session was resumed (RFC 8446, section 2.2): new keys, and no new proof of the certificates'.
    """

    version: str
    group: str
    cipher: str
    alpn: str
    resumed: bool


@dataclass(slots=True)
class Verification:
    """What the verify callback of one connection needs, and why it said no: OpenSSL keeps only the no.

    Attributes:
        chain: (dialer) what the peer presented, as soon as it has been looked at.
        written: the certificates whose bytes were looked at.
    """

    dialer: bool
    expect: Expect | None = None
    refusal: tuple[Reason, str] | None = None
    chain: tuple[bytes, ...] = ()
    looked: bool = False
    written: _openssl.Written = field(default_factory=dict)

    def refuse(self, reason: Reason, detail: str) -> bool:
        if self.refusal is None:  # the first reason is the cause, the rest follow from it
            self.refusal = reason, detail
        return False

    def look(self, connection: SSL.Connection) -> bool:
        """At the connection, at the first call of the verify callback: whether the handshake may go on."""
        self.looked = True
        return self.check_connection(connection) and self._meets_expectation(connection)

    def look_again(self, connection: SSL.Connection) -> bool:
        """When the handshake is over: at a resumed connection for the first time, at a listener's certificates too."""
        if not (self.looked and self.dialer):
            return self.check_connection(connection)
        _passed[self.chain] = None
        while len(_passed) > limits.CHAINS_PASSED:
            _passed.popitem(last=False)
        return True

    def check_connection(self, connection: SSL.Connection) -> bool:
        """What is not about one certificate."""
        if connection.get_alpn_proto_negotiated() != ALPN:
            return self.refuse(Reason.VERSION, f"it does not speak {ALPN.decode()} (ALPN)")
        # A listener sees nothing here before the end of the handshake, where certificates in excess turn up
        # which are in no path, so that the callback was not called for them.
        presented = _openssl.presented_count(connection) + (not self.dialer)
        if self.dialer and limits.CHAIN < presented <= limits.CHAIN + limits.ROTATIONS:
            presented = _length(self.presented(connection))
        if presented > limits.CHAIN:
            return self.refuse(
                Reason.MALFORMED, f"it shows {presented} certificates, {limits.CHAIN} are allowed"
            )
        return True

    def _meets_expectation(self, connection: SSL.Connection) -> bool:
        if not self.dialer:
            return True
        self.chain = self.presented(connection)
        objection = self.expect(self.chain) if self.expect else None
        return objection is None or self.refuse(Reason.WRONG_PEER, objection)

    def presented(self, connection: SSL.Connection) -> tuple[bytes, ...]:
        """The chain as the peer sent it: DER, leaf first, duplicates kept, unsorted, unverified. After resumption it is
        the leaf alone, as remembered from the handshake that proved its key."""
        chain = _openssl.peer_chain(connection, self.written)
        if self.dialer and chain:
            return tuple(chain)
        # OpenSSL gives a listener the leaf separately.
        return (_openssl.peer_leaf(connection, self.written), *chain)


def server_context(credential: TlsIdentity, *, resume: bool = False, trust: str = "") -> SSL.Context:
    """A Context for listening with `credential`, made once for many connections.

    Args:
        credential: whose chain is shown.
        resume: give tickets to those who dial, so that they may resume a session (RFC 8446, section 2.2). The key that
            protects them lives and dies with this object: renew it every `limits.TICKET_KEY` seconds.
        trust: names whom the listener believes; a ticket of one such name resumes nothing under another.

    Raises:
        OpenSSL.SSL.Error: the key is not the leaf's.
        SetupError: OPENSSL_CONF sets options that we cannot take back.
    """
    context = _context(credential, 0 if resume else SSL.OP_NO_TICKET)
    for certificate in reversed(credential.rotations):  # so that who dials us can tell before showing its own
        context.add_extra_chain_cert(certificate.x509)
    context.set_alpn_select_callback(_select_alpn)
    context.set_timeout(int(limits.TICKET_KEY))
    # Without one, a client that offers a session gets a fatal internal_error instead of a full handshake.
    own = credential.chain[0].x509.tbs_certificate_bytes
    context.set_session_id(hashlib.sha256(hashlib.sha256(own).digest() + trust.encode()).digest())
    return context


def client_context(credential: TlsIdentity) -> SSL.Context:
    """A Context for dialling with `credential`, made once for many connections.

    Raises:
        OpenSSL.SSL.Error: the key is not the leaf's.
        SetupError: OPENSSL_CONF sets options that we cannot take back.
    """
    context = _context(credential, SSL.OP_NO_TICKET)
    context.set_alpn_protos([ALPN])
    return context


def negotiated(connection: SSL.Connection) -> TlsInfo:
    """What the finished handshake agreed on."""
    return TlsInfo(
        version=connection.get_protocol_version_name(),
        group=connection.get_group_name() or "",
        cipher=connection.get_cipher_name() or "",
        alpn=connection.get_alpn_proto_negotiated().decode("ascii", "replace"),
        resumed=_openssl.resumed(connection),
    )


def _context(credential: TlsIdentity, options: int) -> SSL.Context:
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_min_proto_version(SSL.TLS1_3_VERSION)
    context.set_max_proto_version(SSL.TLS1_3_VERSION)
    # Defaults, said aloud: a file named by OPENSSL_CONF has been applied to the new Context already.
    context.set_tls13_ciphersuites(_CIPHERSUITES)
    context.set_cipher_list(b"DEFAULT:@SECLEVEL=2")
    _openssl.set_groups(context)
    # A listener keeps no session: a ticket holds all of one, sealed. Without tickets OpenSSL still sends two of 79 bytes
    # each, which name sessions that it does not keep.
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    set_now = context.set_options(options | SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION)
    if set_now & (SSL.OP_IGNORE_UNEXPECTED_EOF | SSL.OP_NO_TLSv1_3):
        raise SetupError("OpenSSL's configuration file (OPENSSL_CONF) breaks TLS: start without it")
    _openssl.release_buffers(context)
    leaf, *issuers = (certificate.x509 for certificate in credential.chain)
    context.use_certificate(leaf)
    for certificate in issuers:
        context.add_extra_chain_cert(certificate)
    _openssl.use_private_key(context, credential.private_key)
    context.check_privatekey()
    _openssl.set_verify(context, _verify)
    context.set_verify_depth(limits.CHAIN - 1)
    return context


def _verify(
    connection: SSL.Connection, verification: Verification, certificate: object, error: int, depth: int
) -> _openssl.Answer:
    try:
        if not verification.looked:
            if not verification.look(connection):
                return _NO
            if verification.chain in _passed:
                return _ENOUGH
        if error in _JUDGED_LATER:
            return _YES
        if error:
            objection: str | None = _openssl.verify_error_text(error)
        else:
            objection = _weakness(_openssl.der(certificate, verification.written))
        if objection is None:
            return _YES
        verification.refuse(Reason.MALFORMED, f"certificate {depth} of the chain: {objection}")
    except Exception as failure:  # noqa: BLE001  `expect` is the caller's; raising through OpenSSL would lose it
        verification.refuse(Reason.INTERNAL, f"checking the certificate failed: {failure!r}")
    return _NO


def _select_alpn(connection: SSL.Connection, offered: list[bytes]) -> bytes:
    if ALPN in offered:
        return ALPN
    verification: Verification = connection.get_app_data()
    verification.refuse(Reason.VERSION, f"it does not offer {ALPN.decode()} (ALPN)")
    # Raising sends the alert no_application_protocol; pyOpenSSL's NO_OVERLAPPING_PROTOCOLS would mean "go
    # on".
    raise SSL.Error


def _length(chain: Sequence[bytes]) -> int:
    """How many certificates there are up to the first one that names itself as its issuer."""
    for length, der in enumerate(chain, 1):
        with suppress(*PARSER_ERRORS):  # of what cannot be read another step says so
            certificate = x509.load_der_x509_certificate(der)
            if certificate.subject == certificate.issuer:
                return length
    return len(chain)


@lru_cache(maxsize=512)
def _weakness(der: bytes) -> str | None:
    """What is wrong with a certificate whoever issued it; a fact about its bytes, so the last few hundred are kept."""
    if len(der) > limits.CERTIFICATE:
        return f"it is larger than {limits.CERTIFICATE} bytes"
    try:
        parsed = x509.load_der_x509_certificate(der)
    except PARSER_ERRORS as error:  # OpenSSL reads what `cryptography` does not
        return f"it is malformed: {error}"
    if parsed.signature_algorithm_oid not in _ALGORITHMS:
        return "its signature algorithm is off the list"
    try:
        key_type(parsed.public_key())
    except PARSER_ERRORS as error:
        return f"its key: {error}"
    return None
