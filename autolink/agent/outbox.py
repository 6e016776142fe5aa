"""The messages of a link that wait to be written: a queue for each channel, whose turn it is, and who waits for room.

Channels take turns, message by message: a call beside a byte stream leaves with the next batch. New channels queue up in
the order of their numbers and each turn goes once around, so they are opened in that order. A large chunk lets what
others say go first, in a batch that need not wait for its bytes.

A chunk of a byte stream becomes a message when it takes no more bytes: when it is full, something follows it, or its turn
comes. Until then it only counts.

Bytes that wait are bounded twice: a channel by the credit its receiver gave and by `limits.OUTBOX_CHANNEL`, the link by
`limits.OUTBOX`, beyond which senders wait.

Whoever wants to open a channel waits in line, and only as many are woken as there are places. However many calls are made
at once, each costs the same, and none is overtaken by those that come later.
"""

from collections import deque
from collections.abc import Callable
from itertools import islice

from autolink import limits
from autolink.errors import Code
from autolink.loop import Event, Loop
from autolink.messages import CHUNK_LEAF
from autolink.protocol import DATA, LinkProtocol, OwnItem

EndChunk = Callable[[], OwnItem]
"""Ends the chunk that a lane is filling, and gives its message."""


class Outbox:
    """See the module.

    Attributes:
        size: bytes of all that waits; 0 only where nothing does.
    """

    __slots__ = ("_called", "_leaving", "_line", "_loop", "_protocol", "_queues", "_room", "_turns", "size")

    def __init__(self, protocol: LinkProtocol, loop: Loop) -> None:
        self.size = 0
        self._protocol = protocol
        self._loop = loop
        self._queues: dict[int, _Queue] = {}
        self._turns: deque[_Queue] = deque()  # the same queues, whose turn it is first
        self._leaving: dict[int, Code] = {}
        self._room: Event | None = None
        self._line: dict[Event, None] = {}  # who waits for a place, first come first ...
        self._called = 0  # ... and how many of them have been called in and not come yet

    # --- room --------------------------------------------------------------------------------------------

    def may_post(self, channel: int, size: int) -> bool:
        """Whether the channel's credit and the outbox have room for a message of `size` bytes."""
        if self.size >= limits.OUTBOX:
            return False
        queue = self._queues.get(channel)
        if queue is None:
            return self._protocol.can_send(channel, size)
        return queue.size < limits.OUTBOX_CHANNEL and self._protocol.can_send(channel, size, queue.size)

    @property
    def may_open(self) -> bool:
        """Whether the peer bears one more channel of ours than those that are called in, and the outbox one more message."""
        return self.size < limits.OUTBOX and self._protocol.places > self._called

    async def wait_for_room(self) -> None:
        """Wait until credit or outbox changed; the caller asks `may_post` again."""
        if self._room is None:
            self._room = self._loop.event()
        await self._room.wait()

    def room_changed(self) -> None:
        """Credit came, the outbox shrank or a channel ended; the protocol knows already."""
        if self._room is not None:
            self._room.set()
            self._room = None
        if self._line and self.size < limits.OUTBOX:
            self._call_in(self._protocol.places - self._called)

    async def wait_for_place(self) -> None:
        """Wait in line until a channel may be opened; the caller asks `may_open` again, and opens it without waiting."""
        turn = self._loop.event()
        self._line[turn] = None
        try:
            await turn.wait()
        except BaseException:
            if turn in self._line:
                del self._line[turn]
            else:  # cancelled when it had been called in: the next one takes its place
                self._called -= 1
                self.room_changed()
            raise
        self._called -= 1

    def dismiss(self) -> None:
        """The link is lost or draining: whoever waits for room or in line asks again, and is told."""
        if self._room is not None:
            self._room.set()
            self._room = None
        if self._line:
            self._call_in(len(self._line))

    def _call_in(self, count: int) -> None:
        for turn in list(islice(self._line, max(count, 0))):
            del self._line[turn]
            self._called += 1
            turn.set()

    # --- in ----------------------------------------------------------------------------------------------

    def put(self, item: OwnItem, size: int) -> None:
        """Queue a message without data, whose leaf has `size` bytes."""
        queue = self._queues.get(item[0]) or self._new_queue(item[0])
        queue.items.append(item)
        queue.size += size
        self.size += size

    def fill(self, channel: int, size: int, end: EndChunk) -> None:
        """Queue a chunk, or `size` bytes more of the one that is last in its channel's queue. It goes on growing until it is
        its turn or `end_chunk` is called, and then `end` makes its message."""
        queue = self._queues.get(channel) or self._new_queue(channel)
        queue.filling = end
        queue.size += size
        self.size += size

    def end_chunk(self, channel: int) -> None:
        """The chunk that is being filled, if there is one, gets no more bytes: it is full, or something follows it."""
        queue = self._queues.get(channel)
        if queue is not None and queue.filling is not None:
            end, queue.filling = queue.filling, None
            item = _, _, leaf, _ = end()
            queue.items.append(item)
            queue.size += len(leaf)
            self.size += len(leaf)

    def leave(self, channel: int, code: Code) -> bool:
        """Whether something of the channel still waits; if so, `take` tells when the last of it is taken."""
        waits = channel in self._queues
        if waits:
            self._leaving[channel] = code
        return waits

    def _new_queue(self, channel: int) -> "_Queue":
        queue = self._queues[channel] = _Queue(channel)
        self._turns.append(queue)
        return queue

    # --- out ---------------------------------------------------------------------------------------------

    @property
    def channels(self) -> int:
        """How many have something that waits."""
        return len(self._turns)

    def take(self, most: int = limits.BATCH_LEAVES) -> tuple[list[OwnItem], list[tuple[int, Code]]]:
        """Take what goes next, up to one batch of it; something must wait. Then `room_changed` is due.

        Args:
            most: messages.

        Returns:
            The messages, and the channels that `leave` was called for of which none waits any more.
        """
        turns, size = self._turns, 0
        items: list[OwnItem] = []
        left: list[tuple[int, Code]] = []
        several = len(turns) > 1
        if several and turns[0].bulky and not turns[0].passed:
            turns[0].passed = True
            turns.rotate(-1)
        for _ in range(most):
            if not turns:
                break
            queue = turns[0]
            if several and items and queue.size >= limits.BATCH_BYTES and queue.bulky:
                break
            if size >= limits.BATCH_BYTES and size + queue.next_size > limits.BATCH_BULK:
                break
            queue.passed = False
            if not queue.items:
                self.end_chunk(queue.channel)
            item = queue.items.popleft()
            channel, _, leaf, data = item
            taken = len(leaf) + len(data) if data else len(leaf)
            items.append(item)
            size += taken
            queue.size -= taken
            if queue.items or queue.filling is not None:
                turns.rotate(-1)
                continue
            turns.popleft()
            del self._queues[channel]
            if channel in self._leaving:
                left.append((channel, self._leaving.pop(channel)))
        self.size -= size
        return items, left


class _Queue:
    """What waits on one channel; never empty.

    Attributes:
        items: the messages, in their order.
        filling: makes the message of the chunk behind them that still takes bytes, if there is one.
        passed: others were let go first: once, or a chunk would wait for ever beside those who always have something.
        size: bytes of all, but for the leaf that `filling` will make.
    """

    __slots__ = ("channel", "filling", "items", "passed", "size")

    def __init__(self, channel: int) -> None:
        self.channel = channel
        self.items: deque[OwnItem] = deque()
        self.filling: EndChunk | None = None
        self.size = 0
        self.passed = False

    @property
    def bulky(self) -> bool:
        """What is first is a chunk for whose bytes nothing else should wait."""
        return self.next_size >= limits.BATCH_BYTES and (not self.items or bool(self.items[0][1] & DATA))

    @property
    def next_size(self) -> int:
        """Bytes of what is first, or a few more."""
        if not self.items:
            return self.size + CHUNK_LEAF
        _, _, leaf, data = self.items[0]
        return len(leaf) + len(data)
