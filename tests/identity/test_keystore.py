"""Identities on disk: only their owner reads them, nothing is ever half there, and every refusal says why."""

import base64
import errno
import json
import os
import resource
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from autolink.errors import IdentityError, KeystoreError
from autolink.identity import (
    Credential,
    CredentialRequest,
    EntityKind,
    Keystore,
    default_home,
    environment_passphrase,
    keys,
    keystore,
)

from .conftest import CHEAP, SECRET


def test_an_identity_is_loaded_as_it_was_saved(store: Keystore, acme: Credential, entry: Path) -> None:
    loaded = store.load("acme", passphrase=SECRET)
    assert (loaded.chain, loaded.peer_id, loaded.folder) == (acme.chain, acme.peer_id, entry)
    keys.verify(acme.leaf.public_key, loaded.sign(b"data"), b"data")
    assert store.names() == ("acme",)
    assert store.chain("acme") == acme.chain


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
    asked = CredentialRequest.from_pem(store.request_pem("seller"))
    chain = acme.issue(asked, kind=EntityKind.AGENT, now=now)
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


# --- home, passphrase and time of arrival ------------------------------------------------------------------


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
