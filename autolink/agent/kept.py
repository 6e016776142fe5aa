"""A link that is made again whenever it is lost.

A kept link dials with capped exponential back-off and full jitter. Operations wait for a link as long as their own
deadline allows; while the last attempt ended in a refusal they raise it instead, because waiting does not change a
judgement. A call that was out when its link died raises `DeliveryUnknown`: only the caller knows whether sending it
again is safe. What nobody can have looked at goes to the new link: a call that was still waiting to be sent, and one that
a draining peer promises not to have looked at.
"""

import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar, final, overload

import anyio
from anyio.lowlevel import checkpoint

from autolink import limits
from autolink.agent.channel import Channel
from autolink.agent.core import NotSent, NotServed
from autolink.agent.groups import background_tasks
from autolink.agent.topic import Subscription
from autolink.errors import DeliveryUnknown, LinkLost, LocalProtocolError, Refused, RemoteProtocolError
from autolink.messages import Envelope

if TYPE_CHECKING:
    from autolink.agent.link import Link

S = TypeVar("S")
R = TypeVar("R")
T = TypeVar("T")
logger: Final = logging.getLogger("autolink")


@final
class KeptLink:
    """A link that is made again whenever it is lost: dialled with capped exponential back-off and full jitter.

    Operations wait for a link as long as their own deadline allows. Made by `Agent.keep_link`.

    Attributes:
        error: why the last attempt failed; None after one that did not.
    """

    def __init__(self, dial: "Callable[[], Awaitable[Link]]", where: str) -> None:
        self._dial = dial
        self._where = where  # for people
        self._link: Link | None = None
        self.error: Exception | None = None
        self._changed = anyio.Event()
        self._closed = False
        self._links: set[Link] = set()  # this moment's, and those before it that are draining

    @property
    def link(self) -> "Link | None":
        """The link of this moment, or None between two."""
        return self._link

    async def ready(self) -> "Link":
        """The link, as soon as there is one.

        Raises:
            Refused: the last attempt was refused, by either side.
            anyio.ClosedResourceError: the block of `keep_link` has ended: no link is made any more.
        """
        while self._link is None or self._link.lost is not None or self._link.draining:
            if self._closed:
                raise anyio.ClosedResourceError
            if isinstance(self.error, Refused):
                raise self.error.with_traceback(None)  # the same one may be raised many times
            await self._changed.wait()
        return self._link

    @overload
    async def call(
        self, method: str, body: object = None, *, returns: type[T], headers: Mapping[str, str] | None = None
    ) -> T: ...
    @overload
    async def call(
        self, method: str, body: object = None, *, headers: Mapping[str, str] | None = None
    ) -> Any: ...  # noqa: ANN401

    async def call(
        self,
        method: str,
        body: object = None,
        *,
        returns: Any = object,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """As `Link.call`, on the link of the moment.

        Raises:
            DeliveryUnknown: the link died while the call was out.
            Refused: the last attempt at a link was refused.
            anyio.ClosedResourceError: the block of `keep_link` has ended.
            CallError, TimeoutError, BodyError: as `Link.call`.
        """
        return await self._through(lambda link: link.call(method, body, returns=returns, headers=headers))

    async def forward(self, envelope: Envelope) -> Envelope | None:
        """As `Link.forward`; the errors are those of `call`."""
        return await self._through(lambda link: link.forward(envelope))

    @overload
    @asynccontextmanager
    def open_channel(
        self, name: str, *, sends: type[S], receives: type[R], headers: Mapping[str, str] | None = None
    ) -> AsyncIterator[Channel[S, R]]: ...
    @overload
    @asynccontextmanager
    def open_channel(
        self, name: str, *, headers: Mapping[str, str] | None = None
    ) -> AsyncIterator[Channel[Any, Any]]: ...

    @asynccontextmanager
    async def open_channel(
        self,
        name: str,
        *,
        sends: Any = object,
        receives: Any = object,
        headers: Mapping[str, str] | None = None,
    ) -> AsyncIterator[Channel[Any, Any]]:
        """As `Link.open_channel`, on the link of the moment: a channel does not survive its link.

        Raises:
            DeliveryUnknown: the link died while the channel was being opened.
            Refused: the last attempt at a link was refused.
        """
        async with AsyncExitStack() as stack:
            yield await self._through(
                lambda link: stack.enter_async_context(
                    link.open_channel(name, sends=sends, receives=receives, headers=headers)
                )
            )

    @overload
    @asynccontextmanager
    def subscribe(self, name: str, *, receives: type[R]) -> AsyncIterator[Subscription[R]]: ...
    @overload
    @asynccontextmanager
    def subscribe(self, name: str) -> AsyncIterator[Subscription[Any]]: ...

    @asynccontextmanager
    async def subscribe(self, name: str, *, receives: Any = object) -> AsyncIterator[Subscription[Any]]:
        """As `Link.subscribe`, on the link of the moment: a subscription does not survive its link."""
        async with AsyncExitStack() as stack:
            yield await self._through(
                lambda link: stack.enter_async_context(link.subscribe(name, receives=receives))
            )

    async def _through(self, operation: "Callable[[Link], Awaitable[T]]") -> T:
        while True:
            link = await self.ready()
            try:
                return await operation(link)
            except (NotSent, NotServed, LocalProtocolError):  # nothing of it was looked at
                if not link.draining:
                    raise
                await checkpoint()
            except LinkLost as error:
                if link.lost is None:
                    raise
                raise DeliveryUnknown(f"the link to {link.named} died while this was out") from error

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Keep the link around a body; leaving it closes the link politely, cancellation at once."""
        async with background_tasks() as tasks:
            tasks.start_soon(self._keep)
            try:
                yield
            finally:
                self._closed = True
                self._notify()
                async with anyio.create_task_group() as closing:
                    for link in self._links:
                        closing.start_soon(link.aclose)

    async def _keep(self) -> None:
        async with anyio.create_task_group() as old_links:
            failures = 0
            while not self._closed:
                link = await self._attempt()
                if link is not None:
                    self._link = link
                    self._links.add(link)
                    self._notify()
                    old_links.start_soon(self._run, link)
                    await link.no_longer_usable()
                    if anyio.current_time() - link.opened_at >= limits.RETRY_MAX:
                        failures = 0
                        continue
                failures += 1  # a link that is lost as soon as it opens is one, or we would hammer the peer
                await anyio.sleep(back_off(failures))

    async def _run(self, link: "Link") -> None:
        """A link that drains lives on beside its successor until what is open on it has ended."""
        try:
            async with link.running():
                await link.closed()
        finally:
            self._links.discard(link)

    async def _attempt(self) -> "Link | None":
        try:
            link = await self._dial()
        except (Refused, LinkLost, RemoteProtocolError, TimeoutError) as error:
            say = logger.warning if self.error is None else logger.info  # the first of a row
            say("no link to %s, trying again: %s", self._where, str(error) or "timed out")
            self.error = error
        else:
            if self.error is not None:  # who was warned is told of the end of it
                logger.warning("there is a link to %s again", self._where)
            self.error = None
            return link
        self._notify()
        return None

    def _notify(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()


def back_off(failures: int) -> float:
    """Seconds before the next attempt: full jitter, so that a thousand agents do not come back together."""
    doublings = min(failures - 1, 30)
    return random.uniform(0, min(limits.RETRY_MAX, limits.RETRY * 2**doublings))  # noqa: S311  jitter, no secret
