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


def check_common_name(cn: str, *, issued: bool) -> None:
    """Refuse a name that no certificate of ours may carry.

    Raises:
        IdentityError: it is empty, too long, not in Unicode's form NFC, holds a control, formatting,
            unassigned or private character or a space other than U+0020; or, self-issued, holds a `~` without
            being bound.
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
    for character in cn:
        if character != " " and unicodedata.category(character)[0] in "CZ":
            raise IdentityError(
                f"common name {_quoted(cn)} holds U+{ord(character):04X}, which is not allowed in names"
            )
    if not unicodedata.is_normalized("NFC", cn):
        raise IdentityError(f"common name {_quoted(cn)} is not in Unicode's form NFC")


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
