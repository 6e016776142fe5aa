"""Throw-away identities and links without sockets, for tests of agents."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime
from typing import final

import anyio

from autolink import limits
from autolink.agent import Agent, Handlers, Link
from autolink.identity import Credential, CredentialRequest, EntityKind, KeyType, PeerId, TrustAnchor
from autolink.testing.network import Network
from autolink.trust import IssuedBy, Model


@final
class Authority:
    """A throw-away organisation that issues throw-away credentials.

    Args:
        name: its label.
        key_type: of its own key and of what it issues unless told otherwise.
        now: the time at which it is made; the system's by default.
    """

    def __init__(
        self, name: str = "acme", *, key_type: KeyType = KeyType.P256, now: datetime | None = None
    ) -> None:
        self.key_type = key_type
        self._now = now
        self.credential = Credential.self_issued(
            name, kind=EntityKind.ORGANIZATION, key_type=key_type, now=now
        )

    @property
    def anchor(self) -> TrustAnchor:
        """What others need to believe it."""
        return self.credential.anchor

    def issue(
        self, name: str, *, kind: EntityKind = EntityKind.AGENT, key_type: KeyType | None = None
    ) -> Credential:
        """A new credential under this authority."""
        request = CredentialRequest.new(name, key_type=key_type or self.key_type)
        return request.complete(self.credential.issue(request, kind=kind, now=self._now))

    def agent(
        self, name: str, *, trust: Model | None = None, handlers: Handlers | None = None,
        clock: Callable[[], datetime] | None = None,
    ) -> Agent:  # fmt: skip
        """An agent with a new credential; it trusts this authority unless told otherwise."""
        return Agent(self.issue(name), trust=trust or IssuedBy(self.anchor), handlers=handlers, clock=clock)


@asynccontextmanager
async def link_pair(
    dialer: Agent, listener: Agent, *, network: Network | None = None, expect: PeerId | None = None
) -> AsyncIterator[tuple[Link, Link]]:
    """Two ends of one link between two agents, over memory.

    Raises:
        Refused, RemoteProtocolError, anyio.BrokenResourceError, TimeoutError: the dialer's error when the link does
            not open.
    """
    near, far = (network or Network()).connection()
    links: dict[bool, Link] = {}
    errors: dict[bool, Exception] = {}

    async def open_end(agent: Agent, end: anyio.abc.ByteStream, *, dials: bool) -> None:
        try:
            with anyio.fail_after(limits.OPENING):
                links[dials] = await agent.open_on(end, dialer=dials, expect=expect if dials else None)
        except Exception as error:  # noqa: BLE001  handed on below: the dialer's first
            errors[dials] = error

    async with AsyncExitStack() as stack:
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(lambda: open_end(listener, far, dials=False))
                tasks.start_soon(lambda: open_end(dialer, near, dials=True))
        finally:  # an end that did open is closed by its own tasks, also when this was cancelled
            for link in links.values():
                await stack.enter_async_context(link.running())
        if errors:
            raise errors.get(True) or errors[False]
        yield links[True], links[False]
