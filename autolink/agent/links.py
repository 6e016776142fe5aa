"""The part of an agent that has links: it opens them, judges them again, and counts.

Two TLS contexts stand for its credential. The one for listening holds the key of the tickets that it gives out, so it is
made anew every `limits.TICKET_KEY` seconds, and with the credential or the trust model.
"""

import weakref
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from socket import socket
from typing import TYPE_CHECKING, Final, Literal, cast

import anyio
from anyio.abc import ByteStream

from autolink import limits
from autolink.agent.author import Author
from autolink.agent.link import Link
from autolink.agent.opening import Row, early_objection, open_link
from autolink.agent.sessions import Key, Session, Sessions
from autolink.errors import LinkLost, NotAnAgent, Reason, Refused, RemoteProtocolError, UsageError
from autolink.identity import AutoId, Credential, PeerId
from autolink.loop import running_loop
from autolink.transport import Address, TlsContext, client_context, connect, handshake, server_context
from autolink.trust import Context, Model
from autolink.trust.model import Listener

if TYPE_CHECKING:
    from autolink.agent.agent import Agent
    from autolink.agent.life import LinkLife

Finder = Callable[[AutoId], Awaitable[Sequence[Address]]]
"""Tells where an Auto ID may be reached, most likely first; raises an AutolinkError or OSError where it cannot."""

_TICKET_KEY: Final = timedelta(seconds=limits.TICKET_KEY)


class Links(Author):
    """See the module. `Agent` adds what it does on them."""

    def __init__(
        self,
        credential: Credential,
        trust: Model,
        clock: Callable[[], datetime],
        *,
        allow_self: bool,
        resume: bool,
    ) -> None:
        _check_model(trust)
        super().__init__(credential, trust, clock)
        self.allow_self = allow_self
        self.resume = resume
        self.reach: Callable[[Address], Awaitable[socket | ByteStream]] = connect
        self.finder: Finder | None = None
        self._sessions = Sessions()
        self._client_context = client_context(credential)
        self.renew_server_context()
        self._links: set[LinkLife] = set()
        self._rows: set[Row] = set()
        self._refused: Counter[Reason] = Counter()
        self._refused_by_peer: Counter[Reason] = Counter()
        self._opened = 0
        self._heed = weakref.finalize(self, trust.on_change_of(_weakly(self._trust_changed)))

    # --- opening ---------------------------------------------------------------------------------------

    async def dial(self, address: Address, expect: PeerId | None) -> Link:
        """One attempt at a link; whoever gets it runs it (`Link.running`), and our ACCEPT goes out with that.

        Raises:
            Refused, LinkLost, NotAnAgent, TimeoutError: as `connect`.
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
        except RemoteProtocolError as error:
            raise NotAnAgent(f"no autolink agent answers there: {error}") from error
        except (OSError, anyio.BrokenResourceError, anyio.EndOfStream) as error:
            why = getattr(error, "strerror", None) or str(error) or "the connection was closed"
            raise LinkLost(f"no link to {address}: {why}") from error
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
        credential, evidence = self.credential, self.evidence
        context, made_at = (self._client_context, None) if dialer else self._listening_context()
        try:
            stream = await handshake(
                connection, context, dialer=dialer, session=session.data if session else b"",
                expect=None if expect is None else early_objection(expect, self.trust), peer=address,
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
        row, agent = Row(), cast("Agent", self)  # only Agent is ever made
        self._rows.add(row)
        try:
            opened = await open_link(
                agent, credential, evidence, stream, row, dialer=dialer, expect=expect, context=judged,
                key_proved_at=proved_at, settle=settle,
            )  # fmt: skip
            link = Link(agent, opened, dialer=dialer, context=judged)
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
        elif evidence is not self.evidence:
            link.show_evidence()
        return link

    def _listening_context(self) -> tuple[TlsContext, datetime]:
        """The server Context and when it was made, with a new one when its ticket key is old."""
        if self.resume and not timedelta(0) <= self.clock() - self._server_context[1] < _TICKET_KEY:
            self.renew_server_context()
        return self._server_context

    def renew_server_context(self) -> None:
        """Use a new ticket key from now on: sessions of earlier links are not resumed here any more.

        Raises:
            SetupError: OPENSSL_CONF sets options that we cannot take back.
        """
        context = server_context(self.credential, resume=self.resume, trust=repr(self.trust))
        self._server_context = context, self.clock()

    @property
    def links(self) -> tuple[Link, ...]:
        """The links that are open now."""
        return cast("tuple[Link, ...]", tuple(self._links))  # only Link is ever made

    @property
    def full(self) -> bool:
        """Whether `limits.LINKS` are open, and the next one is refused as `busy`."""
        return len(self._links) >= limits.LINKS

    def forget(self, link: "LinkLife") -> None:
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

    def _trust_changed(self, *about: AutoId) -> None:
        """As `invalidate`; where the model tells of whom it thinks otherwise, its epoch ends their cached verdicts."""
        if not about:
            self.invalidate()
            return
        for row in list(self._rows):
            row.attend(stale=True)
        for link in list(self._links):
            if any(auto_id in about for auto_id in link.peer.presented.ids):
                link.attend(stale=True)

    def replace_credential(self, credential: Credential, *, evidence: Sequence[bytes] | None = None) -> None:
        """Use another credential of the same Auto ID from now on, for every new link.

        A live link, or one that is being opened, goes on: with a renewed certificate over the same key its peer is shown
        the new chain, with another key it is drained, and kept links are made anew.

        Args:
            credential: the other one.
            evidence: as of `replace_evidence`, shown together with the new chain because it fits that one only; None: what
                was shown still is.

        Raises:
            UsageError: it is another Auto ID's, or the evidence is more than a peer would read.
        """
        if credential.peer_id != self.peer_id:
            raise UsageError(
                "a credential is replaced by one of the same Auto ID; another ID is another agent"
            )
        if evidence is not None:
            _check_evidence(*credential.evidence, *evidence)
            self.evidence = tuple(evidence)
        self._client_context = client_context(credential)
        self.credential = credential
        self.renew_server_context()
        self._sessions.clear()
        for link in self.links:
            link.go_on_with(credential)

    def replace_evidence(self, *evidence: bytes) -> None:
        """Show these statements about our standing, such as a registry's status, whenever a link opens, in Envelopes, and on
        live links at once: their peers judge us again by them. The credential's own evidence is shown besides.

        Raises:
            UsageError: more than a peer would read.
        """
        _check_evidence(*self.credential.evidence, *evidence)
        self.evidence = evidence
        for link in self.links:
            link.show_evidence()

    def replace_trust(self, trust: Model) -> None:
        """Believe by another trust model from now on. Every live link, and every opening one, is judged again by it.

        It learns from the one before (`Model.learn_from`), such as which revocations a registry has told.

        Raises:
            UsageError: it is no trust model.
        """
        _check_model(trust)
        if trust is not self.trust:
            trust.learn_from(self.trust)
        self._heed()  # the old model's changes are not ours any longer
        self._heed = weakref.finalize(self, trust.on_change_of(_weakly(self._trust_changed)))
        self.trust = trust
        self.renew_server_context()
        self.invalidate()

    # --- counts ----------------------------------------------------------------------------------------

    def count_refused(self, refused: Refused) -> None:
        """Count a refusal for `statistics`."""
        (self._refused if refused.by == "us" else self._refused_by_peer)[refused.reason] += 1


def _check_evidence(*shown: bytes) -> None:
    if len(shown) > limits.EVIDENCE or sum(map(len, shown)) > limits.EVIDENCE_BYTES:
        raise UsageError(f"evidence is at most {limits.EVIDENCE} items and {limits.EVIDENCE_BYTES} bytes")


def _check_model(trust: Model) -> None:
    if not isinstance(trust, Model):
        raise UsageError("trust= takes a trust model, such as IssuedBy(TrustAnchor.load('acme.pem'))")


def _weakly(method: Listener) -> Listener:
    """The method without a hold on its object: a trust model may outlive many agents."""
    reference = weakref.WeakMethod(method)

    def call(*about: AutoId) -> None:
        if (alive := reference()) is not None:
            alive(*about)

    return call
