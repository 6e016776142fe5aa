"""The registry's public side: read-only HTTP for browsers, curl and CDNs, as an ASGI application.

It serves everybody, without accounts or cookies, and scripts of every origin may read it. Who asks is hostile: only GET and
HEAD, no bodies, everything bounded (`limits.HTTP_*`), long answers made in a few threads, faults told in fixed words. What
an answer shows was often chosen by somebody hostile, too: it is JSON or bytes, never a page.
"""

import logging
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Any, Final, final
from urllib.parse import parse_qsl

import anyio
from anyio import to_thread

from autolink import limits
from autolink.errors import SetupError, UsageError, display
from autolink.registry import views
from autolink.registry.database import StoreFailed
from autolink.registry.openapi import JSON, Asked, Operation, Reply, document
from autolink.registry.registrar import Registrar
from autolink.registry.resources import BRIEFLY, HttpFault, Resources, bad, dump, none
from autolink.registry.store import Store
from autolink.version import __version__

try:
    from starlette.responses import Response
    from starlette.routing import Route, Router
except ImportError as error:
    raise SetupError(
        f"a registry's public side needs the extra `registry` ({error}): pip install 'autolink-agents[registry]', in a "
        "checkout '.[registry]'"
    ) from error

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

_HEADERS: Final = (
    (b"access-control-allow-origin", b"*"),
    (b"access-control-expose-headers", b"crl-lags"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cross-origin-resource-policy", b"cross-origin"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
)

_log = logging.getLogger("autolink.registry")


@final
class PublicSide:
    """The ASGI application of one registry. Any server that speaks ASGI 3 runs it; `httpd` is one that bounds its clients.

    Args:
        store, registrar: the registry's; they are only read.
    """

    def __init__(self, store: Store, registrar: Registrar) -> None:
        operations = Resources(store, registrar).operations()
        described = document(operations, title=f"The registry {store.origin}", version=__version__)
        self._document = Reply(dump(described), JSON, BRIEFLY)
        operations.append(
            Operation("/openapi.json", "openapi", "This API", {JSON: None}, lambda asked: self._document)
        )
        self._threads = anyio.CapacityLimiter(limits.HTTP_READERS)
        self._large = anyio.Semaphore(limits.HTTP_LARGE)
        routes = [
            Route(one.path.replace("{place}", "{place:path}"), _Endpoint(self, one), methods=["GET"])
            for one in operations
        ]
        self._router = Router(routes, redirect_slashes=False, default=_no_route)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self._router(scope, receive, send)
        if scope["type"] != "http":
            raise UsageError("the registry's public side speaks HTTP only")
        send = _outermost(send, head_only=scope["method"] == "HEAD")
        try:
            _check_request(scope)
            await self._router(scope, receive, send)
        except HttpFault as fault:
            view: views.ErrorView = {"error": fault.error, "detail": fault.detail}
            headers = {"cache-control": "no-store", **fault.headers}
            await Response(dump(view), fault.status, headers, JSON)(scope, receive, send)
        return None

    async def answer(self, operation: Operation, scope: Scope, receive: Receive, send: Send) -> None:
        """One operation's answer."""
        headers = dict(scope["headers"])
        accept, accept_encoding = (
            headers.get(name, b"").decode("latin-1") for name in (b"accept", b"accept-encoding")
        )
        asked = Asked(scope["path_params"], _query(scope, operation), accept, accept_encoding)
        room: AbstractAsyncContextManager[Any] = self._large if operation.large else nullcontext()
        async with room:
            try:
                if operation.large:
                    reply = await to_thread.run_sync(operation.answer, asked, limiter=self._threads)
                else:  # a thread would take twice as long as the answer
                    reply = operation.answer(asked)
            except HttpFault:
                raise
            except StoreFailed as error:
                _log.error("the public side cannot read the log: %s", error)
                raise HttpFault(503, "unavailable", "the log cannot be read now") from None
            except Exception:  # noqa: BLE001  a fault of ours: who asked is told no more than that
                _log.exception("the public side failed at %s", operation.name)
                raise HttpFault(500, "internal", "the registry failed at this") from None
            response = Response(
                reply.body,
                headers={"cache-control": reply.cache, **reply.headers},
                media_type=reply.media_type,
            )
            await response(scope, receive, send)


class _Endpoint:
    """An operation as Starlette's router calls it."""

    def __init__(self, side: PublicSide, operation: Operation) -> None:
        self._side, self._operation = side, operation

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._side.answer(self._operation, scope, receive, send)


async def _no_route(scope: Scope, receive: Receive, send: Send) -> None:
    raise none("there is nothing here: see /openapi.json")


def _outermost(send: Send, *, head_only: bool) -> Send:
    """Every answer has the headers that keep browsers out of trouble; one to HEAD has no body."""

    async def outer(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), *_HEADERS]}
        elif head_only and message["type"] == "http.response.body":
            message = {**message, "body": b""}
        await send(message)

    return outer


def _check_request(scope: Scope) -> None:
    if scope["method"] not in ("GET", "HEAD"):
        raise HttpFault(405, "method_not_allowed", "only GET and HEAD", {"allow": "GET, HEAD"})
    if len(scope["path"]) > limits.HTTP_TARGET or len(scope["query_string"]) > limits.HTTP_TARGET:
        raise HttpFault(414, "too_long", f"a path and a query have at most {limits.HTTP_TARGET} bytes")
    size = 0
    for name, value in scope["headers"]:
        size += len(name) + len(value)
        if name == b"transfer-encoding" or (name == b"content-length" and value.strip() != b"0"):
            raise HttpFault(413, "no_body", "a request has no body here", {"connection": "close"})
    if size > limits.HTTP_HEAD:
        raise HttpFault(431, "too_long", f"the headers have at most {limits.HTTP_HEAD} bytes")


def _query(scope: Scope, operation: Operation) -> dict[str, str]:
    if not scope["query_string"]:
        return {}
    known = {one.name for one in operation.parameters if one.where == "query"}
    text = scope["query_string"].decode("latin-1")
    try:
        given = parse_qsl(text, keep_blank_values=True, strict_parsing=True, max_num_fields=8)
    except ValueError:
        raise bad("the query is none: it is name=value, joined by &") from None
    read: dict[str, str] = {}
    for name, value in given:
        if name not in known:
            raise bad(
                f"{display(name)}: no parameter of this query, which takes {', '.join(sorted(known)) or 'none'}"
            )
        if name in read:
            raise bad(f"{name}: given twice")
        read[name] = value
    return read
