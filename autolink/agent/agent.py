"""The program that owns a credential: it listens, dials, serves handlers and publishes, under one trust model."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final, NoReturn, TypeVar, final, overload

import anyio

from autolink import limits
from autolink.agent.bodies import body_of
from autolink.agent.finding import dial_found
from autolink.agent.handlers import F, Handlers
from autolink.agent.kept import KeptLink
from autolink.agent.link import Link
from autolink.agent.links import Links
from autolink.agent.listener import Listener
from autolink.agent.topic import Overflow, Topic
from autolink.errors import IdentityError, Reason, UsageError, display
from autolink.identity import AutoId, Credential, PeerId
from autolink.transport import Address, Contact, ListeningSocket, TcpAddress, parse_address
from autolink.trust import Model

T = TypeVar("T")


class _AnyoneTrusted:
    """See `ANYONE_TRUSTED`."""

    def __repr__(self) -> str:
        return "autolink.ANYONE_TRUSTED"


ANYONE_TRUSTED: Final = _AnyoneTrusted()
"""For `expect=`: whoever answers is fine as long as the trust model believes it. Spelled out, because an address
proves nothing."""

Expected = PeerId | AutoId | str | _AnyoneTrusted


@dataclass(frozen=True, slots=True)
class AgentStatistics:
    """What an agent has done since it was made.

    Attributes:
        links: open now.
        opened: links opened, both directions.
        refused: whom we refused, by our own full reason.
        refused_by_peer: how often we were refused, by the closed reason that came over the wire.
        messages_sent: signed messages that left on links, ended ones included, and envelopes that were signed.
        messages_verified: the same for messages that came in and were verified, forwarded ones included.
        handlers: running now.
    """

    links: int
    opened: int
    refused: Mapping[Reason, int]
    refused_by_peer: Mapping[Reason, int]
    messages_sent: int
    messages_verified: int
    handlers: int


@final
class Agent(Links):
    """An agent is inert until `listening`, `serve`, `connect` or `keep_link`.

    Args:
        credential: who it is.
        trust: whom it believes; there is no default.
        handlers: what it does for peers.
        clock: the wall clock, for tests.
        allow_self: accept a link to an agent with our own key.
        resume: dial with TLS sessions of earlier links, and give tickets to those who dial us. Whoever resumes is
            judged as everybody else.

    Attributes:
        reach: how a connection to an address is made; tests put another network here (`autolink.testing.Network`).
        finder: how the addresses of an Auto ID are found, for `connect` and `keep_link` without an address: an async
            function of it, such as `autolink.registry.discovery.RegistryFinder`. None: they are not.

    Raises:
        UsageError: an argument is not what it must be.
    """

    def __init__(
        self,
        credential: Credential,
        *,
        trust: Model,
        handlers: Handlers | None = None,
        clock: Callable[[], datetime] | None = None,
        allow_self: bool = False,
        resume: bool = True,
    ) -> None:
        if not isinstance(credential, Credential):
            raise UsageError(
                "an agent needs a Credential: Credential.load(name), or Credential.from_pem(chain, key)"
            )
        if not isinstance(handlers, Handlers | None):
            raise UsageError("handlers= takes Handlers, whose @handlers.method puts functions into it")
        super().__init__(credential, trust, clock or _now, allow_self=allow_self, resume=resume)
        self.handlers = Handlers() if handlers is None else handlers
        self.topics: dict[str, Topic[Any]] = {}

    # --- what it does ----------------------------------------------------------------------------------

    @overload
    def method(self, function: F, /) -> F: ...
    @overload
    def method(self, name: str | None = None, /, *, forwarded: bool = False) -> Callable[[F], F]: ...

    def method(self, function: F | str | None = None, /, *, forwarded: bool = False) -> Any:
        """As `Handlers.method`."""
        if callable(function):
            return self.handlers.method(function)
        return self.handlers.method(function, forwarded=forwarded)

    @overload
    def channel(self, function: F, /) -> F: ...
    @overload
    def channel(self, name: str | None = None, /) -> Callable[[F], F]: ...

    def channel(self, function: F | str | None = None, /) -> Any:
        """As `Handlers.channel`."""
        return self.handlers.channel(function)

    def forwarder(self, function: F, /) -> F:
        """As `Handlers.forwarder`."""
        return self.handlers.forwarder(function)

    def topic(
        self, name: str, *, of: type[T], overflow: Overflow = "wait", buffer: int = limits.TOPIC_BUFFER
    ) -> Topic[T]:
        """Declare a topic that peers may subscribe to.

        Args:
            name: unique in this agent.
            of: the type of its publications.
            overflow: what happens when a subscriber's buffer is full: `publish` waits, the oldest publication is
                dropped (the subscriber counts it), or the subscriber is disconnected.
            buffer: publications that may wait for one subscriber.

        Raises:
            UsageError: the name is taken or not usable, or an argument makes no sense.
        """
        if name in self.topics:
            raise UsageError(f"topic {name!r} is declared already")
        declared = self.topics[name] = Topic[T](self.auto_id, name, body_of(of), overflow, buffer)
        return declared

    # --- links -----------------------------------------------------------------------------------------

    @asynccontextmanager
    async def connect(
        self, where: str | AutoId | PeerId, *, expect: Expected | None = None
    ) -> AsyncIterator[Link]:
        """Open a link and keep it for the block.

        Args:
            where: a contact (`autolink://…`), which says whom to expect, or an address: `host:port`, `[v6]:port`,
                `unix:/path`. Or whom to find, by the agent's `finder`, and to expect there: an AutoId means the bound one.
            expect: with an address, the `PeerId` that must answer, or `ANYONE_TRUSTED`. An AutoId means the bound one.

        Raises:
            Refused: by us or by the peer.
            LinkLost: nobody answers there, or the connection broke while opening, or nobody is found.
            NotAnAgent: (a RemoteProtocolError) whoever answers does not speak the protocol.
            TimeoutError: no link within `limits.OPENING` seconds, or `limits.FINDING` where its peer is found first.
            UsageError: no such address can be, nobody is expected, or the agent has no `finder`.
        """
        link = await self._dialling(where, expect)()
        async with link.running():
            yield link

    @asynccontextmanager
    async def keep_link(
        self, where: str | AutoId | PeerId, *, expect: Expected | None = None
    ) -> AsyncIterator[KeptLink]:
        """Keep a link for the block: it is opened at once, and again whenever it is lost, where its peer is found then.

        Args:
            where, expect: as `connect`.

        Raises:
            UsageError: as `connect`. Everything else is raised by the operations on the kept link.
        """
        kept = KeptLink(self._dialling(where, expect), str(where))
        async with kept.running():
            yield kept

    @asynccontextmanager
    async def listening(self, *addresses: str) -> AsyncIterator[Listener]:
        """Accept links for the block; leaving it ends them.

        Args:
            addresses: one or more of `host:port`, `[v6]:port`, `unix:/path`; port 0 takes a free one.

        Raises:
            UsageError: not an address, or none.
            SetupError: the path of a Unix socket cannot be one here.
            OSError: it cannot be listened on.
        """
        if not addresses:
            raise UsageError("listening needs an address, for example 127.0.0.1:0")
        listener = Listener(self, [parse_address(text) for text in addresses])
        async with listener.running():
            yield listener

    @asynccontextmanager
    async def listening_on(self, sockets: Sequence[ListeningSocket]) -> AsyncIterator[Listener]:
        """Accept links for the block on sockets that listen already, such as those that a parent process left to this
        one (`autolink.transport.listen_blocking`); leaving it ends the links and closes the sockets here."""
        listener = Listener(self, [], sockets)
        async with listener.running():
            yield listener

    async def serve(self, *addresses: str) -> NoReturn:
        """Accept links until cancelled; `listening` for ever.

        Raises:
            UsageError, OSError: as `listening`.
        """
        async with self.listening(*addresses):
            await anyio.sleep_forever()
        raise AssertionError("sleep_forever returned")

    def _dialling(
        self, where: str | AutoId | PeerId, expect: Expected | None
    ) -> Callable[[], Awaitable[Link]]:
        """One attempt at a link, of which there may be many."""
        if isinstance(where, str):
            return partial(self.dial, *self._whom(where, expect))
        who = PeerId(where, "bound") if isinstance(where, AutoId) else where
        if not isinstance(who, PeerId):
            raise UsageError(
                f"where= takes a contact or an address, as text, an AutoId or a PeerId, not {_shown(where)}"
            )
        if expect is not None:
            raise UsageError("who is found is expected: leave expect= out")
        if who.auto_id is None:
            raise UsageError("a key alone is not found: only an Auto ID is")
        if self.finder is None:
            raise UsageError(
                f"where is {who.auto_id.short}? Give its contact (autolink://…), or the agent a way to find it: "
                "agent.finder = RegistryFinder(…), from autolink.registry.discovery"
            )
        return partial(dial_found, self, who)

    def _whom(self, where: str, expect: Expected | None) -> tuple[Address, PeerId | None]:
        if where.startswith("autolink://"):
            contact = Contact.parse(where)
            if expect is not None:
                raise UsageError(
                    "a contact says whom to expect: leave expect= out, or give the address alone"
                )
            return contact.address, contact.peer_id
        _check_no_id(where)
        address = parse_address(where)
        if isinstance(address, TcpAddress) and not address.port:
            raise UsageError("port 0 is for listening: nobody can be dialled there")
        match expect:
            case None:
                raise UsageError(
                    f"whom to expect at {where}? Give a contact (autolink://…), expect=<PeerId>, "
                    "or expect=autolink.ANYONE_TRUSTED"
                )
            case _AnyoneTrusted():
                return address, None
            case AutoId():
                return address, PeerId(expect, "bound")
            case PeerId():
                return address, expect
            case str():
                return address, PeerId.parse(expect)
        raise UsageError(
            f"expect= takes a PeerId, an AutoId, text of these, or ANYONE_TRUSTED, not {_shown(expect)}"
        )

    def statistics(self) -> AgentStatistics:
        """What this agent has done so far."""
        links = self.links
        return AgentStatistics(
            links=len(links), opened=self._opened, refused=dict(self._refused),
            refused_by_peer=dict(self._refused_by_peer),
            messages_sent=self._sent + sum(link.traffic.messages_sent for link in links),
            messages_verified=self._verified + sum(link.traffic.messages_verified for link in links),
            handlers=sum(link.server.running for link in links),
        )  # fmt: skip

    def __repr__(self) -> str:
        return f"<Agent {self.credential.name} {self.auto_id.short} links={len(self.links)}>"


def _check_no_id(where: str) -> None:
    """Whom to find is no text, but text that can mean nothing else is worth a better word than that it is no address."""
    try:
        AutoId.parse(where)
    except IdentityError:
        return
    raise UsageError(f"{where} is an Auto ID and no address: to find it, give AutoId.parse({where!r})")


def _shown(value: object) -> str:
    return display(repr(value), 80)


def _now() -> datetime:
    return datetime.now(UTC)
