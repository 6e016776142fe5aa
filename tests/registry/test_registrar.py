"""The log as it is kept: groups are whole, survive, agree with what was signed, and stand an audit."""

import hashlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from autolink.errors import BadSignature, EntryRefused, Fault, RemoteProtocolError, UsageError
from autolink.messages.merkle import leaf_hash
from autolink.registry.audit import Audit
from autolink.registry.database import StoreFailed
from autolink.registry.entries import encode_leaf
from autolink.registry.evidence import LogConvicted
from autolink.registry.ledger import Standing, standing
from autolink.registry.log.checkpoint import Checkpoint
from autolink.registry.log.checkpoint import verify_untrusted as verify_checkpoint
from autolink.registry.log.note import VerifierKey
from autolink.registry.log.tree import check_consistency
from autolink.registry.records import State
from autolink.registry.registrar import Appended, Registrar
from autolink.registry.source import SourceFailed
from autolink.registry.status import Newest, Status, sign_status, verify_untrusted
from autolink.registry.store import SqliteStore

from .conftest import ORIGIN, Log, Party

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    SqliteStore.create(tmp_path / "registry", ORIGIN)
    return tmp_path / "registry"


@pytest.fixture
def store(folder: Path) -> Any:
    with SqliteStore(folder) as opened:
        yield opened


@pytest.fixture
def registrar(store: SqliteStore, log: Log) -> Registrar:
    return Registrar(store, KEY, lambda: log.now)


def replay(registrar: Registrar, log: Log) -> list[Any]:
    """Append what the log in memory has taken."""
    return registrar.append([entry.to_bytes() for entry in log.entries])


def test_a_group_is_judged_entry_by_entry_and_the_log_is_what_was_taken(
    registrar: Registrar, store: SqliteStore, log: Log, acme: Party, echo: Party
) -> None:
    renewal = echo.renew()
    entries = [entry.to_bytes() for entry in log.entries]
    outcomes = registrar.append([*entries, b"nonsense", entries[0], renewal.to_bytes()])
    assert [outcome.index for outcome in outcomes if isinstance(outcome, Appended)] == list(range(6))
    refused = [outcome.fault for outcome in outcomes if isinstance(outcome, EntryRefused)]
    assert refused == [Fault.MALFORMED, Fault.TAKEN]
    assert store.head.size == 6
    record = store.record(echo.auto_id)
    assert record is not None
    assert (record.entries, record.certificate) == (2, renewal.certificate)
    assert store.history(echo.auto_id) == [4, 5]
    assert store.history(echo.auto_id, 5) == [5]
    assert store.is_used(record.key)


def test_every_entry_is_proved_and_every_checkpoint_leads_to_the_next(
    registrar: Registrar, store: SqliteStore, log: Log, acme: Party, echo: Party
) -> None:
    checkpoints = [verify_checkpoint(store.head.checkpoint, registrar.verifier_key)]
    for entry in log.entries:
        registrar.append([entry.to_bytes()])
        checkpoints.append(verify_checkpoint(store.head.checkpoint, registrar.verifier_key))
    for index, leaf in enumerate(store.read_leaves(0, store.head.size)):
        assert registrar.proof(index).verify(leaf_hash(leaf), registrar.verifier_key) == checkpoints[-1]
        with pytest.raises(BadSignature):
            registrar.proof(index).verify(leaf_hash(leaf + b"x"), registrar.verifier_key)
    newest = checkpoints[-1]
    for older in checkpoints:
        path = registrar.consistency(older.size, newest.size)
        check_consistency(older.size, older.root, newest.size, newest.root, path)


def test_a_log_goes_on_where_it_was(folder: Path, log: Log, acme: Party, echo: Party) -> None:
    for entry in log.entries:
        with SqliteStore(folder) as store:
            registrar = Registrar(store, KEY, lambda: log.now)
            registrar.append([entry.to_bytes()])
    with SqliteStore(folder) as store:
        registrar = Registrar(store, KEY, lambda: log.now)
        replayed = audit(store.read_leaves(0, store.head.size), store.head.checkpoint, registrar.verifier_key)
        assert replayed.size == len(log.entries)
        kept = {who: store.record(who) for who in log.ledger.records}
        assert kept == {who: replayed.ledger.record(who) for who in log.ledger.records}


def test_rule_39_log_time_does_not_go_back(
    registrar: Registrar, store: SqliteStore, log: Log, acme: Party
) -> None:
    replay(registrar, log)
    later = store.head.time
    service = acme.service()
    log.now -= 3600 * 1_000_000
    (appended,) = registrar.append([service.to_bytes()])
    assert isinstance(appended, Appended)
    assert appended.logged_at == store.head.time == later


def test_another_key_does_not_go_on_with_a_log(folder: Path, log: Log, acme: Party) -> None:
    with SqliteStore(folder) as store:
        replay(Registrar(store, KEY, lambda: log.now), log)
    with SqliteStore(folder) as store, pytest.raises(UsageError, match="not signed by this key"):
        Registrar(store, Ed25519PrivateKey.generate(), lambda: log.now)


def test_a_log_that_is_not_what_was_signed_is_not_gone_on_with(folder: Path, log: Log, acme: Party) -> None:
    with SqliteStore(folder) as store:
        registrar = Registrar(store, KEY, lambda: log.now)
        replay(registrar, log)
        forged = Checkpoint(ORIGIN, store.head.size, bytes(32)).signed(KEY)
        store._writer.execute("UPDATE log SET checkpoint = ?", (forged,))
    with SqliteStore(folder) as store, pytest.raises(UsageError, match="not the one that was signed"):
        Registrar(store, KEY, lambda: log.now)


def test_one_process_has_a_registry_at_a_time(folder: Path, store: SqliteStore) -> None:
    with pytest.raises(UsageError, match="another process has the registry"):
        SqliteStore(folder)
    store.close()
    SqliteStore(folder).close()


def test_a_registry_is_made_once_and_only_opened_where_there_is_one(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="exists already"):
        SqliteStore.create(folder, ORIGIN)
    with pytest.raises(UsageError, match="there is no registry"):
        SqliteStore(tmp_path / "elsewhere")
    assert [path.name for path in folder.iterdir()] == ["log.db"]
    assert (folder / "log.db").stat().st_mode & 0o777 == 0o600


def test_a_file_that_is_no_registry_is_not_opened(tmp_path: Path) -> None:
    (tmp_path / "log.db").write_bytes(b"something else entirely" * 100)
    with pytest.raises(UsageError, match="cannot be used"):
        SqliteStore(tmp_path)
    (tmp_path / "log.db").write_bytes(b"")
    with pytest.raises(UsageError, match="cannot be used"):
        SqliteStore(tmp_path)


def test_a_full_disk_loses_nothing_and_the_log_goes_on_when_there_is_room(
    registrar: Registrar, store: SqliteStore, log: Log, acme: Party, echo: Party
) -> None:
    *first, last = (entry.to_bytes() for entry in log.entries)
    registrar.append(first)
    before, leaves = store.head, store.read_leaves(0, store.head.size)
    (pages,) = store._writer.execute("PRAGMA page_count").fetchone()
    store._writer.execute(f"PRAGMA max_page_count = {pages}")  # SQLite then says what it says of a full disk
    services = []
    with pytest.raises(StoreFailed, match="full"):
        for _ in range(100):
            registrar.append([last])
            services.append(acme.service(service=bytes(16_000)))
            registrar.append([services[-1].to_bytes()])
    after = store.head
    assert store.read_leaves(0, len(leaves)) == leaves
    assert after.size - before.size in (0, 1)
    store._writer.execute("PRAGMA max_page_count = 1000000")
    (outcome,) = registrar.append([acme.service(previous=acme.log.record(acme).head).to_bytes()])
    assert isinstance(outcome, Appended)
    assert audit(store.read_leaves(0, store.head.size), store.head.checkpoint, registrar.verifier_key)


# --- statuses ------------------------------------------------------------------------------------------


def status_of(registrar: Registrar, store: SqliteStore, party: Party, now: int) -> Status:
    record = store.record(party.auto_id)
    assert record is not None
    record = record.at(now)
    (leaf,) = store.read_leaves(record.touched, record.touched + 1)
    return sign_status(
        record, standing(store, record, now), origin=ORIGIN, leaf=leaf_hash(leaf),
        proof=registrar.proof(record.touched), now=now, key=KEY,
    )  # fmt: skip


def test_rule_40_a_status_says_how_an_id_stands_and_proves_it(
    registrar: Registrar, store: SqliteStore, log: Log, acme: Party, echo: Party
) -> None:
    log.append(acme.revoke())
    replay(registrar, log)
    status = status_of(registrar, store, echo, log.now)
    verified = verify_untrusted(status.to_bytes(), registrar.verifier_key)
    assert verified.status == status
    assert verified.checkpoint.size == len(log.entries)
    assert (status.state, status.because) == (State.REVOKED, acme.auto_id)
    assert status.certificate == hashlib.sha256(echo.credential.leaf.der).digest()
    assert status.key == echo.credential.leaf.spki_sha256
    assert status.issuers == (acme.credential.leaf.spki_sha256,)


def test_a_status_is_refused_for_any_changed_byte(
    registrar: Registrar, store: SqliteStore, log: Log, acme: Party
) -> None:
    replay(registrar, log)
    data = status_of(registrar, store, acme, log.now).to_bytes()
    for place in range(len(data)):
        changed = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
        with pytest.raises((RemoteProtocolError, BadSignature)):
            verify_untrusted(changed, registrar.verifier_key)


def test_a_proof_for_another_record_does_not_do(
    registrar: Registrar, store: SqliteStore, log: Log, acme: Party, echo: Party
) -> None:
    replay(registrar, log)
    record = store.record(echo.auto_id)
    assert record is not None
    (leaf,) = store.read_leaves(record.touched, record.touched + 1)
    wrong = sign_status(
        record, standing(store, record, log.now), origin=ORIGIN, leaf=leaf_hash(leaf),
        proof=registrar.proof(0), now=log.now, key=KEY,
    )  # fmt: skip
    with pytest.raises(BadSignature):
        verify_untrusted(wrong.to_bytes(), registrar.verifier_key)


def test_rule_40_an_older_status_is_refused_once_a_newer_one_was_seen(
    registrar: Registrar, store: SqliteStore, log: Log, acme: Party, echo: Party
) -> None:
    key, newest = registrar.verifier_key, Newest()
    replay(registrar, log)
    first = verify_untrusted(status_of(registrar, store, echo, log.now).to_bytes(), key)
    registrar.append([acme.service().to_bytes()])
    second = verify_untrusted(status_of(registrar, store, echo, log.now).to_bytes(), key)
    newest.check(second)
    newest.check(first)  # an older one that says the same
    registrar.append([log_entry := acme.revoke(previous=acme.log.record(acme).authority).to_bytes()])
    assert log_entry
    third = verify_untrusted(status_of(registrar, store, echo, log.now).to_bytes(), key)
    newest.check(third)
    for older in (first, second):
        with pytest.raises(BadSignature, match="older"):
            newest.check(older)
    newest.check(third)


def test_what_was_seen_longest_ago_is_forgotten_first(
    registrar: Registrar, store: SqliteStore, log: Log, acme: Party, echo: Party
) -> None:
    newest = Newest(most=1)
    replay(registrar, log)
    for party in (acme, echo, acme):
        newest.check(
            verify_untrusted(status_of(registrar, store, party, log.now).to_bytes(), registrar.verifier_key)
        )
    assert len(newest._seen) == 1


# --- audit ---------------------------------------------------------------------------------------------


def audit(leaves: list[bytes], note: bytes, key: VerifierKey) -> Audit:
    """A replay of these leaves."""
    replayed = Audit(key)
    source: Any = SimpleNamespace(leaves=lambda start, signed: iter(leaves[start : signed.size]))
    replayed.replay(source, note)
    return replayed


def test_an_audit_finds_each_entry_that_should_not_be_there(
    registrar: Registrar, store: SqliteStore, log: Log, acme: Party, echo: Party
) -> None:
    replay(registrar, log)
    leaves = store.read_leaves(0, store.head.size)
    stale = encode_leaf(log.now, log.entries[0].to_bytes())
    forged = encode_leaf(log.now, acme.service().with_signatures(()).to_bytes())
    for wrong in (stale, forged, b"", b"\x90"):
        replayed = Audit(registrar.verifier_key)
        for leaf in leaves:
            replayed.take(leaf)
        with pytest.raises(LogConvicted) as conviction:
            replayed.take(wrong)
        assert conviction.value.index == len(leaves)
        assert conviction.value.evidence == wrong


def test_rule_39_an_audit_finds_log_time_that_goes_back(
    registrar: Registrar, store: SqliteStore, log: Log, acme: Party
) -> None:
    """By one microsecond, before an entry that is right in all else; of the same time it may be."""
    replay(registrar, log)
    service = acme.service().to_bytes()
    replayed = audit(store.read_leaves(0, store.head.size), store.head.checkpoint, registrar.verifier_key)
    assert replayed.time == log.now
    with pytest.raises(LogConvicted, match="its time is before") as conviction:
        replayed.take(early := encode_leaf(log.now - 1, service))
    assert (conviction.value.index, conviction.value.evidence) == (store.head.size, early)
    replayed.take(encode_leaf(log.now, service))


def test_an_audit_finds_a_false_root_and_a_missing_or_changed_entry(
    registrar: Registrar, store: SqliteStore, log: Log, acme: Party, echo: Party
) -> None:
    replay(registrar, log)
    leaves, note, key = store.read_leaves(0, store.head.size), store.head.checkpoint, registrar.verifier_key
    with pytest.raises(
        SourceFailed, match=f"{len(leaves)} entries were signed, and there are {len(leaves) - 1}"
    ):
        audit(leaves[:-1], note, key)
    with pytest.raises(LogConvicted):
        audit([*leaves[1:], leaves[0]], note, key)
    forked = Checkpoint(ORIGIN, len(leaves), bytes(32)).signed(KEY)
    with pytest.raises(LogConvicted, match="root") as conviction:
        audit(leaves, forked, key)
    assert conviction.value.evidence == forked
    with pytest.raises(BadSignature):
        audit(leaves, Checkpoint(ORIGIN, 1, bytes(32)).signed(Ed25519PrivateKey.generate()), key)


def test_an_audit_finds_a_status_that_does_not_follow_from_the_entries(
    registrar: Registrar, store: SqliteStore, log: Log, acme: Party, echo: Party
) -> None:
    """Another state, or the right one with the proof of an entry that is not the ID's last."""
    log.append(echo.service())
    replay(registrar, log)
    true = status_of(registrar, store, echo, log.now)
    leaves = store.read_leaves(0, store.head.size)
    replayed = audit(leaves, store.head.checkpoint, registrar.verifier_key)
    replayed.check_status(true)
    replayed.check_status(status_of(registrar, store, acme, log.now))
    record = store.record(echo.auto_id)
    assert record is not None
    first = leaf_hash(leaves[record.registered]), registrar.proof(record.registered)
    revoked = Standing(State.REVOKED, echo.auto_id)
    where = standing(store, record, log.now)
    for said, (leaf, proof) in ((revoked, (true.head, true.proof)), (where, first)):
        lie = sign_status(record, said, origin=ORIGIN, leaf=leaf, proof=proof, now=log.now, key=KEY)
        verify_untrusted(lie.to_bytes(), registrar.verifier_key)  # only the entries tell
        with pytest.raises(LogConvicted, match="not what follows"):
            replayed.check_status(lie)
