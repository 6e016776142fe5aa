"""The program that owns a credential: it listens, dials, serves handlers and publishes, under one trust model."""

from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from socket import socket
from typing import TYPE_CHECKING, Any, Final, Literal, NoReturn, TypeVar, final, overload

import anyio
from anyio.abc import ByteStream
from anyio.to_thread import run_sync

from autolink import limits
from autolink.agent.bodies import body_of, encode_any
from autolink.agent.handlers import F, Handlers
from autolink.agent.kept import KeptLink
from autolink.agent.link import Link
from autolink.agent.listener import Listener
from autolink.agent.opening import Row, early_objection, open_link
from autolink.agent.topic import Overflow, Topic
from autolink.errors import LinkLost, Reason, Refused, UsageError
from autolink.identity import AutoId, Credential, PeerId
from autolink.messages import (
    Envelope,
    Kind,
    ReplayWindow,
    VerifiedMessage,
    microseconds,
    sign_envelope,
    verify,
)
from autolink.transport import (
    Address,
    Contact,
    client_context,
    connect,
    parse_address,
    secure_stream,
    server_context,
)
from autolink.trust import Context, Model, VerdictCache

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

_SKEW: Final = timedelta(seconds=limits.SKEW)
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
class Agent:
    """An agent is inert until `listening`, `serve`, `connect` or `keep_link`.

    Args:
        credential: who it is.
        trust: whom it believes; there is no default.
        handlers: what it does for peers.
        clock: the wall clock, for tests.
        allow_self: accept a link to an agent with our own certificate.

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
        if not isinstance(trust, Model):
            raise UsageError("trust= takes a trust model, such as IssuedBy(TrustAnchor.load('acme.pem'))")
        self.credential = credential
        self.trust = trust
        self.handlers = Handlers() if handlers is None else handlers
        self.clock: Callable[[], datetime] = clock or _now
        self.allow_self = allow_self
        self.topics: dict[str, Topic[Any]] = {}
        self.verdicts = VerdictCache()
        self._client_context = client_context(credential)
        self._server_context = server_context(credential)
        self._live: set[Row | LinkCore] = set()
        self._replay: ReplayWindow | None = None
        self._refused: Counter[Reason] = Counter()
        self._refused_by_peer: Counter[Reason] = Counter()
        self._opened = self._sent = self._verified = 0
        trust.on_change(self.invalidate)

    @property
    def auto_id(self) -> AutoId:
        """Its own name."""
        return self.credential.auto_id

    @property
    def peer_id(self) -> PeerId:
        """What peers `expect`."""
        return self.credential.peer_id

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
        """Keep a link for the block: it is opened at the first need and opened again whenever it is lost.

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
                return await self.open_on(
                    await connect(address), dialer=True, address=str(address), expect=expect
                )
        except Refused as refused:
            self.count_refused(refused)
            raise
        except (OSError, anyio.BrokenResourceError, anyio.EndOfStream) as error:
            if isinstance(error, TimeoutError):
                raise
            raise LinkLost(f"no link to {address}: {error or 'the connection was closed'}") from error

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
        stream = await secure_stream(
            connection, self._client_context if dialer else self._server_context, dialer=dialer,
            expect=None if expect is None else early_objection(expect), peer=address,
        )  # fmt: skip
        direction: Literal["outbound", "inbound"] = "outbound" if dialer else "inbound"
        context = Context(now=self.clock(), direction=direction, address=address, given_by_person=dialer)
        row = Row()
        self._live.add(row)
        try:
            if len(self._live) > limits.LINKS + limits.OPENINGS:
                raise Refused(Reason.BUSY, by="us", detail=f"{limits.LINKS} links are open")
            opened = await open_link(self, stream, row, dialer=dialer, expect=expect, context=context)
            link = Link(self, opened, dialer=dialer, context=context)
            link.stale = row.stale
            self._live.add(link)
        except BaseException:
            with anyio.CancelScope(shield=True):
                await stream.abort()
            raise
        finally:
            self._live.discard(row)
        self._opened += 1
        return link

    @property
    def links(self) -> tuple[Link, ...]:
        """The links that are open now."""
        return tuple(link for link in self._live if isinstance(link, Link))

    def forget(self, link: "LinkCore") -> None:
        """A link has ended."""
        self._live.discard(link)
        self._sent += link.traffic.messages_sent
        self._verified += link.traffic.messages_verified

    # --- trust and credential --------------------------------------------------------------------------

    def invalidate(self) -> None:
        """Trust changed: drop cached verdicts and judge every live link, and every opening one, again."""
        self.verdicts.clear()
        for row in list(self._live):
            row.attend(stale=True)

    def replace_credential(self, credential: Credential) -> None:
        """Use another credential of the same Auto ID from now on, for every new link.

        A live link goes on: with a renewed certificate over the same key its peer is shown the new chain, with another
        key it is drained, and kept links are made anew.

        Raises:
            UsageError: it is another Auto ID's.
        """
        if credential.peer_id != self.peer_id:
            raise UsageError("a credential is replaced by one of the same Auto ID; another ID is another agent")
        same_key = credential.leaf.spki == self.credential.leaf.spki
        self._client_context = client_context(credential)
        self._server_context = server_context(credential)
        self.credential = credential
        for link in self.links:
            if same_key:
                link.show_evidence(credential.chain)
            else:
                link.go_away("credential")

    # --- signed messages for others to carry -----------------------------------------------------------

    def sign(
        self, recipient: AutoId, method: str, body: object = None, *, headers: Mapping[str, str] | None = None,
        lifetime: float = limits.MESSAGE_LIFETIME,
    ) -> Envelope:  # fmt: skip
        """A call to a method of `recipient` as an Envelope that somebody else may carry.

        Args:
            recipient: whose method.
            method: its name.
            body: as `Link.call`.
            headers: as `Link.call`.
            lifetime: seconds until it expires, at most `limits.ENVELOPE_LIFETIME`.

        Raises:
            BodyError: the body cannot be sent.
            UsageError: the lifetime is out of bounds.
        """
        return self.seal(recipient, method, encode_any(body), headers=headers, lifetime=lifetime)

    def seal(
        self, recipient: AutoId, method: str, body: bytes, *, kind: Kind = Kind.CALL,
        headers: Mapping[str, str] | None = None, lifetime: float = limits.MESSAGE_LIFETIME,
    ) -> Envelope:  # fmt: skip
        """As `sign`, for a body that is encoded already, and any kind."""
        self._sent += 1
        return sign_envelope(
            self.credential, recipient=recipient, method=method, body=body, now=self.clock(), lifetime=lifetime,
            kind=kind, headers=headers,
        )  # fmt: skip

    async def verify(self, envelope: Envelope) -> VerifiedMessage:
        """Judge an envelope that is addressed to us, by this agent's own trust model, now.

        Raises:
            EnvelopeRefused: with the reason.
        """
        verified = await verify(
            envelope, trust=self.trust, at=self.clock(), recipient=self.auto_id, cache=self.verdicts
        )
        self._verified += 1
        return verified

    async def admit_once(self, verified: VerifiedMessage) -> None:
        """Remember a forwarded message until it expires, so that nobody makes us act on it twice.

        Raises:
            EnvelopeRefused: REPLAYED, or BUSY when too many are remembered.
        """
        message, window = verified.message, self._window()
        work: Callable[[], None] = lambda: window.admit(  # noqa: E731
            verified.author.peer_id, message.id, expires_at=message.expires_at, sent_at=message.sent_at,
            now=microseconds(self.clock()),
        )  # fmt: skip
        if self.credential.folder is None:
            work()
        else:  # a commit to disk
            await run_sync(work)

    def _window(self) -> ReplayWindow:
        if self._replay is None:
            folder = self.credential.folder
            path = None if folder is None else folder / "replay.db"
            # Any credential may have taken messages before and forgotten them, except one that was just made.
            started = self.credential.leaf.not_before - _SKEW if self.credential.made_here else self.clock()
            self._replay = ReplayWindow(path, started=started)
        return self._replay

    # --- counts ----------------------------------------------------------------------------------------

    def count_refused(self, refused: Refused) -> None:
        """Count a refusal for `statistics`."""
        (self._refused if refused.by == "us" else self._refused_by_peer)[refused.reason] += 1

    def statistics(self) -> AgentStatistics:
        """What this agent has done so far."""
        links = self.links
        return AgentStatistics(
            links=len(links), opened=self._opened, refused=dict(self._refused), refused_by_peer=dict(self._refused_by_peer),
            messages_sent=self._sent + sum(link.traffic.messages_sent for link in links),
            messages_verified=self._verified + sum(link.traffic.messages_verified for link in links),
            handlers=sum(link.server.running for link in links),
        )  # fmt: skip

    def __repr__(self) -> str:
        return f"<Agent {self.credential.name} {self.auto_id.short} links={len(self.links)}>"


def _now() -> datetime:
    return datetime.now(UTC)
