"""What is quick leaves everything as it was: the same bytes, the same checks, the same proofs. Counted, never timed."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from autolink.errors import RemoteProtocolError, UsageError
from autolink.identity import Certificate, Credential, KeyType, certificate, keys
from autolink.identity.certificate import begin_of
from autolink.messages.merkle import leaf_hash, leaf_hashes
from autolink.registry.database import StoreFailed
from autolink.registry.entries import Entry, Op
from autolink.registry.log.frontier import Frontier
from autolink.registry.log.tiles import WIDTH
from autolink.registry.log.tree import Known, Tree, check_inclusion, consistency_proof, inclusion_proof
from autolink.registry.registrar import Appended, Registrar
from autolink.registry.status import verify_untrusted
from autolink.registry.store import SqliteStore

from .appender import KEY
from .conftest import ORIGIN, Log, Party


@pytest.fixture
def store(tmp_path: Path) -> Any:
    SqliteStore.create(tmp_path / "registry", ORIGIN)
    with SqliteStore(tmp_path / "registry") as opened:
        yield opened


@pytest.fixture
def registrar(store: SqliteStore, log: Log, acme: Party, echo: Party) -> Registrar:
    """With acme, its guardians and echo on record."""
    made = Registrar(store, KEY, lambda: log.now)
    made.append([entry.to_bytes() for entry in log.entries])
    return made


# --- entries -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("op", Op)
def test_an_entrys_body_is_the_bytes_that_came_and_would_be_made_again(
    op: Op, acme: Party, echo: Party
) -> None:
    for party in (acme, echo):
        data = party.make(op).to_bytes()
        parsed = Entry.from_untrusted(data)
        assert parsed.body == parsed.with_signatures(parsed.signatures).body  # a new one, which encodes
        assert parsed.to_bytes() == data


def test_when_a_certificate_begins_is_what_its_parsing_says(acme: Party, echo: Party) -> None:
    for party in (acme, echo):
        assert begin_of(party.credential.leaf.der) == party.credential.leaf.not_before


@pytest.mark.parametrize("kind", [KeyType.P256, KeyType.ED25519, KeyType.ML_DSA_65])
def test_a_spki_that_is_taken_from_a_certificate_is_the_keys_one_encoding(kind: KeyType) -> None:
    leaf = Credential.self_issued("acme", key_type=kind).leaf
    assert leaf.spki == keys.spki(leaf.public_key)
    assert keys.is_one_encoding(leaf.spki, kind) == (kind is not KeyType.ML_DSA_65)


def test_another_encoding_of_a_key_is_not_taken_for_the_one() -> None:
    """A compressed point, which a certificate may hold."""
    key = keys.generate(KeyType.P256).public_key()
    point = key.public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
    one = keys.spki(key)
    other = bytes.fromhex("3039301306072a8648ce3d020106082a8648ce3d030107032200") + point
    assert keys.spki(load_der_public_key(other)) == one  # type: ignore[arg-type]
    assert keys.is_one_encoding(one, KeyType.P256)
    assert not keys.is_one_encoding(other, KeyType.P256)
    assert not keys.is_one_encoding(one, KeyType.ED25519)


def test_a_group_of_renewals_takes_two_verifications_and_one_parsing_each_and_two_questions(
    registrar: Registrar,
    store: SqliteStore,
    log: Log,
    acme: Party,
    issued: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The issuer's signature under the certificate, the holder's under the entry. The store is asked for the agents'
    records, and for their issuer's."""
    agents = [issued(acme, f"agent-{number}", registered=False) for number in range(10)]
    for agent in agents:
        log.append(entry := agent.register())
        registrar.append([entry.to_bytes()])
    log.wait(1)
    group = [agent.renew().to_bytes() for agent in agents]
    log.wait(1)
    certificate._parse_once.cache_clear()
    Certificate.parse_untrusted(acme.credential.leaf.der)
    seen: Counter[str] = Counter()

    def counted(what: str, real: Any) -> Any:
        def count(*arguments: Any) -> Any:
            seen[what] += 1
            return real(*arguments)

        return count

    monkeypatch.setattr(keys, "_verify_ecdsa", counted("verified", keys._verify_ecdsa))
    keys._verifying.cache_clear()
    monkeypatch.setattr(
        keys, "_VERIFYING", ((keys.ec.EllipticCurvePublicKey, keys._verify_ecdsa), *keys._VERIFYING[1:])
    )
    monkeypatch.setattr(Certificate, "_parse", counted("parsed", Certificate._parse))
    monkeypatch.setattr(SqliteStore, "_one", counted("read alone", SqliteStore._one))
    monkeypatch.setattr(SqliteStore, "records", counted("read together", SqliteStore.records))
    assert all(isinstance(outcome, Appended) for outcome in registrar.append(group))
    keys._verifying.cache_clear()
    assert seen == {"verified": 2 * len(agents), "parsed": len(agents), "read alone": 1, "read together": 1}


# --- proofs ------------------------------------------------------------------------------------------------


def test_what_is_remembered_of_a_tree_gives_the_same_proofs_as_it_grows() -> None:
    """Each proof from a tree that shares what others knew, and from one that knows nothing."""
    leaves = leaf_hashes(number.to_bytes(4) for number in range(3 * WIDTH * WIDTH // 2))
    tiles: dict[tuple[int, int], bytes] = {}
    known, frontier, asked = Known(most=5), Frontier(), 0

    def read(level: int, index: int, width: int) -> bytes:
        nonlocal asked
        asked += 1
        return tiles[level, index][: 32 * width]

    sizes = (1, 16, 255, 256, 257, 4 * WIDTH + 100, WIDTH * WIDTH, WIDTH * WIDTH + 5, len(leaves))
    for size in sizes:
        frontier, changed = frontier.extended(leaves[frontier.size : size])
        tiles |= {(tile.level, tile.index): row for tile, row in changed}
        tree = Tree(size, read, known)
        assert tree.root() == tree.root() == frontier.root()
        for index in {0, size // 3, size // 2, size - 1} | {max(size - 300, 0)}:
            path = tree.inclusion(index)
            assert path == inclusion_proof(index, size, read)
            assert tree.leaf(index) == leaves[index]
            check_inclusion(leaves[index], index, size, frontier.root(), path)
            assert tree.consistency(index) == consistency_proof(index, size, read)
            for earlier in filter(lambda each: index <= each <= size, sizes):
                assert tree.consistency(index, earlier) == consistency_proof(index, earlier, read)
        assert len(known._kept) <= 5
    assert tree.inclusion(7)
    asked = 0
    assert tree.inclusion(7)
    assert asked == 1  # of level 0; higher ones are known, and so are the roots at the edge


@pytest.mark.parametrize(
    ("level", "number", "known"),
    [(0, 3, False), (0, 3, True), (1, 0, False)],
    ids=["of hashes", "of hashes, and known", "above them"],
)
def test_a_full_tile_that_is_not_what_the_one_above_it_says_gives_no_proof(
    level: int, number: int, known: bool
) -> None:
    """Its sixteenth in which the entry is, even where what is above that is remembered."""
    leaves = leaf_hashes(number.to_bytes(4) for number in range(WIDTH * WIDTH))
    _, changed = Frontier().extended(leaves)
    tiles = {(tile.level, tile.index): bytearray(row) for tile, row in changed}
    tree = Tree(len(leaves), lambda level, index, width: bytes(tiles[level, index]))
    assert tree.inclusion(3 * WIDTH + 7)
    if not known:
        tree = Tree(len(leaves), tree._read)
    tiles[level, number][5] ^= 1
    with pytest.raises(RemoteProtocolError, match=f"{level}/{number} is not what the one above"):
        tree.inclusion(3 * WIDTH + 7)


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (
            "UPDATE tiles SET hashes = zeroblob(length(hashes)) WHERE level = 0",
            "the log .* is damaged: log: ",
        ),
        ("UPDATE tiles SET hashes = 7", "tile 0/0 has not"),
        (
            "UPDATE tiles SET hashes = substr('a tile that is text' || hex(hashes), 1, 512)",
            "tile 0/0 has not",
        ),
        ("UPDATE log SET checkpoint = zeroblob(200)", "the log .* is damaged: .*note"),
        ("UPDATE records SET record = zeroblob(200)", "the record of .* is not what was kept"),
        (
            "UPDATE records SET record = (SELECT record FROM records LIMIT 1 OFFSET 2)",
            "the record of .* is not what was kept",
        ),
    ],
    ids=["tile", "no tile", "text", "checkpoint", "record", "another's record"],
)
def test_damage_is_found_before_a_word_about_it_is_signed(
    registrar: Registrar, store: SqliteStore, echo: Party, damage: str, text: str
) -> None:
    store._writer.execute(damage)
    with pytest.raises(StoreFailed, match=text):
        registrar.status(echo.auto_id)


def test_damage_is_found_before_a_consistency_proof_is_given(
    registrar: Registrar, store: SqliteStore
) -> None:
    """Here of the last tile of all: only the root that was signed says what it must be."""
    size = store.head.size
    assert registrar.consistency(1, size)
    fresh = Registrar(store, KEY, lambda: 0)
    store._writer.execute("UPDATE tiles SET hashes = zeroblob(length(hashes)) WHERE level = 0")
    for new in (size, size - 1):
        with pytest.raises(StoreFailed, match="not those of the tree that was signed"):
            fresh.consistency(1, new)


def test_a_checkpoint_is_verified_even_where_its_tree_is_remembered(
    registrar: Registrar, store: SqliteStore
) -> None:
    assert registrar.proof(1)
    store._writer.execute("UPDATE log SET checkpoint = substr(checkpoint, 1, length(checkpoint) - 4)")
    with pytest.raises(StoreFailed, match="is damaged"):
        registrar.proof(1)


def test_a_log_whose_time_was_changed_is_not_gone_on_with(
    registrar: Registrar, store: SqliteStore, log: Log
) -> None:
    store._writer.execute("UPDATE log SET time = time + 1")
    folder = store._folder
    store.close()
    with SqliteStore(folder) as again, pytest.raises(UsageError, match="not the one that was signed"):
        Registrar(again, KEY, lambda: log.now)


def test_a_status_is_of_one_moment_whatever_is_appended_meanwhile(
    registrar: Registrar, store: SqliteStore, log: Log, echo: Party, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An append between the head and the record, and one behind the record: neither is in the status, which is believed."""
    size, real = store.head.size, SqliteStore.record
    echo.take_key(echo.key, echo.next_key)
    later = [echo.service().to_bytes()]

    def record(self: SqliteStore, auto_id: Any) -> Any:
        monkeypatch.undo()
        registrar.append(later)
        return real(self, auto_id)

    monkeypatch.setattr(SqliteStore, "record", record)
    status = registrar.status(echo.auto_id)
    assert status is not None
    verified = verify_untrusted(status.to_bytes(), registrar.verifier_key)
    assert (verified.checkpoint.size, status.entries) == (size, 1)
    assert store.head.size == size + 1
    (leaf,) = store.read_leaves(size, size + 1)
    newer = registrar.status(echo.auto_id)
    assert newer is not None
    assert (newer.entries, newer.head) == (2, leaf_hash(leaf))
