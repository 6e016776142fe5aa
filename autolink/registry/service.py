"""A registry as an agent serves it: submissions, statuses, records, and the feed of changes.

Submissions from all links wait in one bounded queue. One task takes what waits, up to a group of it, and has it judged and
kept in a worker thread, so the event loop goes on; whoever waits for an entry is told when it is durable. A submitter has
its receipt before. Senders that are faster than the disk wait, each for itself.

Everything that is handed out is signed by the log, so whom it comes from does not matter; the link only keeps it private.
"""

import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import wraps
from typing import Any, Final, ParamSpec, TypeVar, final

import anyio
from anyio import to_thread

from autolink import limits
from autolink.agent.agent import Agent
from autolink.agent.call import Call
from autolink.agent.channel import Channel
from autolink.agent.groups import background_tasks
from autolink.agent.handlers import Handlers
from autolink.agent.opening import name_of
from autolink.agent.topic import Topic
from autolink.errors import CallError, Code, EntryRefused, Fault, IdentityError, display
from autolink.identity import AutoId
from autolink.messages import instant
from autolink.registry import crl
from autolink.registry.answers import CHANGES, Answer, Consistency, Number, Place
from autolink.registry.database import StoreFailed
from autolink.registry.entries import Entry
from autolink.registry.policy import Policy
from autolink.registry.registrar import GROUP, Appended, Registrar
from autolink.registry.store import Store
from autolink.trust import VerifiedPeer

P = ParamSpec("P")
R = TypeVar("R")

_log: Final = logging.getLogger("autolink.registry")


def _reads(handler: Callable[P, Coroutine[Any, Any, R]]) -> Callable[P, Coroutine[Any, Any, R]]:
    """A handler that reads the log. That it cannot be read is the operator's to know; who asks may ask again."""

    @wraps(handler)
    async def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return await handler(*args, **kwargs)
        except StoreFailed as error:
            _log.error("the log cannot be read for %s: %s", handler.__name__.lstrip("_"), error)
            raise CallError(Code.UNAVAILABLE, "the log cannot be read now") from None

    return guarded


@final
@dataclass(eq=False, slots=True)
class _Submission:
    """One entry on its way, since when by its receipt, and who has submitted it, for logs."""

    data: bytes
    since: int
    by: VerifiedPeer
    done: anyio.Event = field(default_factory=anyio.Event)
    outcome: Appended | EntryRefused | StoreFailed | None = None


@final
class RegistryService:
    """What one registry does for its links.

    Args:
        store: the log; `registrar` appends to it.
        registrar: of this store.
        policy: who may register.

    Attributes:
        handlers: for the agent that serves it.
    """

    def __init__(self, store: Store, registrar: Registrar, policy: Policy) -> None:
        self._store, self._registrar, self._policy = store, registrar, policy
        self._waiting: deque[_Submission] = deque()
        self._room = anyio.Semaphore(limits.SUBMISSIONS_ALL)
        self._woken = anyio.Event()
        self._topic: Topic[bytes] | None = None
        self._publishing = anyio.CapacityLimiter(1)  # one list is read at a time: it may be long
        self.handlers = Handlers()
        self.handlers.channel("registry.submit")(self._submit)
        self.handlers.method("registry.status")(self._status)
        self.handlers.method("registry.record")(self._record)
        self.handlers.method("registry.entries")(self._entries)
        self.handlers.method("registry.proof")(self._proof)
        self.handlers.method("registry.history")(self._history)
        self.handlers.method("registry.changes_since")(self._changes_since)
        self.handlers.method("registry.consistency")(self._consistency)
        self.handlers.method("registry.publish_crl")(self._publish_crl)

    @asynccontextmanager
    async def running(self, agent: Agent) -> AsyncIterator[None]:
        """Take submissions for the block; `agent` serves `handlers`, and its subscribers get the feed.

        What still waits when the block ends is appended before this returns: its submitter has the log's promise.
        """
        self._topic = agent.topic(CHANGES, of=bytes, overflow="disconnect", buffer=limits.CHANGES_BUFFER)
        try:
            async with background_tasks() as tasks:
                tasks.start_soon(self._append)
                yield
        finally:
            while self._waiting:
                await self._append_group()

    # --- appending -------------------------------------------------------------------------------------

    async def _append(self) -> None:
        while True:
            while not self._waiting:
                self._woken = anyio.Event()
                await self._woken.wait()
            await self._append_group()

    async def _append_group(self) -> None:
        """One group of what waits, kept and told; not cut short, or nobody would answer for it."""
        with anyio.CancelScope(shield=True):
            group = [self._waiting.popleft() for _ in range(min(GROUP, len(self._waiting)))]
            entries, since = [one.data for one in group], max(one.since for one in group)
            try:
                outcomes: list[Any] = await to_thread.run_sync(
                    lambda: self._registrar.append(entries, since=since)
                )
            except StoreFailed as error:
                _log.error("%d entries could not be appended: %s", len(group), error)
                outcomes = [error] * len(group)
            for submission, outcome in zip(group, outcomes, strict=True):
                submission.outcome = outcome
                _tell(submission.data, submission.by, outcome)
                submission.done.set()
                self._room.release()
            if self._topic is not None:
                for outcome in outcomes:
                    if isinstance(outcome, Appended) and outcome.change:
                        await self._topic.publish(outcome.change)  # which waits for no subscriber

    async def _submit(self, channel: Channel[Answer, tuple[int, bytes]]) -> None:
        """Each entry, under a number of the submitter's, gets a receipt at once, then what became of it; several may be
        on their way."""
        room = anyio.Semaphore(limits.SUBMISSIONS)
        async with anyio.create_task_group() as tasks:
            async for number, data in channel:
                await room.acquire()
                tasks.start_soon(self._take, channel, number, data, room)

    async def _take(
        self, channel: Channel[Answer, Any], number: int, data: bytes, room: anyio.Semaphore
    ) -> None:
        try:
            await channel.send(await self._taken_in(channel, number, data))
        finally:
            room.release()

    @_reads
    async def _taken_in(self, channel: Channel[Answer, Any], number: int, data: bytes) -> Answer:
        """The answer to one submission."""
        try:
            entry = Entry.from_untrusted(data)
            self._policy.check(entry, channel.peer)
        except EntryRefused as error:
            _tell(data, channel.peer, error)
            return _refusal(number, error)
        await self._room.acquire()  # until the entry is appended, whether its submitter is still there or not
        receipt = self._registrar.receipt(entry.hash)
        submission = _Submission(data, receipt.received_at, channel.peer)
        # Before the promise is out: a submitter that leaves now has it kept, too.
        self._waiting.append(submission)
        self._woken.set()
        await channel.send(Answer(number=number, receipt=receipt.to_bytes()))
        await submission.done.wait()
        match submission.outcome:
            case Appended(index, logged_at):
                proof = self._registrar.proof(index).to_bytes()
                return Answer(number=number, index=index, logged_at=logged_at, proof=proof)
            case EntryRefused() as refusal:
                return _refusal(number, refusal)
        return _refusal(number, _UNWRITABLE)

    async def _publish_crl(self, call: Call, asked: tuple[bytes, bytes]) -> Answer:
        """Keep an issuer's own revocation list; the answer is a fault, or nothing more."""
        issuer, der = _auto_id(asked[0]), asked[1]
        try:
            await to_thread.run_sync(
                lambda: crl.publish(self._store, issuer, der, now=instant(self._registrar.now())),
                limiter=self._publishing,
            )
        except EntryRefused as error:
            _log.info(
                "refused the revocation list of %s from %s: %s", issuer, name_of(call.peer), _why(error)
            )
            return _refusal(0, error)
        except StoreFailed as failed:
            _log.error("the revocation list of %s could not be kept: %s", issuer, failed)
            return _refusal(0, _UNWRITABLE)
        _log.info("the revocation list of %s is published", issuer)
        return Answer(number=0)

    # --- reading ---------------------------------------------------------------------------------------

    @_reads
    async def _status(self, call: Call, auto_id: bytes) -> bytes:
        status = self._registrar.status(_auto_id(auto_id))
        if status is None:
            raise CallError(Code.NOT_FOUND, "this Auto ID is not on record")
        return status.to_bytes()

    @_reads
    async def _record(self, call: Call, auto_id: bytes) -> Place:
        found = self._store.record(_auto_id(auto_id))
        if found is None:
            raise CallError(Code.NOT_FOUND, "this Auto ID is not on record")
        record = found.at(self._registrar.now())
        recovery = record.recovery
        return Place(
            head=record.head, authority=record.authority, entries=record.entries, touched=record.touched,
            certificate=record.certificate, rotations=list(record.rotations), delay=record.guardians.delay,
            threshold=record.guardians.threshold, guardians=len(record.guardians.hashes),
            recovered_at=recovery.ready_at if recovery else None,
        )  # fmt: skip

    @_reads
    async def _entries(self, call: Call, places: list[int]) -> list[bytes]:
        """The leaves at these places."""
        if len(places) > limits.LOG_PAGE:
            raise CallError(Code.INVALID_ARGUMENT, f"at most {limits.LOG_PAGE} places at a time")
        size = self._store.head.size
        if any(not 0 <= place < size for place in places):
            raise CallError(Code.OUT_OF_RANGE, f"the log has {size} entries")
        found, held = [], 0
        for place in places:
            (leaf,) = self._store.read_leaves(place, place + 1)
            held += len(leaf) + 8
            if held > limits.MESSAGE - limits.KIB:
                break  # the rest is asked for again
            found.append(leaf)
        return found

    @_reads
    async def _proof(self, call: Call, place: int) -> bytes:
        """That an entry is in the log."""
        size = self._store.head.size
        if not 0 <= place < size:
            raise CallError(Code.OUT_OF_RANGE, f"the log has {size} entries")
        return self._registrar.proof(place).to_bytes()

    @_reads
    async def _history(self, call: Call, asked: tuple[bytes, Number]) -> list[int]:
        auto_id, start = asked
        return self._store.history(_auto_id(auto_id), start)

    @_reads
    async def _changes_since(self, call: Call, start: Number) -> list[tuple[int, bytes]]:
        return self._store.changes(start)

    @_reads
    async def _consistency(self, call: Call, asked: tuple[Number, Number | None]) -> Consistency:
        """The newest checkpoint, and how the log of so many entries leads to that of so many others, or to the newest."""
        head = self._store.head  # once: an append may be under way
        old, new = asked[0], head.size if asked[1] is None else asked[1]
        if not old <= new <= head.size:
            raise CallError(Code.OUT_OF_RANGE, f"the log has {head.size} entries")
        return Consistency(checkpoint=head.checkpoint, path=list(self._registrar.consistency(old, new)))


def _auto_id(value: bytes) -> AutoId:
    try:
        return AutoId(value)
    except IdentityError as error:
        raise CallError(Code.INVALID_ARGUMENT, str(error)) from None


def _tell(data: bytes, by: VerifiedPeer, outcome: Appended | EntryRefused | StoreFailed) -> None:
    """Log what became of an entry; that the log could not be written is told of the whole group."""
    if not _log.isEnabledFor(logging.INFO):
        return
    try:
        entry = Entry.from_untrusted(data)
        what = f"{entry.op.name.lower()} of {entry.auto_id}"
    except EntryRefused:
        what = "bytes that are no entry"
    if isinstance(outcome, Appended):
        state = outcome.record.state.value
        _log.info("entry %d: %s (%s now), submitted by %s", outcome.index, what, state, name_of(by))
    elif isinstance(outcome, EntryRefused):
        _log.info("refused the %s, submitted by %s: %s", what, name_of(by), _why(outcome))


def _why(refusal: EntryRefused) -> str:
    return f"{display(str(refusal))} ({refusal.fault})"


_UNWRITABLE: Final = EntryRefused(Fault.UNAVAILABLE, "the log cannot be written: try again later")


def _refusal(number: int, refusal: EntryRefused) -> Answer:
    return Answer(number=number, fault=refusal.fault.value, text=str(refusal))
