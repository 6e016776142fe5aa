"""What a trust model is: it vouches, abstains or contradicts, and says when its mind has changed.

A model sees a chain that is sound in itself (presented.py) and answers one question: do I believe that this
key may use this name? It returns `Grounds`, or raises `NotVouched` (no opinion) or `Contradicted` (this
name, but not this key or state). There is no boolean to forget.

A model must contradict, never abstain, for a name that it is authoritative for. Otherwise another model,
joined by `|`, could vouch for an impostor of the very name that this one knows better.

The epoch counts the changes of what a model believes. Verdicts are cached under it, and a verdict that was
formed while it moved is formed again. A model that knows whom a change is about can spare all others that.
"""

import logging
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Final, Literal, Protocol, final

from autolink.codec import aware_utc
from autolink.errors import AutolinkError, Reason, display

if TYPE_CHECKING:
    from autolink.identity import AutoId
    from autolink.trust.compose import AllOf, AnyOf
    from autolink.trust.presented import Presented

_log: Final = logging.getLogger("autolink")


class Listener(Protocol):
    """Is called after a change of a model."""

    def __call__(self, *about: "AutoId") -> None:
        """Only what is believed of these IDs, and of those below them, has changed; with none: of anybody."""


@final
@dataclass(frozen=True, slots=True)
class Context:
    """The circumstances of a judgement.

    Attributes:
        now: the time to judge at (aware); for a recorded message the caller's evidence, never the message's
            own.
        direction: who opened the link, seen from us, or ``"message"`` for the author of a signed message.
        address: of the far end, for people to read. A verdict must not rest on it: it is cached without it.
        given_by_person: a person, not a directory or a peer, gave the address that we dialled.

    Raises:
        UsageError: `now` is naive.
    """

    now: datetime
    direction: Literal["inbound", "outbound", "message"]
    address: str = ""
    given_by_person: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "now", aware_utc(self.now))


@final
@dataclass(frozen=True, slots=True)
class Grounds:
    """Why a peer was believed.

    Attributes:
        model: the model that vouched.
        text: its reason, for people and logs; made safe to show.
        valid_until: when these grounds end (aware, inclusive); None: with the certificates.
        authority: the key that the verdict rests on, as a PeerId writes it; None: the key of the
            self-issued root. A bound path is `bound` whatever stands here.
        key_only: nothing but possession of the leaf's key was established, so the peer is a key principal.
        succeeds: a registry's log, whose key is `authority`, has exactly the presented keys on record. Only that makes up
            for a bound name that does not lead to its root's key (`Presented.succeeds_in`), and only if the root
            names that log.
        once_accepted: awaited when the whole verdict stands and rests on these grounds: the place for what
            must not happen for a peer whom another model refuses (learning it, asking a person). May raise
            `NotVouched`.

    Raises:
        UsageError: `valid_until` is naive.
    """

    model: str
    text: str
    valid_until: datetime | None = None
    authority: str | None = None
    key_only: bool = False
    succeeds: bool = False
    once_accepted: Callable[[], Awaitable[None]] | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", display(self.text))
        if self.valid_until is not None:
            object.__setattr__(self, "valid_until", aware_utc(self.valid_until))

    def __str__(self) -> str:
        return f"{self.model}: {self.text}"


class NotVouched(AutolinkError):
    """This model has no opinion about the peer, or none in its favour. `reason` may say more."""

    def __init__(self, text: str, reason: Reason = Reason.NOT_VOUCHED) -> None:
        super().__init__(text)
        self.reason = Reason(reason)


class Contradicted(AutolinkError):
    """This model knows better: this name does not go with this key, or not in this state."""

    def __init__(self, text: str, reason: Reason = Reason.IMPOSTOR) -> None:
        super().__init__(text)
        self.reason = Reason(reason)


class Model(ABC):
    """Base of every trust model: write `verify`; call `_changed` whenever what it believes changes.

    Models join by `&` (all must vouch) and `|` (one must vouch and none contradict).

    Attributes:
        unsafe: this model vouches for somebody whom it did not check. A combination with it says Unsafe in
            its name.
    """

    unsafe: bool = False
    _changes = 0
    _listeners: tuple[Listener, ...] = ()

    @abstractmethod
    async def verify(self, presented: "Presented", context: Context) -> Grounds:
        """Judge a chain that is sound in itself. Any other exception than these two counts as a
        contradiction.

        Raises:
            NotVouched: no opinion.
            Contradicted: the model is authoritative for this name, and this is not its bearer.
        """

    @property
    def epoch(self) -> int:
        """Grows whenever a verdict of this model could change for another reason than time."""
        return self._changes

    def epoch_of(self, ids: "Sequence[AutoId]") -> int:
        """As `epoch`, but it need not grow with a change that is not about a chain of these IDs.

        Args:
            ids: of a complete chain, root first; none, if it is not complete.
        """
        return self.epoch

    def on_change(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Have `callback` called after each change in this process; returns what ends that."""
        return self._listen(lambda *_: callback())

    def on_change_of(self, callback: Listener) -> Callable[[], None]:
        """As `on_change`, but the callback may be told whom a change is about, by a model that writes this and `epoch_of`.

        A model that asks others and forwards their changes need not know of either: what it makes of them may be about
        other IDs than theirs, so it is said to be about anybody.
        """
        return self.on_change(callback)

    def _listen(self, callback: Listener) -> Callable[[], None]:
        """What `on_change_of` is, for a model that says whom its changes are about."""
        listener = partial(callback)  # an identity of its own: one callback may be registered twice
        self._listeners += (listener,)

        def remove() -> None:
            self._listeners = tuple(other for other in self._listeners if other is not listener)

        return remove

    def _changed(self, *about: "AutoId") -> None:
        """Say that what is believed has changed.

        Args:
            about: only of these IDs, and of those below them; who says so writes `epoch_of` and `on_change_of` to match.
                None: of anybody.
        """
        self._changes += 1
        for listener in self._listeners:
            try:
                listener(*about)
            except Exception:  # noqa: BLE001  foreign code; what has changed has changed, and the others must hear of it
                _log.exception("%s has changed, and somebody who was told failed", type(self).__name__)

    def learn_from(self, before: "Model") -> None:  # noqa: B027  most have nothing to learn
        """Remember what another model has found out, whose place this one is about to take (`Agent.replace_trust`). A model
        that knows nothing but its arguments, or keeps it in a file, does not write this.

        Args:
            before: of whatever kind; a composed one has its parts in `members`.
        """

    def rests_on(self, authority: str) -> bool:
        """Whether a verdict of this model may name this authority though no certificate of the peer's has its key.

        A dialer that expects such a peer cannot tell from the chain alone whether it is the right one, and leaves
        that to the verdict.

        Args:
            authority: as a PeerId has it.
        """
        return False

    def __and__(self, other: "Model") -> "AllOf":
        from autolink.trust.compose import AllOf

        return AllOf(self, other)

    def __or__(self, other: "Model") -> "AnyOf":
        from autolink.trust.compose import AnyOf

        return AnyOf(self, other)
