"""The part of an agent that needs no link: it signs messages for others to carry, and judges those carried to it."""

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from anyio.to_thread import run_sync

from autolink import limits
from autolink.agent.bodies import encode_any
from autolink.errors import IdentityError, UsageError
from autolink.identity import AutoId, Credential, PeerId, key_authority
from autolink.messages import (
    Envelope,
    Kind,
    ReplayWindow,
    VerifiedMessage,
    microseconds,
    sign_envelope,
    verify,
)  # fmt: skip
from autolink.trust import Model, VerdictCache

_SKEW: Final = timedelta(seconds=limits.SKEW)

_REPLAY: Final = "replay.db"

_in_memory: Final[dict[AutoId, ReplayWindow]] = {}
"""The windows of this process's agents whose credential has no folder. One for each Auto ID and kept to the end: an
agent that is made again, perhaps with a renewed credential, must not forget what the first one took."""


class Author:
    """Who an agent is and whom it believes. `Agent` adds what it does."""

    def __init__(self, credential: Credential, trust: Model, clock: Callable[[], datetime]) -> None:
        self.credential = credential
        self.trust = trust
        self.clock = clock
        self.evidence: tuple[bytes, ...] = ()
        self.verdicts = VerdictCache()
        self._replay: ReplayWindow | None = None
        self._replay_file: Path | None = None
        self._made_at = clock()
        self._sent = self._verified = 0

    @property
    def auto_id(self) -> AutoId:
        """Its own name."""
        return self.credential.auto_id

    @property
    def peer_id(self) -> PeerId:
        """What peers `expect`."""
        return self.credential.peer_id

    def sign(
        self, recipient: AutoId | PeerId | str, method: str, body: object = None, *,
        headers: Mapping[str, str] | None = None, lifetime: float = limits.MESSAGE_LIFETIME,
    ) -> Envelope:  # fmt: skip
        """A call to a method of `recipient` as an Envelope that somebody else may carry.

        Args:
            recipient: whose method: an AutoId, a PeerId that has one, or either as text.
            method: its name.
            body: as `Link.call`.
            headers: as `Link.call`.
            lifetime: seconds until it expires, at most `limits.ENVELOPE_LIFETIME`.

        Raises:
            BodyError: the body cannot be sent.
            UsageError: the lifetime is out of bounds, or nobody can be addressed so.
        """
        return self.seal(_addressee(recipient), method, encode_any(body), headers=headers, lifetime=lifetime)

    def seal(
        self, recipient: AutoId, method: str, body: bytes, *, kind: Kind = Kind.CALL,
        headers: Mapping[str, str] | None = None, lifetime: float = limits.MESSAGE_LIFETIME,
    ) -> Envelope:  # fmt: skip
        """As `sign`, for a body that is encoded already, and any kind."""
        self._sent += 1
        return sign_envelope(
            self.credential, recipient=recipient, method=method, body=body, now=self.clock(), lifetime=lifetime,
            kind=kind, headers=headers, evidence=self.evidence,
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
        # Not the verdict's authority: that may change while the message lives, and the message would be a new one.
        author = PeerId(message.author, key_authority(verified.author.leaf.spki_sha256))
        work: Callable[[], None] = lambda: window.admit(  # noqa: E731
            author, message.id, expires_at=message.expires_at, sent_at=message.sent_at,
            now=microseconds(self.clock()),
        )  # fmt: skip
        if self._replay_file is None and self.credential.folder is None:
            work()
        else:  # a commit to disk
            await run_sync(work)

    def share_replay(self, folder: Path) -> None:
        """Remember forwarded messages in a file in `folder`, for processes that are to be forked: what one of them has
        taken, none of them takes again.

        Args:
            folder: the keystore's own for a credential that has one; else one that only its owner can enter.

        Raises:
            UsageError: nothing can be remembered there.
        """
        self._replay_file = folder / _REPLAY
        self._new_window(self._replay_file).close()  # here it is known how much there is to remember

    def _window(self) -> ReplayWindow:
        if self._replay is None:
            folder = self.credential.folder
            if self._replay_file is not None:  # if it is there no longer, what was taken is forgotten now
                self._replay = ReplayWindow(self._replay_file, started=self.clock())
            elif folder is not None:
                self._replay = self._new_window(folder / _REPLAY)
            elif self.auto_id in _in_memory:
                self._replay = _in_memory[self.auto_id]
            else:
                self._replay = _in_memory[self.auto_id] = self._new_window(None)
        return self._replay

    def _new_window(self, path: Path | None) -> ReplayWindow:
        """Any credential may have taken messages before and forgotten them, unless it is known to be unused."""
        credential, started = self.credential, self._made_at
        unused = credential.unused_since
        if credential.made_here:
            started = credential.leaf.not_before - _SKEW
        elif unused is not None and self._made_at - unused <= timedelta(seconds=limits.FRESH):
            started = min(unused, started)
        window = ReplayWindow(path, started=started)
        credential.mark_used()
        return window


def _addressee(recipient: AutoId | PeerId | str) -> AutoId:
    if isinstance(recipient, str):
        try:
            recipient = PeerId.parse(recipient)
        except IdentityError as error:
            raise UsageError(f"the recipient of a message is an AutoId: {error}") from None
    auto_id = recipient.auto_id if isinstance(recipient, PeerId) else recipient
    if not isinstance(auto_id, AutoId):
        raise UsageError("the recipient of a message is an AutoId, for example link.peer.auto_id")
    return auto_id
