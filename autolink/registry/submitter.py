"""Entries on their way to a registry: each is promised, then logged and proved, or refused."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final, final

import anyio

from autolink import limits
from autolink.agent.channel import Channel
from autolink.errors import (
    BadSignature,
    BodyError,
    CallError,
    EntryRefused,
    Fault,
    LinkLost,
    RemoteProtocolError,
    display,
)
from autolink.messages import microseconds
from autolink.messages.merkle import leaf_hash
from autolink.registry import receipt
from autolink.registry.answers import Answer
from autolink.registry.entries import Entry, encode_leaf
from autolink.registry.evidence import against
from autolink.registry.log.note import VerifierKey
from autolink.registry.log.proof import LogProof

_FAULTS: Final = frozenset(fault.value for fault in Fault)

_PATIENCE: Final = limits.INCLUSION
"""Seconds for what became of an entry that was promised: the promise is due."""


class Withheld(RemoteProtocolError):
    """A registry has promised to take an entry, and did not show that it has. `receipt` is the promise: if the `entry`
    is not in the log by its deadline although the log's rules allow it, it convicts whoever runs the registry."""

    def __init__(
        self, promise: bytes, text: str = "was gone before it said that it had", *, entry: bytes = b""
    ) -> None:
        super().__init__(f"the registry promised to take the entry, and {text}")
        self.receipt, self.entry = promise, entry


def promise_in(error: BaseException | None) -> bytes:
    """What an error comes from that may convict a registry by its promise: the receipt and the entry, as one array of the
    two; empty if there was none. Whoever has the log's key and its entries can tell (`receipt`)."""
    while error is not None and not (isinstance(error, Withheld | EntryRefused) and error.receipt):
        error = error.__cause__
    return b"" if error is None else receipt.beside(error.receipt, error.entry)


@final
@dataclass(frozen=True, slots=True)
class Logged:
    """An entry that is in the log, proved.

    Attributes:
        index: its place.
        logged_at: log time, microseconds.
        receipt: the promise that it would be.
        proof: for whoever has the log's key and the entry's leaf.
        leaf: what the log holds of it.
    """

    index: int
    logged_at: int
    receipt: bytes
    proof: LogProof
    leaf: bytes


@final
class Submitter:
    """The entries of one channel. Made by `RegistryClient.submitting`."""

    def __init__(
        self, channel: Channel[tuple[int, bytes], Answer], log_key: VerifierKey, clock: Callable[[], datetime]
    ) -> None:
        self._channel, self._log_key, self._clock = channel, log_key, clock
        self._number = 0
        self._waiting: dict[int, _Waiting] = {}
        self._ended: Exception | None = None  # no answer comes any more, and why

    async def submit(self, entry: Entry, *, promised: Callable[[bytes], object] | None = None) -> Logged:
        """As `RegistryClient.submit`."""
        data = entry.to_bytes()
        waiting = self._waiting[self._number] = _Waiting()
        number, self._number = self._number, self._number + 1
        try:
            await self._channel.send((number, data))
            if self._ended is None:
                await waiting.promised.wait()
            # One that comes behind the answer is looked at by nobody, and counts for nothing.
            promise = waiting.receipt
            wrong = self._wrong_with(promise, entry, waiting.received_at) if promise else None
            if promise and not wrong and promised is not None:
                promised(promise)
            if self._ended is None:
                with anyio.move_on_after(_PATIENCE):
                    await waiting.done.wait()
        finally:
            del self._waiting[number]
        return self._judge(data, waiting.answer, promise, wrong)

    def _judge(
        self,
        data: bytes,
        answer: Answer | None,
        promise: bytes,
        wrong: BadSignature | RemoteProtocolError | None,
    ) -> Logged:
        if answer is not None and answer.fault:
            raise _refusal(answer, b"" if wrong else promise, data) from wrong
        if not promise:
            raise self._ended or RemoteProtocolError("the registry gave no receipt")
        if wrong is not None:
            raise wrong
        if answer is None and self._ended is None:
            raise Withheld(promise, "did not say by its deadline that it had", entry=data)
        if answer is None:
            raise Withheld(promise, entry=data) from self._ended
        leaf = encode_leaf(answer.logged_at, data)
        try:
            proof = LogProof.from_untrusted(answer.proof)
            if proof.index != answer.index:
                raise BadSignature("the registry's proof is about another place")
            proof.verify(leaf_hash(leaf), self._log_key)
        except (BadSignature, RemoteProtocolError) as error:
            raise Withheld(promise, f"does not prove that it has: {error}", entry=data) from error
        return Logged(answer.index, answer.logged_at, promise, proof, leaf)

    def _wrong_with(
        self, promise: bytes, entry: Entry, received_at: int
    ) -> BadSignature | RemoteProtocolError | None:
        """Why a receipt is no promise, if it is none."""
        try:
            given = receipt.verify_untrusted(promise, self._log_key, entry)
            with against(receipt.beside(promise, entry.to_bytes())):
                receipt.check_fresh(given, received_at)
        except (BadSignature, RemoteProtocolError) as error:
            return error
        return None

    async def read(self) -> None:
        """Hand each answer to who waits for it, until the channel ends."""
        try:
            async for answer in self._channel:
                if (waiting := self._waiting.get(answer.number)) is not None:
                    waiting.take(answer, microseconds(self._clock()))
            self._ended = RemoteProtocolError("the registry has ended the channel")
        except (LinkLost, CallError, BodyError) as error:  # those who wait for an answer raise it
            self._ended = error
        for left in self._waiting.values():
            left.end()


class _Waiting:
    """What has come for one entry."""

    def __init__(self) -> None:
        self.promised, self.done = anyio.Event(), anyio.Event()
        self.receipt, self.received_at = b"", 0
        self.answer: Answer | None = None

    def take(self, answer: Answer, now: int) -> None:
        """A receipt, of which the first counts, or what became of the entry."""
        if answer.receipt:
            if not self.receipt:  # a later promise excuses nobody from an earlier one
                self.receipt, self.received_at = answer.receipt, now
            self.promised.set()
        else:
            self.answer = answer
            self.end()

    def end(self) -> None:
        """Nothing more comes."""
        self.promised.set()
        self.done.set()


def check(answer: Answer) -> None:
    """It is no refusal.

    Raises:
        EntryRefused: it is.
    """
    if answer.fault:
        raise _refusal(answer)


def _refusal(answer: Answer, promise: bytes = b"", entry: bytes = b"") -> EntryRefused:
    """What an answer with a fault says, with the promise that came before it, if there was one, and what that is for."""
    known = Fault(answer.fault) if answer.fault in _FAULTS else Fault.UNAVAILABLE
    text = f"the registry refused it: {display(answer.text)}"
    return EntryRefused(known, text, receipt=promise, entry=entry)
