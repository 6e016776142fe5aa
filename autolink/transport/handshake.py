"""From a connection to a `SecureStream`: the TLS handshake, and what it may cost before anybody is judged.

A flight of the peer's is read, handed to OpenSSL and answered in one go each. What OpenSSL wants sent at the end of it stays
where it is: what is said next leaves with it (`SecureStream.say`).
"""

import socket
from contextlib import suppress

import anyio
from anyio.abc import ByteStream
from OpenSSL import SSL

from autolink import limits
from autolink.errors import Refused, RemoteProtocolError
from autolink.loop import running_loop
from autolink.transport import _openssl, tls
from autolink.transport.edge import translate
from autolink.transport.stream import SecureStream
from autolink.transport.wire import SocketWire, StreamWire, Wire


async def secure_stream(
    transport: socket.socket | ByteStream,
    context: SSL.Context,
    *,
    dialer: bool,
    expect: tls.Expect | None = None,
    peer: str = "",
) -> SecureStream:
    """As `handshake`, and everything of it is sent: a stream for one task that reads and one that writes.

    Raises:
        Refused, RemoteProtocolError, anyio.BrokenResourceError: as `handshake`.
    """
    stream = await handshake(transport, context, dialer=dialer, expect=expect, peer=peer)
    try:
        await stream.settle()
    except BaseException:
        await stream.abort()
        raise
    return stream


async def handshake(
    transport: socket.socket | ByteStream,
    context: SSL.Context,
    *,
    dialer: bool,
    expect: tls.Expect | None = None,
    peer: str = "",
    session: bytes = b"",
) -> SecureStream:
    """Do the TLS handshake over `transport` and own it from now on: it is closed if this does not succeed.

    Its last flight may not be sent yet: see `SecureStream.say`.

    Args:
        transport: a connected non-blocking socket, or any byte stream.
        context: `client_context` for the dialer, `server_context` for the listener.
        dialer: whether this side made the connection.
        expect: (dialer) sees the presented chain before our certificate is shown, returns an objection or
            None. Not asked where a session is resumed: no chain is shown then.
        peer: how to call the other side in errors, its address for instance.
        session: (dialer) of `SecureStream.take_session`, to be resumed if the listener still can.

    The caller bounds the time, limits.OPENING for all that comes before ACCEPT. A dialer's handshake
    succeeds before the listener has judged its certificate: its refusal arrives at the first `receive`.

    Raises:
        Refused: by us: what the verify callback refuses (see `tls`), a wrong ALPN, no certificate, no proof
            of the key; by the peer: its TLS sent an alert about our certificate or our ALPN.
        RemoteProtocolError: it does not speak TLS 1.3 as it should.
        anyio.BrokenResourceError: the connection was cut.
    """
    loop = running_loop()
    wire: Wire
    if isinstance(transport, socket.socket):
        wire = SocketWire(transport, loop, dialer=dialer)
    else:
        wire = StreamWire(transport, loop)
    verification = tls.Verification(dialer, expect)
    connection = _openssl.new_connection(context)
    connection.set_app_data(verification)
    if session:
        _openssl.offer_session(connection, session)
    try:
        try:
            await _handshake(connection, wire, dialer=dialer)
            if not verification.look_again(connection):
                raise SSL.Error  # its reason is in `verification`
        except (SSL.Error, OSError) as error:
            failure = _why(error, verification, peer)
            if not isinstance(failure, anyio.BrokenResourceError):
                with anyio.move_on_after(limits.REFUSAL_DRAIN):
                    await wire.drain()  # so that our alert arrives
            try:
                raise failure from error
            finally:
                del failure  # the frame would keep the traceback that keeps the frame
        chain = verification.chain or verification.presented(connection)
        return SecureStream(connection, wire, chain, loop, peer=peer)
    except BaseException:
        await wire.close()
        raise


def _why(error: SSL.Error | OSError, verification: tls.Verification, peer: str) -> Exception:
    if verification.refusal:
        reason, detail = verification.refusal
        return Refused(reason, by="us", peer=peer, detail=detail)
    failure = translate(error, peer)
    if isinstance(failure, anyio.EndOfStream) or (isinstance(error, SSL.SysCallError) and error.args[0] <= 0):
        return anyio.BrokenResourceError("the peer closed the connection during the handshake")
    return failure


async def _handshake(connection: SSL.Connection, wire: Wire, *, dialer: bool) -> None:
    left = limits.HANDSHAKE_RECORDS
    if dialer:
        connection.set_connect_state()
    else:
        connection.set_accept_state()
        left -= await wire.feed(connection, left)  # the dialer speaks first
    while True:
        try:
            done = _openssl.step_handshake(connection)
        except SSL.Error:
            # On memory BIOs an alert leaves only if somebody sends it. If it cannot leave, the error counts all the same.
            with suppress(OSError, anyio.BrokenResourceError, anyio.ClosedResourceError):
                await wire.flush(connection)
            raise
        if done:
            return  # what was fed behind the last flight is for the reader
        await wire.flush(connection)
        if left <= 0:
            raise RemoteProtocolError(f"a TLS handshake in more than {limits.HANDSHAKE_RECORDS} records")
        left -= await wire.feed(connection, left)
