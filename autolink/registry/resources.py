"""What the registry's public side answers to each question, from one store; nothing here knows of a server.

What is served needs no trust in who serves it: tiles and bundles follow from the log (c2sp.org/tlog-tiles), checkpoints
and statuses are signed, entries come with proofs, revocation lists are their issuers'.
"""

import gzip
import json
from collections.abc import Mapping
from typing import Any, Final, final

from autolink import limits
from autolink.errors import IdentityError, RemoteProtocolError
from autolink.identity import AutoId
from autolink.messages import instant
from autolink.registry import crl, views
from autolink.registry.ledger import standing
from autolink.registry.log.canonical import decimal_untrusted
from autolink.registry.log.tiles import ENTRIES, WIDTH, encode_bundle, tile_from_untrusted, width_at
from autolink.registry.openapi import BYTES, JSON, TEXT, Asked, Operation, Parameter, Reply
from autolink.registry.records import Record
from autolink.registry.registrar import Registrar
from autolink.registry.store import Store

FOREVER: Final = "public, max-age=31536000, immutable"
BRIEFLY: Final = "public, max-age=2"
"""A few seconds (tlog-tiles): a CDN then takes what thousands ask at once."""
FRESH: Final = "no-cache"
"""A status says how young it is: one that was kept for others is older than it needs to be."""

_ID: Final = Parameter("auto_id", {"type": "string", "pattern": "^[0-9a-f]{64}$"}, "an Auto ID")
_NUMBER: Final = {"type": "integer", "minimum": 0, "maximum": limits.LOG_ENTRIES}
_PLACE: Final = Parameter(
    "place",
    {"type": "string", "pattern": r"^(x[0-9]{3}/)*[0-9]{3}(\.p/[1-9][0-9]{0,2})?$"},
    "N of tlog-tiles, and .p/W of a partial one; its slashes may stand as they are",
    example="000.p/1",
)
_LEVEL: Final = Parameter(
    "level", {"type": "integer", "minimum": 0, "maximum": 63}, "L of tlog-tiles", example=0
)


class HttpFault(Exception):
    """An answer that is none: an HTTP status, a word for programs and a sentence for people."""

    def __init__(
        self, status: int, error: str, detail: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(detail)
        self.status, self.error, self.detail, self.headers = status, error, detail, headers or {}


@final
class Resources:
    """What there is to ask for, from one store."""

    def __init__(self, store: Store, registrar: Registrar) -> None:
        self._store, self._registrar = store, registrar

    def operations(self) -> list[Operation]:
        """The table of routes, the one before the other where both would fit. What is asked most often stands first."""
        page = Parameter("start", _NUMBER, "the place to begin at; 0 if left out", "query")
        index = Parameter("index", _NUMBER, "a place in the log", example=0)
        numbered, entries = [_LEVEL, _PLACE], {JSON: views.EntryView}
        return [
            Operation("/v1/ids/{auto_id}/status", "status", "How an ID stands, in the log's signed word",
                      {BYTES: None, JSON: views.StatusView}, self.status, [_ID]),
            Operation("/checkpoint", "checkpoint", "The newest checkpoint (C2SP)", {TEXT: None}, self.checkpoint),
            Operation("/tile/entries/{place}", "bundle", "Entries (C2SP)", {BYTES: None}, self.bundle, [_PLACE], large=True),
            Operation("/tile/{level}/{place}", "tile", "A tile of the tree (C2SP)", {BYTES: None}, self.tile, numbered),
            Operation("/v1/log", "log", "Which log this is, and its newest checkpoint", {JSON: views.LogView}, self.log),
            Operation("/", "index", "Which registry this is, and where to go on", {JSON: views.IndexView}, self.index),
            Operation("/v1/entries/{index}", "entry", "One entry, with its proof", entries, self.entry, [index]),
            Operation("/v1/ids/{auto_id}", "record", "What is on record about an ID", {JSON: views.RecordView},
                      self.record, [_ID]),
            Operation("/v1/ids/{auto_id}/history", "history", "Where an ID's entries stand",
                      {JSON: views.HistoryView}, self.history, [_ID, page]),
            Operation("/v1/ids/{auto_id}/crl", "crl", "An issuer's own revocation list (DER)",
                      {"application/pkix-crl": None}, self.crl, [_ID]),
        ]  # fmt: skip

    # --- c2sp.org/tlog-tiles -------------------------------------------------------------------------------

    def checkpoint(self, asked: Asked) -> Reply:
        return Reply(self._store.head.checkpoint, TEXT, BRIEFLY)

    def tile(self, asked: Asked) -> Reply:
        level, index, width = self._tile(asked.path["level"], asked.path["place"])
        return Reply(self._store.read_tile(level, index, width), BYTES, FOREVER)

    def bundle(self, asked: Asked) -> Reply:
        _, index, width = self._tile("entries", asked.path["place"])
        body = encode_bundle(self._store.read_leaves(index * WIDTH, index * WIDTH + width))
        headers = {"vary": "accept-encoding"}
        if "gzip" in asked.accept_encoding:
            body, headers["content-encoding"] = gzip.compress(body, 1, mtime=0), "gzip"
        return Reply(body, BYTES, FOREVER, headers)

    def _tile(self, level: str, place: str) -> tuple[int, int, int]:
        """A tile or bundle that the log has or has had."""
        try:
            tile = tile_from_untrusted(f"tile/{level}/{place}")
        except RemoteProtocolError:
            raise none("no tile has this path") from None
        if (level == "entries") != (tile.level == ENTRIES) or tile.width > width_at(
            tile.level, tile.index, self._store.head.size
        ):
            raise none("the log has not grown so far")
        return tile.level, tile.index, tile.width

    # --- IDs -----------------------------------------------------------------------------------------------

    def log(self, asked: Asked) -> Reply:
        head = self._store.head
        view: views.LogView = {
            "origin": self._store.origin, "verifier_key": str(self._registrar.verifier_key), "size": head.size,
            "time": head.time, "checkpoint": head.checkpoint.decode(),
        }  # fmt: skip
        return _json(view)

    def index(self, asked: Asked) -> Reply:
        view: views.IndexView = {
            "origin": self._store.origin, "verifier_key": str(self._registrar.verifier_key),
            "openapi": "/openapi.json", "checkpoint": "/checkpoint", "log": "/v1/log",
        }  # fmt: skip
        return _json(view)

    def entry(self, asked: Asked) -> Reply:
        index = _number(asked.path["index"], "index")
        if index >= self._store.head.size:
            raise none("the log has not grown so far")
        (leaf,) = self._store.read_leaves(index, index + 1)
        return _json(views.entry_view(leaf, self._registrar.proof(index)))

    def record(self, asked: Asked) -> Reply:
        auto_id = _auto_id(asked)
        # An audit holds this against as many entries as the proof's checkpoint counts: all of it is of one moment.
        with self._store.snapshot() as head:
            now = self._registrar.now()
            record = self._record(auto_id, now)
            where = standing(self._store, record, now)
            places = self._store.history(auto_id, 0, limits.LOG_PAGE)
            proof = self._registrar.proof(record.touched, head)
        published = crl.served(self._store, record)
        return _json(views.record_view(record, where, at=now, places=places, proof=proof, crl=published))

    def status(self, asked: Asked) -> Reply:
        status = self._registrar.status(_auto_id(asked))
        if status is None:
            raise _not_on_record()
        vary = {"vary": "accept"}
        if _prefers_json(asked.accept):
            return _json(views.status_view(status), FRESH, vary)
        return Reply(status.to_bytes(), BYTES, FRESH, vary)

    def history(self, asked: Asked) -> Reply:
        auto_id, start = _auto_id(asked), _number(asked.query.get("start", "0"), "start")
        self._record(auto_id, 0)
        places = self._store.history(auto_id, start, limits.LOG_PAGE + 1)
        view: views.HistoryView = {
            "auto_id": auto_id.hex, "places": places[: limits.LOG_PAGE],
            "next": places[limits.LOG_PAGE] if len(places) > limits.LOG_PAGE else None,
        }  # fmt: skip
        return _json(view)

    def crl(self, asked: Asked) -> Reply:
        record = self._record(_auto_id(asked), self._registrar.now())
        found = crl.served(self._store, record)
        if found is None:
            raise none("this ID has published no revocation list")
        left = (found.checked.next_update - instant(self._registrar.now())).total_seconds()
        cache = f"public, max-age={max(0, min(60, int(left)))}"
        return Reply(found.der, "application/pkix-crl", cache, {"crl-lags": str(found.lags).lower()})

    def _record(self, auto_id: AutoId, now: int) -> Record:
        found = self._store.record(auto_id)
        if found is None:
            raise _not_on_record()
        return found.at(now)


def _prefers_json(accept: str) -> bool:
    """Whether a status is wanted as JSON rather than in its own bytes, which come first where neither is preferred."""
    weights = {JSON: 0.0, BYTES: 0.0}
    for part in accept.split(","):
        name, *rest = (piece.strip().lower() for piece in part.split(";"))
        quality = next((piece[2:] for piece in rest if piece.startswith("q=")), "1")
        if name in weights:
            try:
                weights[name] = float(quality)
            except ValueError:
                continue
    return weights[JSON] > weights[BYTES]


def _json(view: Mapping[str, Any], cache: str = BRIEFLY, headers: Mapping[str, str] | None = None) -> Reply:
    return Reply(dump(view), JSON, cache, headers or {})


def dump(value: Mapping[str, Any]) -> bytes:
    """ASCII, and no markup even where somebody takes it for a page; it ends as a line does, for terminals."""
    text = json.dumps(value, ensure_ascii=True) + "\n"
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026").encode()


def _auto_id(asked: Asked) -> AutoId:
    text = asked.path["auto_id"]
    try:
        if len(text) == 64:
            return AutoId.parse(text)
    except IdentityError:
        pass
    raise bad("auto_id: an Auto ID is 64 lower-case hexadecimal digits")


def _number(text: str, name: str) -> int:
    try:
        return decimal_untrusted(text, name)
    except RemoteProtocolError as error:
        raise bad(str(error)) from None


def bad(detail: str) -> HttpFault:
    return HttpFault(400, "bad_request", detail)


def none(detail: str) -> HttpFault:
    return HttpFault(404, "not_found", detail)


def _not_on_record() -> HttpFault:
    return none("this Auto ID is not on record")
