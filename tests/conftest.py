"""How async tests run: on Trio unless marked `anyio` (then on Trio and on asyncio), each under a real-time limit."""

import asyncio
import functools
import inspect
import threading
from collections.abc import Awaitable, Callable, Generator
from typing import Any

import anyio
import pytest
import sniffio
import trio
import trio.testing

LIMIT = 30.0
"""Seconds of real time for one async test; the test's own clock may be virtual."""


@pytest.fixture(params=["trio", "asyncio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, object]]:
    """Function-scoped on purpose: a fresh loop for each test, nothing shared between backends."""
    return request.param, {}


@pytest.fixture
def virtual_clock(autojump_clock: trio.testing.MockClock) -> trio.testing.MockClock:
    """pytest-trio's autojump clock under a name that says what it is. Trio only; no threads, no sockets, no SQLite."""
    return autojump_clock


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if inspect.iscoroutinefunction(_inner(item)) and not item.get_closest_marker("anyio"):
            item.add_marker("trio")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    inner = _inner(item)
    if inspect.iscoroutinefunction(inner) and not hasattr(inner, "_limited"):
        own = item.get_closest_marker("limit")
        limited = _limited(inner, own.args[0] if own else LIMIT)
        if inner is item.obj:
            item.obj = limited
        else:
            item.obj.hypothesis.inner_test = limited
    return (yield)


def _inner(item: Any) -> Any:
    function = getattr(item, "obj", None)
    return getattr(getattr(function, "hypothesis", None), "inner_test", function)


def _limited(function: Callable[..., Awaitable[object]], limit: float) -> Callable[..., Awaitable[object]]:
    """Cancel the test from a thread when its real time is up: a virtual clock cannot be trusted to end it."""

    @functools.wraps(function)
    async def run(*args: Any, **kwargs: Any) -> object:
        with anyio.CancelScope() as scope:
            if sniffio.current_async_library() == "trio":
                soon: Callable[..., object] = trio.lowlevel.current_trio_token().run_sync_soon
            else:
                soon = asyncio.get_running_loop().call_soon_threadsafe
            timer = threading.Timer(limit, lambda: soon(scope.cancel))
            timer.daemon = True
            timer.start()
            try:
                return await function(*args, **kwargs)
            finally:
                timer.cancel()
        pytest.fail(f"still running after {limit} s of real time")

    run._limited = True
    return run
