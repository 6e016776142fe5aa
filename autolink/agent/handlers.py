"""What an agent does, apart from who it is: methods, channels and a forwarder, without key or address."""

import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, cast, get_args, get_origin, get_type_hints, overload

from autolink import limits
from autolink.agent.bodies import Body, body_of
from autolink.errors import UsageError, display

if TYPE_CHECKING:
    from autolink.agent.call import Call
    from autolink.agent.channel import Channel
    from autolink.messages import Envelope

F = TypeVar("F", bound=Callable[..., Awaitable[object]])


@dataclass(frozen=True, slots=True)
class Method:
    """One registered method: the function and its two body types."""

    function: "Callable[[Call, Any], Awaitable[object]]"
    takes: Body[Any]
    returns: Body[Any]
    forwarded: bool


@dataclass(frozen=True, slots=True)
class ChannelHandler:
    """One registered channel: the function and its two item types."""

    function: "Callable[[Channel[Any, Any]], Awaitable[object]]"
    sends: Body[Any]
    receives: Body[Any]


class Handlers:
    """Named methods and channels that an `Agent` serves. Knows no key and no address.

    A method is ``async def name(call: Call, body: T) -> R``, a channel ``async def name(channel: Channel[S, R])``
    that sends S and receives R. The annotations decide how bodies are checked; without one a body is a plain value.
    """

    def __init__(self) -> None:
        self.methods: dict[str, Method] = {}
        self.channels: dict[str, ChannelHandler] = {}
        self.forwarding: Callable[[Call, Envelope], Awaitable[Envelope | None]] | None = None

    @overload
    def method(self, function: F, /) -> F: ...
    @overload
    def method(self, name: str | None = None, /, *, forwarded: bool = False) -> Callable[[F], F]: ...

    def method(self, function: F | str | None = None, /, *, forwarded: bool = False) -> F | Callable[[F], F]:
        """Register a method under its function's name, or under `name`.

        Args:
            function: the handler, or the name to serve it under.
            forwarded: also serve messages that somebody else carried here; then `call.author` is not `call.peer`.

        Raises:
            UsageError: not `async def`, a name taken or not usable, or other parameters than (call, body).
        """

        def register(handler: F) -> F:
            name = _name(function, handler)
            hints = _hints(handler, parameters=2, shape="async def name(call, body)")
            self._claim(name)
            takes, returns = body_of(hints[1]), body_of(hints[-1])
            self.methods[name] = Method(handler, takes, returns, forwarded)
            return handler

        return register if function is None or isinstance(function, str) else register(function)

    @overload
    def channel(self, function: F, /) -> F: ...
    @overload
    def channel(self, name: str | None = None, /) -> Callable[[F], F]: ...

    def channel(self, function: F | str | None = None, /) -> F | Callable[[F], F]:
        """Register a channel under its function's name, or under `name`.

        Raises:
            UsageError: as `method`; the handler takes one parameter, the channel.
        """

        def register(handler: F) -> F:
            name = _name(function, handler)
            (annotation, _) = _hints(handler, parameters=1, shape="async def name(channel)")
            self._claim(name)
            sends, receives = _item_types(annotation)
            self.channels[name] = ChannelHandler(handler, body_of(sends), body_of(receives))
            return handler

        return register if function is None or isinstance(function, str) else register(function)

    def forwarder(self, function: F, /) -> F:
        """Register the one handler that passes on envelopes addressed to others.

        It is ``async def name(call: Call, envelope: Envelope) -> Envelope | None``: `call.peer` handed the envelope
        over; nobody has judged its author yet, that is for its recipient. What it returns goes back as the answer.

        Raises:
            UsageError: not `async def`, other parameters than (call, envelope), or there is one already.
        """
        _hints(function, parameters=2, shape="async def name(call, envelope)")
        if self.forwarding is not None:
            raise UsageError("there is a forwarder already: one agent passes envelopes on in one way")
        self.forwarding = cast("Any", function)
        return function

    def _claim(self, name: str) -> None:
        if not name or len(name.encode()) > limits.METHOD or not name.isprintable():
            raise UsageError(f"{display(name)!r} cannot be a name: 1 to {limits.METHOD} printable bytes")
        if name in self.methods or name in self.channels:
            raise UsageError(f"{display(name)!r} is registered already")


def _item_types(annotation: Any) -> tuple[Any, Any]:  # noqa: ANN401
    """S and R of `Channel[S, R]`; plain values for a bare `Channel` or no annotation."""
    arguments = get_args(annotation)
    if not arguments:
        return object, object
    if getattr(get_origin(annotation), "__name__", "") != "Channel" or len(arguments) != 2:
        raise UsageError(f"a channel handler's parameter is a Channel[S, R], not {display(str(annotation))}")
    return arguments[0], arguments[1]


def _name(given: object, handler: Callable[..., Awaitable[object]]) -> str:
    return given if isinstance(given, str) else getattr(handler, "__name__", "")


def _hints(handler: Callable[..., Awaitable[object]], *, parameters: int, shape: str) -> list[Any]:
    """The annotations of the parameters in order, then of the return; `object` where there is none."""
    called = handler if inspect.isroutine(handler) else type(handler).__call__
    if not inspect.iscoroutinefunction(called):
        raise UsageError(
            f"{display(getattr(handler, '__name__', repr(handler)))} must be `{shape}`: "
            "run blocking code inside it with anyio.to_thread.run_sync"
        )
    names = list(inspect.signature(handler).parameters)
    if len(names) != parameters:
        takes = f"{len(names)} parameter{'' if len(names) == 1 else 's'}"
        raise UsageError(
            f"{display(called.__qualname__)} takes {takes}, and must be `{shape}`, also where it does not use all of these"
        )
    try:
        hints = get_type_hints(called, include_extras=True)
    except NameError as error:
        raise UsageError(
            f"{display(called.__qualname__)}: its annotation names {error.name!r}, which its module does not define: "
            "define it there, before the handler and not only under TYPE_CHECKING"
        ) from error
    return [hints.get(name, object) for name in [*names, "return"]]
