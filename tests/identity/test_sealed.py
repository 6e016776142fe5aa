"""A private key at rest: sealed under a passphrase, and nothing of the file can be changed."""

import errno
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autolink.errors import IdentityError, KeystoreError
from autolink.identity import Credential, KeyType, keys, load_key, save_key, sealed

from .conftest import CHEAP, SECRET


@pytest.mark.parametrize("kind", [KeyType.P256, KeyType.ED25519, KeyType.ML_DSA_65])
def test_every_kind_of_key_survives_being_sealed(kind: KeyType) -> None:
    key = keys.generate(kind)
    again = sealed.unseal(sealed.seal(key, SECRET, scrypt_n=CHEAP), SECRET)
    assert keys.spki(again.public_key()) == keys.spki(key.public_key())


def test_rule_14_a_guess_at_the_passphrase_costs_64_mib_and_a_fifth_of_a_second(acme: Credential) -> None:
    """The real cost, once. Below 0.1 s even a machine of some years hence would be a surprise worth a look."""
    assert 128 * sealed.SCRYPT_N * 8 >= 64 * 1024 * 1024
    started = time.process_time()
    content = sealed.seal(acme.private_key, SECRET)
    assert time.process_time() - started > 0.1
    assert json.loads(content)["n"] == sealed.SCRYPT_N
    assert keys.spki(sealed.unseal(content, SECRET).public_key()) == acme.leaf.spki


def test_a_passphrase_is_the_same_typed_on_another_system(acme: Credential) -> None:
    """One keyboard sends é as one code point, another as two."""
    content = sealed.seal(acme.private_key, "caf\u00e9", scrypt_n=CHEAP)
    sealed.unseal(content, "cafe\u0301")


SEALED = sealed.seal(keys.generate(KeyType.P256), SECRET, scrypt_n=CHEAP)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("format", "autolink-key/2"),
        ("kdf", "none"),
        ("n", CHEAP * 2),
        ("n", 2**40),
        ("n", 0),
        ("n", 17),
        ("n", True),
        ("n", "16"),
        ("r", 1),
        ("p", 2),
        ("salt", "00" * 32),
        ("salt", 5),
        ("aead", "none"),
        ("nonce", "00" * 12),
        ("nonce", "zz"),
        ("key_sha256", "00" * 32),
        ("sealed", ""),
        ("sealed", "not base64"),
        ("extra", 1),
    ],
)
def test_no_field_of_a_key_file_can_be_changed(field: str, value: Any) -> None:
    """Each is authenticated, or known beforehand; an enormous cost is refused before it is paid."""
    with pytest.raises(KeystoreError):
        sealed.unseal(json.dumps({**json.loads(SEALED), field: value}).encode(), SECRET)


@given(st.binary(max_size=300) | st.integers(0, len(SEALED) - 2).map(lambda size: SEALED[:size]))
def test_any_other_bytes_are_no_key_file(data: bytes) -> None:
    with pytest.raises(IdentityError):
        sealed.unseal(data, SECRET)


def test_a_deeply_nested_key_file_is_malformed() -> None:
    with pytest.raises(KeystoreError, match="malformed"):
        sealed.unseal(b"[" * 30_000, SECRET)


# --- the next key ------------------------------------------------------------------------------------------


def test_the_next_key_goes_to_a_file_of_its_own(acme: Credential, tmp_path: Path) -> None:
    assert acme.next_key is not None
    path = tmp_path / "acme.next"
    save_key(path, acme.next_key, None, unencrypted=True)
    assert path.stat().st_mode & 0o777 == 0o600
    assert keys.hash_of_key(load_key(path, None).public_key()) == acme.leaf.next_key_hash
    with pytest.raises(KeystoreError, match="never written over"):
        save_key(path, acme.next_key, None, unencrypted=True)
    with pytest.raises(KeystoreError, match="cannot be written"):
        save_key(tmp_path / "no" / "folder", acme.next_key, None, unencrypted=True)
    assert list(tmp_path.iterdir()) == [path]


def test_a_next_key_is_kept_on_a_stick_which_has_no_hard_links(
    acme: Credential, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As FAT answers. A file that is there stays, and nothing is left where the key could not be written."""
    path = tmp_path / "acme.next-key"

    def none(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", none)
    with monkeypatch.context() as failing:
        failing.setattr(os, "replace", none)
        with pytest.raises(KeystoreError, match="cannot be written"):
            save_key(path, acme.private_key, None, unencrypted=True)
    assert list(tmp_path.iterdir()) == []
    save_key(path, acme.private_key, None, unencrypted=True)
    before = path.read_bytes()
    assert (path.stat().st_mode & 0o777, list(tmp_path.iterdir())) == (0o600, [path])
    with pytest.raises(KeystoreError, match="never written over another file"):
        save_key(path, keys.generate(KeyType.P256), None, unencrypted=True)
    assert (path.read_bytes(), list(tmp_path.iterdir())) == (before, [path])


def test_a_key_file_that_is_none_says_which(tmp_path: Path) -> None:
    path = tmp_path / "acme.next"
    with pytest.raises(KeystoreError, match=r"acme\.next cannot be read"):
        load_key(path, SECRET)
    path.write_bytes(SEALED)
    assert keys.key_type(load_key(path, SECRET).public_key()) is KeyType.P256
    with pytest.raises(KeystoreError, match=r"acme\.next: wrong passphrase"):
        load_key(path, "wrong")
