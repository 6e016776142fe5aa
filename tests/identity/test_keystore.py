"""Identities on disk: only their owner reads them, nothing is ever half there, and every refusal says why."""

import base64
import errno
import json
import os
import resource
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autolink.errors import IdentityError, KeystoreError
from autolink.identity import (
    Credential,
    CredentialRequest,
    EntityKind,
    Keystore,
    KeyType,
    default_home,
    environment_passphrase,
    keys,
    keystore,
    load_key,
    save_key,
    sealed,
)

CHEAP = 16
"""An scrypt cost for tests; one test below uses the real one."""

SECRET = "correct horse"


@pytest.fixture
def store(tmp_path: Path) -> Keystore:
    return Keystore(tmp_path / "home", scrypt_n=CHEAP)


@pytest.fixture
def entry(store: Keystore, acme: Credential) -> Path:
    store.save_new("acme", acme, passphrase=SECRET)
    return store.folder("acme")


def test_an_identity_is_loaded_as_it_was_saved(store: Keystore, acme: Credential, entry: Path) -> None:
    loaded = store.load("acme", passphrase=SECRET)
    assert (loaded.chain, loaded.peer_id, loaded.folder) == (acme.chain, acme.peer_id, entry)
    keys.verify(acme.leaf.public_key, loaded.sign(b"data"), b"data")
    assert store.names() == ("acme",)
    assert store.chain("acme") == acme.chain


@pytest.mark.parametrize("kind", [KeyType.P256, KeyType.ED25519, KeyType.ML_DSA_65])
def test_every_kind_of_key_survives_being_sealed(kind: KeyType) -> None:
    key = keys.generate(kind)
    again = sealed.unseal(sealed.seal(key, SECRET, scrypt_n=CHEAP), SECRET)
    assert keys.spki(again.public_key()) == keys.spki(key.public_key())


def test_files_and_folders_are_the_owners_alone_whatever_the_umask(store: Keystore, acme: Credential) -> None:
    before = os.umask(0)
    try:
        store.save_new("acme", acme, passphrase=SECRET)
    finally:
        os.umask(before)
    folder = store.folder("acme")
    modes = {path.name: path.stat().st_mode & 0o777 for path in (folder.parent, folder, *folder.iterdir())}
    assert modes == {
        "identities": 0o700,
        "acme": 0o700,
        "key": 0o600,
        "chain.pem": 0o600,
        "unused-since": 0o600,
    }


def test_rule_14_a_guess_at_the_passphrase_costs_64_mib_and_a_fifth_of_a_second(acme: Credential) -> None:
    """The real cost, once. Below 0.1 s even a machine of some years hence would be a surprise worth a look."""
    assert 128 * sealed.SCRYPT_N * 8 >= 64 * 1024 * 1024
    started = time.process_time()
    content = sealed.seal(acme.private_key, SECRET)
    assert time.process_time() - started > 0.1
    assert json.loads(content)["n"] == sealed.SCRYPT_N
    assert keys.spki(sealed.unseal(content, SECRET).public_key()) == acme.leaf.spki


def test_rule_14_the_key_is_nowhere_in_the_clear(entry: Path, acme: Credential) -> None:
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    der = acme.private_key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    stored = (entry / "key").read_bytes()
    assert b"PRIVATE" not in stored
    assert der not in base64.b64decode(json.loads(stored)["sealed"])


def test_a_wrong_or_missing_passphrase_says_so(store: Keystore, entry: Path) -> None:
    with pytest.raises(KeystoreError, match="acme: wrong passphrase"):
        store.load("acme", passphrase="wrong")
    with pytest.raises(KeystoreError, match="encrypted: give its passphrase"):
        store.load("acme")


def test_a_passphrase_is_the_same_typed_on_another_system(acme: Credential) -> None:
    """One keyboard sends é as one code point, another as two."""
    content = sealed.seal(acme.private_key, "caf\u00e9", scrypt_n=CHEAP)
    sealed.unseal(content, "cafe\u0301")


def test_a_key_is_stored_in_the_clear_only_when_that_is_spelled_out(
    store: Keystore, acme: Credential
) -> None:
    for passphrase, unencrypted in ((None, False), ("", False), ("", True), (SECRET, True)):
        with pytest.raises(KeystoreError, match="unencrypted=True"):
            store.save_new("acme", acme, passphrase=passphrase, unencrypted=unencrypted)
    assert store.names() == ()
    store.save_new("acme", acme, passphrase=None, unencrypted=True)
    assert b"BEGIN PRIVATE KEY" in (store.folder("acme") / "key").read_bytes()
    assert store.load("acme").peer_id == acme.peer_id
    assert store.load("acme", passphrase="not needed").peer_id == acme.peer_id


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


# --- names -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        ".hidden",
        "../acme",
        "a/b",
        "/etc",
        "a..b",
        "Acme",
        "a b",
        "a\0b",
        "-rf",
        "_a",
        "x" * 65,
        "ä",
        "a\n",
        "~",
    ],
)
def test_rule_46_a_name_cannot_leave_its_folder(store: Keystore, acme: Credential, name: str) -> None:
    for act in (
        lambda: store.save_new(name, acme, passphrase=SECRET),
        lambda: store.load(name, passphrase=SECRET),
        lambda: store.chain(name),
        lambda: store.folder(name),
    ):
        with pytest.raises(KeystoreError, match="cannot name an identity"):
            act()
    assert not store.home.exists()


def test_rule_46_the_longest_and_oddest_names_are_allowed(store: Keystore, acme: Credential) -> None:
    names = ("0", "a.b_c-d", "x" * 64)
    for name in names:
        store.save_new(name, acme, passphrase=SECRET)
    assert store.names() == names


def test_an_identity_that_is_not_there_is_named(store: Keystore, entry: Path) -> None:
    for missing in (store, Keystore(store.home / "elsewhere")):
        with pytest.raises(KeystoreError, match="nobody: there is no such identity"):
            missing.load("nobody", passphrase=SECRET)
    assert Keystore(store.home / "elsewhere").names() == ()


# --- what others may have done to the files ----------------------------------------------------------------


def refused(store: Keystore, text: str) -> None:
    with pytest.raises(KeystoreError, match=text) as raised:
        store.load("acme", passphrase=SECRET)
    assert str(store.folder("acme")) in str(raised.value)


@pytest.mark.parametrize("name", ["key", "chain.pem"])
def test_rule_46_a_file_that_is_a_link_is_not_read(store: Keystore, entry: Path, name: str) -> None:
    (entry / name).rename(entry / "real")
    (entry / name).symlink_to(entry / "real")
    refused(store, "a link or another kind of file")
    (entry / name).unlink()
    os.link(entry / "real", entry / name)
    refused(store, "second name")


@pytest.mark.parametrize("which", ["entry", "all"])
def test_rule_46_a_folder_that_is_a_link_is_not_entered(
    store: Keystore, entry: Path, acme: Credential, which: str
) -> None:
    folder = entry if which == "entry" else entry.parent
    folder.rename(store.home / "elsewhere")
    folder.symlink_to(store.home / "elsewhere")
    refused(store, "a link or another kind of file")
    before = sorted((store.home / "elsewhere").rglob("*"))
    with pytest.raises(KeystoreError):
        store.save_new("acme", acme, passphrase=SECRET)
    assert sorted((store.home / "elsewhere").rglob("*")) == before


@pytest.mark.parametrize(
    ("name", "mode"), [("key", 0o640), ("chain.pem", 0o604), (".", 0o750), ("..", 0o701)]
)
def test_rule_46_what_others_can_open_is_not_used(store: Keystore, entry: Path, name: str, mode: int) -> None:
    (entry / name).chmod(mode)
    refused(store, "open to other users")


def test_rule_46_what_belongs_to_another_user_is_not_used(
    store: Keystore, entry: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same folder seen by another user who could read it."""
    owner = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    refused(store, "belongs to another user")


def test_rule_46_a_pipe_in_place_of_a_file_does_not_hang(store: Keystore, entry: Path) -> None:
    (entry / "key").unlink()
    os.mkfifo(entry / "key", 0o600)
    refused(store, "no plain file")


def test_a_file_that_is_too_large_missing_or_somebody_elses_is_refused(
    store: Keystore, entry: Path, now: datetime
) -> None:
    chain = (entry / "chain.pem").read_bytes()
    (entry / "chain.pem").write_bytes(Credential.self_issued("other", now=now).leaf.pem)
    refused(store, "does not belong")
    (entry / "chain.pem").write_bytes(b"hello")
    refused(store, "malformed")
    (entry / "chain.pem").write_bytes(bytes(10**6))
    refused(store, "larger than")
    (entry / "chain.pem").write_bytes(chain)
    (entry / "key").unlink()
    refused(store, "No such file")


# --- atomicity ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", ["open", "mkdir", "fsync", "replace", "rename"])
def test_a_disk_that_fills_up_at_any_step_leaves_nothing_half(
    store: Keystore, acme: Credential, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """Every use of each call is made to fail in turn. What remains is the whole identity or none."""
    real, outcomes = getattr(os, call), []
    for fail_at in range(20):
        calls = iter(range(1000))

        def failing(*arguments: Any, calls: Any = calls, fail_at: int = fail_at, **options: Any) -> Any:
            if next(calls) == fail_at:
                raise OSError(errno.ENOSPC, "No space left on device")
            return real(*arguments, **options)

        name = f"acme{fail_at}"
        with monkeypatch.context() as patched:
            patched.setattr(os, call, failing)
            try:
                store.save_new(name, acme, passphrase=SECRET)
            except KeystoreError as error:
                outcomes.append("No space left" in str(error))
        if name in store.names():
            store.load(name, passphrase=SECRET)
        if store.folder(name).parent.exists():
            assert [
                path for path in store.folder(name).parent.iterdir() if path.name.startswith(".new")
            ] == []
    assert outcomes
    assert all(outcomes)
    assert len(outcomes) < 20


def test_a_file_size_limit_leaves_nothing_half(store: Keystore, acme: Credential) -> None:
    """The same by the kernel's own hand, in the middle of a file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        with pytest.raises(KeystoreError, match="File too large"):
            store.save_new("acme", acme, passphrase=SECRET)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(store.folder("acme").parent.iterdir()) == []


def test_of_many_threads_that_take_one_name_one_wins(store: Keystore, now: datetime) -> None:
    credentials = [Credential.self_issued("acme", now=now) for _ in range(8)]

    def save(credential: Credential) -> bool:
        with suppress(KeystoreError):
            store.save_new("acme", credential, passphrase=SECRET)
            return True
        return False

    with ThreadPoolExecutor(8) as pool:
        won = [
            credential
            for credential, saved in zip(credentials, pool.map(save, credentials), strict=True)
            if saved
        ]
    assert [credential.peer_id for credential in won] == [store.load("acme", passphrase=SECRET).peer_id]
    assert [path.name for path in store.folder("acme").parent.iterdir()] == ["acme"]


def test_of_two_processes_that_take_one_name_one_wins(store: Keystore) -> None:
    program = f"""
import sys
from pathlib import Path
from autolink.identity import Credential, Keystore
credential = Credential.self_issued("acme")
print("ready", flush=True)
sys.stdin.readline()
Keystore(Path({str(store.home)!r}), scrypt_n={CHEAP}).save_new("acme", credential, passphrase={SECRET!r})
print(credential.peer_id)
"""
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", program]
    both = [subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) for _ in range(2)]
    for process in both:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in both:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    results = [(*process.communicate(), process.returncode) for process in both]
    winners = [out.strip() for out, _, code in results if code == 0]
    assert winners == [str(store.load("acme", passphrase=SECRET).peer_id)]
    assert sum("this name is taken" in error for _, error, _ in results) == 1


def test_a_taken_name_is_not_written_over(
    store: Keystore, entry: Path, acme: Credential, now: datetime
) -> None:
    with pytest.raises(KeystoreError, match="acme: this name is taken"):
        store.save_new("acme", Credential.self_issued("acme", now=now), passphrase=SECRET)
    assert store.load("acme", passphrase=SECRET).peer_id == acme.peer_id
    (entry.parent / "file").write_text("")
    with pytest.raises(KeystoreError, match="taken"):
        store.save_new("file", acme, passphrase=SECRET)


# --- requests ----------------------------------------------------------------------------------------------


def test_a_request_waits_with_its_key_until_its_answer_is_accepted(
    store: Keystore, acme: Credential, now: datetime
) -> None:
    store.save_request("seller", CredentialRequest.new("seller"), passphrase=SECRET)
    assert store.names() == ("seller",)
    assert store.pending("seller")
    with pytest.raises(KeystoreError, match="no answer yet"):
        store.load("seller", passphrase=SECRET)
    with pytest.raises(KeystoreError, match="no answer yet"):
        store.chain("seller")
    asked = store.request("seller", passphrase=SECRET)
    chain = acme.issue(CredentialRequest.from_pem(asked.pem), kind=EntityKind.AGENT, now=now)
    store.accept("seller", chain)
    assert not store.pending("seller")
    assert store.load("seller", passphrase=SECRET).chain == chain


def test_a_request_can_be_shown_again_and_a_key_says_whether_it_is_sealed(
    store: Keystore, entry: Path
) -> None:
    """Neither needs the passphrase."""
    request = CredentialRequest.new("seller")
    store.save_request("seller", request, passphrase=None, unencrypted=True)
    assert store.request_pem("seller") == request.pem
    assert (store.is_encrypted("seller"), store.is_encrypted("acme")) == (False, True)
    with pytest.raises(KeystoreError, match="not requested here"):
        store.request_pem("acme")


def test_a_renewed_chain_for_the_same_key_replaces_the_old(
    store: Keystore, acme: Credential, seller: Credential, now: datetime
) -> None:
    store.save_new("seller", seller, passphrase=SECRET)
    renewed = acme.issue(
        CredentialRequest.from_key("seller", seller.private_key), kind=EntityKind.AGENT, now=now
    )
    store.accept("seller", renewed)
    assert store.load("seller", passphrase=SECRET).chain == renewed


def test_an_answer_for_another_key_or_none_at_all_is_not_accepted(
    store: Keystore, acme: Credential, seller: Credential
) -> None:
    store.save_request("seller", CredentialRequest.new("seller"), passphrase=SECRET)
    with pytest.raises(KeystoreError, match="seller: the chain is for another key"):
        store.accept("seller", seller.chain)
    with pytest.raises(IdentityError, match="not self-issued"):
        store.accept("seller", seller.chain[:1])
    with pytest.raises(IdentityError, match="1 to 4"):
        store.accept("seller", ())
    assert store.pending("seller")


def test_somebody_elses_request_is_not_stored(store: Keystore) -> None:
    received = CredentialRequest.from_pem(CredentialRequest.new("seller").pem)
    with pytest.raises(KeystoreError, match="somebody else"):
        store.save_request("seller", received, passphrase=SECRET)


# --- the next key, home and passphrase ---------------------------------------------------------------------


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


def test_a_key_file_that_is_none_says_which(tmp_path: Path) -> None:
    path = tmp_path / "acme.next"
    with pytest.raises(KeystoreError, match=r"acme\.next cannot be read"):
        load_key(path, SECRET)
    path.write_bytes(SEALED)
    assert keys.key_type(load_key(path, SECRET).public_key()) is KeyType.P256
    with pytest.raises(KeystoreError, match=r"acme\.next: wrong passphrase"):
        load_key(path, "wrong")


def test_home_is_autolink_home_or_the_platforms_place(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AUTOLINK_HOME", str(tmp_path))
    assert default_home() == tmp_path == Keystore().home
    monkeypatch.setenv("AUTOLINK_HOME", "")
    assert default_home().name == "autolink"
    assert default_home().is_absolute()


def test_rule_46_the_passphrase_leaves_the_environment_when_it_is_used(
    store: Keystore, entry: Path, acme: Credential, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that no child process inherits it; a second identity is still opened with it."""
    monkeypatch.setattr(keystore, "_passphrase", [])
    assert environment_passphrase() is None
    monkeypatch.setenv("AUTOLINK_PASSPHRASE", SECRET)
    for _ in range(2):
        assert Credential.load("acme", home=store.home).peer_id == acme.peer_id
        assert "AUTOLINK_PASSPHRASE" not in os.environ
    with pytest.raises(KeystoreError, match="wrong passphrase"):
        Credential.load("acme", home=store.home, passphrase="wrong")


def test_an_identity_knows_since_when_it_is_unused_until_it_is_marked_used(
    tmp_path: Path, acme: Credential
) -> None:
    """What lets a new agent take forwarded messages at once, and one that lost its memory of them not."""
    store = Keystore(tmp_path, scrypt_n=2)
    store.save_new("acme", acme, passphrase=None, unencrypted=True)
    loaded = store.load("acme")
    assert loaded.unused_since is not None
    assert abs((datetime.now(UTC) - loaded.unused_since).total_seconds()) < 600
    loaded.mark_used()
    assert loaded.unused_since is None
    assert store.load("acme").unused_since is None


def test_an_unreadable_time_of_arrival_counts_as_used(tmp_path: Path, acme: Credential) -> None:
    store = Keystore(tmp_path, scrypt_n=2)
    store.save_new("acme", acme, passphrase=None, unencrypted=True)
    (store.folder("acme") / "unused-since").write_bytes(b"\xffyesterday")
    assert store.load("acme").unused_since is None
