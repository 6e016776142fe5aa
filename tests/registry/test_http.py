"""The public side as an ASGI application: what it serves is exact, provable and harmless, and it only serves."""

import base64
import gzip
import json
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from autolink.errors import UsageError
from autolink.messages.merkle import leaf_hash
from autolink.registry.database import StoreFailed
from autolink.registry.http import PublicSide
from autolink.registry.log.checkpoint import verify_untrusted as verify_checkpoint
from autolink.registry.log.proof import LogProof
from autolink.registry.log.proof import verify_untrusted as verify_proof
from autolink.registry.log.tiles import ENTRIES, WIDTH, Tile, decode_bundle_untrusted, width_at
from autolink.registry.status import verify_untrusted as verify_status

from .public import Kept, kept, organisation

SIZE = 259


@pytest.fixture(scope="module")
def public(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A log that the tests only read."""
    with kept(tmp_path_factory.mktemp("public") / "registry", size=SIZE) as made:
        yield made


@pytest.fixture
def small(tmp_path: Path) -> Any:
    """One of two entries, to be changed."""
    with kept(tmp_path / "registry") as made:
        yield made


def client(public: Kept) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(PublicSide(public.store, public.registrar))
    return httpx.AsyncClient(transport=transport, base_url="http://registry")


async def get(public: Kept, path: str, **headers: str) -> httpx.Response:
    async with client(public) as asking:
        return await asking.get(path, headers=headers)


# --- c2sp.org/tlog-tiles -------------------------------------------------------------------------------------


async def test_the_checkpoint_is_served_as_the_standard_says(public: Kept) -> None:
    answer = await get(public, "/checkpoint")
    assert answer.content == public.store.head.checkpoint
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["cache-control"] == "public, max-age=2"
    assert verify_checkpoint(answer.content, public.key).size == SIZE


async def test_tiles_and_bundles_are_served_in_every_width_that_the_log_has_had_and_no_other(
    public: Kept,
) -> None:
    leaves, hashes = public.leaves, [leaf_hash(leaf) for leaf in public.leaves]
    async with client(public) as asking:
        for level, index in ((0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (2, 0), (ENTRIES, 0), (ENTRIES, 1)):
            there = width_at(level, index, SIZE)
            for width in {1, 2, there - 1, there, there + 1, 255, WIDTH} - {-1, 0, WIDTH + 1}:
                answer = await asking.get("/" + Tile(level, index, width).path)
                if width > there:
                    assert answer.status_code == 404
                    continue
                assert answer.headers["content-type"] == "application/octet-stream"
                assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
                begin = index * WIDTH
                if level == ENTRIES:
                    assert decode_bundle_untrusted(answer.content, width) == leaves[begin : begin + width]
                elif level == 0:
                    assert answer.content == b"".join(hashes[begin : begin + width])
                else:
                    assert len(answer.content) == width * 32


@pytest.mark.parametrize(
    "path",
    [
        "tile/0/0", "tile/00/000", "tile/0/000.p/0", "tile/0/000.p/256", "tile/0/000.p/01", "tile/0/x000/000",
        "tile/64/000", "tile/-1/000", "tile/entries/0", "tile/0/000/", "tile//000", "tile/0/000.p/1%00",
        "tile/0/%2e%2e/%2e%2e/v1/log", "tile/%65ntries/999", "tile/0/x999/x999/x999/x999/x999/x999/999", "nothing",
    ],
)  # fmt: skip
async def test_what_is_no_path_of_a_tile_is_not_found(public: Kept, path: str) -> None:
    answer = await get(public, f"/{path}")
    assert answer.status_code == 404
    assert answer.json()["error"] == "not_found"
    assert answer.headers["cache-control"] == "no-store"


async def test_a_bundle_is_compressed_for_whom_can_read_that(public: Kept) -> None:
    transport = httpx.ASGITransport(PublicSide(public.store, public.registrar))
    async with httpx.AsyncClient(transport=transport, base_url="http://registry") as asking:
        async with asking.stream("GET", "/tile/entries/000", headers={"accept-encoding": "gzip"}) as answer:
            raw = b"".join([part async for part in answer.aiter_raw()])
        plain = await asking.get("/tile/entries/000", headers={"accept-encoding": "identity"})
    assert answer.headers["content-encoding"] == "gzip"
    assert answer.headers["vary"] == plain.headers["vary"] == "accept-encoding"
    assert gzip.decompress(raw) == plain.content
    assert "content-encoding" not in plain.headers


# --- IDs -----------------------------------------------------------------------------------------------------


async def test_a_status_is_served_in_its_own_bytes_and_as_json_with_the_same_fields(public: Kept) -> None:
    path = f"/v1/ids/{public.echo.auto_id.hex}/status"
    answer = await get(public, path)
    assert answer.headers["content-type"] == "application/octet-stream"
    status = verify_status(answer.content, public.key).status
    assert (status.auto_id, status.state) == (public.echo.auto_id, "active")
    view = (await get(public, path, accept="application/json")).json()
    again = verify_status(base64.b64decode(view["signed"]), public.key).status
    for name in ("origin", "state", "entries", "at", "expires_at"):
        assert view[name] == getattr(again, name)
    for name in ("certificate", "key", "head"):
        assert bytes.fromhex(view[name]) == getattr(again, name)
    assert view["issuers"] == [key.hex() for key in again.issuers]
    assert view["because"] == again.because.hex
    assert verify_proof(view["proof"].encode(), again.head, public.key).size == SIZE


@pytest.mark.parametrize(
    ("accept", "as_json"),
    [
        ("application/json", True), ("*/*", False), ("", False), ("application/octet-stream", False),
        ("application/json;q=0.5, application/octet-stream", False), ("application/json, */*;q=0.1", True),
        ("application/json;q=x", False), ("," * 500, False), ("application/json;q=nan", False),
    ],
)  # fmt: skip
async def test_a_status_is_json_for_whom_prefers_that(public: Kept, accept: str, as_json: bool) -> None:
    answer = await get(public, f"/v1/ids/{public.echo.auto_id.hex}/status", accept=accept)
    assert (answer.headers["content-type"] == "application/json") == as_json
    assert answer.headers["vary"] == "accept"
    assert answer.headers["cache-control"] == "no-cache"


async def test_a_record_says_how_an_id_stands_and_proves_its_last_entry(small: Kept) -> None:
    small.add(small.acme.revoke())
    view = (await get(small, f"/v1/ids/{small.echo.auto_id.hex}")).json()
    assert (view["state"], view["own_state"]) == ("revoked", "active")
    assert view["because"] == view["issuer"] == small.acme.auto_id.hex
    assert view["name"] == "echo"
    assert view["certificate"] == small.echo.credential.leaf.pem.decode()
    assert (view["entries"], view["places"], view["crl"]) == (1, [1], None)
    assert verify_proof(view["proof"].encode(), leaf_hash(small.leaves[1]), small.key).size == 3


async def test_a_record_shows_a_recovery_that_is_under_way(small: Kept) -> None:
    small.add(small.echo.recover())
    path = f"/v1/ids/{small.echo.auto_id.hex}"
    view = (await get(small, path)).json()
    kept_record = small.store.record(small.echo.auto_id)
    assert kept_record is not None
    recovery = kept_record.recovery
    assert recovery is not None
    assert (view["state"], view["recovery"]["ready_at"]) == ("recovering", recovery.ready_at)
    assert view["recovery"]["key"] == recovery.key.hex()
    small.log.wait(8 * 24 * 3600)
    view = (await get(small, path)).json()
    assert (view["state"], view["recovery"], view["key"]) == ("active", None, recovery.key.hex())


async def test_an_entry_is_served_with_its_exact_bytes_and_their_proof(public: Kept) -> None:
    async with client(public) as asking:
        for index in (0, 1, SIZE - 1):
            view = (await asking.get(f"/v1/entries/{index}")).json()
            leaf = base64.b64decode(view["leaf"])
            assert leaf == public.leaves[index]
            assert view["leaf_hash"] == leaf_hash(leaf).hex()
            assert LogProof.from_untrusted(view["proof"].encode()).index == view["index"] == index
            assert verify_proof(view["proof"].encode(), leaf_hash(leaf), public.key).size == SIZE
        assert (view["op"], view["auto_id"]) == ("service", public.acme.auto_id.hex)
        assert (await asking.get(f"/v1/entries/{SIZE}")).status_code == 404
        assert (await asking.get("/v1/entries/01")).status_code == 400


async def test_a_history_comes_in_pages(public: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autolink.limits.LOG_PAGE", 100)
    path, places, pages = f"/v1/ids/{public.acme.auto_id.hex}/history", [], 0
    start: int | None = 0
    async with client(public) as asking:
        while start is not None:
            page = (await asking.get(path, params={"start": start})).json()
            places += page["places"]
            start, pages = page["next"], pages + 1
    assert places == public.store.history(public.acme.auto_id, 0, 1000)
    assert pages == 3


async def test_who_knows_the_url_alone_is_told_where_to_go_on(public: Kept) -> None:
    answer = await get(public, "/")
    assert answer.headers["content-type"] == "application/json"
    view = answer.json()
    assert (view.pop("origin"), view.pop("verifier_key")) == (public.key.name, str(public.key))
    for path in view.values():
        assert (await get(public, path)).status_code == 200


async def test_the_log_says_which_it_is(public: Kept) -> None:
    view = (await get(public, "/v1/log")).json()
    assert view["verifier_key"] == str(public.key)
    assert view["checkpoint"].encode() == public.store.head.checkpoint
    assert (view["origin"], view["size"], view["time"]) == (public.key.name, SIZE, public.store.head.time)


@pytest.mark.parametrize("below", ["", "/status", "/history", "/crl"])
async def test_an_id_that_is_none_or_not_on_record_is_said_to_be_so(public: Kept, below: str) -> None:
    for wrong in ("x", "g" * 64, "A" * 64, "0" * 63, f"autoid:auto:{'0' * 64}"):
        assert (await get(public, f"/v1/ids/{wrong}{below}")).status_code == 400
    assert (await get(public, f"/v1/ids/{'0' * 64}{below}")).status_code == 404


async def test_rule_42_a_hostile_name_is_text_in_json_and_nothing_else(small: Kept) -> None:
    mallory = organisation(small.log, "<script>alert(1)</script>&", plain=True)
    small.flush()
    answer = await get(small, f"/v1/ids/{mallory.auto_id.hex}")
    assert not {"<", ">", "&"} & set(answer.text)
    assert answer.json()["name"] == "<script>alert(1)</script>&"
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"


# --- who asks ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "FOO"])
async def test_only_get_and_head_are_answered(public: Kept, method: str) -> None:
    async with client(public) as asking:
        answer = await asking.request(method, "/checkpoint")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")


async def test_head_is_get_without_its_body(public: Kept) -> None:
    async with client(public) as asking:
        for path in ("/checkpoint", "/tile/0/000", "/nothing", "/openapi.json"):
            got, head = await asking.get(path), await asking.head(path)
            assert head.content == b""
            assert (head.status_code, head.headers) == (got.status_code, got.headers)


async def test_a_body_is_refused_unread(public: Kept) -> None:
    read: list[object] = []

    async def body() -> Any:
        read.append(1)
        yield b"x" * 100

    async with client(public) as asking:
        for headers in ({"content-length": "100"}, {"transfer-encoding": "chunked"}):
            answer = await asking.request("GET", "/checkpoint", headers=headers, content=body())
            assert (answer.status_code, answer.headers["connection"]) == (413, "close")
        assert not read
        assert (await asking.get("/checkpoint", headers={"content-length": "0"})).status_code == 200


async def test_long_paths_queries_and_headers_are_refused(public: Kept) -> None:
    async with client(public) as asking:
        assert (await asking.get("/" + "x" * 513)).status_code == 414
        assert (await asking.get("/checkpoint?" + "x" * 513)).status_code == 414
        assert (await asking.get("/checkpoint", headers={"x": "y" * 9000})).status_code == 431


@pytest.mark.parametrize(
    "query",
    [
        "start=1&start=2",
        "begin=1",
        "start=-1",
        "start=1e3",
        "start",
        "&",
        "start=1;2",
        "%",
        "a=1" + "&a=1" * 20,
    ],
)
async def test_a_query_that_is_not_understood_is_refused(public: Kept, query: str) -> None:
    answer = await get(public, f"/v1/ids/{public.acme.auto_id.hex}/history?{query}")
    assert answer.status_code == 400


@pytest.mark.parametrize(
    ("path", "detail"),
    [
        ("/v1/entries/x", "index: not a decimal from 0 to 9223372036854775807 without leading zeros"),
        ("/v1/ids/x", "auto_id: an Auto ID is 64 lower-case hexadecimal digits"),
        ("/?strat=1", "strat: no parameter of this query, which takes none"),
        ("{acme}/history?strat=1", "strat: no parameter of this query, which takes start"),
        ("{acme}/history?start=-1", "start: not a decimal from 0 to 9223372036854775807 without leading zeros"),
        ("{acme}/history?start=1&start=2", "start: given twice"),
        ("/?%1b%0a%3c=1", "\\u{1b}\\u{a}<: no parameter of this query, which takes none"),
    ],
)  # fmt: skip
async def test_the_parameter_that_is_wrong_is_named(public: Kept, path: str, detail: str) -> None:
    answer = await get(public, path.replace("{acme}", f"/v1/ids/{public.acme.auto_id.hex}"))
    assert (answer.status_code, answer.json()) == (400, {"error": "bad_request", "detail": detail})


async def test_json_ends_as_a_line_does(public: Kept) -> None:
    async with client(public) as asking:
        for path in ("/", "/v1/log", "/v1/entries/0", "/openapi.json", "/nothing", "/v1/ids/x"):
            assert (await asking.get(path)).content.endswith(b"}\n")


async def test_every_answer_has_the_headers_that_keep_browsers_out_of_trouble(public: Kept) -> None:
    async with client(public) as asking:
        for path in ("/checkpoint", "/tile/0/000", "/v1/log", "/nothing", f"/v1/ids/{'0' * 64}", "/v1/ids/x"):
            headers = (await asking.get(path)).headers
            assert headers["access-control-allow-origin"] == "*"
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["content-security-policy"].startswith("default-src 'none'")
            assert "set-cookie" not in headers
            assert "server" not in headers


async def test_a_fault_of_ours_tells_nothing_of_itself(
    public: Kept, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    secret = "/srv/secret/path"

    def broken(error: Exception) -> Any:
        def raising(*_: object) -> None:
            raise error

        return raising

    for error, status in ((StoreFailed(secret), 503), (RuntimeError(secret), 500)):
        monkeypatch.setattr(public.store, "read_tile", broken(error))
        answer = await get(public, "/tile/0/000")
        assert answer.status_code == status
        assert secret not in answer.text
        assert secret not in str(answer.headers)
        assert secret in caplog.text
        caplog.clear()


async def test_entry_bundles_on_their_way_are_counted(public: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autolink.limits.HTTP_LARGE", 1)
    side, started = PublicSide(public.store, public.registrar), []
    going_on = anyio.Event()

    async def ask(path: str, *, reads: bool) -> None:
        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                started.append(path)
            elif not reads:
                await going_on.wait()

        scope = {
            "type": "http", "method": "GET", "path": path, "raw_path": path.encode(), "root_path": "",
            "query_string": b"", "headers": [],
        }  # fmt: skip
        await side(scope, None, send)  # type: ignore[arg-type]

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: ask("/tile/entries/000", reads=False))
        while not started:
            await anyio.lowlevel.checkpoint()
        tasks.start_soon(lambda: ask("/tile/entries/001.p/3", reads=True))
        await ask("/tile/0/000", reads=True)  # what is not large does not wait
        assert started == ["/tile/entries/000", "/tile/0/000"]
        going_on.set()
    assert started[-1] == "/tile/entries/001.p/3"


async def test_a_websocket_is_not_spoken_to(public: Kept) -> None:
    with pytest.raises(UsageError, match="HTTP only"):
        await PublicSide(public.store, public.registrar)({"type": "websocket"}, None, None)  # type: ignore[arg-type]


async def test_the_api_describes_itself(public: Kept) -> None:
    answer = await get(public, "/openapi.json")
    described = answer.json()
    assert described["openapi"] == "3.1.0"
    assert sorted(described["paths"]) == [
        "/", "/checkpoint", "/tile/entries/{place}", "/tile/{level}/{place}", "/v1/entries/{index}", "/v1/ids/{auto_id}",
        "/v1/ids/{auto_id}/crl", "/v1/ids/{auto_id}/history", "/v1/ids/{auto_id}/status", "/v1/log",
    ]  # fmt: skip
    named = set(json.dumps(described).split("#/components/schemas/")[1:])
    assert {name.split('"')[0] for name in named} <= set(described["components"]["schemas"])
