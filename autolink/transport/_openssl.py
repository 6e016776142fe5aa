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
- `SSL_MODE_ENABLE_PARTIAL_WRITE`, set as well, ends each write after one record of 16 KiB, and each read makes a buffer and
  a bytes object for one: with a byte stream that is four calls and four copies where one does.
- Without a word of ours, OPENSSL_CONF chooses the groups, and so whether a post-quantum one is among them.
- `PKey.from_cryptography_key` does not know ML-DSA, and `Context.use_privatekey` warns about the PKey that
  does.
- The verify callback comes with an X509 object for each call, whether anybody looks at it or not, and so do the
  certificates of the chain, of which we want the bytes.
- A session cannot be written down, and whether one was resumed cannot be asked. The object itself is of no use
  later: OpenSSL marks it as not resumable when its connection is freed without a goodbye.
"""

import socket
import threading
import warnings
from collections.abc import Callable
from enum import Enum
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from OpenSSL import SSL, crypto
from OpenSSL._util import ffi as _ffi
from OpenSSL._util import lib as _lib
from OpenSSL._util import no_zero_allocator as _no_zeros

from autolink import limits

RECORD: Final = 16_384
"""Bytes of data in a full record (RFC 8446, section 5.1)."""

_FULL_RECORDS: Final = limits.TLS_TURN // RECORD

GROUPS: Final = b"*X25519MLKEM768 / X25519:secp256r1"
"""Key exchange, best first, with a key share at once for the starred one: OpenSSL's own choice, without its tail and
without a second share. Every agent knows the first group; who does not asks for another share (HelloRetryRequest)."""

SYMBOLS: Final = (
    "BIO_free",
    "BIO_get_mem_data",
    "BIO_new",
    "BIO_read",
    "BIO_s_mem",
    "BIO_write",
    "SSL_CTX_set1_curves_list",
    "SSL_CTX_set_verify",
    "SSL_ERROR_WANT_READ",
    "SSL_ERROR_WANT_WRITE",
    "SSL_MODE_AUTO_RETRY",
    "SSL_MODE_ENABLE_PARTIAL_WRITE",
    "SSL_MODE_RELEASE_BUFFERS",
    "SSL_SESSION_free",
    "SSL_clear_mode",
    "SSL_do_handshake",
    "SSL_get1_session",
    "SSL_get_error",
    "SSL_get_ex_data_X509_STORE_CTX_idx",
    "SSL_get_peer_cert_chain",
    "SSL_get_peer_certificate",
    "SSL_read",
    "SSL_session_reused",
    "SSL_set_fd",
    "SSL_set_session",
    "SSL_set_verify",
    "SSL_write",
    "X509_STORE_CTX_get_current_cert",
    "X509_STORE_CTX_get_error",
    "X509_STORE_CTX_get_error_depth",
    "X509_STORE_CTX_get_ex_data",
    "X509_STORE_CTX_set_error",
    "X509_V_ERR_CERT_REJECTED",
    "X509_free",
    "X509_verify_cert_error_string",
    "d2i_SSL_SESSION",
    "i2d_SSL_SESSION",
    "i2d_X509_bio",
    "sk_X509_num",
    "sk_X509_value",
)
"""What this file uses of `OpenSSL._util.lib`."""

_WANT_READ: Final = _lib.SSL_ERROR_WANT_READ
_PIECE: Final = 16_384


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


class Answer(Enum):
    """A verify callback's.

    Attributes:
        ENOUGH: (dialer) go on with the handshake, and do not look at this chain any further: all is known about it.
    """

    YES = 1
    NO = 2
    ENOUGH = 3


VerifyCallback = Callable[[SSL.Connection, Any, Any, int, int], Answer]
"""Connection, its application data, the certificate (see `der`), OpenSSL's error about it (0: none), its depth in the
chain."""


def set_verify(context: SSL.Context, callback: VerifyCallback) -> None:
    """Demand a certificate and let `callback`, which must not raise, look at it. A no without an error of OpenSSL's
    own is bad_certificate."""
    mode = SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT
    context.set_verify(mode, lambda *_: False)  # pyOpenSSL's own, replaced below: it never runs
    index = _lib.SSL_get_ex_data_X509_STORE_CTX_idx()
    yes, enough = Answer.YES, Answer.ENOUGH

    def verify(_ok: int, store: object) -> int:
        connection = SSL.Connection._reverse_mapping[_lib.X509_STORE_CTX_get_ex_data(store, index)]  # noqa: SLF001
        error = _lib.X509_STORE_CTX_get_error(store)
        certificate = _lib.X509_STORE_CTX_get_current_cert(store)
        depth = _lib.X509_STORE_CTX_get_error_depth(store)
        answer = callback(connection, connection._app_data, certificate, error, depth)  # noqa: SLF001
        if answer is yes:
            if error:
                _lib.X509_STORE_CTX_set_error(store, _lib.X509_V_OK)
            return 1
        if answer is enough:  # at a no a dialer's OpenSSL stops, and only then looks whether it needs a yes
            _lib.SSL_set_verify(connection._ssl, SSL.VERIFY_NONE, _ffi.NULL)  # noqa: SLF001
        elif not error:
            _lib.X509_STORE_CTX_set_error(store, _lib.X509_V_ERR_CERT_REJECTED)
        return 0

    ours = _ffi.callback("int (*)(int, X509_STORE_CTX *)", verify)
    context._verify_callback = ours  # noqa: SLF001  every Connection keeps what it finds here alive
    _lib.SSL_CTX_set_verify(context._context, mode, ours)  # noqa: SLF001


def presented_count(connection: SSL.Connection) -> int:
    """How many certificates `peer_chain` has; before the end of a handshake a listener sees none."""
    stack = _lib.SSL_get_peer_cert_chain(connection._ssl)  # noqa: SLF001
    return 0 if stack == _ffi.NULL else _lib.sk_X509_num(stack)


Written = dict[Any, bytes]
"""Certificates of one handshake that were written down already, by OpenSSL's object: it keeps them while the handshake
lasts, and asks about the same ones that the peer presented."""


def peer_chain(connection: SSL.Connection, written: Written) -> list[bytes]:
    """DER of the chain as the peer sent it: to a dialer leaf first, to a listener without the leaf. After resumption
    there is none."""
    stack = _lib.SSL_get_peer_cert_chain(connection._ssl)  # noqa: SLF001
    return [der(_lib.sk_X509_value(stack, place), written) for place in range(presented_count(connection))]


def peer_leaf(connection: SSL.Connection, written: Written) -> bytes:
    """DER of the certificate whose key TLS has proved, now or before the session that was resumed."""
    leaf = _lib.SSL_get_peer_certificate(connection._ssl)  # noqa: SLF001
    try:
        return der(leaf, written)
    finally:
        _lib.X509_free(leaf)


def der(certificate: object, written: Written) -> bytes:
    """The bytes of a certificate of OpenSSL's."""
    known = written.get(certificate)
    if known is None:
        known = written[certificate] = _write_down(certificate)
    return known


def _write_down(certificate: object) -> bytes:
    bio = _lib.BIO_new(_lib.BIO_s_mem())
    try:
        if bio == _ffi.NULL or _lib.i2d_X509_bio(bio, certificate) != 1:
            raise MemoryError("OpenSSL could not write a certificate down")
        start = _ffi.new("char **")
        size = _lib.BIO_get_mem_data(bio, start)
        return bytes(_ffi.buffer(start[0], size))
    finally:
        _lib.BIO_free(bio)


def resumed(connection: SSL.Connection) -> bool:
    """Whether the handshake resumed a session instead of proving keys anew."""
    return bool(_lib.SSL_session_reused(connection._ssl))  # noqa: SLF001


def take_session(connection: SSL.Connection) -> bytes:
    """What `offer_session` takes: the newest session that the peer gave us, which comes with its first bytes."""
    session = _lib.SSL_get1_session(connection._ssl)  # noqa: SLF001
    try:
        size = _lib.i2d_SSL_SESSION(session, _ffi.NULL)
        if size <= 0:
            raise MemoryError("OpenSSL could not write a session down")
        buffer = _ffi.new("unsigned char[]", size)
        _lib.i2d_SSL_SESSION(session, _ffi.new("unsigned char **", buffer))
        return bytes(_ffi.buffer(buffer))
    finally:
        _lib.SSL_SESSION_free(session)


def offer_session(connection: SSL.Connection, taken: bytes) -> None:
    """Offer a session in the handshake to come; of a Context with the same credential as the one it was taken under."""
    buffer = _ffi.new("unsigned char[]", taken)
    session = _lib.d2i_SSL_SESSION(_ffi.NULL, _ffi.new("unsigned char **", buffer), len(taken))
    if session == _ffi.NULL:
        raise MemoryError("OpenSSL could not read a session that it wrote")
    try:
        _lib.SSL_set_session(connection._ssl, session)  # noqa: SLF001
    finally:
        _lib.SSL_SESSION_free(session)


def new_connection(context: SSL.Context) -> SSL.Connection:
    """A Connection on memory BIOs whose reads return after each record, whether it carried data or not, and whose writes
    take everything or, as long as they must wait, nothing: then they want the same bytes again."""
    connection = SSL.Connection(context, None)
    modes = _lib.SSL_MODE_AUTO_RETRY | _lib.SSL_MODE_ENABLE_PARTIAL_WRITE
    _lib.SSL_clear_mode(connection._ssl, modes)  # noqa: SLF001
    return connection


def step_handshake(connection: SSL.Connection) -> bool:
    """One call into OpenSSL: whether the handshake is done. If not, it wants to read.

    Raises:
        SSL.Error: it failed.
    """
    result = _lib.SSL_do_handshake(connection._ssl)  # noqa: SLF001
    if result == 1:
        return True
    if _lib.SSL_get_error(connection._ssl, result) != _WANT_READ:  # noqa: SLF001
        connection._raise_ssl_error(connection._ssl, result)  # noqa: SLF001
    return False


class _Scratch(threading.local):
    """Where a thread's connections read to: each is done with it before another one begins."""

    def __init__(self) -> None:
        self.place = bytearray(limits.TLS_STEP)


_scratch: Final = _Scratch()
# Never raised: with a traceback they would keep their frames, and these them.
_wants_to_read: Final = SSL.WantReadError()
_wants_to_write: Final = SSL.WantWriteError()


def read(
    connection: SSL.Connection, most: int, place: bytearray | None = None, start: int = 0
) -> tuple[memoryview, int, SSL.Error | None]:
    """What is there to read: one record, and where it is a full one, those behind it.

    Args:
        connection: to read from.
        most: bytes.
        place: where to read to, from `start`, which leaves so much; None: a place of the thread's own, good until the next
            such read.

    Returns:
        The part of the place that was filled; by how many records; why there is no more: None where nobody has looked.
    """
    ssl, read_record = connection._ssl, _lib.SSL_read  # noqa: SLF001
    if place is None:
        place, most = _scratch.place, min(most, limits.TLS_STEP)
    # Of the bytearray: a memoryview with a C buffer on it cannot be collected.
    buffer = _ffi.from_buffer(place) + start
    got = records = 0
    end = None
    while got < most and records <= _FULL_RECORDS:  # more, smaller ones are worth a turn of the loop
        taken = read_record(ssl, buffer + got, most - got)
        if taken <= 0:
            end = _why(connection, taken)
            break
        got += taken
        records += 1
        if got < RECORD:
            break
    return memoryview(place)[start : start + got], records, end


def _why(connection: SSL.Connection, result: int) -> SSL.Error:
    """Why a read gave nothing."""
    wants = _lib.SSL_get_error(connection._ssl, result)  # noqa: SLF001
    if wants == _lib.SSL_ERROR_WANT_READ:
        return _wants_to_read
    if wants == _lib.SSL_ERROR_WANT_WRITE:
        return _wants_to_write
    try:
        connection._raise_ssl_error(connection._ssl, result)  # noqa: SLF001
    except SSL.Error as error:
        return error.with_traceback(None)
    raise AssertionError("a read that failed and did not")


def attach_socket(connection: SSL.Connection, sock: socket.socket) -> None:
    """Let `connection` read and write `sock` from now on. Its memory BIOs must be empty: they are freed."""
    if _lib.SSL_set_fd(connection._ssl, sock.fileno()) != 1:  # noqa: SLF001
        raise MemoryError("OpenSSL could not make a BIO for a socket")
    connection._into_ssl = connection._from_ssl = None  # noqa: SLF001
    connection._socket = sock  # noqa: SLF001


def write(connection: SSL.Connection, data: bytes | memoryview) -> int:
    """As `connection.send`, which asks OpenSSL what went wrong also when nothing did: how many bytes it took.

    Raises:
        SSL.Error: and its subclasses that say what OpenSSL waits for.
    """
    taken: int = _lib.SSL_write(connection._ssl, _ffi.from_buffer(data), len(data))  # noqa: SLF001
    if taken <= 0:
        connection._raise_ssl_error(connection._ssl, taken)  # noqa: SLF001
    return taken


_anywhere: Final = _ffi.new("char **")  # written and never read: only the count is asked for


def incoming(connection: SSL.Connection) -> int:
    """How many bytes a Connection on memory BIOs has not read yet."""
    count: int = _lib.BIO_get_mem_data(connection._into_ssl, _anywhere)  # noqa: SLF001
    return count


def outgoing(connection: SSL.Connection) -> int:
    """How many bytes a Connection on memory BIOs wants sent."""
    count: int = _lib.BIO_get_mem_data(connection._from_ssl, _anywhere)  # noqa: SLF001
    return count


def give_incoming(connection: SSL.Connection, data: bytes) -> None:
    """Put `data` before a Connection on memory BIOs, to be read by it."""
    if _lib.BIO_write(connection._into_ssl, data, len(data)) != len(data):  # noqa: SLF001
        raise MemoryError("OpenSSL could not keep what arrived")


def take_outgoing(connection: SSL.Connection) -> bytes:
    """Everything that a Connection on memory BIOs wants sent; empty when there is nothing."""
    taken = b""
    while True:
        buffer = _no_zeros("char[]", _PIECE)
        count = _lib.BIO_read(connection._from_ssl, buffer, _PIECE)  # noqa: SLF001
        if count > 0:
            taken += _ffi.buffer(buffer, count)[:]
        if count < _PIECE:
            return taken


def verify_error_text(code: int) -> str:
    """OpenSSL's words for an X509_V_ERR code."""
    text: bytes = _ffi.string(_lib.X509_verify_cert_error_string(code))
    return text.decode("ascii", "replace")
