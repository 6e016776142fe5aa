"""A registry as its users see it: entries are submitted and proved, statuses fetched, the feed followed.

Nothing that a registry answers is believed because it answers: receipts, statuses and changes are signed by the log's key,
entries are proved under a checkpoint of its, and each checkpoint must lead on from the last one that was seen.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from itertools import pairwise
from typing import final

import anyio

from autolink import limits
from autolink.agent.agent import Agent
from autolink.agent.groups import background_tasks
from autolink.agent.link import Link
from autolink.errors import BadSignature, CallError, Code, LinkLost, RemoteProtocolError
from autolink.identity import AutoId, Credential
from autolink.identity.autoid import auto_id_given
from autolink.messages.merkle import leaf_hash
from autolink.registry import feed, status
from autolink.registry.answers import CHANGES, Answer, Consistency, Place
from autolink.registry.entries import Entry, decode_leaf_untrusted
from autolink.registry.evidence import check_goes_on
from autolink.registry.feed import Change
from autolink.registry.log import checkpoint
from autolink.registry.log.checkpoint import Checkpoint
from autolink.registry.log.note import VerifierKey
from autolink.registry.log.proof import LogProof
from autolink.registry.status import Status
from autolink.registry.submitter import Logged, Submitter, check
from autolink.transport import Contact
from autolink.trust import Pinned


def reader(
    contact: str, dialer: Credential | None = None, *, clock: Callable[[], datetime] | None = None
) -> Agent:
    """An agent that dials a registry and believes nobody else.

    Args:
        contact: of the agent that serves the registry.
        dialer: who dials; None for a throw-away identity: whoever asks a registry need not tell it who that is.
        clock: the wall clock; None for the system's.

    Raises:
        UsageError, IdentityError: the contact is none.
    """
    expected = Pinned(Contact.parse(contact).peer_id)
    return Agent(dialer or Credential.self_issued("visitor"), trust=expected, clock=clock)


@final
class RegistryClient:
    """One registry over one link.

    Args:
        link: to the agent that serves it.
        log_key: of its log, known from elsewhere.
        seen: the newest checkpoint that was seen of this log, from an earlier client.

    Attributes:
        log_key, seen: as given, and since.
        heard: the place behind the last change that `follow` has had heeded.

    Raises:
        UsageError: (each method that takes an AutoId) it is none, such as its digits.
    """

    def __init__(self, link: Link, log_key: VerifierKey, *, seen: Checkpoint | None = None) -> None:
        self._link, self.log_key = link, log_key
        self.seen = seen
        self.heard = 0

    async def submit(self, entry: Entry, *, promised: Callable[[bytes], object] | None = None) -> Logged:
        """Have an entry appended; it is durable and proved when this returns.

        Args:
            entry: it.
            promised: called with the receipt, verified, while the rest is waited for: for who may not wait so long.

        Raises:
            EntryRefused: the log's rules or the registry's policy do not allow it, or so it says: with the `receipt` that
                it may have given before.
            Withheld: the registry did not prove that it has kept its promise.
            Unproved: its receipt is of another time: with that in `evidence`, which is also the cause of an `EntryRefused`.
            BadSignature, RemoteProtocolError: it answers with what is not so.
        """
        async with self.submitting() as submitter:
            return await submitter.submit(entry, promised=promised)

    @asynccontextmanager
    async def submitting(self) -> AsyncIterator[Submitter]:
        """One channel for many entries: each of `Submitter.submit` may be under way while others are."""
        async with (
            self._link.open_channel("registry.submit", sends=tuple[int, bytes], receives=Answer) as channel,
            background_tasks() as tasks,
        ):
            submitter = Submitter(channel, self.log_key, self._link.agent.clock)
            tasks.start_soon(submitter.read)
            yield submitter

    async def status(self, auto_id: AutoId) -> status.VerifiedStatus:
        """How an ID stands, in the log's word.

        Raises:
            CallError: `not_found`: it is not on record.
            BadSignature, RemoteProtocolError: not what the log has signed, or of another ID.
            LogConvicted, Unproved: it is of another past of the log than was seen.
        """
        data = await self._link.call("registry.status", auto_id_given(auto_id).value, returns=bytes)
        verified = status.verify_untrusted(data, self.log_key)
        if verified.status.auto_id != auto_id:
            raise BadSignature("status: of another Auto ID than was asked for")
        await self.go_on_with(verified.checkpoint)
        return verified

    async def place(self, auto_id: AutoId) -> Place:
        """What the ID's next entry must follow. Not proved: an entry that names something else is refused as stale.

        Raises:
            CallError: `not_found`.
        """
        return await self._link.call("registry.record", auto_id_given(auto_id).value, returns=Place)

    async def catch_up(self) -> Checkpoint:
        """The newest checkpoint, which leads on from the last one that was seen.

        Raises:
            LogConvicted, Unproved: it does not: the log has lost entries or shows us another past. Both are in `evidence`.
            BadSignature, RemoteProtocolError: it is none.
        """
        seen = self.seen
        try:
            found = await self.consistency(seen.size if seen else 0)
        except CallError as error:
            if error.code is not Code.OUT_OF_RANGE:
                raise
            found = await self.consistency()  # of its own word it is not as long as it was
        newest = checkpoint.verify_untrusted(found.checkpoint, self.log_key)
        if seen is not None:
            check_goes_on(seen, newest, found.path)
        self._saw(newest)
        return newest

    async def go_on_with(self, signed: Checkpoint) -> None:
        """Hold a checkpoint in some other word of the log to what was seen: it is on the way there, or from there.

        Raises:
            LogConvicted, Unproved: it is of another past.
        """
        older, newer = sorted((self.seen or signed, signed), key=lambda checkpoint: checkpoint.size)
        path: Sequence[bytes] = ()
        if older.size < newer.size:
            try:
                path = (await self.consistency(older.size, newer.size)).path
            except CallError as error:
                if error.code is not Code.OUT_OF_RANGE:
                    raise
                # Of its own word the log is shorter, so that nothing leads there.
        check_goes_on(older, newer, path)
        self._saw(newer)

    def _saw(self, newest: Checkpoint) -> None:
        """Of two calls that wait at once, the one that comes back later may have seen less."""
        if self.seen is None or newest.size > self.seen.size:
            self.seen = newest

    async def consistency(self, old: int = 0, new: int | None = None) -> Consistency:
        """The newest signed note, and the path from the log of `old` entries to that of `new`, or to the newest; nothing of
        it is verified.

        Raises:
            CallError: `out_of_range`: the log is not that long.
        """
        return await self._link.call("registry.consistency", [old, new], returns=Consistency)

    async def entries(self, places: Sequence[int]) -> list[bytes]:
        """The leaves at these places, as far as one answer holds them. Not proved: see `audit`."""
        return await self._link.call("registry.entries", list(places), returns=list[bytes])

    async def proved(self, place: int) -> bytes:
        """The leaf at a place, proved to be there.

        Raises:
            CallError: `out_of_range`: there is none yet.
            BadSignature, RemoteProtocolError: it is not what the log has signed.
            LogConvicted, Unproved: it is of another past of the log than was seen.
        """
        return (await self.proof(place))[0]

    async def proof(self, place: int) -> tuple[bytes, LogProof]:
        """As `proved`, with what proves it."""
        leaves = await self.entries([place])
        proof = LogProof.from_untrusted(await self._link.call("registry.proof", place, returns=bytes))
        if proof.index != place or len(leaves) != 1:
            raise BadSignature("the registry's proof is about another place")
        await self.go_on_with(proof.verify(leaf_hash(leaves[0]), self.log_key))
        return leaves[0], proof

    async def first_since(self, time: int) -> int:
        """The place of the first entry that was logged at or after a log time (microseconds), found by halving.

        Raises:
            RemoteProtocolError, EntryRefused: an entry is none.
        """
        low, high = 0, (await self.catch_up()).size
        while low < high:
            middle = (low + high) // 2
            leaves = await self.entries([middle])
            if len(leaves) != 1:
                raise RemoteProtocolError("the registry does not give the entry that it has")
            if decode_leaf_untrusted(leaves[0])[0] < time:
                low = middle + 1
            else:
                high = middle
        return low

    async def history(self, auto_id: AutoId, start: int = 0) -> list[int]:
        """Where an ID's entries stand in the log, from place `start` on, as many as one answer holds."""
        return await self._link.call(
            "registry.history", [auto_id_given(auto_id).value, start], returns=list[int]
        )

    async def places(self, said: Status, most: int = limits.LOG_ENTRIES) -> list[int]:
        """Where the entries stand that a status counts, in their order: the last `most` of them.

        Raises:
            BadSignature: the registry shows fewer, more, or others.
        """
        places: list[int] = []
        counted, start, last = 0, 0, said.proof.index
        while counted < said.entries:
            page = [place for place in await self.history(said.auto_id, start) if place <= last]
            if not page or page[0] < start or any(one >= two for one, two in pairwise(page)):
                break
            counted, start = counted + len(page), page[-1] + 1
            places = [*places, *page][-most:]
        if counted != said.entries or places[-1:] != [last]:
            raise BadSignature("the registry does not show as many entries as it has signed, or others")
        return places

    async def publish_crl(self, issuer: AutoId, crl: bytes) -> None:
        """Have an issuer's own revocation list served (`crl.make_crl`), whoever brings it.

        Raises:
            EntryRefused: it is none that this issuer has signed with its key on record, or not newer than the served one.
        """
        check(
            await self._link.call("registry.publish_crl", [auto_id_given(issuer).value, crl], returns=Answer)
        )

    # --- for as long as it runs -----------------------------------------------------------------------

    async def follow(self, heed: Callable[[Change], object], *, since: int = 0) -> None:
        """Tell every change of the feed, from place `since` on; until cancelled.

        Args:
            heed: such as `Registered.heed`.
            since: `heard` of an earlier client, or `first_since` of the oldest status that would still be believed.

        Raises:
            LinkLost, CallError: the feed ended; follow it again from where it was.
            BadSignature, RemoteProtocolError: something in it is not what the log has signed.
        """
        self.heard = since
        async with background_tasks() as tasks:
            with anyio.CancelScope() as scope:
                tasks.start_soon(self._leave, scope)
                async with self._link.subscribe(CHANGES, receives=bytes) as subscription:
                    while missed := await self._link.call(
                        "registry.changes_since", self.heard, returns=list[tuple[int, bytes]]
                    ):
                        for _, data in missed:
                            before = self.heard
                            self._heed(heed, data)
                            if self.heard == before:
                                raise RemoteProtocolError("the registry tells changes again that it has told")
                    async for data in subscription:
                        self._heed(heed, data)
        raise LinkLost("the registry has ended the feed")

    async def _leave(self, scope: anyio.CancelScope) -> None:
        """A registry that is told to stop waits for nobody who would listen for ever."""
        await self._link.no_longer_usable()
        scope.cancel()

    def _heed(self, heed: Callable[[Change], object], data: bytes) -> None:
        change = feed.verify_untrusted(data, self.log_key)
        heed(change)
        self.heard = max(self.heard, change.index + 1)


def show(agent: Agent, verified: status.VerifiedStatus) -> None:
    """Have an agent show a status beside what else it shows, in the place of an earlier one of the same log."""
    agent.replace_evidence(*beside(agent, verified))


def beside(agent: Agent, verified: status.VerifiedStatus) -> list[bytes]:
    """What an agent shows with a status in the place of an earlier one of the same log."""
    own = verified.status
    others = [item for item in agent.evidence if status.origin_of(item) != own.origin]
    return [*others, own.to_bytes()]
