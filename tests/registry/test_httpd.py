"""The public side on real sockets: a client that does not do its part is cut off, and the others are served."""

import logging
import shutil
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import anyio
import pytest
import trio
from anyio import to_thread

from autolink.registry.http import Application, PublicSide
from autolink.registry.httpd import _Connection, serving_http
from autolink.transport import TcpAddress, parse_address

from .public import Kept, kept, publish_crl

pytestmark = pytest.mark.skipif(
    shutil.which("curl") is None, reason="no curl here: the public side was NOT tried on sockets"
)

HEAD = b"GET /checkpoint HTTP/1.1\r\nhost: registry\r\n"


@pytest.fixture
def small(tmp_path: Path) -> Any:
    with kept(tmp_path / "registry") as made:
        yield made


@asynccontextmanager
async def serving(app: Any) -> AsyncIterator[int]:
    async with serving_http(app, parse_address("127.0.0.1:0")) as addresses:
        (address,) = addresses
        assert isinstance(address, TcpAddress)
        yield address.port


def ask(port: int, request: bytes, *, end: bool = True) -> bytes:
    """All that comes back until the server closes."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
        sock.sendall(request)
        if end:
            sock.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: sock.recv(65536), b""))


async def curl(*arguments: str) -> bytes:
    done = await anyio.run_process(["curl", "--silent", "--show-error", "--max-time", "10", *arguments])
    return done.stdout


# --- answering -----------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_curl_gets_what_it_asks_for(small: Kept) -> None:
    async with serving(PublicSide(small.store, small.registrar)) as port:
        url = f"http://127.0.0.1:{port}"
        assert await curl(f"{url}/checkpoint") == small.store.head.checkpoint
        assert await curl(f"{url}/tile/entries/000.p/2", "--compressed") == (
            await curl(f"{url}/tile/entries/000.p/2")
        )
        head = await curl("--head", f"{url}/tile/0/000.p/2")
        assert b"content-length: 64" in head
        assert b"date: " in head
        assert b"HTTP/1.1 404" in await curl("--include", f"{url}/tile/0/000")
        assert b"HTTP/1.1 413" in await curl("--include", "--request", "GET", "--data", "x" * 100_000, url)
        two = await curl(f"{url}/checkpoint", f"{url}/v1/log")  # on one connection
        assert two.startswith(small.store.head.checkpoint + b'{"origin"')


async def test_who_runs_it_is_told_of_requests_at_debug_and_of_nothing_at_info(
    small: Kept, caplog: pytest.LogCaptureFixture
) -> None:
    """The method, the path and the status; a path is hostile, and one line."""
    requests = (
        HEAD + b"\r\n",
        HEAD.replace(b"/", b"/nothing?x=%0a%1b", 1) + b"\r\n",
        HEAD.replace(b"/", b"/" + b"x" * 1000, 1) + b"\r\n",
        HEAD.replace(b"/", b"/\x1b", 1) + b"\r\n",
    )
    async with serving(PublicSide(small.store, small.registrar)) as port:
        for level in (logging.INFO, logging.DEBUG):
            caplog.set_level(level, "autolink.registry")
            assert not caplog.records
            for request in requests:
                await to_thread.run_sync(ask, port, request)
    told = [record.getMessage() for record in caplog.records if record.name == "autolink.registry"]
    assert told[:2] == ["GET /checkpoint: 200", "GET /nothing?x=%0a%1bcheckpoint: 404"]
    assert told[2].startswith("GET /xxxx")
    assert told[2].endswith("x…: 414")
    assert told[3:] == ["what is no request of HTTP/1.1: 400"]
    assert all(line.isprintable() and len(line) < 250 for line in told)


async def test_it_is_served_on_a_unix_socket_too(small: Kept, tmp_path: Path) -> None:
    at = tmp_path / "public.sock"
    async with serving_http(PublicSide(small.store, small.registrar), parse_address(f"unix:{at}")):
        answer = await curl("--unix-socket", str(at), "http://registry/checkpoint")
        assert answer == small.store.head.checkpoint
    assert not at.exists()


async def test_requests_that_come_at_once_are_answered_one_after_the_other(small: Kept) -> None:
    async with serving(PublicSide(small.store, small.registrar)) as port:
        answer = await to_thread.run_sync(ask, port, (HEAD + b"\r\n") * 20)
    assert answer.count(b"HTTP/1.1 200 OK") == answer.count(small.store.head.checkpoint) == 20


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /checkpoint\r\n\r\n", b"400"), (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", b"400"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"505"), (b"GET /a b HTTP/1.1\r\nhost: x\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\n\r\n", b"400"), (HEAD + b"x: " + b"y" * 9000 + b"\r\n\r\n", b"431"),
        (HEAD + b"content-length: 5\r\ncontent-length: 6\r\n\r\n", b"400"),
        (HEAD + b"transfer-encoding: gzip\r\n\r\n", b"501"), (HEAD + b"x\r\n\r\n", b"400"),
        (HEAD + b"content-length: 5\r\n\r\n", b"413"), (b"GET /\x00 HTTP/1.1\r\nhost: x\r\n\r\n", b"400"),
        (HEAD + b"expect: 100-continue\r\ncontent-length: 5\r\n\r\n", b"413"),
        (HEAD + b"upgrade: websocket\r\nconnection: upgrade\r\n\r\n", b"200"),
        (HEAD + b"upgrade: h2c\r\nconnection: upgrade, http2-settings\r\nhttp2-settings: AAMAAABk\r\n\r\n", b"200"),
        (b"CONNECT example.com:443 HTTP/1.1\r\nhost: x\r\n\r\n", b"405"),
        (b"GET http://elsewhere/checkpoint HTTP/1.1\r\nhost: x\r\n\r\n", b"404"),
    ],
)  # fmt: skip
async def test_what_is_no_request_is_refused_and_the_next_client_is_served(
    small: Kept, request_: bytes, status: bytes
) -> None:
    async with serving(PublicSide(small.store, small.registrar)) as port:
        answer = await to_thread.run_sync(ask, port, request_)
        assert answer.startswith(b"HTTP/1.1 " + status)
        assert answer.count(b"HTTP/1.1") == 1
        assert await curl(f"http://127.0.0.1:{port}/checkpoint") == small.store.head.checkpoint


@pytest.mark.parametrize("method", [b"GET", b"POST"])
@pytest.mark.parametrize(
    "body",
    [
        b"ZZZ\r\n",
        b"f" * 40 + b"\r\nabc",
        b"3\r\nabc\r\n0\r\n\r\n" + HEAD + b"\r\n",
        b"0\r\nx\x00y: z\r\n\r\n",
    ],
)
async def test_whatever_is_in_a_body_is_no_request_and_not_in_our_log(
    small: Kept, caplog: pytest.LogCaptureFixture, method: bytes, body: bytes
) -> None:
    request = HEAD.replace(b"GET", method) + b"transfer-encoding: chunked\r\n\r\n" + body
    async with serving(PublicSide(small.store, small.registrar)) as port:
        answer = await to_thread.run_sync(ask, port, request)
    assert answer.count(b"HTTP/1.1 ") == 1
    assert answer.startswith((b"HTTP/1.1 413", b"HTTP/1.1 405"))
    assert not caplog.records


async def test_a_body_that_goes_on_and_on_does_not_take_the_refusal_back(small: Kept) -> None:
    async with serving(PublicSide(small.store, small.registrar)) as port:
        request = HEAD + b"content-length: 1000000\r\n\r\n" + b"x" * 500_000
        assert (await to_thread.run_sync(ask, port, request)).startswith(b"HTTP/1.1 413")


async def test_a_failing_application_ends_its_connection_and_no_other(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def failing(scope: Any, receive: Any, send: Any) -> None:
        raise RuntimeError("a fault of ours")

    async with serving(failing) as port:
        for _ in range(2):
            assert await to_thread.run_sync(ask, port, HEAD + b"\r\n") == b""
    assert caplog.text.count("a connection of the public side failed") == 2


async def test_a_connection_takes_a_number_of_requests(small: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autolink.limits.HTTP_REQUESTS", 3)
    async with serving(PublicSide(small.store, small.registrar)) as port:
        answer = await to_thread.run_sync(partial(ask, port, (HEAD + b"\r\n") * 5, end=False))
    *before, last = answer.split(b"HTTP/1.1 200 OK")[1:]
    assert [b"connection: close" in one.lower() for one in (*before, last)] == [False, False, True]


# --- clients that do not do their part -----------------------------------------------------------------------


class Pipe:
    """A stream whose other end sends `chunks`, then nothing, and takes what it is sent only if it reads."""

    def __init__(self, *chunks: bytes, every: float = 0, reads: bool = True) -> None:
        self._chunks, self._every, self._reads = list(chunks), every, reads
        self.sent = b""

    async def receive(self, most: int) -> bytes:
        if not self._chunks:
            await anyio.sleep_forever()
        await anyio.sleep(self._every)
        return self._chunks.pop(0)

    async def send(self, data: bytes) -> None:
        if not self._reads:
            await anyio.sleep_forever()
        self.sent += data

    async def send_eof(self) -> None:
        pass


async def hello(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
    await send({"type": "http.response.body", "body": b"hello"})


async def cut_off_after(app: Application, pipe: Pipe) -> float:
    begun = anyio.current_time()
    await _Connection(app, pipe).serve()  # type: ignore[arg-type]
    return anyio.current_time() - begun


async def test_a_client_that_never_finishes_its_request_is_cut_off(
    virtual_clock: trio.testing.MockClock,
) -> None:
    drip = Pipe(*(bytes([byte]) for byte in HEAD * 100), every=1)
    # The last second is for what is on its way.
    assert await cut_off_after(hello, Pipe()) == pytest.approx(11)
    assert await cut_off_after(hello, drip) == pytest.approx(11)
    assert drip.sent == b""


async def test_a_client_that_stays_after_its_answer_is_cut_off(virtual_clock: trio.testing.MockClock) -> None:
    pipe = Pipe(HEAD + b"\r\n", every=1)
    assert await cut_off_after(hello, pipe) == pytest.approx(12)
    assert pipe.sent.endswith(b"hello")


async def test_a_client_that_never_reads_is_cut_off(virtual_clock: trio.testing.MockClock) -> None:
    assert await cut_off_after(hello, Pipe(HEAD + b"\r\n", reads=False)) == pytest.approx(30)
    assert await cut_off_after(hello, Pipe(b"nonsense\r\n\r\n", reads=False)) == pytest.approx(11)


async def test_a_client_that_never_reads_does_not_keep_the_server_from_ending() -> None:
    async def endless(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while True:
            sent.set()
            await send({"type": "http.response.body", "body": b"x" * 100_000, "more_body": True})

    sent = anyio.Event()
    with socket.socket() as sock:
        async with serving(endless) as port:
            sock.connect(("127.0.0.1", port))
            sock.sendall(HEAD + b"\r\n")
            await sent.wait()


async def test_connections_are_counted_and_one_more_waits(
    small: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("autolink.limits.HTTP_CONNECTIONS", 2)
    async with serving(PublicSide(small.store, small.registrar)) as port:
        idle = [socket.create_connection(("127.0.0.1", port)) for _ in range(2)]
        for sock in idle:
            sock.sendall(HEAD + b"\r\n")
            assert await to_thread.run_sync(sock.recv, 100)  # it is being served
        async with anyio.create_task_group() as tasks:
            answers: list[bytes] = []

            async def third() -> None:
                answers.append(await to_thread.run_sync(ask, port, HEAD + b"\r\n"))

            tasks.start_soon(third)
            await anyio.wait_all_tasks_blocked()
            assert not answers
            idle[0].close()
        assert small.store.head.checkpoint in answers[0]
        idle[1].close()


# --- under another server ------------------------------------------------------------------------------------


async def test_it_runs_under_hypercorn_on_trio(small: Kept) -> None:
    from hypercorn.config import Config
    from hypercorn.trio import serve

    config = Config()
    config.bind, config.loglevel, config.graceful_timeout = ["127.0.0.1:0"], "CRITICAL", 0
    ended = trio.Event()
    side: Any = PublicSide(small.store, small.registrar)
    async with trio.open_nursery() as nursery:
        (url,) = await nursery.start(partial(serve, side, config, shutdown_trigger=ended.wait))
        assert await curl(f"{url}/checkpoint") == small.store.head.checkpoint
        assert b"content-length: 64" in await curl("--head", f"{url}/tile/0/000.p/2")
        assert b"413" in await curl("--include", "--request", "GET", "--data", "x", f"{url}/checkpoint")
        ended.set()


@pytest.mark.skipif(
    find_spec("schemathesis") is None,
    reason="no schemathesis here: the public side was NOT asked what it finds",
)
@pytest.mark.limit(
    90
)  # another program, with hundreds of requests: on a busy machine half a minute is not enough
@pytest.mark.parametrize("known", [False, True], ids=["any ID", "an ID on record"])
async def test_schemathesis_finds_nothing(small: Kept, tmp_path: Path, known: bool) -> None:
    """Whatever the public side's own OpenAPI allows, and what it does not, against the running server."""
    pytest.importorskip(
        "schemathesis", reason="no schemathesis here: the public side was NOT asked what it finds"
    )
    publish_crl(small)
    arguments = ["--max-examples=30", "--seed=1", "--generation-database=none", "--checks=all", "--no-color"]
    if known:
        (tmp_path / "config.toml").write_text(f'[parameters]\n"path.auto_id" = "{small.acme.auto_id.hex}"\n')
        arguments += ["--include-path-regex=auto_id"]
        config = [f"--config-file={tmp_path / 'config.toml'}"]
    else:
        config, arguments = [], [*arguments, "--mode=all"]
    async with serving(PublicSide(small.store, small.registrar)) as port:
        url = f"http://127.0.0.1:{port}/openapi.json"
        done = await anyio.run_process(
            [sys.executable, "-m", "schemathesis.cli", *config, "run", url, *arguments],
            stderr=subprocess.STDOUT, check=False, cwd=tmp_path,
        )  # fmt: skip
    said = done.stdout.decode()
    assert done.returncode == 0, said[-6000:]
    assert not known or "404" not in said, said[-6000:]
