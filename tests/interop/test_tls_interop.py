"""The mutual handshake with other people's TLS: the openssl command and the standard library, both ways round.

Both are OpenSSL 3 here and know no post-quantum group, so the handshake is X25519's. Each test that refuses looks at
the alert that the other side reports.
"""

import contextlib
import shutil
import socket
import ssl
import subprocess
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio
import anyio.abc
import anyio.to_thread
import pytest
from anyio.streams.buffered import BufferedByteReceiveStream
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from autolink.errors import Reason, Refused
from autolink.identity.certificate import EntityKind, dump_chain
from autolink.identity.credential import Credential
from autolink.identity.keys import KeyType
from autolink.identity.request import CredentialRequest
from autolink.transport import TcpAddress, client_context, connect, listen, secure_stream, server_context

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(not shutil.which("openssl"), reason="needs the openssl command"),
]


@dataclass
class Party:
    """A credential, and the same on disk for other programs."""

    credential: Credential
    folder: Path

    @property
    def options(self) -> tuple[object, ...]:
        """How the openssl command takes it on."""
        return "-cert", self.chain, "-cert_chain", self.issuers, "-key", self.key

    def __post_init__(self) -> None:
        self.folder.mkdir()
        names = ("chain.pem", "issuers.pem", "root.pem", "key.pem")
        self.chain, self.issuers, self.root, self.key = (self.folder / name for name in names)
        self.chain.write_bytes(dump_chain(self.credential.chain))
        self.issuers.write_bytes(dump_chain(self.credential.chain[1:]))
        self.root.write_bytes(dump_chain(self.credential.chain[-1:]))
        self.key.write_bytes(
            self.credential.private_key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )


@pytest.fixture(scope="module", params=[KeyType.P256, KeyType.ED25519])
def parties(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Party, Party]:
    """We and they: an agent of acme and an agent of globex, with every kind of key that OpenSSL 3 knows."""
    folder = tmp_path_factory.mktemp("parties")
    made = []
    for name in ("acme", "globex"):
        root = Credential.self_issued(name, key_type=request.param)
        wanted = CredentialRequest.new("agent", key_type=request.param)
        made.append(Party(wanted.complete(root.issue(wanted, kind=EntityKind.AGENT)), folder / name))
    return made[0], made[1]


@pytest.fixture
def weak(tmp_path: Path) -> tuple[Path, Path]:
    """A certificate over P-384, which autolink does not accept, made by the other side's own tools."""
    chain, key = tmp_path / "weak.pem", tmp_path / "weak.key"
    command = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:secp384r1 -nodes -subj /CN=weak -days 2"
    )
    subprocess.run([*command.split(), "-keyout", key, "-out", chain], check=True, capture_output=True)
    return chain, key


def s_client(port: int, *more: object) -> list[str]:
    command = ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-tls1_3", "-alpn", "autolink/1"]
    return [str(part) for part in (*command, *more)]


def s_server(*more: object) -> list[str]:
    command = [
        "openssl",
        "s_server",
        "-accept",
        "127.0.0.1:0",
        "-tls1_3",
        "-alpn",
        "autolink/1",
        "-naccept",
        "1",
    ]
    return [str(part) for part in (*command, "-Verify", 4, *more)]


@asynccontextmanager
async def running(command: list[str], **kwargs: object) -> AsyncGenerator[anyio.abc.Process]:
    """The openssl command, killed at the end if it is still there."""
    async with await anyio.open_process(command, **kwargs) as process:
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()


# --- the openssl command dials us --------------------------------------------------------------------------


async def test_s_client_links_and_its_bytes_arrive(parties):
    """It verifies our chain under our root, strictly, and shows its own."""
    ours, theirs = parties
    (listener,) = await listen(TcpAddress("127.0.0.1", 0))
    checks = ("-CAfile", ours.root, "-verify_return_error", "-x509_strict", "-quiet", "-verify_quiet")
    command = s_client(listener.address.port, *theirs.options, *checks)
    async with running(command) as process:
        stream = await secure_stream(await listener.accept(), server_context(ours.credential), dialer=False)
        assert stream.peer_chain == tuple(certificate.der for certificate in theirs.credential.chain)
        assert (stream.info.version, stream.info.group) == ("TLSv1.3", "x25519")
        await process.stdin.send(b"hello\n")
        assert await stream.receive() == b"hello\n"
        await stream.send(b"world\n")
        assert await process.stdout.receive() == b"world\n"
        await stream.shutdown_politely()
        assert await process.wait() == 0
    listener.close()


async def refused_by_us(command: list[str], listener, credential: Credential) -> tuple[Refused, str]:
    """Our refusal, and what the openssl command said about it."""
    async with running(command, stderr=subprocess.STDOUT) as process:
        with pytest.raises(Refused) as refusal:
            await secure_stream(await listener.accept(), server_context(credential), dialer=False)
        said = b"".join([chunk async for chunk in process.stdout])
    listener.close()
    return refusal.value, said.decode()


async def test_s_client_with_a_key_off_the_list_gets_bad_certificate(parties, weak):
    ours, _ = parties
    (listener,) = await listen(TcpAddress("127.0.0.1", 0))
    refusal, said = await refused_by_us(
        s_client(listener.address.port, "-cert", weak[0], "-key", weak[1]), listener, ours.credential
    )
    assert (refusal.by, refusal.reason) == ("us", Reason.MALFORMED)
    assert "alert bad certificate" in said


async def test_s_client_without_a_certificate_gets_certificate_required(parties):
    ours, _ = parties
    (listener,) = await listen(TcpAddress("127.0.0.1", 0))
    refusal, said = await refused_by_us(s_client(listener.address.port), listener, ours.credential)
    assert "no certificate" in refusal.detail
    assert "alert certificate required" in said


async def test_s_client_with_another_protocol_gets_no_application_protocol(parties):
    ours, theirs = parties
    (listener,) = await listen(TcpAddress("127.0.0.1", 0))
    command = s_client(listener.address.port, *theirs.options, "-alpn", "h2")
    refusal, said = await refused_by_us(command, listener, ours.credential)
    assert refusal.reason is Reason.VERSION
    assert "alert no application protocol" in said


async def test_s_client_that_does_not_trust_us_is_a_refusal_by_the_peer(parties):
    ours, theirs = parties
    (listener,) = await listen(TcpAddress("127.0.0.1", 0))
    checks = ("-CAfile", theirs.root, "-verify_return_error")
    command = s_client(listener.address.port, *theirs.options, *checks)
    async with running(command, stderr=subprocess.STDOUT):
        with pytest.raises(Refused) as refusal:
            await secure_stream(await listener.accept(), server_context(ours.credential), dialer=False)
    assert (refusal.value.by, refusal.value.reason) == ("peer", Reason.UNTRUSTED)
    listener.close()


# --- we dial the openssl command ---------------------------------------------------------------------------


async def port_of(lines: BufferedByteReceiveStream) -> int:
    """s_server writes where it listens: ACCEPT 127.0.0.1:43210."""
    while True:
        line = (await lines.receive_until(b"\n", 10_000)).decode()
        if line.startswith("ACCEPT"):
            return int(line.rpartition(":")[2])


async def test_s_server_links_and_its_bytes_arrive(parties):
    """It demands a certificate, and verifies ours under our root."""
    ours, theirs = parties
    command = s_server(*theirs.options, "-CAfile", ours.root, "-verify_return_error", "-x509_strict")
    async with running(command) as process:
        lines = BufferedByteReceiveStream(process.stdout)
        sock = await connect(TcpAddress("127.0.0.1", await port_of(lines)))
        stream = await secure_stream(sock, client_context(ours.credential), dialer=True)
        assert stream.peer_chain == tuple(certificate.der for certificate in theirs.credential.chain)
        await stream.send(b"hello\n")
        while await lines.receive_until(b"\n", 10_000) != b"hello":
            pass
        await process.stdin.send(b"world\n")
        assert await stream.receive() == b"world\n"
        await stream.aclose()


async def test_s_server_that_does_not_trust_us_is_a_refusal_at_the_first_receive(parties):
    """Under TLS 1.3 the handshake of the one who dials has succeeded by then."""
    ours, theirs = parties
    command = s_server(*theirs.options, "-CAfile", theirs.root, "-verify_return_error")
    async with running(command) as process:
        lines = BufferedByteReceiveStream(process.stdout)
        sock = await connect(TcpAddress("127.0.0.1", await port_of(lines)))
        stream = await secure_stream(sock, client_context(ours.credential), dialer=True)
        with pytest.raises(Refused) as refusal:
            await stream.receive()
        assert (refusal.value.by, refusal.value.reason) == ("peer", Reason.UNTRUSTED)
        await stream.aclose()


async def test_s_server_that_is_not_the_one_expected_gets_an_alert_and_never_our_certificate(parties):
    ours, theirs = parties
    command = s_server(*theirs.options)
    async with running(command, stderr=subprocess.STDOUT) as process:
        lines = BufferedByteReceiveStream(process.stdout)
        sock = await connect(TcpAddress("127.0.0.1", await port_of(lines)))
        with pytest.raises(Refused) as refusal:
            await secure_stream(
                sock, client_context(ours.credential), dialer=True, expect=lambda chain: "somebody else"
            )
        said = b"".join([chunk async for chunk in lines]).decode()
    assert refusal.value.reason is Reason.WRONG_PEER
    assert "alert" in said
    assert "depth=" not in said  # what it prints about a certificate that it is shown


async def link_and_receive(sock: socket.socket, credential: Credential, we_dial: bool) -> bytes:
    context = (client_context if we_dial else server_context)(credential)
    async with contextlib.aclosing(await secure_stream(sock, context, dialer=we_dial)) as stream:
        return await stream.receive()


# --- the standard library ----------------------------------------------------------------------------------


def standard(party: Party, purpose: int, trusted: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(purpose)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(trusted)
    context.load_cert_chain(party.chain, party.key)
    context.set_alpn_protocols(["autolink/1"])
    return context


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        near = socket.create_connection(server.getsockname())
        far, _ = server.accept()
    far.settimeout(10)
    yield near, far
    near.close()
    far.close()


@pytest.mark.parametrize("we_dial", [True, False])
async def test_the_standard_library_links_in_both_roles(we_dial, parties, pair):
    ours, theirs = parties
    near, far = pair
    protocol = ssl.PROTOCOL_TLS_SERVER if we_dial else ssl.PROTOCOL_TLS_CLIENT

    def other() -> None:
        with standard(theirs, protocol, ours.root).wrap_socket(far, server_side=we_dial) as tls:
            assert tls.getpeercert(binary_form=True) == ours.credential.leaf.der
            assert tls.selected_alpn_protocol() == "autolink/1"
            tls.sendall(tls.recv(100).upper())
            assert tls.recv(100) == b""

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(anyio.to_thread.run_sync, other)
        context = (client_context if we_dial else server_context)(ours.credential)
        stream = await secure_stream(near, context, dialer=we_dial)
        assert stream.peer_chain == tuple(certificate.der for certificate in theirs.credential.chain)
        await stream.send(b"hello")
        assert await stream.receive() == b"HELLO"
        await stream.shutdown_politely()


@pytest.mark.parametrize("we_dial", [True, False])
async def test_the_standard_library_refuses_us_and_we_are_told(we_dial, parties, pair):
    """Its trust store does not hold our root."""
    ours, theirs = parties
    near, far = pair
    protocol = ssl.PROTOCOL_TLS_SERVER if we_dial else ssl.PROTOCOL_TLS_CLIENT

    def other() -> None:
        with pytest.raises(ssl.SSLCertVerificationError):
            standard(theirs, protocol, theirs.root).wrap_socket(far, server_side=we_dial)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(anyio.to_thread.run_sync, other)
        with pytest.raises(Refused) as refusal:
            await link_and_receive(near, ours.credential, we_dial)
    assert (refusal.value.by, refusal.value.reason) == ("peer", Reason.UNTRUSTED)


async def test_the_standard_library_reads_our_alert(pair, parties, weak):
    ours, _ = parties
    near, far = pair
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.load_cert_chain(*weak)
    context.set_alpn_protocols(["autolink/1"])

    def other() -> None:
        with context.wrap_socket(far) as tls, pytest.raises(ssl.SSLError, match="BAD_CERTIFICATE"):
            tls.recv(1)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(anyio.to_thread.run_sync, other)
        with pytest.raises(Refused, match="certificate 0 of the chain"):
            await secure_stream(near, server_context(ours.credential), dialer=False)


def test_the_weak_certificate_is_weak_for_the_reason_we_think(weak):
    key = serialization.load_pem_private_key(weak[1].read_bytes(), None)
    assert isinstance(key.curve, ec.SECP384R1)
