"""A monitor: an audit that goes on, and reports (`watch`) what happens to the IDs that somebody watches.

It replays the whole log, so it believes the registry nothing: not that an entry was allowed, not what a status or the feed
says of an ID, not that the log of today goes on from the one of yesterday. What it remembers from one run to the next is
one checkpoint; others that were seen elsewhere, such as in a peer's status, can be given to it: with each of them the
replayed log must agree, or the registry shows different people different pasts.
"""

from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import datetime
from typing import TypeVar, final

import anyio

from autolink import limits
from autolink.errors import BadSignature, CallError, Code, RemoteProtocolError
from autolink.identity import AutoId
from autolink.messages import instant, microseconds
from autolink.messages.merkle import leaf_hash
from autolink.registry.audit import Audit, Taken, check_change
from autolink.registry.client import RegistryClient
from autolink.registry.entries import Op
from autolink.registry.evidence import LogConvicted, Unproved, both
from autolink.registry.feed import TELLING, Change
from autolink.registry.log.checkpoint import Checkpoint, verify_untrusted
from autolink.registry.log.note import VerifierKey
from autolink.registry.log.tree import check_consistency
from autolink.registry.records import SECOND, Record, State
from autolink.registry.watch import Report, Watch

T = TypeVar("T")


@final
class Monitor:
    """Follows one log.

    Args:
        key: of the log, and all that is believed.
        watched: the IDs that are reported; None for all.
        seen: checkpoints (signed notes) from earlier runs and from elsewhere.
        since: the place of the first entry that is reported, such as the size in the checkpoint of an earlier run; all are
            replayed. None: that of the first one after the first look, in which it is reported how those in `watched` stand.
        looked: when that earlier run has looked; a recovery that had taken place by then is not reported.
        max_age: seconds that the registry's word on a watched ID may be old.
        each: told every entry of the log, watched or not, such as `crl.Issued.take`.
        clock: the wall clock.

    Attributes:
        checkpoint: the newest one that the replayed log agrees with, as a note; empty before the first.
        heard: the place behind the last change that was heeded.
        since: the place of the first entry that is reported; None before the first look says it.

    Raises:
        RemoteProtocolError, BadSignature: something in `seen` is no checkpoint of this log's.
    """

    def __init__(
        self, key: VerifierKey, *, clock: Callable[[], datetime], watched: Iterable[AutoId] | None = None,
        seen: Iterable[bytes] = (), max_age: float = 300.0, each: Callable[[Taken], object] | None = None,
        since: int | None = 0, looked: datetime | None = None,
    ) -> None:  # fmt: skip
        self._key, self._clock, self._max_age = key, clock, max_age
        self._audit = Audit(key, recovered=self._recovered)
        self._watch = Watch(self._audit.ledger, None if watched is None else frozenset(watched))
        self._each = each
        self.since, self._looked = since, 0 if looked is None else microseconds(looked)
        self._report: Callable[[Report], object] = _nobody
        self._unknown: set[AutoId] = set()
        self._expected: dict[int, list[Checkpoint]] = {}
        for note in seen:
            signed = verify_untrusted(note, key)
            self._expected.setdefault(signed.size, []).append(signed)
        self._told: deque[Change] = deque(maxlen=limits.CHANGES_COMPARED)
        self._telling: OrderedDict[int, tuple[AutoId, Op, State, int, int]] = OrderedDict()
        self._asked = 0  # IDs that were touched last before this place have had their status compared
        self.checkpoint = b""
        self.heard = 0

    @property
    def size(self) -> int:
        """Entries that were replayed."""
        return self._audit.size

    def count(self) -> int:
        """How many IDs are on record in them."""
        return self._audit.ledger.count()

    def heed(self, change: Change) -> None:
        """Take what the feed tells, to be compared with the log in the next round."""
        self._told.append(change)
        self.heard = max(self.heard, change.index + 1)

    async def look(self, client: RegistryClient, report: Callable[[Report], object]) -> None:
        """One round: everything that has been logged since the last one, then the registry's word on the IDs concerned.

        Args:
            client: of this log.
            report: is told what there is to tell.

        Raises:
            LogConvicted: the log has signed what is not so; nothing that it says is to be believed any more.
            Unproved: it shows no log that goes on from the one that was seen, of which nothing was taken; or has told a
                change of an entry that it has not.
            RemoteProtocolError, BadSignature: the registry answers with what is nothing of its log's.
            CallError, LinkLost, TimeoutError: it does not answer.
        """
        self._report, heard = report, self.heard
        await self._replay(client, (await _soon(client.consistency())).checkpoint)
        self._check_told(heard)
        watched = self._watch.watched
        for auto_id in sorted(watched or ()):
            await self._check_status(client, auto_id)
        if watched is None:
            stop = self.size  # what is touched while the statuses are asked for is for the next round
            for place, auto_id in self._audit.ledger.touched(self._asked, stop):
                await self._check_status(client, auto_id)
                self._asked = place + 1
            self._asked = stop
        self._pass_time()

    def _pass_time(self) -> None:
        """What time alone has brought, until an entry or the next round."""
        now = max(self._audit.time, microseconds(self._clock()))
        self._audit.pass_time(now)
        if self.since is None:
            self.since = self.size
            for report in self._watch.stands(now):
                self._report(report)

    def _recovered(self, record: Record) -> None:
        told = self._tells(self.size) and record.at(self._looked) is record
        for report in self._watch.recovered(record):
            if told:
                self._report(report)

    def _tells(self, place: int) -> bool:
        return self.since is not None and place >= self.since

    async def _replay(self, client: RegistryClient, note: bytes) -> None:
        """Take the log up to a checkpoint."""
        signed = verify_untrusted(note, self._key)
        size, seen = self._longest()
        if signed.size < size:
            text = f"the registry shows {signed.size} entries, and its log had {size} before"
            raise Unproved(text, both(seen, note))
        self._check_expected(note)
        while (first := self.size) < signed.size:
            wanted = range(first, min(first + limits.LOG_PAGE, signed.size))
            leaves = (await _soon(client.entries(wanted)))[: len(wanted)]
            await self._check_signed(client, leaves, signed, note)
            for leaf in leaves:
                taken = self._audit.take(leaf)
                self._remember(taken)
                if self._each is not None:
                    self._each(taken)
                self._check_expected(note)
                if self._watch.watched is not None or self._tells(taken.index):
                    for report in self._watch.entry(taken):
                        if self._tells(taken.index):
                            self._report(report)
        if signed.root != self._audit.root:
            raise LogConvicted("two logs of one size were signed", evidence=both(self.checkpoint, note))
        self.checkpoint = note

    def _longest(self) -> tuple[int, bytes]:
        """How long the log was, as far as it was replayed or seen, and the note that says so."""
        size = max(self._expected, default=0)
        return (size, self._expected[size][0].note) if size > self.size else (self.size, self.checkpoint)

    async def _check_signed(
        self, client: RegistryClient, leaves: Sequence[bytes], signed: Checkpoint, note: bytes
    ) -> None:
        """That these are the log's next entries, before they are judged: no leaf is signed by itself."""
        if not leaves:
            raise RemoteProtocolError(
                f"the registry does not give entry {self.size}, which its checkpoint counts"
            )
        size, root = self.size + len(leaves), self._audit.root_with(map(leaf_hash, leaves))
        newest: Checkpoint = signed
        path: tuple[bytes, ...] = ()
        if size != signed.size:
            found = await _soon(client.consistency(size))
            newest, path = verify_untrusted(found.checkpoint, self._key), tuple(found.path)
        try:
            check_consistency(size, root, newest.size, newest.root, path)
        except BadSignature:
            await self._compare_pasts(client, note)
            text = "the entries that the registry gives are not those that its log has signed"
            raise Unproved(text, both(self.checkpoint, note)) from None

    async def _compare_pasts(self, client: RegistryClient, note: bytes) -> None:
        """A log that does not go on from what was replayed may have had others in the place of those entries: replayed
        from its first one, it is convicted by them."""
        if self.checkpoint:
            other = Monitor(self._key, clock=self._clock, watched=(), seen=[self.checkpoint])
            await other._replay(client, note)

    def _check_expected(self, shown: bytes) -> None:
        for signed in self._expected.pop(self.size, ()):
            if signed.root != self._audit.root:
                text = f"it shows different pasts: another log of {signed.size} entries was signed, too"
                raise LogConvicted(text, evidence=both(signed.note, shown))

    def _remember(self, taken: Taken) -> None:
        if taken.entry.op in TELLING:
            self._telling[taken.index] = taken.change
            if len(self._telling) > limits.CHANGES_COMPARED:
                self._telling.popitem(last=False)

    def _check_told(self, heard: int) -> None:
        """Compare what the feed has told.

        Args:
            heard: the place behind the last change that was heeded before the checkpoint was asked for.
        """
        told, beyond = tuple(self._told), None
        self._told.clear()
        for change in told:
            if change.index >= self.size:
                if change.index < heard:
                    beyond = change
                else:
                    self._told.append(change)  # the checkpoint was from before it
            elif (found := self._telling.get(change.index)) is not None:
                check_change(change, found)
            elif not self._telling or change.index > next(iter(self._telling)):
                text = "a change was told of it, and it is none"
                raise LogConvicted(text, index=change.index, evidence=change.to_bytes())
        if beyond is not None:
            self.heard = self.size  # or all changes up to there would count as heard
            text = f"the registry has told a change of entry {beyond.index}, and has {self.size}"
            raise Unproved(text, both(beyond.to_bytes(), self.checkpoint))

    async def _check_status(self, client: RegistryClient, auto_id: AutoId) -> None:
        now = self._clock()
        try:
            verified = await _soon(client.status(auto_id))
        except CallError as error:
            if error.code is not Code.NOT_FOUND:
                raise
            if self._audit.ledger.record(auto_id) is not None:
                text = "it is on record, and the registry says that it is not"
                self._report(Report("withheld", auto_id, text, None, now))
            elif auto_id not in self._unknown:
                self._unknown.add(auto_id)
                self._report(Report("unknown", auto_id, "it is not on record", None, now))
            return
        status = verified.status
        age = (microseconds(now) - status.at) / SECOND
        if verified.checkpoint.size < self.size or not -limits.SKEW <= age <= self._max_age:
            size = verified.checkpoint.size
            text = f"the registry's word on it is of {instant(status.at):%F %T} UTC, under {size} entries"
            self._report(Report("stale", auto_id, text, None, now, status.to_bytes()))
            return
        await self._replay(client, status.proof.checkpoint)  # it may know of more by now
        self._audit.check_status(status)


def _nobody(_: Report) -> None:
    """Before the first look nobody is told."""


async def _soon(answer: Awaitable[T]) -> T:
    """A registry that is asked and says nothing is one that is down."""
    with anyio.fail_after(limits.INCLUSION):
        return await answer
