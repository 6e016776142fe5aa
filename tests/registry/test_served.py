"""What a registry serves beside its log agrees with its entries, or is found out."""

import json
import tracemalloc
from base64 import b64encode
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from anyio import to_thread
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from autolink import limits
from autolink.errors import BadSignature, UsageError
from autolink.identity import AutoId
from autolink.messages.merkle import leaf_hash, path, root
from autolink.registry import word
from autolink.registry.audit import Audit
from autolink.registry.evidence import LogConvicted
from autolink.registry.http import PublicSide
from autolink.registry.httpd import serving_http
from autolink.registry.ledger import Standing
from autolink.registry.log.checkpoint import Checkpoint
from autolink.registry.log.proof import LogProof
from autolink.registry.openapi import JSON, Asked, Reply
from autolink.registry.records import State
from autolink.registry.resources import Resources
from autolink.registry.served import Served
from autolink.registry.source import SourceFailed
from autolink.registry.sources import FolderSource, open_source
from autolink.registry.status import PURPOSE, sign_status
from autolink.transport import TcpAddress, parse_address

from .conftest import ORIGIN
from .public import KEY, Kept, kept


@pytest.fixture
def small(tmp_path: Path) -> Any:
    with kept(tmp_path / "registry") as made:
        yield made


class Registry:
    """One whose answers a test may change."""

    def __init__(self, kept: Kept) -> None:
        self._kept, self._folder = kept, FolderSource(kept.folder)
        self.checkpoint, self.leaves = self._folder.checkpoint, self._folder.leaves
        self._resources = Resources(kept.store, kept.registrar)
        self.lies: dict[str, Callable[[Any], Any]] = {}
        """By what is asked for: from the true answer to the one that is given."""

    def is_registry(self) -> bool:
        return True

    def status(self, auto_id: AutoId) -> bytes | None:
        found = self._kept.registrar.status(auto_id)
        return self._said("status", found.to_bytes() if found else None)

    def status_json(self, auto_id: AutoId) -> bytes | None:
        return self._said("JSON", self._asked(self._resources.status, JSON, auto_id=auto_id.hex))

    def record_json(self, auto_id: AutoId) -> bytes | None:
        return self._said("record", self._asked(self._resources.record, auto_id=auto_id.hex))

    def entry_json(self, index: int) -> bytes | None:
        return self._said("entry", self._asked(self._resources.entry, index=str(index)))

    def _asked(self, operation: Callable[[Asked], Reply], accept: str = "", **path: str) -> bytes:
        return operation(Asked(path, {}, accept)).body

    def _said(self, what: str, answer: bytes | None) -> bytes | None:
        lie = self.lies.get(what)
        return answer if lie is None else lie(answer)

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None:
        self._folder.close()


@pytest.fixture
def registry(small: Kept) -> Any:
    with Registry(small) as source:
        yield source


@pytest.fixture
def served(small: Kept, registry: Registry) -> Served:
    audit = Audit(small.key)
    audit.replay(registry)
    return Served(audit, registry)


def changed(**fields: Any) -> Callable[[bytes], bytes]:
    """JSON with other values."""
    return lambda true: json.dumps(json.loads(true) | fields).encode()


async def test_a_registry_is_audited_by_url_and_all_that_it_serves_is_compared(small: Kept) -> None:
    async with serving_http(PublicSide(small.store, small.registrar), parse_address("127.0.0.1:0")) as (at,):
        assert isinstance(at, TcpAddress)

        def audit_it() -> None:
            told: list[tuple[int, int]] = []
            audit = Audit(small.key)
            with open_source(f"http://127.0.0.1:{at.port}") as source:
                audit.replay(source)
                assert source.is_registry()
                served = Served(audit, source)
                small.add(small.acme.service(), small.acme.revoke())  # it goes on meanwhile
                assert served.check_entries(progress=lambda done, of: told.append((done, of))) == 2
                assert audit.size == 4
                assert served.check_ids(progress=lambda done, of: told.append((done, of))) == 2
                assert told == [(1, 2), (2, 2)] * 2
                assert served.check_entries() == 4
                assert served.check_ids([small.echo.auto_id]) == 1
                nobody = small.echo.auto_id.derive("nobody")
                assert served.check_ids([nobody]) == 1  # on record neither here nor there

        await to_thread.run_sync(audit_it)


def test_only_a_registry_serves_something_beside_its_log(small: Kept) -> None:
    with FolderSource(small.folder) as source:
        assert not source.is_registry()
        for ask in (source.status, source.status_json, source.record_json):
            with pytest.raises(UsageError, match="ask the registry by its URL"):
                ask(small.acme.auto_id)
        with pytest.raises(UsageError, match="ask the registry by its URL"):
            source.entry_json(0)


# --- statuses ------------------------------------------------------------------------------------------------


def test_a_false_status_convicts_the_log_and_an_old_or_withheld_one_is_said_to_be_so(
    small: Kept, registry: Registry, served: Served
) -> None:
    def checked(status: bytes | None) -> None:
        registry.lies["status"] = lambda _: status
        served.check_ids([small.echo.auto_id])

    def signed(**odd: Any) -> bytes:
        record = small.log.record(small.echo)
        leaf, proof = leaf_hash(small.leaves[record.touched]), small.registrar.proof(record.touched)
        values = {"origin": ORIGIN, "leaf": leaf, "proof": proof, "now": small.log.now, "key": KEY}
        where = odd.pop("standing", small.log.standing(small.echo))
        return sign_status(record, where, **values | odd).to_bytes()

    old = signed()
    checked(old)
    lie = signed(standing=Standing(State.REVOKED, small.echo.auto_id))
    with pytest.raises(LogConvicted, match="not what follows") as conviction:
        checked(lie)
    assert conviction.value.evidence == lie
    with pytest.raises(LogConvicted, match="before the last entry"):
        checked(signed(now=small.store.head.time - 1))
    small.add(small.acme.service())
    registry.lies.clear()
    served.check_ids([small.acme.auto_id])
    with pytest.raises(SourceFailed, match="there are more"):
        checked(old)
    with pytest.raises(SourceFailed, match="there is no status"):
        checked(None)
    other = small.registrar.status(small.acme.auto_id)
    assert other is not None
    with pytest.raises(SourceFailed, match="asked for that of"):
        checked(other.to_bytes())
    with pytest.raises(BadSignature):
        checked(signed(key=Ed25519PrivateKey.generate()))


# --- JSON ----------------------------------------------------------------------------------------------------

HASH = "0" * 64


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("state", "revoked"), ("because", HASH), ("own_state", "revoked"), ("name", "somebody"), ("auto_id", HASH),
        ("issuer", HASH), ("bound", None), ("key", HASH), ("issuers", [HASH]), ("next_key", HASH), ("entries", 0),
        ("registered", 7), ("certified", 7), ("touched", 7), ("revoked_by", HASH), ("deactivated_by", HASH),
        ("rotations", ["-----BEGIN CERTIFICATE-----"]), ("voids", [{"key": HASH, "start": 0}]), ("service", "AAAA"),
        ("guardians", {"count": 1, "threshold": 1, "delay_seconds": 1}),
        ("certificate", "-----BEGIN CERTIFICATE-----"), ("places", []), ("places", [0]), ("places", [1, 2]),
    ],
)  # fmt: skip
def test_each_field_of_a_record_is_compared(
    small: Kept, registry: Registry, served: Served, field: str, value: Any
) -> None:
    if value is None:
        value = not small.log.record(small.echo).bound
    registry.lies["record"] = changed(**{field: value})
    with pytest.raises(SourceFailed, match=f"the record of {small.echo.auto_id.short} .*`{field}`"):
        served.check_ids([small.echo.auto_id])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("index", 0), ("logged_at", 7), ("op", "revoke"), ("auto_id", HASH), ("hash", HASH), ("previous", HASH),
        ("expires_at", 7), ("issuer", None), ("certificate", None), ("next_key", None), ("guardians", None),
        ("void_from", 7), ("revealed", [HASH]), ("service", "AAAA"), ("signed_by", []), ("leaf", "AAAA"),
        ("leaf_hash", HASH),
    ],
)  # fmt: skip
def test_each_field_of_an_entry_is_compared(
    registry: Registry, served: Served, field: str, value: Any
) -> None:
    def second(true: bytes) -> bytes:
        return changed(**{field: value})(true) if json.loads(true)["index"] else true

    registry.lies["entry"] = second
    with pytest.raises(SourceFailed, match=f"entry 1 is served with another `{field}`"):
        served.check_entries()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("origin", "elsewhere"), ("auto_id", HASH), ("state", "revoked"), ("because", HASH), ("certificate", HASH),
        ("key", HASH), ("issuers", [HASH]), ("entries", 7), ("head", HASH), ("at", 7), ("expires_at", 7),
        ("proof", "c2sp.org/tlog-proof@v1\n"),
    ],
)  # fmt: skip
def test_each_field_of_a_status_as_json_is_compared_with_what_is_signed_in_it(
    small: Kept, registry: Registry, served: Served, field: str, value: Any
) -> None:
    registry.lies["JSON"] = changed(**{field: value})
    with pytest.raises(SourceFailed, match=f"the status of .* as JSON is served with another `{field}`"):
        served.check_ids([small.echo.auto_id])


def test_what_is_signed_in_a_status_as_json_is_a_status_like_any(
    small: Kept, registry: Registry, served: Served
) -> None:
    def check(status: bytes) -> None:
        registry.lies["JSON"] = changed(signed=b64encode(status).decode())
        served.check_ids([small.echo.auto_id])

    true = small.registrar.status(small.echo.auto_id)
    other = small.registrar.status(small.acme.auto_id)
    assert true is not None
    assert other is not None
    with pytest.raises(SourceFailed, match="asked for that of"):
        check(other.to_bytes())
    body = replace(true, state=State.REVOKED).body
    lie = replace(true, state=State.REVOKED, signature=word.sign(KEY, PURPOSE, body)).to_bytes()
    with pytest.raises(LogConvicted, match="not what follows") as conviction:
        check(lie)
    assert conviction.value.evidence == lie
    registry.lies["JSON"] = changed(signed="AAA")
    with pytest.raises(SourceFailed, match="no base64"):
        served.check_ids([small.echo.auto_id])


def test_what_cannot_be_read_of_a_status_as_json_is_not_taken_for_what_is_wrong_with_it(
    small: Kept, registry: Registry, served: Served
) -> None:
    def elsewhere(*_: Any) -> Any:
        raise UsageError("nobody serves that there")

    def grown(true: bytes) -> bytes:
        small.add(small.acme.service())
        registry.leaves = elsewhere  # type: ignore[method-assign]
        return registry._asked(registry._resources.status, JSON, auto_id=small.echo.auto_id.hex)

    registry.lies["JSON"] = grown
    with pytest.raises(UsageError, match="nobody serves that there"):
        served.check_ids([small.echo.auto_id])


@pytest.mark.parametrize("what", ["entry", "record", "JSON"])
def test_what_is_no_answer_is_said_to_be_none(
    small: Kept, registry: Registry, served: Served, what: str
) -> None:
    def check() -> None:
        served.check_entries()
        served.check_ids([small.echo.auto_id])

    for answer in (b"", b"[]", b"[" * 200_000, b"\xff", b'{"index": "0"}', b'{"index": 1e999}'):
        registry.lies[what] = lambda _, answer=answer: answer
        with pytest.raises(SourceFailed, match=f"{what} .*is served in another form"):
            check()
    registry.lies[what] = lambda _: None
    with pytest.raises(SourceFailed, match=f"{what} .*is not served"):
        check()
    registry.lies[what] = changed(newer="a field that a later version adds")
    check()


@pytest.mark.parametrize("what", ["entry", "record"])
def test_a_proof_that_is_none_of_it_is_found_out_and_one_of_another_tree_convicts(
    small: Kept, registry: Registry, served: Served, what: str
) -> None:
    def check(proof: LogProof) -> None:
        registry.lies[what] = changed(proof=proof.to_bytes().decode())
        served.check_entries()
        served.check_ids([small.echo.auto_id])

    own = small.registrar.proof(1)
    for wrong in (small.registrar.proof(0), LogProof(1, (), own.checkpoint), LogProof(1, own.path, b"none")):
        with pytest.raises(SourceFailed, match=f"the proof of .*{what}"):
            check(wrong)
    leaf = leaf_hash(small.leaves[0 if what == "entry" else 1])  # a tree that has nothing else
    other = Checkpoint(ORIGIN, 1, leaf).signed(KEY)
    with pytest.raises(SourceFailed, match=f"the proof of .*{what}.* is under 1 entries: there are more"):
        check(LogProof(0, (), other))


def test_a_root_that_only_a_proof_shows_convicts_the_log(
    small: Kept, registry: Registry, served: Served
) -> None:
    """Whom it was shown to was to believe in another past."""
    hashes = [leaf_hash(small.leaves[0]), bytes(32)]
    note = Checkpoint(ORIGIN, 2, root(hashes)).signed(KEY)
    for way in (path(hashes, 0), (), (bytes(32),)):  # the root is signed, whether or not the path leads there
        registry.lies["entry"] = changed(proof=LogProof(0, way, note).to_bytes().decode())
        with pytest.raises(LogConvicted, match="root") as conviction:
            served.check_entries()
        assert conviction.value.evidence == note


def test_a_record_that_goes_on_between_two_questions_is_asked_for_again(
    small: Kept, registry: Registry, served: Served
) -> None:
    went_on = []

    def goes_on(true: bytes) -> bytes:
        if not went_on:
            small.add(small.echo.service())
            went_on.append(True)
            return registry._asked(registry._resources.record, auto_id=small.echo.auto_id.hex)
        return true

    registry.lies["record"] = goes_on
    assert served.check_ids([small.echo.auto_id]) == 1

    def goes_on_always(_: bytes) -> bytes:
        small.add(small.echo.service())
        return registry._asked(registry._resources.record, auto_id=small.echo.auto_id.hex)

    registry.lies["record"] = goes_on_always
    with pytest.raises(SourceFailed, match="went on between each two questions: try again"):
        served.check_ids([small.echo.auto_id])
    registry.lies["record"] = changed(entries=7)
    with pytest.raises(SourceFailed, match="more entries than its status"):
        served.check_ids([small.echo.auto_id])


@pytest.mark.parametrize("who", ["acme", "echo"])
def test_a_log_that_grows_while_a_record_is_answered_agrees(
    small: Kept, served: Served, monkeypatch: pytest.MonkeyPatch, who: str
) -> None:
    """By an entry of that ID, or of the one above it: the record, how it stands and the proof are of one moment."""
    history, grown = small.store.history, []

    def late(*asked: Any) -> list[int]:
        if not grown:
            grown.append(True)
            small.add(small.acme.revoke() if who == "acme" else small.echo.service())
        return history(*asked)

    monkeypatch.setattr(small.store, "history", late)
    assert served.check_ids([small.echo.auto_id]) == 1
    assert served.check_ids() == 2
    assert grown


@pytest.mark.parametrize("count", [limits.LOG_VIEW_NODES // 2 - 8, limits.LOG_VIEW // 3 - 20])
@pytest.mark.parametrize("name", ["voids", "rotations", "places", "later"])
def test_many_wrong_items_are_told_in_little_memory(
    small: Kept, registry: Registry, served: Served, name: str, count: int
) -> None:
    content = b'{"%s":[%s{}]}' % (name.encode(), b"{}," * count)
    assert len(content) <= limits.LOG_VIEW
    registry.lies["record"] = lambda true: content
    tracemalloc.start()
    with pytest.raises(SourceFailed, match="the record of .* is served in another form"):
        served.check_ids()
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 8 * limits.MIB


def test_a_record_of_a_time_to_come_is_said_to_be_so(small: Kept, registry: Registry, served: Served) -> None:
    """It would show a recovery that is under way as one that has taken place."""
    small.add(small.echo.recover())

    def later(true: bytes) -> bytes:
        small.log.wait(8 * 24 * 3600)
        return registry._asked(registry._resources.record, auto_id=small.echo.auto_id.hex)

    registry.lies["record"] = later
    with pytest.raises(SourceFailed, match="of a time to come"):
        served.check_ids([small.echo.auto_id])


def test_a_record_of_the_past_is_said_to_be_so(small: Kept, registry: Registry, served: Served) -> None:
    registry.lies["record"] = changed(at=0)
    with pytest.raises(SourceFailed, match="of a time before the last entry"):
        served.check_ids([small.echo.auto_id])
