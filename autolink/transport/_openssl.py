"""Every private use of pyOpenSSL, in one file, each with a test that the symbol it needs is there.

pyOpenSSL hides what we need here, or sets it the wrong way:

- `SSL_MODE_AUTO_RETRY`, set on every Connection, lets one read swallow every record that carries no data for
  as long as the socket holds some: a flood of KeyUpdates is then one call of half a second, in which nothing
  else runs.
- A handshake on memory BIOs can be fed record by record, a handshake on a socket cannot; a link on the socket
  is nearly twice as fast as one on memory BIOs. So the handshake is done on memory BIOs, and the socket
  attached behind it.
- A verify callback that says no to a certificate with which OpenSSL has no quarrel makes it send
  internal_error.
- Without a word of ours, OPENSSL_CONF chooses the groups, and so whether a post-quantum one is among them.
- `PKey.from_cryptography_key` does not know ML-DSA, and `Context.use_privatekey` warns about the PKey that
  does.
"""

import socket
import warnings
from collections.abc import Callable
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from OpenSSL import SSL, crypto
from OpenSSL._util import ffi as _ffi
from OpenSSL._util import lib as _lib

GROUPS: Final = b"*X25519MLKEM768 / *X25519:secp256r1"
"""Key exchange, best first, with a key share at once for the starred ones: OpenSSL's own choice, without its
tail."""

SYMBOLS: Final = (
    "BIO_get_mem_data",
    "SSL_CTX_set1_curves_list",
    "SSL_CTX_set_verify",
    "SSL_MODE_AUTO_RETRY",
    "SSL_MODE_RELEASE_BUFFERS",
    "SSL_clear_mode",
    "SSL_set_fd",
    "X509_STORE_CTX_get_error",
    "X509_STORE_CTX_set_error",
    "X509_V_ERR_CERT_REJECTED",
    "X509_verify_cert_error_string",
)
"""What this file uses of `OpenSSL._util.lib`."""


def use_private_key(context: SSL.Context, key: PrivateKeyTypes) -> None:
    """Give `context` its private key, of any type that OpenSSL knows, without a file."""
    der = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    with warnings.catch_warnings():
        # pyOpenSSL would rather have the key of `cryptography`, but cannot take an ML-DSA one.
        warnings.simplefilter("ignore", DeprecationWarning)
        context.use_privatekey(crypto.load_privatekey(crypto.FILETYPE_ASN1, der))


def release_buffers(context: SSL.Context) -> None:
    """Free the 34 KiB of record buffers of an idle connection: it takes 39 KiB instead of 66."""
    context.set_mode(_lib.SSL_MODE_RELEASE_BUFFERS)


def set_groups(context: SSL.Context) -> None:
    """Key exchange by GROUPS and nothing else."""
    if _lib.SSL_CTX_set1_curves_list(context._context, GROUPS) != 1:  # noqa: SLF001
        raise NotImplementedError("this OpenSSL lacks X25519MLKEM768: autolink needs OpenSSL 3.5 or later")


VerifyCallback = Callable[[SSL.Connection, crypto.X509, int, int, int], bool]


def set_verify(context: SSL.Context, callback: VerifyCallback) -> None:
    """Demand a certificate and let `callback` look at it. A no without an error of OpenSSL's own is
    bad_certificate."""
    mode = SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT
    context.set_verify(mode, callback)
    theirs: Any = context._verify_callback  # noqa: SLF001

    def verify(ok: int, store: object) -> int:
        answer: int = theirs(ok, store)
        if not answer and _lib.X509_STORE_CTX_get_error(store) == _lib.X509_V_OK:
            _lib.X509_STORE_CTX_set_error(store, _lib.X509_V_ERR_CERT_REJECTED)
        return answer

    ours = _ffi.callback("int (*)(int, X509_STORE_CTX *)", verify)
    context._verify_callback = ours  # noqa: SLF001  every Connection keeps what it finds here alive
    _lib.SSL_CTX_set_verify(context._context, mode, ours)  # noqa: SLF001


def new_connection(context: SSL.Context) -> SSL.Connection:
    """A Connection on memory BIOs that returns after each record, whether it carried data or not."""
    connection = SSL.Connection(context, None)
    _lib.SSL_clear_mode(connection._ssl, _lib.SSL_MODE_AUTO_RETRY)  # noqa: SLF001
    return connection


def attach_socket(connection: SSL.Connection, sock: socket.socket) -> None:
    """Let `connection` read and write `sock` from now on. Its memory BIOs must be empty: they are freed."""
    if _lib.SSL_set_fd(connection._ssl, sock.fileno()) != 1:  # noqa: SLF001
        raise MemoryError("OpenSSL could not make a BIO for a socket")
    connection._into_ssl = connection._from_ssl = None  # noqa: SLF001
    connection._socket = sock  # noqa: SLF001


def incoming(connection: SSL.Connection) -> int:
    """How many bytes a Connection on memory BIOs has not read yet."""
    count: int = _lib.BIO_get_mem_data(connection._into_ssl, _ffi.new("char **"))  # noqa: SLF001
    return count


def outgoing(connection: SSL.Connection) -> int:
    """How many bytes a Connection on memory BIOs wants sent."""
    count: int = _lib.BIO_get_mem_data(connection._from_ssl, _ffi.new("char **"))  # noqa: SLF001
    return count


def take_outgoing(connection: SSL.Connection) -> bytes:
    """Everything that a Connection on memory BIOs wants sent; empty when there is nothing."""
    waiting = outgoing(connection)
    return connection.bio_read(waiting) if waiting > 0 else b""


def verify_error_text(code: int) -> str:
    """OpenSSL's words for an X509_V_ERR code."""
    text: bytes = _ffi.string(_lib.X509_verify_cert_error_string(code))
    return text.decode("ascii", "replace")
