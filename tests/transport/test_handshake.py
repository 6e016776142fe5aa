"""What a handshake agrees on, what TLS refuses by itself, and what both ends learn of it."""

import contextlib
import functools
import os
import ssl
import subprocess
import sys
from pathlib import Path

import anyio
import anyio.to_thread
import pytest
from cryptography.hazmat.primitives.asymmetric import ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding

import autolink
from autolink import limits
from autolink.errors import Reason, Refused, RemoteProtocolError
from autolink.identity.credential import Credential
from autolink.identity.keys import KeyType
from autolink.transport import client_context, secure_stream, server_context

pytestmark = pytest.mark.anyio


def der(identity) -> tuple[bytes, ...]:
    return tuple(issued.x509.public_bytes(Encoding.DER) for issued in identity.chain)


async def test_both_ends_agree_on_version_group_alpn_link_id_and_chains(me, make, transports):
    """The defaults give a post-quantum group; each end has the other's whole chain, leaf first."""
    other = make.path(3)
    dialler, listener = await make.handshake(*transports(), client_context(me), server_context(other))
    assert dialler.info == listener.info
    assert (dialler.info.version, dialler.info.group) == ("TLSv1.3", "X25519MLKEM768")
    assert dialler.info.alpn == "autolink/1"
    assert dialler.link_id == listener.link_id
    assert len(dialler.link_id) == 32
    assert (dialler.peer_chain, listener.peer_chain) == (der(other), der(me))
    await dialler.abort()
    await listener.abort()


async def test_no_two_connections_share_a_link_id(connected, transports):
    async with connected(*transports()) as (one, _), connected(*transports()) as (two, _):
        assert one.link_id != two.link_id


@pytest.mark.parametrize("kind", [KeyType.P256, KeyType.ED25519, KeyType.ML_DSA_65])
async def test_every_kind_of_key_that_autolink_makes_works_in_tls(kind, make, transports):
    """ML-DSA keys are loaded from memory; such a chain is bigger than a record."""
    credential = Credential.self_issued("acme", key_type=kind)
    dialler, listener = await make.handshake(
        *transports(), client_context(credential), server_context(credential)
    )
    assert dialler.peer_chain == listener.peer_chain == (credential.leaf.der,)
    await dialler.abort()
    await listener.abort()


# --- rule 8: ALPN ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("alpn", [None, b"h2"])
async def test_rule_8_a_listener_refuses_a_dialler_without_our_alpn(alpn, me, make, rogue):
    """OpenSSL alone would go on, with an empty protocol name."""
    a, b = make.sockets()
    bad = rogue(a)

    def dial() -> None:
        with pytest.raises(bad.api.TLSRemoteAlert):
            bad.dial_and_read(me, alpn)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(anyio.to_thread.run_sync, dial)
        with pytest.raises(Refused, match="ALPN") as refusal:
            await secure_stream(b, server_context(me), dialer=False)
    assert (refusal.value.by, refusal.value.reason) == ("us", Reason.VERSION)


async def test_rule_8_a_dialler_refuses_a_listener_without_our_alpn(me, make):
    """... and does so before it shows its certificate. (OpenSSL itself refuses a protocol that it did not offer.)"""
    seen: list[int] = []
    context = make.lax_context(me, seen=seen, alpn=False)
    judge, other = await make.handshake(*make.sockets(), client_context(me), context)
    assert isinstance(judge, Refused)
    assert (judge.by, judge.reason) == ("us", Reason.VERSION)
    assert isinstance(other, Refused)
    assert seen == []


# --- refusals arrive ---------------------------------------------------------------------------------------


async def test_a_refused_dialler_reads_why_although_it_has_already_sent(me, make, transports):
    """Under TLS 1.3 it sees success first. On memory BIOs the alert has to be carried out by hand."""
    weak = make.lax_context(make.Identity(make.issue("weak", key=ed448.Ed448PrivateKey.generate())))
    dialler, judge = await make.handshake(*transports(), weak, server_context(me))
    assert isinstance(judge, Refused)
    with pytest.raises(Refused) as refusal:
        await dialler.receive()
    assert (refusal.value.by, refusal.value.reason) == ("peer", Reason.UNTRUSTED)
    with pytest.raises(anyio.BrokenResourceError):  # told once, broken for ever
        await dialler.receive()
    await dialler.abort()


async def test_rule_7_a_tls_refusal_survives_unread_bytes(me, make):
    """The dialler's first bytes are unread when the listener refuses; closing at once would reset them away."""
    a, b = make.sockets()
    weak = make.lax_context(make.Identity(make.issue("weak", key=ed448.Ed448PrivateKey.generate())))

    async def dial() -> None:
        stream = await secure_stream(a, weak, dialer=True)
        await stream.send(b"early" * 20_000)
        with pytest.raises(Refused, match="refused us"):
            await stream.receive()
        await stream.abort()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(dial)
        with pytest.raises(Refused):
            await secure_stream(b, server_context(me), dialer=False)


@pytest.mark.parametrize(
    ("alert", "reason"),
    [
        (42, Reason.UNTRUSTED),  # bad_certificate
        (43, Reason.UNTRUSTED),  # unsupported_certificate
        (44, Reason.REVOKED),
        (45, Reason.EXPIRED),
        (46, Reason.UNTRUSTED),  # certificate_unknown
        (48, Reason.UNTRUSTED),  # unknown_ca
        (49, Reason.UNTRUSTED),  # access_denied
        (51, Reason.UNTRUSTED),  # decrypt_error
        (70, Reason.VERSION),
        (80, Reason.INTERNAL),
        (116, Reason.UNTRUSTED),  # certificate_required
        (120, Reason.VERSION),  # no_application_protocol
        (10, None),  # unexpected_message: it does not refuse us, it gives up
        (50, None),  # decode_error
    ],
)
async def test_each_alert_about_us_is_a_refusal_by_the_peer(alert, reason, me, make, rogue):
    """Sent by another implementation, so that OpenSSL's words for each are the real ones."""
    a, b = make.sockets()
    bad = rogue(a)

    def dial() -> None:
        bad.dial(me)
        for _ in bad.tls._sendMsg(bad.messages.Alert().create(alert, bad.constants.AlertLevel.fatal)):
            pass

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(anyio.to_thread.run_sync, dial)
        stream = await secure_stream(b, server_context(me), dialer=False, peer="10.0.0.1:5")
        with pytest.raises(Refused if reason else RemoteProtocolError, match=r"10\.0\.0\.1:5") as failure:
            await stream.receive()
        await stream.abort()
    if reason:
        details = {70: "it speaks no TLS 1.3", 120: "it does not speak autolink/1 (ALPN)"}
        told = (failure.value.by, failure.value.reason, failure.value.detail)
        assert told == ("peer", reason, details.get(alert, ""))


# --- not TLS, or not for long ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "greeting", [b"GET / HTTP/1.1\r\n\r\n", b"\0" * 100, b"\x16\x03\x01\xff\xff" + b"x" * 50]
)
async def test_bytes_that_are_not_tls_end_the_handshake_at_once(greeting, me, make):
    """Nobody waits for the rest of a record of 8 KB that an HTTP request seems to announce."""
    a, b = make.pipes()
    await a.send(greeting)
    with pytest.raises(RemoteProtocolError):
        await secure_stream(b, server_context(me), dialer=False)
    await a.aclose()


async def test_a_tls_1_2_dialler_gets_an_alert(me, make):
    """protocol_version, as RFC 8446 wants it."""
    a, b = make.sockets()
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    a.settimeout(5)

    def dial() -> None:
        with pytest.raises(ssl.SSLError, match="PROTOCOL_VERSION"):
            context.wrap_socket(a)
        a.close()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(anyio.to_thread.run_sync, dial)
        with pytest.raises(RemoteProtocolError, match="unsupported protocol"):
            await secure_stream(b, server_context(me), dialer=False)


async def test_a_peer_that_hangs_up_during_the_handshake_is_not_a_clean_end(me, make, transports):
    a, b = transports()
    if hasattr(a, "aclose"):
        await a.aclose()
    else:
        a.close()
    with pytest.raises(anyio.BrokenResourceError):
        await secure_stream(b, server_context(me), dialer=False)


async def test_rule_1_a_handshake_in_too_many_records_is_ended(me, make):
    """A ClientHello in records of one byte would otherwise be worked off in one call into OpenSSL."""
    a, b = make.pipes()
    await a.send(
        b"".join(b"\x16\x03\x01\x00\x01" + bytes([byte]) for byte in b"\x01\x00\x10\x00" + bytes(4096))
    )
    with pytest.raises(RemoteProtocolError, match=f"more than {limits.HANDSHAKE_RECORDS} records"):
        await secure_stream(b, server_context(me), dialer=False)
    await a.aclose()


async def test_rule_1_a_flood_of_change_cipher_spec_records_is_ended(me, make):
    """TLS 1.3 ignores such records for the sake of middleboxes, but not for ever."""
    a, b = make.pipes()
    await a.send(b"\x14\x03\x03\x00\x01\x01" * 10_000)
    with pytest.raises(RemoteProtocolError):
        await secure_stream(b, server_context(me), dialer=False)
    await a.aclose()


async def test_a_cancelled_handshake_closes_its_socket(me, make):
    a, b = make.sockets()
    with anyio.move_on_after(0.01):
        await secure_stream(b, server_context(me), dialer=False)
    assert b.fileno() == -1
    a.close()


async def test_a_handshake_cancelled_at_any_checkpoint_closes_its_socket(me, make, anyio_backend_name):
    """Cancelled at the first checkpoint, the second, and so on until it is through: Trio counts them."""
    if anyio_backend_name != "trio":
        return
    import trio

    class CancelAt(trio.abc.Instrument):
        def __init__(self, task, scope, left: int) -> None:
            self.task, self.scope, self.left = task, scope, left

        def before_task_step(self, task) -> None:
            if task is self.task:
                self.left -= 1
                if self.left == 0:
                    self.scope.cancel()

    async def dial(sock) -> None:
        with contextlib.suppress(anyio.BrokenResourceError):
            stream = await secure_stream(sock, client_context(me), dialer=True)
            await stream.abort()

    for checkpoint in range(1, 100):
        a, b = make.sockets()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(dial, a)
            with anyio.CancelScope() as scope:
                instrument = CancelAt(trio.lowlevel.current_task(), scope, checkpoint)
                trio.lowlevel.add_instrument(instrument)
                try:
                    stream = await secure_stream(b, server_context(me), dialer=False)
                finally:
                    trio.lowlevel.remove_instrument(instrument)
            tasks.cancel_scope.cancel()
        if not scope.cancelled_caught:
            await stream.abort()
            break
        assert b.fileno() == -1, checkpoint
    assert checkpoint > 1


# --- what TLS must not do ----------------------------------------------------------------------------------


async def test_no_session_can_be_resumed(me, make, tmp_path):
    """Another stack keeps our tickets and offers one: it gets a full handshake, and is judged again."""
    (tmp_path / "chain.pem").write_bytes(b"".join(i.x509.public_bytes(Encoding.PEM) for i in me.chain))
    from cryptography.hazmat.primitives.serialization import NoEncryption, PrivateFormat

    key = me.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "key.pem").write_bytes(key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.load_cert_chain(tmp_path / "chain.pem", tmp_path / "key.pem")
    context.set_alpn_protocols(["autolink/1"])
    ours = server_context(me)

    def dial(sock, session):
        sock.settimeout(5)
        with context.wrap_socket(sock, session=session) as tls:
            assert tls.recv(1) == b"!"
            return tls.session, tls.session_reused

    async def once(session):
        a, b = make.sockets()
        results = []

        async def run() -> None:
            results.append(await anyio.to_thread.run_sync(dial, a, session))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run)
            stream = await secure_stream(b, ours, dialer=False)
            await stream.send(b"!")
            with pytest.raises(anyio.BrokenResourceError):
                await stream.receive()
            await stream.abort()
        return results[0]

    session, _ = await once(None)
    _, reused = await once(session)
    assert not reused


async def test_our_hello_offers_neither_early_data_nor_compression(me, make):
    """Read from the ClientHello itself: extensions 42 (early_data), 27 (compress_certificate), 41 (pre_shared_key)."""
    a, b = make.pipes()
    async with b, anyio.create_task_group() as tasks:
        tasks.start_soon(functools.partial(secure_stream, a, client_context(me), dialer=True))
        hello = await b.receive()
        tasks.cancel_scope.cancel()
    body = memoryview(hello)[9:]  # record header, handshake header
    position = 34 + 1 + body[34]  # version, random, session id
    position += 2 + int.from_bytes(body[position : position + 2])
    compressions = bytes(body[position + 1 : position + 1 + body[position]])
    position += 1 + len(compressions) + 2
    extensions = set()
    while position < len(body):
        extensions.add(int.from_bytes(body[position : position + 2]))
        position += 4 + int.from_bytes(body[position + 2 : position + 4])
    assert compressions == b"\0"
    assert {16, 43, 51} <= extensions  # ALPN, versions, key share: the parser above works
    assert not extensions & {27, 41, 42}


PROBE = """
import anyio, sys
sys.path[:0] = {path!r}
import warnings
from autolink.identity.credential import Credential
from autolink.transport import client_context, secure_stream, server_context
import socket

async def main():
    me = Credential.self_issued("acme")
    a, b = socket.socketpair()
    async def listen():
        stream = await secure_stream(b, server_context(me), dialer=False)
        await stream.aclose()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(listen)
        stream = await secure_stream(a, client_context(me), dialer=True)
        print(stream.info.version, stream.info.group)
        await stream.abort()
anyio.run(main, backend="trio")
"""


def test_sslkeylogfile_and_openssl_conf_are_ignored(tmp_path):
    """Rule 46's list: an environment variable must neither leak session keys nor choose another group."""
    log, conf = tmp_path / "keys.log", tmp_path / "openssl.cnf"
    conf.write_text(
        "openssl_conf = a\n[a]\nssl_conf = b\n[b]\nsystem_default = c\n[c]\nGroups = secp521r1\nMaxProtocol = TLSv1.2\n"
    )
    root = str(Path(autolink.__file__).parent.parent)
    run = subprocess.run(
        [sys.executable, "-c", PROBE.format(path=[root])],
        env=os.environ | {"SSLKEYLOGFILE": str(log), "OPENSSL_CONF": str(conf)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert run.stdout.split() == ["TLSv1.3", "X25519MLKEM768"], run.stderr
    assert not log.exists()


async def test_rsa_2048_from_others_is_accepted(me, make):
    other = make.Identity(make.issue("rsa", key=rsa.generate_private_key(65537, 2048)))
    dialler, listener = await make.handshake(*make.sockets(), client_context(other), server_context(me))
    assert listener.peer_chain == der(other)
    await dialler.abort()
    await listener.abort()


def test_a_key_that_is_not_the_leafs_is_our_own_error(me, make):
    wrong = make.Identity(*me.chain)
    wrong.private_key = ed25519.Ed25519PrivateKey.generate()
    from OpenSSL import SSL

    with pytest.raises(SSL.Error):
        server_context(wrong)


async def test_a_refusal_is_told_here_even_if_the_refused_one_is_gone(me, make):
    """It left before our alert did: that we refused it, and why, is what counts."""
    near, far = make.pipes()
    send, sent = near.send, []

    async def gone_after_the_first(item):
        sent.append(item)
        if len(sent) > 1:
            raise anyio.BrokenResourceError
        await send(item)

    near.send = gone_after_the_first
    judge, _ = await make.handshake(
        near, far, client_context(me), server_context(me), expect=lambda chain: "somebody else"
    )
    assert isinstance(judge, Refused)
    assert (judge.reason, judge.by) == (Reason.WRONG_PEER, "us")
