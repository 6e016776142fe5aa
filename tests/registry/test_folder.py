"""A registry's folder: its key, whom it invites, and an audit of all that is in it."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from autolink.errors import BadSignature, IdentityError, KeystoreError, SetupError, UsageError
from autolink.identity import AutoId, save_key
from autolink.registry.audit import Audit
from autolink.registry.claim import LOG_KEY
from autolink.registry.entries import Entry
from autolink.registry.evidence import LogConvicted
from autolink.registry.feed import sign_change
from autolink.registry.folder import (
    INVITED,
    InvitedFile,
    audit_folder,
    create_registry,
    invite,
    load_log_key,
    log_key_is_encrypted,
    read_invited,
)
from autolink.registry.log.note import VerifierKey
from autolink.registry.records import State
from autolink.registry.registrar import Appended, Registrar
from autolink.registry.source import SourceFailed
from autolink.registry.sources import FolderSource, open_source
from autolink.registry.store import SqliteStore
from autolink.registry.tile_sources import TileFolderSource
from autolink.registry.tiling import export_tiles

from .conftest import ORIGIN, Log, Party, new_key

ONE, OTHER = AutoId(bytes(32)), AutoId(bytes([1] * 32))


def test_a_folder_is_made_with_a_key_and_never_made_over(tmp_path: Path) -> None:
    folder = tmp_path / "below" / "registry"
    log_key = create_registry(folder, ORIGIN, "secret")
    assert log_key.name == ORIGIN
    assert log_key_is_encrypted(folder)
    assert VerifierKey.of(ORIGIN, load_log_key(folder, "secret").public_key()) == log_key
    assert (folder.stat().st_mode & 0o777, (folder / LOG_KEY).stat().st_mode & 0o777) == (0o700, 0o600)
    with pytest.raises(KeystoreError, match="wrong passphrase"):
        load_log_key(folder, "wrong")
    with pytest.raises(UsageError, match="already"):
        create_registry(folder, ORIGIN, "secret")
    with pytest.raises(IdentityError, match="cannot name"):
        create_registry(tmp_path / "other", "two words", "secret")
    assert not (tmp_path / "other").exists()


def test_what_is_no_registry_is_told(tmp_path: Path) -> None:
    for ask in (log_key_is_encrypted, FolderSource, lambda folder: invite(folder, [ONE])):
        with pytest.raises(UsageError, match="there is no registry in"):
            ask(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be made"):
        create_registry(tmp_path / "file" / "below", ORIGIN, None, unencrypted=True)
    create_registry(tmp_path / "one", ORIGIN, None, unencrypted=True)
    (tmp_path / "one" / LOG_KEY).unlink()
    with pytest.raises(KeystoreError, match=r"log\.key cannot be read"):
        load_log_key(tmp_path / "one", None)
    save_key(tmp_path / "one" / LOG_KEY, new_key(), None, unencrypted=True)
    with pytest.raises(KeystoreError, match="of Ed25519"):
        load_log_key(tmp_path / "one", None)
    (tmp_path / "one" / "log.db").write_text("no database, but longer than a header of one would be" * 9)
    with pytest.raises(UsageError, match="cannot be read"):
        FolderSource(tmp_path / "one")


def test_a_folder_that_fails_half_way_has_no_key_without_a_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise UsageError("the disk is full")

    monkeypatch.setattr(SqliteStore, "create", full)
    with pytest.raises(UsageError, match="full"):
        create_registry(tmp_path, ORIGIN, None, unencrypted=True)
    assert list(tmp_path.iterdir()) == []


def test_a_log_is_audited_before_anybody_has_served_it(tmp_path: Path) -> None:
    """It is signed when it is made; and only the key that has signed it goes on with it."""
    key = create_registry(tmp_path / "new", ORIGIN, None, unencrypted=True)
    with FolderSource(tmp_path / "new") as source:
        assert audit_folder(source, key).size == 0
        assert export_tiles(source, tmp_path / "mirror", key).size == 0
    with TileFolderSource(tmp_path / "mirror") as source:
        assert Audit(key).replay(source).size == 0
    with SqliteStore(tmp_path / "new") as store:
        with pytest.raises(SetupError, match="not signed by this key"):
            Registrar(store, Ed25519PrivateKey.generate(), lambda: 0)
        assert Registrar(store, load_log_key(tmp_path / "new", None), lambda: 0).verifier_key == key
    SqliteStore.create(tmp_path / "unsigned", ORIGIN)
    with (
        FolderSource(tmp_path / "unsigned") as source,
        pytest.raises(SourceFailed, match="nothing is signed there yet: serve it once"),
    ):
        audit_folder(source, key)


@pytest.mark.parametrize(
    ("left", "says"),
    [
        ("log.key signed", "log.key and signed. Restore a copy of it with all entries that were signed .6.; never"),
        ("log.key signed log.db-wal", "with all entries that were signed .6., after moving log.db-wal away; never make"),
        ("log.key signed empty", "log.key and signed. Restore a copy of it; never make another log under this key"),
        ("log.key", "Only if nobody has its public key yet, remove log.key and make another registry"),
        ("log.db-wal", "after moving log.db-wal away$"),
    ],
)  # fmt: skip
def test_a_log_that_is_lost_is_not_taken_for_one_that_never_was(kept: Any, left: str, says: str) -> None:
    """Another log in its place would be a second past under the same key."""
    folder = kept[0]
    (folder / "log.db").unlink()
    for path in folder.iterdir():
        if path.name not in left.split():
            path.unlink()
    if "empty" in left:
        (folder / "signed").write_text("")
    before = sorted(path.name for path in folder.iterdir())
    lost = f"^the log of the registry in {folder} is lost: log.db is missing, beside .*{says}"
    for use in (
        lambda: create_registry(folder, ORIGIN, None, unencrypted=True),
        lambda: log_key_is_encrypted(folder),
        lambda: invite(folder, [ONE]),
        lambda: open_source(str(folder)),
        lambda: SqliteStore(folder),
    ):
        with pytest.raises(SetupError, match=lost):
            use()
    assert sorted(path.name for path in folder.iterdir()) == before


# --- invited -----------------------------------------------------------------------------------------------


def test_who_is_invited_is_heeded_at_once(tmp_path: Path) -> None:
    create_registry(tmp_path, ORIGIN, None, unencrypted=True)
    invited = InvitedFile(tmp_path / INVITED)
    assert ONE not in invited
    assert invite(tmp_path, [ONE, ONE], "acme\nof old") == [ONE]
    assert ONE in invited
    assert invite(tmp_path, [ONE, OTHER]) == [OTHER]
    assert OTHER in invited
    assert (tmp_path / INVITED).read_text() == f"{ONE} acme\\u{{a}}of old\n{OTHER}\n"
    (tmp_path / INVITED).write_text(f"# by hand, without an end of line\n\n{OTHER}")
    assert ONE not in invited
    assert invite(tmp_path, [ONE]) == [ONE]
    assert read_invited(tmp_path / INVITED) == [OTHER, ONE]
    (tmp_path / INVITED).unlink()
    assert ONE not in invited


def test_a_file_that_cannot_be_read_changes_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    create_registry(tmp_path, ORIGIN, None, unencrypted=True)
    invite(tmp_path, [ONE])
    invited = InvitedFile(tmp_path / INVITED)
    assert ONE in invited
    (tmp_path / INVITED).write_text("nonsense\n")
    assert ONE in invited
    assert isinstance(invited.error, IdentityError)
    assert "who was invited before still is" in caplog.text
    with pytest.raises(IdentityError, match="invited"):
        invite(tmp_path, [OTHER])
    (tmp_path / INVITED).write_text(f"{OTHER}\n")
    assert OTHER in invited
    assert invited.error is None
    (tmp_path / INVITED).unlink()
    (tmp_path / INVITED).symlink_to(INVITED)  # its state cannot be asked for either
    caplog.clear()
    assert OTHER in invited
    assert OTHER in invited
    assert isinstance(invited.error, OSError)
    assert caplog.text.count("who was invited before still is") == 1


# --- audit -------------------------------------------------------------------------------------------------


@pytest.fixture
def kept(
    tmp_path: Path, log: Log, organisation: Any, issued: Any
) -> Iterator[tuple[Path, VerifierKey, Ed25519PrivateKey]]:
    """A folder with six entries, three of them told by the feed, one of these of an agent that acme has issued."""
    create_registry(tmp_path / "registry", ORIGIN, None, unencrypted=True)
    key = load_log_key(tmp_path / "registry", None)
    with SqliteStore(tmp_path / "registry") as store:
        registrar = Registrar(store, key, lambda: log.now)
        parties = [organisation(name, registered=False) for name in ("acme", "globex")]

        def both(entry: Entry) -> None:
            (outcome,) = registrar.append([entry.to_bytes()])
            assert isinstance(outcome, Appended)
            log.append(entry)

        for party in parties:
            both(party.register())
        agent = issued(parties[0], "agent", registered=False)
        both(agent.register())
        for party in (agent, *parties):
            both(party.revoke())
        yield tmp_path / "registry", registrar.verifier_key, key


def change(folder: Path, *statements: str) -> None:
    with closing(sqlite3.connect(folder / "log.db", isolation_level=None)) as db:
        for statement in statements:
            db.execute(statement)


def test_a_folder_is_audited_while_its_registry_runs(kept: Any) -> None:
    folder, key, _ = kept
    with FolderSource(folder) as source:
        replayed = audit_folder(source, key)
    assert replayed.size == 6
    assert {replayed.ledger.record(auto_id).state for auto_id in replayed.ledger.ids()} == {State.REVOKED}  # type: ignore[union-attr]
    other = VerifierKey.of(ORIGIN, Ed25519PrivateKey.generate().public_key())
    with FolderSource(folder) as source, pytest.raises(BadSignature):
        audit_folder(source, other)


TAMPERED: dict[str, tuple[str, str]] = {
    "an entry gone": ("DELETE FROM leaves WHERE place = 3", "5 entries, and 6 were signed"),
    "an entry changed": (
        "UPDATE leaves SET leaf = (SELECT leaf FROM leaves WHERE place = 0) WHERE place = 1", "not those that were signed",
    ),
    "an entry too many": ("INSERT INTO leaves SELECT 6, leaf FROM leaves WHERE place = 3", "7 entries, and 6 were signed"),
    "a record gone": ("DELETE FROM records WHERE rowid = 1", "on record of"),
    "a record too many": (
        "INSERT INTO records SELECT zeroblob(32), record FROM records WHERE rowid = 1", "records: .* 4, and 3",
    ),
    "a record changed": (
        "UPDATE records SET record = (SELECT record FROM records WHERE rowid = 1) WHERE rowid = 2", "on record of",
    ),
    "a change gone": ("DELETE FROM changes WHERE place = 4", "entry 4: the feed has told nothing of it"),
    "a change too many": ("INSERT INTO changes SELECT 9, change FROM changes WHERE place = 4", "changes: .* 4, and 3"),
    "a key gone": ("DELETE FROM used WHERE key = (SELECT key FROM used LIMIT 1)", "was used, and the registry does not"),
    "a key too many": ("INSERT INTO used VALUES (zeroblob(32))", "used: .* 4, and 3"),
    "a place gone": ("DELETE FROM history WHERE place = 2", "entry 2 is not in the history"),
    "a place too many": ("INSERT INTO history SELECT auto_id, 9 FROM history WHERE place = 2", "history: .* 7, and 6"),
    "an end gone": ("DELETE FROM ended", "that ended did so with entry 3"),
    "an end changed": ("UPDATE ended SET place = 2", "that ended did so with entry 3"),
    "an end too many": ("INSERT INTO ended VALUES (zeroblob(32), 3)", "ended: .* 2, and 1"),
    "an end that is no number": ("UPDATE ended SET place = x'78'", "no number"),
    "a tile gone": ("DELETE FROM tiles", "tile 0/0 is missing"),
    "a tile changed": ("UPDATE tiles SET hashes = zeroblob(length(hashes))", "tiles are not those"),
    "a tile that is text": ("UPDATE tiles SET hashes = 'text'", "no bytes"),
    "another format": ("UPDATE log SET format = 1", "of format 1, not 2"),
    "another time": ("UPDATE log SET time = time + 1", "time is not that of its last entry"),
}  # fmt: skip


@pytest.mark.parametrize(("statement", "says"), TAMPERED.values(), ids=TAMPERED)
def test_whatever_is_changed_in_a_folder_is_found(kept: Any, statement: str, says: str) -> None:
    folder, key, _ = kept
    change(folder, statement)
    with FolderSource(folder) as source, pytest.raises(SourceFailed, match=says):
        audit_folder(source, key)


def test_a_change_of_what_is_none_convicts(kept: Any, acme: Party) -> None:
    """Signed by the log: that a registration was a revocation."""
    folder, key, private = kept
    with FolderSource(folder) as source:
        told = sign_change(acme.revoke(), State.REVOKED, index=3, at=acme.log.now, key=private)
    with closing(sqlite3.connect(folder / "log.db", isolation_level=None)) as db:
        db.execute("UPDATE changes SET change = ? WHERE place = 3", (told.to_bytes(),))
    with FolderSource(folder) as source, pytest.raises(LogConvicted, match="not what it did"):
        audit_folder(source, key)


def test_another_change_of_the_log_convicts(kept: Any) -> None:
    """Both are signed: the one told of an entry is another one's."""
    folder, key, _ = kept
    change(folder, "UPDATE changes SET change = (SELECT change FROM changes WHERE place = 4) WHERE place = 3")
    with (
        FolderSource(folder) as source,
        pytest.raises(LogConvicted, match="entry 3: the change that was told of it"),
    ):
        audit_folder(source, key)


def test_what_is_appended_during_an_audit_is_left_for_the_next(kept: Any, organisation: Any) -> None:
    folder, key, _ = kept
    with FolderSource(folder) as source:
        before, leaves = source.checkpoint(), source.leaves

        def meanwhile(*args: Any) -> Iterator[bytes]:
            with closing(sqlite3.connect(folder / "log.db", isolation_level=None)) as db:
                db.execute("DELETE FROM changes")
            return leaves(*args)

        source.leaves = meanwhile  # type: ignore[method-assign]
        assert audit_folder(source, key).size == 6
        source.leaves = leaves  # type: ignore[method-assign]
        assert source.checkpoint() == before
        with pytest.raises(SourceFailed, match="told nothing"):
            audit_folder(source, key)
