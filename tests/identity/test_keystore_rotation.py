"""A stored identity goes on to its next key: whatever happens meanwhile, there is a chain and a key that belongs to it."""

import errno
import fcntl
import itertools
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from autolink.errors import IdentityError, KeystoreError
from autolink.identity import Credential, CredentialRequest, EntityKind, Keystore, keys, owned, sealed
from autolink.registry import making
from autolink.registry.log.note import VerifierKey

from .conftest import SECRET

OLD, NEW = SECRET, "battery staple"
CALLS = ("open", "fsync", "replace")
"""What changes the disk in a rotation."""


def following(credential: Credential, now: datetime) -> Credential:
    assert credential.next_key is not None
    return credential.rotate(credential.next_key, now=now)


def test_a_rotated_identity_takes_the_place_of_the_one_before(
    store: Keystore, entry: Path, acme: Credential, now: datetime
) -> None:
    """Under the same name, with the agent's state where it was, and without the old key."""
    (entry / "known_agents").write_text("state")
    before, (inode, old_key) = acme, (entry.stat().st_ino, (entry / "key").read_bytes())
    for times in range(1, 4):
        after = following(before, now)
        store.rotate("acme", after, passphrase=NEW)
        loaded = store.load("acme", passphrase=NEW)
        assert (loaded.chain, loaded.rotations) == (after.chain, after.rotations)
        assert (len(loaded.rotations), loaded.peer_id) == (times, acme.peer_id)
        assert store.chain("acme") == after.certificates
        keys.verify(after.leaf.public_key, loaded.sign(b"data"), b"data")
        before = after
    assert {path.name for path in entry.iterdir()} == {"chain.pem", "key", "known_agents", "unused-since"}
    assert {path.stat().st_mode & 0o777 for path in entry.iterdir()} - {0o644} == {0o600}
    assert (entry.stat().st_ino, (entry / "known_agents").read_text()) == (inode, "state")
    assert old_key != (entry / "key").read_bytes()


def test_the_old_key_may_be_lost_and_its_passphrase_forgotten(
    store: Keystore, entry: Path, acme: Credential, now: datetime
) -> None:
    (entry / "key").write_bytes(b"rust")
    store.rotate("acme", following(acme, now), passphrase=None, unencrypted=True)
    assert store.load("acme").peer_id == acme.peer_id
    assert not store.is_encrypted("acme")


def test_a_rotation_of_something_else_is_refused(
    store: Keystore, entry: Path, acme: Credential, seller: Credential, now: datetime
) -> None:
    """Of another identity, of the state before, or of none; and under a key that nobody chose to leave open."""
    after = following(acme, now)
    other = following(Credential.self_issued("acme", now=now), now)
    for wrong in (other, following(after, now), acme, seller):
        with pytest.raises(KeystoreError, match="acme: the identity kept here is not the one"):
            store.rotate("acme", wrong, passphrase=NEW)
    with pytest.raises(KeystoreError, match="under a passphrase"):
        store.rotate("acme", after, passphrase=None)
    with pytest.raises(KeystoreError, match="no such identity"):
        store.rotate("nobody", after, passphrase=NEW)
    assert store.load("acme", passphrase=OLD).leaf == acme.leaf
    assert sorted(path.name for path in entry.iterdir()) == ["chain.pem", "key", "unused-since"]
    store.rotate("acme", after, passphrase=NEW)
    with pytest.raises(KeystoreError, match="perhaps it has been meanwhile"):
        store.rotate("acme", following(acme, now), passphrase=NEW)


def test_two_changes_at_once_are_one_and_a_refusal(
    store: Keystore, entry: Path, acme: Credential, now: datetime
) -> None:
    after = following(acme, now)
    folder = os.open(entry, os.O_RDONLY)
    fcntl.flock(folder, fcntl.LOCK_EX)
    try:
        for change in (
            lambda: store.rotate("acme", after, passphrase=NEW),
            lambda: store.accept("acme", acme.chain),
        ):
            with pytest.raises(KeystoreError, match="another process is changing this identity"):
                change()
        assert store.load("acme", passphrase=OLD).leaf == acme.leaf  # a look waits for nobody
    finally:
        os.close(folder)
    store.rotate("acme", after, passphrase=NEW)


def test_of_many_threads_that_rotate_one_identity_one_wins(
    store: Keystore, entry: Path, acme: Credential, now: datetime
) -> None:
    made = [following(acme, now) for _ in range(8)]

    def rotate(credential: Credential) -> bool:
        try:
            store.rotate("acme", credential, passphrase=NEW)
        except KeystoreError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        won = [one for one, did in zip(made, pool.map(rotate, made), strict=True) if did]
    assert [one.certificates for one in won] == [store.chain("acme")]
    assert store.load("acme", passphrase=NEW).leaf == won[0].leaf


# --- cut short ---------------------------------------------------------------------------------------------


def sound(store: Keystore, before: Credential, after: Credential) -> bool:
    """Whether it has been rotated; in either case it is whole."""
    for credential, passphrase in ((before, OLD), (after, NEW)):
        if store.chain("acme") == credential.certificates:
            loaded = store.load("acme", passphrase=passphrase)
            keys.verify(credential.leaf.public_key, loaded.sign(b"data"), b"data")
            assert store.is_encrypted("acme")
            return credential is after
    raise AssertionError("neither the one before nor the one after")


@contextmanager
def each_time(call: str, act: Callable[[int], Any]) -> Iterator[None]:
    """`act` with the number of each use of `os.<call>`, before it is carried out."""
    real, count = getattr(os, call), iter(range(10_000))

    def acting(*arguments: Any, **options: Any) -> Any:
        act(next(count))
        return real(*arguments, **options)

    setattr(os, call, acting)
    try:
        yield
    finally:
        setattr(os, call, real)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("fails", ["the machine", "the disk"])
def test_a_rotation_that_is_cut_short_anywhere_leaves_a_whole_identity_and_can_be_done_again(
    store: Keystore, entry: Path, acme: Credential, now: datetime, call: str, fails: str
) -> None:
    """The machine stops, or the disk is full, at each use of each call in turn; then it is done once more, to the end."""
    before, outcomes = acme, set[bool]()
    rotate = rotate_and_crash if fails == "the machine" else rotate_on_a_full_disk
    for fail_at in itertools.count():
        after = following(before, now)
        if not rotate(store, after, call, fail_at):  # there is no such use of the call any more
            break
        happened = sound(store, before, after)
        outcomes.add(happened)
        if happened:
            before = following(after, now)
            store.rotate("acme", before, passphrase=OLD)
            assert store.load("acme", passphrase=OLD).leaf == before.leaf
    assert sound(store, before, after)
    # Nothing is opened after the rename that counts.
    assert outcomes == ({False} if call == "open" else {False, True})


def rotate_and_crash(store: Keystore, credential: Credential, call: str, fail_at: int) -> bool:
    """Whether the process ended at that use of the call."""

    def stop(number: int) -> None:
        if number == fail_at:
            os._exit(1)

    child = os.fork()
    if child == 0:
        with each_time(call, stop):
            store.rotate("acme", credential, passphrase=NEW)
        os._exit(0)
    return os.waitpid(child, 0)[1] != 0


def rotate_on_a_full_disk(store: Keystore, credential: Credential, call: str, fail_at: int) -> bool:
    """Whether there was that use of the call, which has failed."""
    failed = []

    def fail(number: int) -> None:
        if number == fail_at:
            failed.append(number)
            raise OSError(errno.ENOSPC, "No space left on device")

    with each_time(call, fail), suppress(KeystoreError):
        store.rotate("acme", credential, passphrase=NEW)
    return bool(failed)


@pytest.mark.parametrize("call", CALLS)
def test_whoever_loads_it_at_any_moment_of_a_rotation_finds_a_whole_identity(
    store: Keystore, entry: Path, acme: Credential, now: datetime, call: str
) -> None:
    after = following(acme, now)
    seen: list[bool] = []

    def look(_: int) -> None:
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(os, call, real)
            seen.append(sound(store, acme, after))

    real = getattr(os, call)
    with each_time(call, look):
        store.rotate("acme", after, passphrase=NEW)
    assert seen == sorted(seen)
    assert not seen[0]
    assert sound(store, acme, after)


def test_a_rotation_in_the_middle_of_a_load_is_no_broken_identity(
    store: Keystore, entry: Path, acme: Credential, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before each file that the load reads, another process rotates once more."""
    real, current, left = owned.read, acme, [3]

    def read(folder: int, name: str, limit: int) -> bytes:
        nonlocal current
        if left[0]:
            left[0] -= 1
            monkeypatch.setattr(owned, "read", real)
            current = following(current, now)
            store.rotate("acme", current, passphrase=OLD)
            monkeypatch.setattr(owned, "read", read)
        return real(folder, name, limit)

    monkeypatch.setattr(owned, "read", read)
    assert store.load("acme", passphrase=OLD).leaf == current.leaf
    assert left == [0]


# --- what is stored ----------------------------------------------------------------------------------------


def test_whom_it_issued_keeps_the_rotations_in_the_chain_that_it_accepted(
    store: Keystore, acme: Credential, now: datetime
) -> None:
    request = CredentialRequest.new("seller")
    store.save_request("seller", request, passphrase=OLD)
    with pytest.raises(KeystoreError, match="no answer yet"):
        store.rotate("seller", following(acme, now), passphrase=NEW)
    for issuer in (acme, after := following(acme, now)):
        store.accept("seller", issuer.issue(request, kind=EntityKind.AGENT, now=now))
        seller = store.load("seller", passphrase=OLD)
        assert (seller.rotations, seller.peer_id.authority) == (issuer.rotations, "bound")
    with pytest.raises(IdentityError, match="bound to another key"):
        store.accept("seller", (seller.leaf, after.leaf))
    assert store.load("seller", passphrase=OLD).rotations == after.rotations


def test_a_recovered_identity_goes_on_to_its_own_next_key_and_to_no_other(
    store: Keystore, acme: Credential, now: datetime
) -> None:
    log = VerifierKey.of("registry.example/log", keys.generate(keys.KeyType.ED25519).public_key())
    first, second = (making.successor(acme.leaf, log, now=now) for _ in range(2))
    store.save_new("acme-2", first, passphrase=OLD)
    assert store.load("acme-2", passphrase=OLD).peer_id == first.peer_id != acme.peer_id
    for other in (second, following(second, now), following(acme, now), first):
        with pytest.raises(KeystoreError, match="not the one that was rotated"):
            store.rotate("acme-2", other, passphrase=NEW)
    after = following(first, now)
    store.rotate("acme-2", after, passphrase=NEW)
    assert store.load("acme-2", passphrase=NEW).leaf == after.leaf
    assert after.peer_id == first.peer_id


def test_a_stored_way_that_leads_elsewhere_is_no_identity(
    store: Keystore, entry: Path, acme: Credential, now: datetime
) -> None:
    after = following(acme, now)
    store.rotate("acme", after, passphrase=NEW)
    (entry / "chain.pem").write_bytes(after.leaf.pem)
    with pytest.raises(KeystoreError, match=r"acme: the name 'acme~\w{4}…' is bound to another key"):
        store.load("acme", passphrase=NEW)
    other = Credential.self_issued("acme", now=now)
    (entry / "chain.pem").write_bytes(after.leaf.pem + other.leaf.pem)
    with pytest.raises(KeystoreError, match="bound to another key"):
        store.load("acme", passphrase=NEW)


def test_a_file_laid_in_the_next_keys_place_is_read_as_carefully_and_changes_nothing(
    store: Keystore, entry: Path, acme: Credential
) -> None:
    for content in (
        b"junk",
        b"",
        sealed.seal(keys.generate(keys.KeyType.P256), OLD, scrypt_n=16),
        b"-----BEGIN ",
    ):
        (entry / "key.next").write_bytes(content)
        (entry / "key.next").chmod(0o600)
        assert store.load("acme", passphrase=OLD).leaf == acme.leaf
    (entry / "key.next").chmod(0o644)
    with pytest.raises(KeystoreError, match=r"key.next is open to other users"):
        store.load("acme", passphrase=OLD)
