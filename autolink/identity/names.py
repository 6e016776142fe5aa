"""Common names: which are allowed, and how a self-issued one commits to its key.

The AutoId hashes a name's raw bytes, so a name has exactly one form. Upstream's derivation has no domain
separation: a root named ``<32 raw bytes of an issuer's id>x`` would have the id of "x" below that issuer.
Hence the lengths: a plain self-issued name has at most 32 bytes and can never reach 32 + 1, and a bound one
ends in 130 bits of a hash over its own key, which nobody can aim at.

A *bound* name is ``label~suffix``. The suffix is BLAKE2b-256 over the first key and the hash of the key that
may follow it, so the name, and through it the AutoId, certifies itself and everything issued below it,
without any registry. The hash of the next key is SHA-256 over its SPKI DER and stands in the certificate.
"""

import base64
import hashlib
import unicodedata
from typing import Final

from autolink import limits
from autolink.errors import IdentityError, display

SEPARATOR: Final = "~"
PLAIN_BYTES: Final = 32
"""Longest plain self-issued name: issuer_id ‖ name is at least one byte longer."""

_LABEL: Final = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-")
_SUFFIX: Final = frozenset("abcdefghijklmnopqrstuvwxyz234567")
_SUFFIX_LENGTH: Final = 26
_PREFIX: Final = b"autolink/1 bound-name\0"

_LATER: Final = (
    (0x557, 0x558), (0x58b, 0x58c), (0x5c8, 0x5cf), (0x88f, 0x897), (0xb4e, 0xb54), (0xc5b, 0xc5c),
    (0xcd7, 0xcdc), (0xcf3, 0xcff), (0xece, 0xecf), (0x1acf, 0x1aff), (0x1b4d, 0x1b4f), (0x1b7f, 0x1b7f),
    (0x1c89, 0x1c8f), (0x208f, 0x208f), (0x209d, 0x209f), (0x20c1, 0x20cf), (0x2427, 0x243f), (0x2b96, 0x2b96),
    (0x2e5e, 0x2e7f), (0x2ffc, 0x3000), (0x31e4, 0x31ef), (0xa7cb, 0xa7cf), (0xa7d2, 0xa7d2), (0xa7d4, 0xa7d4),
    (0xa7da, 0xa7f1), (0xab6c, 0xab6f), (0xfbc3, 0xfbd2), (0xfd90, 0xfd91), (0xfdc8, 0xfdce),
    (0x105bd, 0x105ff), (0x107bb, 0x107ff), (0x10940, 0x1097f), (0x10d3a, 0x10e5f), (0x10eb2, 0x10eff),
    (0x1123f, 0x1127f), (0x11375, 0x113ff), (0x116ca, 0x116ff), (0x11af9, 0x11bff), (0x11daa, 0x11edf),
    (0x11ef9, 0x11faf), (0x1246f, 0x1246f), (0x12475, 0x1247f), (0x12544, 0x12f8f), (0x1342f, 0x143ff),
    (0x14647, 0x167ff), (0x16b90, 0x16e3f), (0x16e9b, 0x16eff), (0x16ff2, 0x16fff), (0x187f8, 0x187ff),
    (0x18cd6, 0x18cff), (0x18d09, 0x1afef), (0x1b123, 0x1b14f), (0x1b153, 0x1b163), (0x1b168, 0x1b16f),
    (0x1bca0, 0x1ceff), (0x1d127, 0x1d128), (0x1d1eb, 0x1d1ff), (0x1d246, 0x1d2df), (0x1d6a6, 0x1d6a7),
    (0x1dab0, 0x1deff), (0x1df1f, 0x1dfff), (0x1e02b, 0x1e0ff), (0x1e300, 0x1e7df), (0x1f1ae, 0x1f1e5),
    (0x1f6d8, 0x1f6dc), (0x1f774, 0x1f77f), (0x1f7d9, 0x1f7df), (0x1f7f1, 0x1f7ff), (0x1f8b2, 0x1f8ff),
    (0x1fa54, 0x1fa5f), (0x1fa75, 0x1fa77), (0x1fa87, 0x1fa8f), (0x1faad, 0x1faaf), (0x1fabb, 0x1fabf),
    (0x1fac6, 0x1facf), (0x1fada, 0x1fadf), (0x1fae8, 0x1faef), (0x1faf7, 0x1faff), (0x1fbcb, 0x1fbef),
    (0x1fbfa, 0x1ffff), (0x2b739, 0x2b73f), (0x2b81e, 0x2b81f), (0x2cea2, 0x2ceaf), (0x2ebe1, 0x2f7ff),
    (0x3134b, 0xe00ff),
)  # fmt: skip
"""First and last of where Unicode had nothing in version 14.0, and has had something since (up to 18.0). Each Python has the
tables of its time, and an audit must find right what a registry has taken, whatever Python either has."""


def check_common_name(cn: str, *, issued: bool) -> None:
    """Refuse a name that no certificate of ours may carry.

    Raises:
        IdentityError: it is empty, too long, not in Unicode's form NFC, holds a control, formatting or private
            character, one that Unicode 14.0 did not have, or a space other than U+0020; or, self-issued, holds a `~`
            without being bound.
    """
    if not cn:
        raise IdentityError("a common name must not be empty")
    # Length first: everything after it costs in proportion.
    if len(cn) > limits.COMMON_NAME:
        raise IdentityError(f"common name {_quoted(cn)} is longer than {limits.COMMON_NAME} bytes")
    if not (cn.isascii() and cn.isprintable()):  # of ASCII that is every character that may stand in a name
        _check_characters(cn)
    size = len(cn.encode())
    if size > limits.COMMON_NAME:
        raise IdentityError(f"common name {_quoted(cn)} is longer than {limits.COMMON_NAME} bytes")
    if issued:
        return
    if SEPARATOR in cn:
        if split_bound(cn) is None:
            raise IdentityError(f"self-issued name {_quoted(cn)} holds a '~' but is not label~suffix")
    elif size > PLAIN_BYTES:
        raise IdentityError(f"plain self-issued name {_quoted(cn)} is longer than {PLAIN_BYTES} bytes")


def _check_characters(cn: str) -> None:
    odd = forbidden_in(cn)
    if odd is not None:
        raise IdentityError(
            f"common name {_quoted(cn)} holds U+{ord(odd):04X}, which is not allowed in names"
        )
    if not unicodedata.is_normalized("NFC", cn):
        raise IdentityError(f"common name {_quoted(cn)} is not in Unicode's form NFC")


def forbidden_in(text: str) -> str | None:
    """The first character that no name may hold, of whatever is named; None if there is none."""
    for character in text:
        later = any(first <= ord(character) <= last for first, last in _LATER)
        if later or (character != " " and unicodedata.category(character)[0] in "CZ"):
            return character
    return None


def _quoted(cn: str) -> str:
    return repr(display(cn, 80))


def bound_suffix(spki: bytes, next_key_hash: bytes) -> str:
    """26 lower-case base32 characters (130 bits) that commit to a key and to the key that may follow it.

    Args:
        spki: DER of the first key's SubjectPublicKeyInfo.
        next_key_hash: SHA-256 of the next key's SPKI DER.

    Raises:
        IdentityError: the hash is not 32 bytes.
    """
    if len(next_key_hash) != 32:
        raise IdentityError("the hash of a next key is 32 bytes")
    digest = hashlib.blake2b(_PREFIX + spki + next_key_hash, digest_size=32).digest()
    return base64.b32encode(digest).decode().lower()[:_SUFFIX_LENGTH]


def make_bound(label: str, spki: bytes, next_key_hash: bytes) -> str:
    """The bound name ``label~suffix``.

    Raises:
        IdentityError: the label is not 1 to 32 of ``a-z0-9-``.
    """
    if not _is_label(label):
        raise IdentityError(
            f"label {display(label, 80)!r} must be 1 to 32 of a-z, 0-9 and '-' (or make the name plain)"
        )
    return label + SEPARATOR + bound_suffix(spki, next_key_hash)


def split_bound(cn: str) -> tuple[str, str] | None:
    """Label and suffix of a name that has the bound form; None for any other. Says nothing about its key."""
    label, separator, suffix = cn.partition(SEPARATOR)
    well_formed = (
        separator and _is_label(label) and len(suffix) == _SUFFIX_LENGTH and _SUFFIX.issuperset(suffix)
    )
    return (label, suffix) if well_formed else None


def is_bound_to(cn: str, spki: bytes, next_key_hash: bytes | None) -> bool:
    """Whether a name has the bound form and commits to exactly this key and next key."""
    parts = split_bound(cn)
    return parts is not None and next_key_hash is not None and parts[1] == bound_suffix(spki, next_key_hash)


def show_name(name: str) -> str:
    """A name fit to show to a person: a bound suffix shortened, and mixed scripts given away by their code
    points. A slash in it is shown as its code point too: shown paths have one between two names."""
    parts = split_bound(name)
    if parts:
        return f"{parts[0]}{SEPARATOR}{parts[1][:4]}…"
    shown = display(name).replace("/", "\\u{2f}")
    if name.isascii() or len(_scripts(name)) < 2:
        return shown
    return f"{shown} ({' '.join(f'U+{ord(character):04X}' for character in name[: limits.COMMON_NAME])})"


def _is_label(text: str) -> bool:
    return 1 <= len(text) <= 32 and _LABEL.issuperset(text)


def _scripts(name: str) -> set[str]:
    """The scripts of a name's letters and marks, by the first word of each character's Unicode name.

    The standard library has no script property. This word is LATIN, CYRILLIC, HIRAGANA and so on, and also
    COMBINING or VARIATION for marks that hide in a name: all of it is worth showing.
    """
    return {
        unicodedata.name(character, "?").split()[0]
        for character in name
        if unicodedata.category(character)[0] in "LM"
    }
