"""The trust model of a registry: believe whom the log says is active, on the strength of what the peer itself shows.

A peer *staples* its status (status.py) to what it shows when a link opens, so nobody asks the registry then, and links
open while it is down, until the status ages out. On a live link the peer shows a fresh one in time.

Two things make a status that was true worth nothing before it has aged: a newer one of the same ID (`Newest`), and a change
that the feed tells (feed.py). A change counts against every status from before it, also of IDs below the changed one
(told.py). A rotation above goes on with what was issued before: there the peer has `limits.ROTATION_GRACE` seconds to show
a newer one.

Both are about one ID and those below it, so the epoch counts for each ID apart (`epoch_of`): in a registry of a million
there is always somebody who rotates, and no link of anybody else's is judged again for it.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from functools import lru_cache
from typing import Final, final

from autolink import limits
from autolink.errors import BadSignature, Reason, RemoteProtocolError, display
from autolink.identity import AutoId, key_authority, keys, show_name
from autolink.messages import instant, microseconds
from autolink.messages.message import TIME_MAX
from autolink.registry.feed import Change
from autolink.registry.log.note import VerifierKey, key_given
from autolink.registry.records import SECOND, State
from autolink.registry.status import TAG, Newest, Status, VerifiedStatus, seconds_given, verify_untrusted
from autolink.registry.told import Told
from autolink.trust.model import Context, Contradicted, Grounds, Listener, Model, NotVouched
from autolink.trust.presented import Presented

_verified: Final = lru_cache(limits.STATUSES_VERIFIED)(verify_untrusted)
"""That the log has signed and proved these bytes is a fact about them. After each change of the feed, and on each link of a
peer, the same ones are judged again: by the clock, by what is newer, and by what the feed has told."""


@final
class Registered(Model):
    """Believes whom a registry's log says is active, issuers included, with the current certificate and no other.

    Authoritative for every ID whose status is shown: an old, false or other one refuses the peer whoever else vouches. So
    does none, where one was shown before, or the feed has told of the ID or of an end of one above it. Another peer that
    shows none is unknown here: join this to other models by `&`, or a revoked one that was never seen need only be silent.

    What the feed has told, and which status is the newest, this object remembers; one that takes its place learns it
    (`Agent.replace_trust`). One that takes nobody's place believes a revoked peer until its last status has aged, unless it
    hears of the revocation itself.

    Args:
        log_key: of the registry's log, as `VerifierKey` or its text form.
        max_age: how old a status may be, which is how long a revocation may go unheard of while the feed does not
            reach us; a number of seconds or a timedelta. None: as long as the log itself says. Peers renew theirs every
            `limits.STATUS_REFRESH` seconds: with less than twice that, healthy ones are refused now and then.

    Raises:
        UsageError: no age is that, or `log_key` is nothing of a key.
        IdentityError: `log_key` is no verifier key.
    """

    def __init__(self, log_key: VerifierKey | str, *, max_age: timedelta | float | None = None) -> None:
        self.log_key = key_given(log_key)
        self._max_age = None if max_age is None else int(seconds_given(max_age) * SECOND)
        self._authority = key_authority(keys.hash_of_key(self.log_key.public))
        self._newest = Newest()
        self._told = Told()
        self._silent: OrderedDict[AutoId, None] = OrderedDict()  # who has shown none, for others to vouch for
        # The epoch of the newest change about each ID, and of what is about anybody, or about whom is forgotten.
        self._changed_at: OrderedDict[AutoId, int] = OrderedDict()
        self._anybody_at = 0

    def rests_on(self, authority: str) -> bool:
        return authority == self._authority

    def epoch_of(self, ids: Sequence[AutoId]) -> int:
        return max(self._anybody_at, *[self._changed_at.get(auto_id, 0) for auto_id in ids], 0)

    def on_change_of(self, callback: Listener) -> Callable[[], None]:
        return self._listen(callback)

    def _changed(self, *about: AutoId) -> None:
        for auto_id in about:
            self._changed_at[auto_id] = self._changes + 1
            self._changed_at.move_to_end(auto_id)
        if not about:
            self._anybody_at = self._changes + 1
        while len(self._changed_at) > limits.CHANGES_TOLD:
            self._anybody_at = max(self._anybody_at, self._changed_at.popitem(last=False)[1])
        super()._changed(*about)

    def heed(self, change: Change) -> None:
        """Take a change that the feed told, its signature verified: links that rest on a status from before it are judged
        again, and end unless their peer shows a newer one: after a rotation of one above it within a few seconds."""
        full = self._told.take(change)
        self._changed(change.auto_id)
        if full:
            self._changed()

    def learn_from(self, before: Model) -> None:
        others = [other for other in models_in(before, self.log_key) if other is not self]
        for other in others:
            self._told.learn_from(other._told)  # noqa: SLF001  its own kind
            self._newest.learn_from(other._newest)  # noqa: SLF001
        if others:
            self._changed()

    async def verify(self, presented: Presented, context: Context) -> Grounds:
        if not presented.complete:
            raise NotVouched("the chain stops before its self-issued root", Reason.UNKNOWN_ISSUER)
        staple = self._staple(presented)
        try:
            verified = _verified(staple, self.log_key)
            status = verified.status
            self._check_whose(status, presented)
            # Verdicts on the older one, or on none, are remembered, and links rest on them.
            if self._newest.check(verified, counted=False) or status.auto_id in self._silent:
                self._silent.pop(status.auto_id, None)
                self._changed(status.auto_id)
        except (BadSignature, RemoteProtocolError) as error:
            raise Contradicted(f"its status is not to be believed: {error}", Reason.MALFORMED) from error
        now = microseconds(context.now)
        until = min(self._check_age(status, now), self._check_changes(verified, presented, now))
        if status.state is not State.ACTIVE:
            whose = "" if status.because == status.auto_id else f", by the record of {status.because.short}"
            raise Contradicted(f"{display(status.origin)} says {status.state}{whose}", Reason.REVOKED)
        text = f"active in {display(status.origin)} at {instant(status.at):%F %T} UTC"
        return Grounds(
            "Registered", text, valid_until=instant(until), authority=self._authority, succeeds=True
        )

    def _staple(self, presented: Presented) -> bytes:
        """The status of our log among the evidence, unread."""
        for item in presented.evidence:
            try:
                if TAG.encode() in item[:64] and Status.from_untrusted(item).origin == self.log_key.name:
                    return item
            except RemoteProtocolError as error:
                raise Contradicted(f"a status that is none: {error}", Reason.MALFORMED) from error
        text = f"{show_name(presented.name)} shows no status of {display(self.log_key.name)}"
        if any(told.newest.state is not State.ACTIVE for told in self._told.of(presented.ids)):
            raise Contradicted(f"{text}, which has told its end", Reason.REVOKED)
        own = presented.ids[-1]
        if own in self._told or self._newest.knows(self.log_key.name, own):
            raise Contradicted(f"{text}, where it is on record", Reason.NOT_VOUCHED)
        self._silent[own] = None
        self._silent.move_to_end(own)
        if len(self._silent) > limits.STATUSES:
            self._silent.popitem(last=False)
        raise NotVouched(text)

    def _check_whose(self, status: Status, presented: Presented) -> None:
        if status.auto_id != presented.auto_id:
            raise Contradicted("it shows the status of another Auto ID", Reason.IMPOSTOR)
        path = tuple(certificate.spki_sha256 for certificate in presented.chain)
        if path != (status.key, *status.issuers):
            raise Contradicted("its keys, or its issuers', are not the ones on record", Reason.IMPOSTOR)
        if status.certificate != presented.leaf.fingerprint:
            raise Contradicted("its certificate is not the current one on record", Reason.EXPIRED)

    def _check_age(self, status: Status, now: int) -> int:
        """Until when it is to be believed."""
        if status.at > now + int(limits.SKEW * SECOND):
            raise Contradicted(
                f"its status is of {instant(status.at):%F %T} UTC, which is to come", Reason.NOT_YET_VALID
            )
        until = status.expires_at if self._max_age is None else status.at + self._max_age
        until = min(until, status.at + int(limits.STATUS_AGE * SECOND))
        if until < now:
            raise Contradicted(
                f"its status is of {instant(status.at):%F %T} UTC, too long ago", Reason.EXPIRED
            )
        return until

    def _check_changes(self, verified: VerifiedStatus, presented: Presented, now: int) -> int:
        """Until when it is to be believed after what the feed has told since."""
        size = verified.checkpoint.size
        if size < self._told.forgotten:
            text = "its status is from before more changes than are remembered: a fresh one will do"
            raise Contradicted(text, Reason.EXPIRED)
        since = [told for told in self._told.of(presented.ids) if told.newest.index >= size]
        for told in since:
            change = told.newest
            whose = "" if change.auto_id == presented.auto_id else f" of {change.auto_id.short}"
            if not whose or told.ended_at >= size:
                text = f"since its status there was an entry{whose}: {change.op.name}"
                raise Contradicted(text, Reason.REVOKED)
        until = min((told.forgives_until(size) for told in since), default=TIME_MAX)
        if until < now:
            text = f"its status is from before a rotation of {since[0].newest.auto_id.short}: a fresh one will do"
            raise Contradicted(text, Reason.EXPIRED)
        return until

    def __repr__(self) -> str:
        return f"Registered({self.log_key.name})"


def models_in(trust: Model, log_key: VerifierKey) -> Iterator[Registered]:
    """The trust models of a log that a composed model has in it."""
    if isinstance(trust, Registered) and trust.log_key == log_key:
        yield trust
    for member in getattr(trust, "members", ()):
        yield from models_in(member, log_key)
