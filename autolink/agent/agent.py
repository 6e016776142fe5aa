"""The program that owns a credential: it listens, dials, serves handlers and publishes, under one trust model."""

import weakref
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from socket import socket
from typing import TYPE_CHECKING, Any, Final, Literal, NoReturn, TypeVar, cast, final, overload

import anyio
from anyio.abc import ByteStream

from autolink import limits
from autolink.agent.author import Author
from autolink.agent.bodies import body_of
from autolink.agent.handlers import F, Handlers
from autolink.agent.kept import KeptLink
from autolink.agent.link import Link
from autolink.agent.listener import Listener
from autolink.agent.opening import Row, early_objection, open_link
from autolink.agent.topic import Overflow, Topic
from autolink.errors import LinkLost, Reason, Refused, UsageError
from autolink.identity import AutoId, Credential, PeerId
from autolink.transport import (
    Address,
    Contact,
    SecureStream,
    TcpAddress,
    client_context,
    connect,
    parse_address,
    secure_stream,
    server_context,
)
from autolink.trust import Context, Model

if TYPE_CHECKING:
    from autolink.agent.core import LinkCore

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
class Agent(Author):
    """An agent is inert until `listening`, `serve`, `connect` or `keep_link`.

    Args:
        credential: who it is.
        trust: whom it believes; there is no default.
        handlers: what it does for peers.
        clock: the wall clock, for tests.
        allow_self: accept a link to an agent with our own key.

    Attributes:
        reach: how a connection to an address is made; tests put another network here (`autolink.testing.Network`).

    Raises:
        UsageError: no trust model was given.
    """

    def __init__(
        self,
        credential: Credential,
        *,
        trust: Model,
        handlers: Handlers | None = None,
        clock: Callable[[], datetime] | None = None,
        allow_self: bool = False,
    ) -> None:
        if not isinstance(credential, Credential):
            raise UsageError(
                "an agent needs a Credential: Credential.load(name), or Credential.from_pem(chain, key)"
            )
        if not isinstance(trust, Model):
            raise UsageError("trust= takes a trust model, such as IssuedBy(TrustAnchor.load('acme.pem'))")
        super().__init__(credential, trust, clock or _now)
        self.handlers = Handlers() if handlers is None else handlers
        self.allow_self = allow_self
        self.topics: dict[str, Topic[Any]] = {}
        self.reach: Callable[[Address], Awaitable[socket | ByteStream]] = connect
        self._client_context = client_context(credential)
        self._server_context = server_context(credential)
        self._links: set[LinkCore] = set()
        self._rows: set[Row] = set()
        self._refused: Counter[Reason] = Counter()
        self._refused_by_peer: Counter[Reason] = Counter()
        self._opened = 0
        weakref.finalize(self, trust.on_change(_weakly(self.invalidate)))

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
    async def connect(self, where: str, *, expect: Expected | None = None) -> AsyncIterator[Link]:
        """Open a link and keep it for the block.

        Args:
            where: a contact (`autolink://…`), which says whom to expect, or an address: `host:port`, `[v6]:port`,
                `unix:/path`.
            expect: with an address, the `PeerId` that must answer, or `ANYONE_TRUSTED`. An AutoId means the bound one.

        Raises:
            Refused: by us or by the peer.
            LinkLost: nobody answers there, or the connection broke while opening.
            RemoteProtocolError: whoever answers does not speak the protocol.
            TimeoutError: no link within `limits.OPENING` seconds.
            UsageError: no such address can be, or nobody is expected.
        """
        address, expected = self._whom(where, expect)
        link = await self.dial(address, expected)
        async with link.running():
            yield link

    @asynccontextmanager
    async def keep_link(self, where: str, *, expect: Expected | None = None) -> AsyncIterator[KeptLink]:
        """Keep a link for the block: it is opened at once, and again whenever it is lost.

        Args:
            where, expect: as `connect`.

        Raises:
            UsageError: as `connect`. Everything else is raised by the operations on the kept link.
        """
        address, expected = self._whom(where, expect)
        kept = KeptLink(self, address, expected)
        async with kept.running():
            yield kept

    @asynccontextmanager
    async def listening(self, *addresses: str) -> AsyncIterator[Listener]:
        """Accept links for the block; leaving it ends them.

        Args:
            addresses: one or more of `host:port`, `[v6]:port`, `unix:/path`; port 0 takes a free one.

        Raises:
            UsageError: not an address, or none.
            OSError: it cannot be listened on.
        """
        if not addresses:
            raise UsageError("listening needs an address, for example 127.0.0.1:0")
        listener = Listener(self, [parse_address(text) for text in addresses])
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

    def _whom(self, where: str, expect: Expected | None) -> tuple[Address, PeerId | None]:
        if where.startswith("autolink://"):
            contact = Contact.parse(where)
            if expect is not None:
                raise UsageError(
                    "a contact says whom to expect: leave expect= out, or give the address alone"
                )
            return contact.address, contact.peer_id
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
        return address, PeerId.parse(expect)

    async def dial(self, address: Address, expect: PeerId | None) -> Link:
        """One attempt at a link; whoever gets it runs it (`Link.running`).

        Raises:
            Refused, LinkLost, RemoteProtocolError, TimeoutError: as `connect`.
        """
        try:
            with anyio.fail_after(limits.OPENING):
                connection = await self.reach(address)
                return await self.open_on(connection, dialer=True, address=str(address), expect=expect)
        except TimeoutError:
            raise
        except (OSError, anyio.BrokenResourceError, anyio.EndOfStream) as error:
            raise LinkLost(f"no link to {address}: {str(error) or 'the connection was closed'}") from error

    async def open_on(
        self,
        connection: socket | ByteStream,
        *,
        dialer: bool,
        address: str = "",
        expect: PeerId | None = None,
    ) -> Link:
        """Secure a connection and judge each other over it; it is closed if it comes to nothing.

        Raises:
            Refused, RemoteProtocolError, anyio.BrokenResourceError, anyio.EndOfStream: it came to nothing.
        """
        try:
            stream = await secure_stream(
                connection, self._client_context if dialer else self._server_context, dialer=dialer,
                expect=None if expect is None else early_objection(expect), peer=address,
            )  # fmt: skip
        except Refused as refused:
            self.count_refused(refused)
            raise
        return await self._open(stream, dialer=dialer, address=address, expect=expect)

    async def _open(self, stream: SecureStream, *, dialer: bool, address: str, expect: PeerId | None) -> Link:
        direction: Literal["outbound", "inbound"] = "outbound" if dialer else "inbound"
        context = Context(now=self.clock(), direction=direction, address=address, given_by_person=dialer)
        row = Row()
        self._rows.add(row)
        try:
            opened = await open_link(self, stream, row, dialer=dialer, expect=expect, context=context)
            link = Link(self, opened, dialer=dialer, context=context)
        except BaseException:
            with anyio.CancelScope(shield=True):
                await stream.abort()
            raise
        finally:
            self._rows.discard(row)
        link.stale = row.stale
        self._links.add(link)
        self._opened += 1
        return link

    @property
    def links(self) -> tuple[Link, ...]:
        """The links that are open now."""
        return tuple(cast("Link", link) for link in self._links)

    @property
    def full(self) -> bool:
        """Whether `limits.LINKS` are open, and the next one is refused as `busy`."""
        return len(self._links) >= limits.LINKS

    def forget(self, link: "LinkCore") -> None:
        """A link has ended."""
        self._links.discard(link)
        self._sent += link.traffic.messages_sent
        self._verified += link.traffic.messages_verified

    # --- trust and credential --------------------------------------------------------------------------

    def invalidate(self) -> None:
        """Trust changed: drop cached verdicts and judge every live link, and every opening one, again."""
        self.verdicts.clear()
        for row in list(self._rows):
            row.attend(stale=True)
        for link in list(self._links):
            link.attend(stale=True)

    def replace_credential(self, credential: Credential) -> None:
        """Use another credential of the same Auto ID from now on, for every new link.

        A live link goes on: with a renewed certificate over the same key its peer is shown the new chain, with another
        key it is drained, and kept links are made anew.

        Raises:
            UsageError: it is another Auto ID's.
        """
        if credential.peer_id != self.peer_id:
            raise UsageError(
                "a credential is replaced by one of the same Auto ID; another ID is another agent"
            )
        same_key = credential.leaf.spki == self.credential.leaf.spki
        self._client_context = client_context(credential)
        self._server_context = server_context(credential)
        self.credential = credential
        for link in self.links:
            if same_key:
                link.show_evidence(credential.chain)
            else:
                link.go_away("credential")

    # --- counts ----------------------------------------------------------------------------------------

    def count_refused(self, refused: Refused) -> None:
        """Count a refusal for `statistics`."""
        (self._refused if refused.by == "us" else self._refused_by_peer)[refused.reason] += 1

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


def _now() -> datetime:
    return datetime.now(UTC)


def _weakly(method: Callable[[], None]) -> Callable[[], None]:
    """The method without a hold on its object: a trust model may outlive many agents."""
    reference = weakref.WeakMethod(method)

    def call() -> None:
        if (alive := reference()) is not None:
            alive()

    return call
