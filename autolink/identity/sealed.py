"""A private key at rest: PKCS#8 DER under an AEAD, with the key of that stretched from a passphrase by
scrypt.

`cryptography` would write encrypted PKCS#8 with 2,048 rounds of PBKDF2, which an attacker's machine tries in
well under a millisecond; so that form is only read, never written. The file is one line of JSON. Everything
in it but the ciphertext is authenticated with it, so no field can be exchanged, and the key that comes out
must be the one whose fingerprint the file names.
"""

import base64
import json
import os
import secrets
import unicodedata
from typing import Any, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
)

from autolink import limits
from autolink.errors import IdentityError, KeystoreError, display
from autolink.identity import files
from autolink.identity.keys import PrivateKey, hash_of_key, key_type, load_private_key

SCRYPT_N: Final = 2**17
"""Cost of one guess, with r = 8: 128 MiB of memory (128 * n * r) and 0.2 to 0.6 seconds. (OWASP's advice for
scrypt.)"""

_SCRYPT_N_MOST: Final = 2**20
"""What a file may ask of us: 1 GiB."""

_R: Final = 8
_P: Final = 1
_PLAIN: Final = b"-----BEGIN "
_FORMAT: Final = "autolink-key/1"
_FIELDS: Final = frozenset({"format", "kdf", "n", "r", "p", "salt", "aead", "nonce", "key_sha256", "sealed"})
KEY_BYTES: Final = 32 * limits.KIB
"""Bytes of a key file that is read at all."""


def seal(
    key: PrivateKey, passphrase: str | None, *, unencrypted: bool = False, scrypt_n: int = SCRYPT_N
) -> bytes:
    """A private key as file content.

    Args:
        passphrase: None only together with `unencrypted`, which then writes plain PKCS#8 in PEM.

    Raises:
        KeystoreError: there is no passphrase and `unencrypted` was not asked for, or both are there.
    """
    if passphrase is None and unencrypted:
        return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    if not passphrase or unencrypted:
        raise KeystoreError("a private key is stored under a passphrase, or with unencrypted=True under none")
    nonce, salt = secrets.token_bytes(12), secrets.token_bytes(32)
    header = {
        "format": _FORMAT,
        "kdf": "scrypt",
        "n": scrypt_n,
        "r": _R,
        "p": _P,
        "salt": salt.hex(),
        "aead": "chacha20-poly1305",
        "nonce": nonce.hex(),
        "key_sha256": hash_of_key(key.public_key()).hex(),
    }
    plain = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    sealed = _aead(passphrase, salt, scrypt_n).encrypt(nonce, plain, _canonical(header))
    return _canonical({**header, "sealed": base64.b64encode(sealed).decode()}) + b"\n"


def is_sealed(data: bytes) -> bool:
    """Whether a key file needs its passphrase: all but plain PKCS#8 do."""
    return not data.startswith(_PLAIN)


def belongs_to(data: bytes, spki_sha256: bytes) -> bool:
    """Whether a key file says that it holds this key. What is wrong with one that does not, `unseal` finds out."""
    try:
        if not is_sealed(data):
            return hash_of_key(load_private_key(data, None).public_key()) == spki_sha256
        return bool(_header(data)["key_sha256"] == spki_sha256.hex())
    except (IdentityError, ValueError, RecursionError):
        return False


def unseal(data: bytes, passphrase: str | None) -> PrivateKey:
    """Read what `seal` wrote.

    Raises:
        KeystoreError: it is malformed, the passphrase is wrong or missing, or the key is not acceptable.
    """
    if not is_sealed(data):
        return load_private_key(data, None)
    if passphrase is None:
        raise KeystoreError("the private key is encrypted: give its passphrase")
    try:
        header = _header(data)
        sealed = base64.b64decode(header.pop("sealed"), validate=True)
        salt, nonce = bytes.fromhex(header["salt"]), bytes.fromhex(header["nonce"])
        aead = _aead(passphrase, salt, header["n"])
        plain = aead.decrypt(nonce, sealed, _canonical(header))
    except InvalidTag:
        raise KeystoreError("wrong passphrase, or the key file was changed") from None
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise KeystoreError(f"the key file is malformed ({type(error).__name__})") from None
    key: Any = load_der_private_key(plain, None)
    key_type(key.public_key())
    if hash_of_key(key.public_key()).hex() != header["key_sha256"]:
        raise KeystoreError("the key file names another key than it holds")
    loaded: PrivateKey = key
    return loaded


def save_key(
    path: str | os.PathLike[str], key: PrivateKey, passphrase: str | None, *, unencrypted: bool = False
) -> None:
    """Write a key to a file of its own, such as the next key on a medium that is kept elsewhere.

    Raises:
        KeystoreError: the file exists (a key is never overwritten), cannot be written, or see `seal`.
    """
    shown = display(os.fspath(path))
    try:
        files.write_atomic(os.fspath(path), seal(key, passphrase, unencrypted=unencrypted), replace=False)
    except FileExistsError:
        raise KeystoreError(f"{shown} exists: a key is never written over another file") from None
    except OSError as error:
        raise KeystoreError(f"{shown} cannot be written: {error.strerror}") from error


def load_key(path: str | os.PathLike[str], passphrase: str | None) -> PrivateKey:
    """Read a file that `save_key` wrote.

    Raises:
        KeystoreError: it cannot be read, or see `unseal`.
    """
    shown = display(os.fspath(path))
    try:
        return unseal(files.read_bounded(path, KEY_BYTES), passphrase)
    except OSError as error:
        raise KeystoreError(f"{shown} cannot be read: {error.strerror}") from error
    except IdentityError as error:
        raise KeystoreError(f"{shown}: {error}") from None


def _header(data: bytes) -> dict[str, Any]:
    header = json.loads(data)
    if type(header) is not dict or set(header) != _FIELDS:
        raise ValueError("other fields")
    n = header["n"]
    if (header["format"], header["kdf"], header["aead"]) != (_FORMAT, "scrypt", "chacha20-poly1305"):
        raise ValueError("another format")
    if (
        type(n) is not int
        or not 2 <= n <= _SCRYPT_N_MOST
        or n & (n - 1)
        or (header["r"], header["p"]) != (_R, _P)
    ):
        raise ValueError("another cost")
    return header


def _aead(passphrase: str, salt: bytes, scrypt_n: int) -> ChaCha20Poly1305:
    # NFC: the same passphrase typed on another system may arrive as other code points.
    secret = unicodedata.normalize("NFC", passphrase).encode(errors="surrogateescape")
    return ChaCha20Poly1305(Scrypt(salt=salt, length=32, n=scrypt_n, r=_R, p=_P).derive(secret))


def _canonical(header: dict[str, Any]) -> bytes:
    return json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
