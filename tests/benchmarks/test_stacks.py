"""The neighbours that autolink is measured beside do what the suite asks of them, and refuse whom they can refuse.

Server and client share one event loop here, so a test sees what either does. What is not installed is skipped, aloud.
"""

import re
import shutil
import socket
import ssl
from contextlib import asynccontextmanager

import anyio
import pytest
import trio

from benchmarks import identities
from benchmarks.stacks import OURS, STACKS, bare
from benchmarks.stacks.plain import plain_identities

LIMIT = 25  # seconds of real time for one conversation: a bound, not a wait

NEIGHBOURS = sorted(set(STACKS) - {OURS})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("identities")
    identities.make(made)
    return made


@pytest.fixture(scope="module")
def intruders(tmp_path_factory, folder):
    """Its client trusts our server, and holds what our authority never signed."""
    made = tmp_path_factory.mktemp("intruders")
    identities.make(made)
    for ours, theirs in ((folder, made), (plain_identities(folder), plain_identities(made))):
        shutil.copy(ours / "root.pem", theirs / "root.pem")
    return made


def installed(name):
    stack = STACKS[name]
    if missing := stack.missing():
        pytest.skip(f"{name}: {missing}")
    return stack


@asynccontextmanager
async def served(stack, folder):
    """Where `stack` serves, while the block runs."""

    async def serve(*, task_status):
        await stack.serve(folder, task_status.started)

    async with anyio.create_task_group() as tasks:
        yield await tasks.start(serve)
        tasks.cancel_scope.cancel()


def conversation(name, folder, use):
    """Run `use(session)` against a server of the same stack, on the stack's own event loop."""
    stack = installed(name)

    async def main():
        with anyio.fail_after(LIMIT):
            async with served(stack, folder) as where, stack.session(folder, where) as session:
                await use(session)

    anyio.run(main, backend=stack.backend)


@pytest.mark.parametrize("name", NEIGHBOURS)
def test_a_stack_says_what_it_is_and_what_it_lacks(name):
    """So that no figure stands beside ours without its footnote."""
    stack = installed(name)
    assert stack.name == name
    assert re.search(r"\d", stack.version())
    assert stack.lacks
    assert stack.can <= {"handshake", "call", "message", "bulk"}


@pytest.mark.parametrize("name", NEIGHBOURS)
def test_concurrent_echoes_come_back_each_with_its_own_body(name, folder):
    """32 tasks share one session and get no other's answer."""

    async def use(session):
        async def ask(number):
            body = b"%d" % number * 50
            assert await session.echo(body) == body

        assert await session.echo(b"alone") == b"alone"
        async with anyio.create_task_group() as tasks:
            for number in range(32):
                tasks.start_soon(ask, number)

    conversation(name, folder, use)


@pytest.mark.parametrize("name", NEIGHBOURS)
def test_the_receiver_counts_what_is_pumped(name, folder):
    """Every message of every pump arrives, and the session still answers."""
    if "message" not in installed(name).can:
        pytest.skip(f"{name} has no one-way messages")

    many = 90 if name == "nats" else 5  # it alone confirms on the way, every 4,096 messages

    async def use(session):
        for rounds in (many, 3):
            left = iter([True] * rounds + [False])
            assert await session.pump(b"m" * 100, lambda left=left: next(left)) == rounds * 100
        assert await session.echo(b"after") == b"after"

    conversation(name, folder, use)


@pytest.mark.parametrize("name", NEIGHBOURS)
def test_a_bulk_transfer_ends_with_the_receivers_confirmation(name, folder):
    """2 MiB and one byte, which no size of piece divides: `bulk` raises when the receiver counts less."""
    if "bulk" not in installed(name).can:
        pytest.skip(f"{name} has no bulk transfer")

    async def use(session):
        await session.bulk(2 * 2**20 + 1)
        await session.bulk(1)

    conversation(name, folder, use)


@pytest.mark.parametrize("name", NEIGHBOURS)
def test_two_sessions_are_two_connections(name, folder):
    """No pool hands the second session the first one's connection, and with it its handshake."""
    psutil = pytest.importorskip("psutil")
    stack = installed(name)
    if "handshake" not in stack.can:
        pytest.skip(f"{name} has no connections that last")

    def connected(port):
        return [
            one for one in psutil.Process().net_connections("tcp") if one.raddr and one.raddr.port == port
        ]

    async def main():
        with anyio.fail_after(LIMIT):
            async with served(stack, folder) as where:
                port = int(re.search(r"(?:/tcp/|:)(\d+)", where)[1])
                before = len(connected(port))
                async with stack.session(folder, where) as first, stack.session(folder, where) as second:
                    await first.echo(b"1")
                    await second.echo(b"2")
                    assert len(connected(port)) == before + 2

    anyio.run(main, backend=stack.backend)


def refusal(name, folder, client_folder):
    """What a client with the identities of another folder meets: the exception, out of its groups."""
    stack = installed(name)
    met = []

    async def main():
        with anyio.fail_after(LIMIT):
            async with served(stack, folder) as where:
                try:
                    async with stack.session(client_folder, where) as session:
                        await session.echo(b"let me in")
                except Exception as error:
                    met.append(error)

    anyio.run(main, backend=stack.backend)
    (error,) = met
    while isinstance(error, ExceptionGroup):
        (error,) = error.exceptions
    return error


def cut_off(name):
    """What a refused client of this stack raises. None is a TimeoutError: it was told, or its connection ended."""
    if name == "grpcio":
        return (pytest.importorskip("grpc").aio.AioRpcError,)
    if name == "nats":
        return ConnectionError, ssl.SSLError, pytest.importorskip("nats").errors.UnexpectedEOF
    if name == "slim":
        return (pytest.importorskip("slim_bindings").SlimError.ServiceError,)
    return ConnectionError, ssl.SSLError, trio.BrokenResourceError


@pytest.mark.parametrize("name", ["asyncio+ssl", "grpcio", "nats", "slim", "trio.SSLStream"])
def test_a_client_of_another_authority_is_refused(name, folder, intruders):
    """It differs from the client that is served in who signed its certificate, and in nothing else."""
    installed(name)
    if name == "nats":
        share_nkeys(folder, intruders)
    assert isinstance(refusal(name, folder, intruders), cut_off(name))


def share_nkeys(folder, intruders):
    from benchmarks.stacks import nats_server

    for holder in ("server", "client"):
        nats_server.seed(folder, holder)
        shutil.copy(folder / f"{holder}.nkey", intruders / f"{holder}.nkey")


HTTP2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
FIRST_WORDS = {
    "asyncio+ssl": bare.frame(bare.CALL, 0, b"hello"),
    "grpcio": HTTP2_PREFACE,
    "slim": HTTP2_PREFACE,
    "trio.SSLStream": bare.frame(bare.CALL, 0, b"hello"),
}


@pytest.mark.parametrize("name", FIRST_WORDS)
def test_only_a_client_with_a_certificate_is_answered(name, folder):
    """Where TLS begins with the first byte, a plain TLS client can ask: with a certificate it is answered, without not."""
    stack = installed(name)

    def is_answered(where, context):
        with (
            socket.create_connection(bare.address(where), LIMIT) as plain,
            context.wrap_socket(plain) as secure,
        ):
            try:
                secure.sendall(FIRST_WORDS[name])
                return bool(secure.recv(1))
            except (ssl.SSLError, ConnectionError):
                return False

    async def main():
        with anyio.fail_after(LIMIT):
            async with served(stack, folder) as where:
                held = plain_identities(folder) if name == "slim" else folder
                context = ssl.create_default_context(cafile=held / "root.pem")
                context.check_hostname = False
                context.set_alpn_protocols(["h2"])
                assert not await anyio.to_thread.run_sync(is_answered, where, context)
                context.load_cert_chain(held / "client.chain.pem", held / "client.key.pem")
                assert await anyio.to_thread.run_sync(is_answered, where, context)

    anyio.run(main, backend=stack.backend)


def test_nats_refuses_an_nkey_that_is_not_listed(tmp_path, folder):
    """A certificate of the right authority is not enough: the client proves its nkey, too."""
    stranger = tmp_path / "stranger"
    installed("nats")
    shutil.copytree(plain_identities(folder), stranger / "plain")
    assert "Authorization Violation" in repr(refusal("nats", folder, stranger))


def test_zeromq_lets_no_key_in_that_is_not_listed(folder, tmp_path):
    """libzmq tells the application nothing of it, but its monitor does: ZAP's status was 400."""
    stack = installed("pyzmq CURVE")
    import zmq.asyncio
    from zmq.utils.monitor import recv_monitor_message

    from benchmarks.stacks import zmq_curve

    async def main():
        with anyio.fail_after(LIMIT):
            async with served(stack, folder) as where:
                with zmq.asyncio.Context.instance().socket(zmq.DEALER) as dealer:
                    dealer.linger = 0
                    dealer.curve_publickey, dealer.curve_secretkey = zmq_curve.keys(tmp_path, "client")
                    dealer.curve_serverkey, _ = zmq_curve.keys(folder, "server")
                    outcomes = zmq.Event.HANDSHAKE_SUCCEEDED | zmq.Event.HANDSHAKE_FAILED_AUTH
                    with dealer.get_monitor_socket(outcomes) as monitor:
                        dealer.connect(f"tcp://{where}")
                        met = await recv_monitor_message(monitor)
                        dealer.disable_monitor()
        assert (met["event"], met["value"]) == (zmq.Event.HANDSHAKE_FAILED_AUTH, 400)

    anyio.run(main, backend=stack.backend)


def test_libp2p_finds_out_that_it_is_not_the_peer_it_dialled(folder):
    """The one refusal that it has to offer: the server's id is part of its address."""
    stack = installed("py-libp2p")
    from libp2p.crypto.ed25519 import create_new_key_pair
    from libp2p.network.exceptions import SwarmException
    from libp2p.peer.id import ID

    async def main():
        with anyio.fail_after(LIMIT):
            async with served(stack, folder) as where:
                other = ID.from_pubkey(create_new_key_pair().public_key)
                address, _, _ = where.rpartition("/")
                with pytest.RaisesGroup(SwarmException, flatten_subgroups=True):
                    async with stack.session(folder, f"{address}/{other}"):
                        pytest.fail("it connected")

    anyio.run(main, backend=stack.backend)
