"""What a registry serves beside its log, compared with what follows from the entries: each entry as JSON, and of each ID the
status, in its bytes and as JSON, and the record.

A status is signed, so a false one convicts the log, and so does a proof that leads to another root. JSON is nobody's word:
one that differs is a `SourceFailed`, because whoever serves it, or sits in between, shows something else than the log has.

A log grows meanwhile. The audit goes on to every checkpoint that it is shown.
"""

from base64 import b64decode
from collections.abc import Collection, Mapping
from typing import Any, Final, TypeVar, final

from pydantic import TypeAdapter, ValidationError

from autolink import limits
from autolink.errors import BadSignature, RemoteProtocolError, display
from autolink.identity import AutoId
from autolink.messages.merkle import leaf_hash
from autolink.registry.audit import Audit, verify_checkpoint
from autolink.registry.evidence import LogConvicted
from autolink.registry.ledger import standing
from autolink.registry.log.proof import LogProof
from autolink.registry.log.tree import check_inclusion
from autolink.registry.records import Record
from autolink.registry.source import Progress, Source, SourceFailed
from autolink.registry.status import Status, verify_untrusted
from autolink.registry.views import EntryView, RecordView, StatusView, entry_view, record_view, status_view

T = TypeVar("T")

_ENTRY: Final = TypeAdapter(EntryView)
_STATUS: Final = TypeAdapter(StatusView)
_RECORD: Final = TypeAdapter(RecordView)
_UNDERIVED: Final = frozenset({"crl", "places"})
"""Of a record: the issuer's own list is signed by it, and places are looked at by themselves."""


@final
class Served:
    """What one registry serves.

    Args:
        audit: of its log, replayed; goes on where the log has.
        source: the registry.

    Every method raises:
        LogConvicted: what it has signed is not so.
        SourceFailed: something is not there, is old, or is not what follows from the entries.
        RemoteProtocolError, BadSignature: a status is not signed by the log.
        UsageError: nobody serves these there.
    """

    def __init__(self, audit: Audit, source: Source) -> None:
        self._audit, self._source = audit, source

    def check_entries(self, *, progress: Progress | None = None) -> int:
        """Compare all entries of the log as it was replayed so far; gives their number.

        Args:
            progress: told entries, so far and in all.
        """
        signed = verify_checkpoint(self._audit.checkpoint, self._audit.key)
        for index, leaf in enumerate(self._source.leaves(0, signed)):
            what = f"entry {index}"
            view = _parsed(_ENTRY, self._source.entry_json(index), what)
            proof = self._proof(view["proof"], index, leaf_hash(leaf), what)
            _compare(entry_view(leaf, proof), view, what)
            if progress is not None:
                progress(index + 1, signed.size)
        return signed.size

    def check_ids(self, ids: Collection[AutoId] | None = None, *, progress: Progress | None = None) -> int:
        """Compare the status and the record of each; gives their number.

        Args:
            ids: whose; all that are on record now if not given.
            progress: told IDs, so far and in all.
        """
        ledger = self._audit.ledger
        wanted, done = ledger.count() if ids is None else len(ids), 0
        for done, auto_id in enumerate(ledger.ids() if ids is None else ids, 1):
            self._check_id(auto_id)
            if progress is not None:
                progress(done, max(done, wanted))
        return done

    def _check_id(self, auto_id: AutoId) -> None:
        first = None
        for _ in range(limits.FETCH_TRIES):
            data = self._source.status(auto_id)
            if data is None:
                if self._audit.ledger.record(auto_id) is not None:
                    raise SourceFailed(f"{auto_id.short} is on record, and there is no status of it")
                return
            self._status(auto_id, data)
            status = self._status_in_json(auto_id)
            what = f"the record of {auto_id.short}"
            view = _parsed(_RECORD, self._source.record_json(auto_id), what)
            if view["entries"] <= status.entries:
                self._check_record(status, view, what)
                return
            # It went on between the two questions, or is said to have.
            first = first or status.entries
        if first and status.entries > first:
            raise SourceFailed(
                f"{what} went on between each two questions: try again when less happens there"
            )
        raise SourceFailed(f"{what} has more entries than its status each time")

    def _status_in_json(self, auto_id: AutoId) -> Status:
        """What it says is what is signed in it, and that is a status like any."""
        what = f"the status of {auto_id.short} as JSON"
        view = _parsed(_STATUS, self._source.status_json(auto_id), what)
        try:
            data = b64decode(view["signed"], validate=True)
        except ValueError:  # of the padding: the rest is in the view's own pattern
            raise SourceFailed(f"{what} is served with a `signed` that is no base64") from None
        status = self._status(auto_id, data)
        _compare(status_view(status), view, what)
        return status

    def _status(self, auto_id: AutoId, data: bytes) -> Status:
        verified = verify_untrusted(data, self._audit.key)
        status, signed = verified.status, verified.checkpoint
        if status.auto_id != auto_id:
            raise SourceFailed(f"a status of {status.auto_id.short}, asked for that of {auto_id.short}")
        if signed.size < self._audit.size:
            raise SourceFailed(f"the status of {auto_id.short} is of {signed.size} entries: there are more")
        self._audit.replay(self._source, status.proof.checkpoint)
        if status.at < self._audit.time:
            text = f"the status of {auto_id.short} is of a time before the last entry that it counts"
            raise LogConvicted(text, evidence=status.to_bytes())
        self._audit.check_status(status)
        return status

    def _check_record(self, status: Status, view: RecordView, what: str) -> None:
        """A record as JSON, beside a status that was found right: so the leaf that this one names is in the log."""
        proof = self._proof(view["proof"], status.proof.index, status.head, what)
        found, at = self._audit.ledger.record(status.auto_id), view["at"]
        if found is None or at < self._audit.time:
            raise SourceFailed(f"{what} is of a time before the last entry")
        if at > status.expires_at:  # by when a recovery that is under way, say, would have taken place
            raise SourceFailed(f"{what} is of a time to come")
        record = found.at(at)
        where = standing(self._audit.ledger, record, at)
        expected = record_view(record, where, at=at, places=view["places"], proof=proof, crl=None)
        _compare(expected, view, what)
        if not _are_places(view["places"], record):
            raise SourceFailed(f"{what} has `places` that cannot be those of its entries")

    def _proof(self, text: str, index: int, leaf: bytes, what: str) -> LogProof:
        """A proof that leads from this leaf to a root of the log's. The root comes first: it is signed, so
        another one convicts the log, wherever the path may lead."""
        audit = self._audit
        try:
            proof = LogProof.from_untrusted(text.encode())
            signed = verify_checkpoint(proof.checkpoint, audit.key)
            if signed.size < audit.size:
                raise SourceFailed(f"the proof of {what} is under {signed.size} entries: there are more")
            audit.replay(self._source, proof.checkpoint)
            if proof.index != index:
                raise SourceFailed(f"the proof of {what} is of entry {proof.index}, not {index}")
            check_inclusion(leaf, index, audit.size, audit.root, proof.path)
        except (RemoteProtocolError, BadSignature) as error:
            raise SourceFailed(f"the proof of {what}: {error}") from None
        return proof


def _parsed(adapter: TypeAdapter[T], data: bytes | None, what: str) -> T:
    if data is None:
        raise SourceFailed(f"{what} is in the log, and is not served")
    if sum(map(data.count, (b",", b"[", b"{"))) > limits.LOG_VIEW_NODES:
        raise SourceFailed(f"{what} is served in another form: more than {limits.LOG_VIEW_NODES} elements")
    try:
        return adapter.validate_json(data, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        wrong = f"{'.'.join(map(str, first['loc']))} {first['msg']}".lstrip()
        raise SourceFailed(f"{what} is served in another form: {display(wrong)}") from None


def _compare(expected: Mapping[str, Any], view: Mapping[str, Any], what: str) -> None:
    differing = [name for name in expected if name not in _UNDERIVED and expected[name] != view[name]]
    if differing:
        raise SourceFailed(f"{what} is served with another `{differing[0]}` than follows from the entries")


def _are_places(places: list[int], record: Record) -> bool:
    """Whether these can be an ID's first entries: which they are is in the entries' own views."""
    whole = record.entries <= limits.LOG_PAGE
    return (
        places == sorted(set(places))
        and len(places) == min(record.entries, limits.LOG_PAGE)
        and places[0] == record.registered
        and (places[-1] == record.touched if whole else places[-1] < record.touched)
    )
