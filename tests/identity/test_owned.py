"""What others may have done to the files of an identity: what is not ours alone is not used."""

import os
from datetime import datetime
from pathlib import Path

import pytest

from autolink.errors import KeystoreError
from autolink.identity import Credential, Keystore

from .conftest import SECRET


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
