"""TLS sessions that a dialer keeps, to open its next link to the same peer with less work (RFC 8446, section 2.2).

A session carries no verdict: the peer of a resumed link is judged from its whole chain like any other. What it saves
is the proof of both certificates' keys to TLS, which the first batch on the link makes good (docs/spec.md). It is
used once (appendix C.4), kept for one dialled address and the peer expected there, and for no longer than
`limits.TICKET_KEY` after TLS has really proved the keys, however often it was renewed meanwhile.

What is kept are OpenSSL's own bytes, never its object: that one dies with its connection, and so just when a link
was lost and is to be opened again.
"""

from collections import OrderedDict, deque
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, final

from autolink import limits
from autolink.errors import no_pickle
from autolink.identity import PeerId

_LIFETIME: Final = timedelta(seconds=limits.TICKET_KEY)

Key = tuple[PeerId, str]
"""Whom we expect, and the address that we dial."""


@dataclass(frozen=True, slots=True)
class Session:
    """What TLS needs to resume, and when it last proved the peer's key. `data` holds keys and is never shown."""

    data: bytes = field(repr=False)
    key_proved_at: datetime

    __reduce__ = no_pickle


@final
class Sessions:
    """Of one agent under one credential. Bounded three ways; the peers that were dialled longest ago go first."""

    def __init__(self) -> None:
        self._kept: OrderedDict[Key, deque[Session]] = OrderedDict()
        self._count = self._bytes = 0

    def keep(self, key: Key, session: Session) -> None:
        """Keep a session for one link to come."""
        of_peer = self._kept.setdefault(key, deque())
        self._kept.move_to_end(key)
        of_peer.append(session)
        self._count += 1
        self._bytes += len(session.data)
        while len(of_peer) > limits.SESSIONS_EACH:
            self._drop(of_peer.popleft())
        while self._count > limits.SESSIONS or self._bytes > limits.SESSIONS_BYTES:
            self.forget(next(iter(self._kept)))

    def take(self, key: Key, now: datetime) -> Session | None:
        """A session to resume, which is kept no longer; the newest one, since its ticket lives longest."""
        of_peer = self._kept.get(key)
        if of_peer is None:
            return None
        session = of_peer.pop()
        self._drop(session)
        if not of_peer:
            del self._kept[key]
        if timedelta(0) <= now - session.key_proved_at < _LIFETIME:
            return session
        self.forget(key)  # the others are older; or the clock was set back, and nobody knows their age
        return None

    def forget(self, key: Key) -> None:
        """The peer refused, or was refused: nothing of it is resumed."""
        for session in self._kept.pop(key, ()):
            self._drop(session)

    def clear(self) -> None:
        """Our credential changed: the listeners remember another one."""
        self._kept.clear()
        self._count = self._bytes = 0

    def __len__(self) -> int:
        return self._count

    def _drop(self, session: Session) -> None:
        self._count -= 1
        self._bytes -= len(session.data)
