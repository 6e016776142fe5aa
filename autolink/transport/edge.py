"""The one edge where errors of OpenSSL and of the socket become ours.

| what OpenSSL or the kernel says | what it means | what we raise |
| --- | --- | --- |
| ZeroReturnError | close_notify: the peer ended its direction | EndOfStream |
| SysCallError -1 | the end without close_notify: truncation, never a clean end | BrokenResourceError |
| SysCallError, OSError | ECONNRESET, EPIPE, ETIMEDOUT ... | BrokenResourceError |
| an alert about a certificate | it refused us; read after the handshake by a dialer | Refused by peer |
| another alert, anything else | its TLS gave up, or its bytes (perhaps no TLS) made ours give up | RemoteProtocolError |
| Error with no arguments | the connection failed before, and OpenSSL says no more | BrokenResourceError |
"""

import os
from typing import Final

import anyio
from OpenSSL import SSL

from autolink.errors import Reason, Refused, RemoteProtocolError, display

_ALERT_REASONS: Final = {
    "bad certificate": Reason.UNTRUSTED,
    "unsupported certificate": Reason.UNTRUSTED,
    "certificate revoked": Reason.REVOKED,
    "certificate expired": Reason.EXPIRED,
    "certificate unknown": Reason.UNTRUSTED,
    "unknown ca": Reason.UNTRUSTED,
    "access denied": Reason.UNTRUSTED,
    "decrypt error": Reason.UNTRUSTED,
    "certificate required": Reason.UNTRUSTED,
    "no application protocol": Reason.VERSION,
    "protocol version": Reason.VERSION,
    "internal error": Reason.INTERNAL,
}
"""Alerts by which a peer refuses us (RFC 8446, section 6.2), without OpenSSL's ``tlsv1 alert``."""

_ALERT_DETAILS: Final = {
    "no application protocol": "it does not speak autolink/1 (ALPN)",
    "protocol version": "it speaks no TLS 1.3",
}
"""What an alert says beyond its reason."""

_NO_TLS: Final = frozenset({"wrong version number", "http request", "https proxy request"})
"""OpenSSL's words for the bytes of another protocol."""

_OUR_REFUSALS: Final = {
    "peer did not return a certificate": (Reason.MALFORMED, "it shows no certificate"),
    "bad signature": (Reason.IMPOSTOR, "it does not hold the key of its certificate"),
    "wrong signature type": (Reason.MALFORMED, "it signs with a scheme that its certificate does not allow"),
}
"""What OpenSSL refuses about a peer on its own, after the verify callback."""


def translate(error: SSL.Error | OSError, peer: str) -> Exception:
    """Our exception for an error of OpenSSL or of the socket; `peer` is for the text."""
    match error:
        case SSL.ZeroReturnError():
            return anyio.EndOfStream()
        case SSL.SysCallError(args=(int(number), *_)) if number > 0:
            return anyio.BrokenResourceError(os.strerror(number))
        case SSL.SysCallError():
            return anyio.BrokenResourceError("the connection was cut: it ended without close_notify")
        case OSError():
            return anyio.BrokenResourceError(error.strerror or type(error).__name__)
    reason = _reason(error)
    if not reason:
        return anyio.BrokenResourceError("TLS failed before")
    if reason in _OUR_REFUSALS:
        ours, detail = _OUR_REFUSALS[reason]
        return Refused(ours, by="us", peer=peer, detail=detail)
    _, alert, description = reason.partition(" alert ")
    if alert and description in _ALERT_REASONS:
        detail = _ALERT_DETAILS.get(description, "")
        return Refused(_ALERT_REASONS[description], by="peer", peer=peer, detail=detail)
    if reason in _NO_TLS:
        reason = f"what came is no TLS, perhaps HTTP ({reason})"
    return RemoteProtocolError(f"TLS with {display(peer) or 'the peer'} failed: {reason}")


def _reason(error: SSL.Error) -> str:
    """OpenSSL's reason for `error`: its own text, never the peer's. Empty when it gave none.

    The queue also holds what happened below TLS, before it, and generalities, behind it.
    """
    queue = error.args[0] if error.args else ()
    return next((str(reason) for library, _, reason in queue if library == "SSL routines"), "")
