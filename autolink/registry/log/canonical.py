"""Numbers and bytes as the log's texts write them: each in one form only, so that no text has a second one.

Python's own readers take much more: `int` takes spaces, signs, underscores and the digits of every script, and a base64
decoder any bits behind the last byte.
"""

import base64
from typing import Final

from autolink import limits
from autolink.errors import RemoteProtocolError
from autolink.messages.merkle import HASH

_DIGITS: Final = len(str(limits.LOG_ENTRIES))


def decimal_untrusted(text: str, what: str) -> int:
    """An ASCII decimal without a sign or leading zeros, at most `limits.LOG_ENTRIES`.

    Raises:
        RemoteProtocolError: it is none; the text begins with `what`.
    """
    plain = text.isascii() and text.isdigit() and len(text) <= _DIGITS
    if plain and (text == "0" or text[0] != "0") and int(text) <= limits.LOG_ENTRIES:
        return int(text)
    raise RemoteProtocolError(f"{what}: not a decimal from 0 to {limits.LOG_ENTRIES} without leading zeros")


def base64_text(data: bytes) -> str:
    """The one base64 form (RFC 4648, section 4): padded, on one line."""
    return base64.b64encode(data).decode()


def base64_untrusted(text: str, what: str) -> bytes:
    """What `base64_text` made the text of.

    Raises:
        RemoteProtocolError: nothing did; the text begins with `what`.
    """
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError:  # binascii.Error, or not ASCII
        data = b""
    if base64_text(data) != text:
        raise RemoteProtocolError(f"{what}: not base64 in its one form")
    return data


def hash_untrusted(text: str, what: str) -> bytes:
    """A SHA-256 hash in base64.

    Raises:
        RemoteProtocolError: it is none; the text begins with `what`.
    """
    data = base64_untrusted(text, what)
    if len(data) != HASH:
        raise RemoteProtocolError(f"{what}: not {HASH} bytes")
    return data
