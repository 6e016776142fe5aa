"""Certificates of every bad kind, connected pairs over sockets and over memory, and a TLS peer that can misbehave."""

import socket
import warnings
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import anyio
import pytest
from anyio.abc import ByteStream
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.x509.oid import NameOID
from OpenSSL import SSL, crypto

from autolink import limits
from autolink.transport import client_context, secure_stream, server_context


@dataclass
class Issued:
    """One certificate and its key."""

    x509: x509.Certificate
    key: PrivateKeyTypes


class Identity:
    """What the contexts need of a credential, without a credential's rules: anything goes."""

    def __init__(self, *path: Issued) -> None:
        self.chain = path
        self.rotations: tuple[Issued, ...] = ()
        self.private_key = path[0].key


def issue(
    name: str,
    issuer: Issued | None = None,
    *,
    key: PrivateKeyTypes | None = None,
    ca: bool = True,
    digest: hashes.HashAlgorithm | None = None,
    days: tuple[int, int] = (-1, 30),
) -> Issued:
    """A certificate, self-signed without `issuer`, valid between two days from now."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    signer = issuer.key if issuer else key
    if digest is None and hasattr(signer, "key_size"):
        digest = hashes.SHA256()
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.x509.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + timedelta(days[0]))
        .not_valid_after(now + timedelta(days[1]))
        .add_extension(x509.BasicConstraints(ca, None), critical=True)
        .sign(signer, digest)
    )
    return Issued(certificate, key)


def issue_path(length: int) -> Identity:
    """A chain of `length` certificates, leaf first."""
    path = [issue("root")]
    for number in range(1, length):
        path.insert(0, issue(f"level-{number}", path[0], ca=number < length - 1))
    return Identity(*path)


def lax_context(identity: Identity, *, seen: list[int] | None = None, alpn: bool = True) -> SSL.Context:
    """TLS 1.3 that lets everything pass, as somebody else's peer would; `seen` collects verify callbacks."""
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_cipher_list(b"DEFAULT:@SECLEVEL=0")
    for position, issued in enumerate(identity.chain):
        add = context.add_extra_chain_cert if position else context.use_certificate
        add(issued.x509)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        pem = identity.private_key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        context.use_privatekey(crypto.load_privatekey(crypto.FILETYPE_PEM, pem))

    def verify(_connection: object, _certificate: object, _error: int, depth: int, _ok: int) -> bool:
        if seen is not None:
            seen.append(depth)
        return True

    context.set_verify(SSL.VERIFY_PEER, verify)
    if alpn:
        context.set_alpn_protos([b"autolink/1"])
        context.set_alpn_select_callback(lambda _connection, _offered: b"autolink/1")
    return context


class Pipe(ByteStream):
    """One end of a byte stream in memory; `cut` hands bytes over in pieces of at most that many."""

    def __init__(self, outgoing, incoming, cut: int) -> None:
        self.outgoing, self.incoming, self.cut = outgoing, incoming, cut
        self.left = b""

    async def receive(self, max_bytes: int = 65536) -> bytes:
        if not self.left:
            self.left = await self.incoming.receive()
        size = min(max_bytes, self.cut)
        data, self.left = self.left[:size], self.left[size:]
        return data

    async def send(self, item: bytes) -> None:
        await self.outgoing.send(bytes(item))

    async def send_eof(self) -> None:
        await self.outgoing.aclose()

    async def aclose(self) -> None:
        await self.outgoing.aclose()
        await self.incoming.aclose()


def pipes(*, cut: int = 65536, buffer: float = 16) -> tuple[Pipe, Pipe]:
    to_b, from_a = anyio.create_memory_object_stream[bytes](buffer)
    to_a, from_b = anyio.create_memory_object_stream[bytes](buffer)
    return Pipe(to_b, from_b, cut), Pipe(to_a, from_a, cut)


def sockets(*, buffer: int | None = None) -> tuple[socket.socket, socket.socket]:
    """A connected TCP pair, for a Unix pair has no resets."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        if buffer:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        dialler = socket.socket()
        if buffer:
            dialler.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
        dialler.connect(server.getsockname())
        listener, _ = server.accept()
    for sock in (dialler, listener):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return dialler, listener


async def handshake(a, b, dialler_context, listener_context, *, expect=None):
    """Both ends' SecureStream or exception; a dialler may succeed alone."""
    results: dict[str, object] = {}

    async def run(name: str, transport, context, dialer: bool) -> None:
        try:
            results[name] = await secure_stream(
                transport, context, dialer=dialer, expect=expect if dialer else None, peer=name
            )
        except Exception as error:
            results[name] = error

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run, "dialler", a, dialler_context, True)
        tasks.start_soon(run, "listener", b, listener_context, False)
    return results["dialler"], results["listener"]


@pytest.fixture(autouse=True)
def short_drain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of these tests refuse somebody who does not hang up."""
    monkeypatch.setattr(limits, "REFUSAL_DRAIN", 0.1)


@pytest.fixture(scope="session")
def me() -> Identity:
    """An honest identity: a leaf and its self-signed root."""
    return issue_path(2)


@pytest.fixture(params=["socket", "memory"])
def transports(request: pytest.FixtureRequest) -> Callable[[], tuple[object, object]]:
    """Makes connected transports, of both kinds in turn."""
    return sockets if request.param == "socket" else pipes


@pytest.fixture
def connected(me: Identity):
    """`async with connected(a, b) as (dialler, listener)`: a finished handshake, closed at the end."""

    @asynccontextmanager
    async def connect(a: object, b: object) -> AsyncGenerator[tuple]:
        dialler, listener = await handshake(a, b, client_context(me), server_context(me))
        try:
            yield dialler, listener
        finally:
            await dialler.abort()
            await listener.abort()

    return connect


@pytest.fixture(scope="session")
def make() -> SimpleNamespace:
    """The functions of this file, for tests in other files."""
    return SimpleNamespace(
        issue=issue,
        path=issue_path,
        Identity=Identity,
        lax_context=lax_context,
        pipes=pipes,
        sockets=sockets,
        handshake=handshake,
    )


class Rogue:
    """A tlslite-ng endpoint on a blocking socket, to be driven from a thread: it does what OpenSSL would never do."""

    def __init__(self, sock: socket.socket) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from tlslite import api, constants, messages  # its import warns about asyncore
        self.api, self.messages, self.constants = api, messages, constants
        sock.setblocking(True)
        sock.settimeout(10)
        self.socket = sock
        self.tls = api.TLSConnection(sock)
        self.settings = api.HandshakeSettings()
        self.settings.minVersion = self.settings.maxVersion = (3, 4)

    def credentials(self, identity: Identity):
        chain = self.api.X509CertChain()
        chain.parsePemList(
            "".join(i.x509.public_bytes(serialization.Encoding.PEM).decode() for i in identity.chain)
        )
        pem = identity.private_key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return chain, self.api.parsePEMKey(pem.decode(), private=True)

    def dial(self, identity: Identity | None, alpn: bytes | None = b"autolink/1") -> None:
        chain, key = self.credentials(identity) if identity else (None, None)
        names = [bytearray(alpn)] if alpn else None
        self.tls.handshakeClientCert(chain, key, settings=self.settings, alpn=names)

    def dial_and_read(self, identity: Identity | None, alpn: bytes | None = b"autolink/1") -> None:
        self.dial(identity, alpn)
        self.tls.read(min=1)

    def listen(self, identity: Identity, alpn: bytes | None = b"autolink/1") -> None:
        chain, key = self.credentials(identity)
        names = [bytearray(alpn)] if alpn else None
        self.tls.handshakeServer(
            certChain=chain, privateKey=key, reqCert=True, settings=self.settings, alpn=names
        )

    def records(self, write: Callable[[], Iterator[object]], times: int) -> bytes:
        """The bytes of what `write` sends, `times` times over, without sending them: floods are made in advance."""
        collected = bytearray()

        class Collector:
            def send(self, data: bytes) -> int:
                collected.extend(data)
                return len(data)

        record_socket = self.tls._recordLayer._recordSocket
        record_socket.sock, real = Collector(), record_socket.sock
        for _ in range(times):
            for _ in write():
                pass
        record_socket.sock = real
        return bytes(collected)

    def key_updates(self, times: int) -> bytes:
        return self.records(lambda: self.tls.send_keyupdate_request(1), times)

    def tickets(self, times: int) -> bytes:
        ticket = self.messages.NewSessionTicket().create(3600, 1, b"n", b"t" * 32, [])
        return self.records(lambda: self.tls._sendMsg(ticket), times)

    def pieces(self, content_type: int, *pieces: bytes) -> bytes:
        """Each piece in a record of its own."""
        left = iter(pieces)
        return self.records(
            lambda: self.tls._sendMsg(self.messages.Message(content_type, bytearray(next(left)))), len(pieces)
        )


@pytest.fixture
def rogue() -> Iterator[Callable[[socket.socket], Rogue]]:
    """Makes a misbehaving TLS endpoint of a socket; the socket is closed after the test."""
    made: list[socket.socket] = []

    def make_rogue(sock: socket.socket) -> Rogue:
        made.append(sock)
        return Rogue(sock)

    yield make_rogue
    for sock in made:
        sock.close()
