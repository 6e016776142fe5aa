"""The program that owns a credential: it listens, dials, serves handlers and publishes, under one trust model."""

import weakref
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
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
from autolink.agent.sessions import Key, Session, Sessions
from autolink.agent.topic import Overflow, Topic
from autolink.errors import LinkLost, Reason, Refused, UsageError
from autolink.identity import AutoId, Credential, PeerId
from autolink.loop import running_loop
from autolink.transport import (
    Address,
    Contact,
    ListeningSocket,
    TcpAddress,
    TlsContext,
    client_context,
    connect,
    handshake,
    parse_address,
    server_context,
)
from autolink.trust import Context, Model

if TYPE_CHECKING:
    from autolink.agent.core import LinkCore

T = TypeVar("T")
_TICKET_KEY: Final = timedelta(seconds=limits.TICKET_KEY)


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
        resume: dial with TLS sessions of earlier links, and give tickets to those who dial us. Whoever resumes is
            judged as everybody else.

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
        resume: bool = True,
    ) -> None:
        if not isinstance(credential, Credential):
            raise UsageError(
                "an agent needs a Credential: Credential.load(name), or Credential.from_pem(chain, key)"
            )
        _check_model(trust)
        super().__init__(credential, trust, clock or _now)
        self.handlers = Handlers() if handlers is None else handlers
        self.allow_self = allow_self
        self.topics: dict[str, Topic[Any]] = {}
        self.reach: Callable[[Address], Awaitable[socket | ByteStream]] = connect
        self.resume = resume
        self._sessions = Sessions()
        self._client_context = client_context(credential)
        self.renew_server_context()
        self._links: set[LinkCore] = set()
        self._rows: set[Row] = set()
        self._refused: Counter[Reason] = Counter()
        self._refused_by_peer: Counter[Reason] = Counter()
        self._opened = 0
        self._heed = weakref.finalize(self, trust.on_change(_weakly(self.invalidate)))

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
        """One attempt at a link; whoever gets it runs it (`Link.running`), and our ACCEPT goes out with that.

        Raises:
            Refused, LinkLost, RemoteProtocolError, TimeoutError: as `connect`.
        """
        key = (expect, str(address)) if expect and self.resume else None
        session = self._sessions.take(key, self.clock()) if key else None
        loop = running_loop()
        try:
            with loop.scope(deadline=loop.current_time() + limits.OPENING):
                try:
                    return await self._dial(address, expect, key, session)
                except Refused as refused:
                    if key:
                        self._sessions.forget(key)
                    if session is None or refused.reason is not Reason.FULL_HANDSHAKE_NEEDED:
                        raise
                return await self._dial(address, expect, key, None)
        except TimeoutError:
            raise
        except (OSError, anyio.BrokenResourceError, anyio.EndOfStream) as error:
            raise LinkLost(f"no link to {address}: {str(error) or 'the connection was closed'}") from error
        raise TimeoutError

    async def _dial(
        self, address: Address, expect: PeerId | None, key: Key | None, session: Session | None
    ) -> Link:
        """As `dial`, with a session or without one, and a new one kept."""
        credential = self.credential
        connection = await self.reach(address)
        if credential is not self.credential:  # meanwhile: the session remembers the old one
            session = None
        link = await self.open_on(
            connection, dialer=True, address=str(address), expect=expect, session=session, settle=False
        )
        if key and credential is self.credential and link.peer.key_proved_at and link.peer.presented.complete:
            data = link.take_session()
            if session is None or data != session.data:  # a listener that gave no new one
                self._sessions.keep(key, Session(data, link.peer.key_proved_at))
        return link

    async def open_on(
        self,
        connection: socket | ByteStream,
        *,
        dialer: bool,
        address: str = "",
        expect: PeerId | None = None,
        session: Session | None = None,
        settle: bool = True,
    ) -> Link:
        """Secure a connection and judge each other over it; it is closed if it comes to nothing.

        Args:
            connection: owned from now on.
            dialer: whether we made it.
            address: of the far end, for people.
            expect: who must answer, if we dialled.
            session: to be resumed, if we dialled.
            settle: send our ACCEPT at once; otherwise it goes out when the link's tasks run.

        Raises:
            Refused, RemoteProtocolError, anyio.BrokenResourceError, anyio.EndOfStream: it came to nothing.
        """
        credential = self.credential
        context, made_at = (self._client_context, None) if dialer else self._listening_context()
        try:
            stream = await handshake(
                connection, context, dialer=dialer, session=session.data if session else b"",
                expect=None if expect is None else early_objection(expect), peer=address,
            )  # fmt: skip
        except Refused as refused:
            self.count_refused(refused)
            raise
        now = self.clock()
        proved_at = now
        if stream.resumed:  # a listener cannot know: no earlier than its ticket key was made
            proved_at = session.key_proved_at if session else made_at or now
        direction: Literal["outbound", "inbound"] = "outbound" if dialer else "inbound"
        judged = Context(now=now, direction=direction, address=address, given_by_person=dialer)
        row = Row()
        self._rows.add(row)
        try:
            opened = await open_link(
                self, credential, stream, row, dialer=dialer, expect=expect, context=judged,
                key_proved_at=proved_at, settle=settle,
            )  # fmt: skip
            link = Link(self, opened, dialer=dialer, context=judged)
        except BaseException:
            with anyio.CancelScope(shield=True):
                await stream.abort()
            raise
        finally:
            self._rows.discard(row)
        link.stale = row.stale
        self._links.add(link)
        self._opened += 1
        if credential is not self.credential:
            link.go_on_with(self.credential)
        return link

    def _listening_context(self) -> tuple[TlsContext, datetime]:
        """The server Context and when it was made, with a new one when its ticket key is old."""
        age = self.clock() - self._server_context[1]
        if self.resume and not timedelta(0) <= age < _TICKET_KEY:
            self.renew_server_context()
        return self._server_context

    def renew_server_context(self) -> None:
        """Use a new ticket key from now on: sessions of earlier links are not resumed here any more.

        Raises:
            UsageError: OPENSSL_CONF sets options that we cannot take back.
        """
        context = server_context(self.credential, resume=self.resume, trust=repr(self.trust))
        self._server_context = context, self.clock()

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
        self._client_context = client_context(credential)
        self.credential = credential
        self.renew_server_context()
        self._sessions.clear()
        for link in self.links:
            link.go_on_with(credential)

    def replace_trust(self, trust: Model) -> None:
        """Believe by another trust model from now on. Every live link, and every opening one, is judged again by it.

        Raises:
            UsageError: it is no trust model.
        """
        _check_model(trust)
        self._heed()  # the old model's changes are not ours any longer
        self._heed = weakref.finalize(self, trust.on_change(_weakly(self.invalidate)))
        self.trust = trust
        self.renew_server_context()
        self.invalidate()

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


def _check_model(trust: Model) -> None:
    if not isinstance(trust, Model):
        raise UsageError("trust= takes a trust model, such as IssuedBy(TrustAnchor.load('acme.pem'))")


def _now() -> datetime:
    return datetime.now(UTC)


def _weakly(method: Callable[[], None]) -> Callable[[], None]:
    """The method without a hold on its object: a trust model may outlive many agents."""
    reference = weakref.WeakMethod(method)

    def call() -> None:
        if (alive := reference()) is not None:
            alive()

    return call
