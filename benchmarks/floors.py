"""The bare costs under ours: what the cryptography of a handshake, a call or a verdict takes and nothing else.

All of it by CPU time in one process, through the same OpenSSL that autolink uses.
"""

from functools import cache
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL import SSL, crypto

from autolink import Credential
from autolink.transport import _openssl
from benchmarks import identities
from benchmarks.measuring import Sample, repeated
from benchmarks.process import Place
from benchmarks.stacks.base import Stack

_ECDSA = ec.ECDSA(hashes.SHA256())
_MESSAGE = bytes(126)
"""As long as what a batch signature covers."""


async def handshakes(_stack: Stack, place: Place, *, seconds: float) -> dict[str, Any]:
    """One TLS 1.3 handshake in memory with certificates on both sides, then two signatures and two verifications.

    The same groups, chains of two P-256 certificates, no tickets, contexts made beforehand. OpenSSL verifies the chains against
    the root by itself: there is no callback into Python.
    """
    server, client = _context(place.folder, "server"), _context(place.folder, "client")
    key = _key(place.folder)

    def once() -> None:
        _handshake(server, client)
        _signatures(key)

    return Sample.of(*repeated(seconds, once))


async def calls(_stack: Stack, place: Place, *, seconds: float) -> dict[str, Any]:
    """Two signatures and two verifications: a signed request and its signed reply."""
    key = _key(place.folder)
    return Sample.of(*repeated(seconds, lambda: _signatures(key)))


async def verifications(_stack: Stack, place: Place, *, seconds: float, count: int) -> dict[str, Any]:
    """`count` ECDSA verifications, each of a certificate's signature by its issuer's key."""
    leaf, root = (certificate.x509 for certificate in identities.load(place.folder, "client").chain)
    key = root.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)

    def once() -> None:
        for _ in range(count):
            key.verify(leaf.signature, leaf.tbs_certificate_bytes, _ECDSA)

    return Sample.of(*repeated(seconds, once))


def _signatures(key: ec.EllipticCurvePrivateKey) -> None:
    public = key.public_key()
    for _ in range(2):
        public.verify(key.sign(_MESSAGE, _ECDSA), _MESSAGE, _ECDSA)


def _handshake(server: SSL.Context, client: SSL.Context) -> None:
    near, far = SSL.Connection(client, None), SSL.Connection(server, None)
    near.set_connect_state()
    far.set_accept_state()
    done = {near: False, far: False}
    while not all(done.values()):
        for end, other in ((near, far), (far, near)):
            if not done[end]:
                try:
                    end.do_handshake()
                    done[end] = True
                except SSL.WantReadError:
                    pass  # it waits for the other's next flight
            if data := _openssl.take_outgoing(end):
                other.bio_write(data)


@cache
def _context(folder: Path, holder: str) -> SSL.Context:
    credential: Credential = identities.load(folder, holder)
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_min_proto_version(SSL.TLS1_3_VERSION)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_options(SSL.OP_NO_TICKET)
    _openssl.set_groups(context)
    leaf, root = (certificate.x509 for certificate in credential.chain)
    context.use_certificate(leaf)
    context.add_extra_chain_cert(root)
    _openssl.use_private_key(context, credential.private_key)
    store = context.get_cert_store()
    assert store is not None
    store.add_cert(crypto.X509.from_cryptography(root))
    context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT)
    return context


@cache
def _key(folder: Path) -> ec.EllipticCurvePrivateKey:
    key = identities.load(folder, "client").private_key
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key
