"""A second implementation of autolink/1, from docs/spec.md alone: nothing of autolink is imported here.

Small on purpose: one thread, blocking sockets. `pump` reads one frame, judges it by the specification, answers what
must be answered at once (a PING, a CANCEL, credit) and files the rest as events of a channel; all else is built on it.
To test the other side it can be told to send what the specification forbids: `batch` takes the number, the link and
the signature from whoever calls it, and `send` sends anything.
"""

import struct
from collections import deque
from dataclasses import dataclass, field
from socket import SO_RCVTIMEO, SOL_SOCKET, create_connection

from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL

from tests.interop.second_certificates import SKEW, Refused, decode, encode, judge, need, now, rotations_in
from tests.interop.second_formats import (
    CALL,
    CHUNK,
    END,
    ERROR,
    FLAGS,
    SUBSCRIBE,
    Message,
    check_data,
    message_of,
    new_message,
    root_of,
    sign,
    verify,
)

HELLO, ACCEPT, REFUSE, BATCH, CREDIT, CANCEL, PING, PONG, EVIDENCE, GOAWAY = range(1, 11)
LENGTHS = {HELLO: (1, 65536), ACCEPT: (1, 65536), REFUSE: (1, 1024), BATCH: (23, 1384448), CREDIT: (8, 8)}
LENGTHS |= {CANCEL: (5, 5), PING: (8, 8), PONG: (8, 8), EVIDENCE: (1, 65536), GOAWAY: (1, 1024)}
OPENS, ENDS, DATA = 1, 2, 4
CANCELLED, UNAVAILABLE = 1, 14
PATIENCE = 20
"""Seconds without a byte from the peer after which a test is wrong, not slow."""


class Closed(Exception):
    """The peer ended the connection in TLS."""


class Ended(Exception):
    """Args: what ended a channel: "end", "error" with code and message, or "cancel" with its number."""


@dataclass
class Lane:
    """One channel: for each direction its state ("open", "ended", "cancelled"), its bytes outstanding, its next seq."""

    mine: str = "open"
    theirs: str = "open"
    sent: int = 0
    received: int = 0
    my_seq: int = 0
    their_seq: int = 0
    topic: str | None = None
    events: deque = field(default_factory=deque)
    data: deque = field(default_factory=deque)

    @property
    def over(self):
        return self.mine != "open" and self.theirs != "open"


def without_rotations(chain, evidence):
    """What a listener showed in TLS, without the earlier certificates of its root."""
    earlier = rotations_in(evidence)[::-1]
    shown = [each.public_bytes(Encoding.DER) for each in chain[len(chain) - len(earlier) :]]
    return chain[: len(chain) - len(earlier)] if shown == earlier else chain


class Link:
    """An open link, as the dialer ("d") or the listener ("l"). `root` is the peer's anchor, a certificate."""

    def __init__(self, sock, me, root, role, hello):
        self.me, self.root, self.role = me, root, role.encode()
        self.tls = SSL.Connection(_context(me, role), sock)
        (self.tls.set_connect_state if role == "d" else self.tls.set_accept_state)()
        self.tls.do_handshake()
        need(self.tls.get_alpn_proto_negotiated() == b"autolink/1", "version", "ALPN")
        self.id = self.tls.export_keying_material(b"EXPORTER-autolink-link", 32)
        leaf = self.tls.get_peer_certificate(as_cryptography=True)
        chain = self.tls.get_peer_cert_chain(as_cryptography=True)
        self.chain = chain if chain[0] == leaf else [leaf, *chain]
        self.buffer, self.state, self.sent_batches, self.received_batches = b"", "silent", 0, 0
        self.lanes, self.highest, self.pings, self.events = {}, {0: 0, 1: -1}, deque(), deque()
        self.limits = (hello or {}).get("limits") or {"channels": 16, "credit": 65536, "message": 1048576}
        self.open(hello or {})

    @classmethod
    def dial(cls, me, root, port, hello=None):
        return cls._on(create_connection(("127.0.0.1", port)), me, root, "d", hello)

    @classmethod
    def accept(cls, me, root, listening, hello=None):
        return cls._on(listening.accept()[0], me, root, "l", hello)

    @classmethod
    def _on(cls, sock, *arguments):
        sock.setsockopt(SOL_SOCKET, SO_RCVTIMEO, struct.pack("ll", PATIENCE, 0))
        try:
            return cls(sock, *arguments)
        except BaseException:
            sock.close()
            raise

    # Opening

    def open(self, changes):
        mine = {"versions": [1], "clock": now(), "software": "second", "limits": self.limits, "features": []}
        mine |= {"evidence": self.me.evidence} if self.me.evidence else {}
        self.send(HELLO, encode(mine | {"grease.second": [1, None]} | changes))
        hello = self.map_of(*self.frame(HELLO))
        types = {"versions": list, "clock": int, "software": str, "limits": dict}
        need(all(type(hello.get(name)) is wanted for name, wanted in types.items()), "malformed", "HELLO")
        need(1 in hello["versions"], "version")
        self.theirs = hello["limits"]
        if abs(hello["clock"] - now()) > SKEW:
            self.refuse("clock_skew", offset=hello["clock"] - now())
            raise Refused("clock_skew")
        try:
            evidence = hello.get("evidence", [])
            self.chain = without_rotations(self.chain, evidence)
            self.peer = judge(self.chain, now(), self.root, evidence)
        except Refused as refused:
            self.refuse(
                refused.args[0]
                if refused.args[0] in ("expired", "not_yet_valid", "malformed")
                else "untrusted"
            )
            raise
        self.send(ACCEPT, encode({"version": 1, "grease.second": 1}))
        self.send(0x8A, b"means nothing")
        need(self.map_of(*self.frame(ACCEPT)).get("version") == 1, "malformed", "ACCEPT")

    def refuse(self, reason, **more):
        self.send(REFUSE, encode({"reason": reason, **more}))
        self.tls.shutdown()

    def close(self):
        self.tls.shutdown()
        self.tls.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.tls.close()

    # Frames

    def send(self, kind, payload=b""):
        self.tls.sendall(struct.pack(">BI", kind, len(payload)) + payload)

    def exactly(self, size):
        while len(self.buffer) < size:
            try:
                self.buffer += self.tls.recv(65536)
            except (SSL.ZeroReturnError, SSL.SysCallError) as error:
                raise Closed(repr(error)) from error
        taken, self.buffer = self.buffer[:size], self.buffer[size:]
        return taken

    def frame(self, wanted=None):
        """The next frame that its sender may send now, type and length judged before its payload is there."""
        kind, length = struct.unpack(">BI", self.exactly(5))
        low, high = LENGTHS.get(kind, (0, 65536 if kind >= 128 else -1))
        need(low <= length <= high, "malformed", f"frame {kind} of {length}")
        self.state = self.next_state(kind)
        payload = self.exactly(length)
        if kind == REFUSE:
            raise Refused(self.map_of(kind, payload)["reason"], "by the peer")
        need(wanted in (None, kind), "malformed", f"frame {kind}, not {wanted}")
        return kind, payload

    def next_state(self, kind):
        moves = {("silent", HELLO): "greeted", ("greeted", ACCEPT): "open", ("open", GOAWAY): "draining"}
        if (self.state, kind) in moves:
            return moves[self.state, kind]
        if kind == REFUSE:
            return "refused"
        traffic = kind >= 128 or kind in (BATCH, CREDIT, CANCEL, PING, PONG, EVIDENCE)
        need(traffic and self.state in ("open", "draining"), "malformed", f"frame {kind} when {self.state}")
        return self.state

    @staticmethod
    def map_of(_kind, payload):
        value = decode(payload)
        need(type(value) is dict, "malformed", "not a map")
        return value

    def pump(self):
        """Take one frame: answer what must be answered, file the rest."""
        kind, payload = self.frame()
        if kind == BATCH:
            self.take_batch(payload)
        elif kind == CREDIT:
            self.take_credit(*struct.unpack(">II", payload))
        elif kind == CANCEL:
            self.take_cancel(*struct.unpack(">IB", payload))
        elif kind == PING:
            self.send(PONG, payload)
        elif kind == PONG:
            need(self.pings and self.pings.popleft() == payload, "malformed", "PONG")
            self.events.append(("pong", payload))
        elif kind == GOAWAY:
            self.events.append(("goaway", self.map_of(kind, payload)))

    def wait(self, wanted):
        """The next event of the link itself, which must be this one."""
        while not self.events:
            self.pump()
        name, value = self.events.popleft()
        need(name == wanted, "unexpected", name)
        return value

    # Receiving messages

    def take_batch(self, payload):
        number, count, length = struct.unpack(">QHH", payload[:12])
        signature, rest, items = payload[12 : 12 + length], payload[12 + length :], []
        while rest:
            need(len(rest) >= 9, "malformed", "item")
            channel, flags, size = struct.unpack(">IBI", rest[:9])
            need(1 <= size <= len(rest) - 9 and flags <= DATA, "malformed", "item")
            leaf, rest, data = rest[9 : 9 + size], rest[9 + size :], b""
            if flags == DATA:
                need(len(rest) > 4, "malformed", "data")
                (more,) = struct.unpack(">I", rest[:4])
                need(1 <= more <= min(65536, len(rest) - 4, 1310720 - size), "malformed", "data")
                data, rest = rest[4 : 4 + more], rest[4 + more :]
            items.append((channel, flags, leaf, data))
        need(number == self.received_batches and 1 <= len(items) == count <= 256, "malformed", "batch")
        self.received_batches += 1
        role = b"l" if self.role == b"d" else b"d"
        leaves = [leaf for _, _, leaf, _ in items]
        verify(self.chain[0], signature, self.id, role, number, count, root_of(leaves))
        for index, (channel, flags, leaf, data) in enumerate(items):
            self.take_item(channel, flags, leaf, data, (leaves, index, self.id, role, number, signature))

    def take_item(self, channel, flags, leaf, data, proof):
        lane = self.lanes.get(channel)
        if flags & OPENS:
            need(
                channel % 2 == (self.role == b"l") and self.highest[channel % 2] < channel < 2**31,
                "malformed",
                "number",
            )
            need(
                sum(c % 2 == channel % 2 for c in self.lanes) < self.limits["channels"],
                "malformed",
                "channels",
            )
            lane, self.highest[channel % 2] = self.lanes.setdefault(channel, Lane()), channel
            self.events.append(("opened", channel))
        need(lane and lane.theirs == "open", "malformed", "item on a closed direction")
        size = len(leaf) + len(data)
        fits = lane.received + size <= self.limits["credit"] or 2 * lane.received <= self.limits["credit"]
        need(fits, "malformed", "credit")
        lane.received += size
        message = self.judged(message_of(leaf), channel, flags, lane)
        if message.kind == CHUNK:
            check_data(message.value, data)
        if flags & ENDS:
            lane.theirs = "ended"
        if lane.mine != "cancelled":
            lane.events.append((message, proof))
            if data:
                lane.data.append(data)
            if lane.theirs == "open":
                self.send(CREDIT, struct.pack(">II", channel, size))
                lane.received -= size
        self.forget(channel)

    def judged(self, message, channel, flags, lane):
        need(message.author == self.peer, "malformed", "author")
        need(message.recipient in (self.me.id, lane.topic), "malformed", "recipient")
        wanted = (0, DATA) if message.kind == CHUNK else (FLAGS[message.kind],)
        need(message.channel == channel and flags in wanted, "malformed", "channel or flags")
        if message.recipient == self.me.id:
            need(message.seq == lane.their_seq, "malformed", "seq")
            lane.their_seq += 1
        need(message.sent_at <= now() + SKEW and now() - SKEW <= message.expires_at, "malformed", "times")
        need(message.expires_at - message.sent_at <= 600_000_000, "malformed", "life")
        return message

    def take_credit(self, channel, size):
        lane = self.lanes.get(channel)
        if lane is None:
            return need(0 < channel <= self.highest[channel % 2], "malformed", "CREDIT on no channel")
        need(lane.theirs != "cancelled" and 1 <= size <= lane.sent, "malformed", "CREDIT")
        lane.sent -= size
        return None

    def take_cancel(self, channel, code):
        lane = self.lanes.get(channel)
        if lane is None:
            return need(0 < channel <= self.highest[channel % 2], "malformed", "CANCEL on no channel")
        need(lane.theirs != "cancelled", "malformed", "CANCEL twice")
        lane.theirs = "cancelled"
        lane.events.append((code, None))
        if lane.mine == "open":
            self.cancel(channel)
        return self.forget(channel)

    def forget(self, channel):
        if channel in self.lanes and self.lanes[channel].over:
            del self.lanes[channel]

    # Sending messages

    def batch(self, items, number=None, link=None, signature=None):
        """Send (channel, flags, leaf, perhaps data) of each; the rest is what the specification says unless it is given."""
        number, leaves = self.sent_batches if number is None else number, [item[2] for item in items]
        signature = signature or sign(
            self.me, link or self.id, self.role, number, len(leaves), root_of(leaves)
        )
        packed = b"".join(
            struct.pack(">IBI", c, flags, len(leaf))
            + leaf
            + b"".join(struct.pack(">I", len(d)) + d for d in data)
            for c, flags, leaf, *data in items
        )
        self.send(BATCH, struct.pack(">QHH", number, len(leaves), len(signature)) + signature + packed)
        self.sent_batches += 1

    def say(self, channel, kind, value=None, data=b"", **fields):
        """Send one message on a channel, and what goes beside it, waiting for credit where the other's window is full."""
        lane = self.lanes[channel]
        message = new_message(self.me.id, self.peer, kind, lane.my_seq, channel, value=value)._replace(
            **fields
        )
        leaf, window = message.leaf(), self.theirs["credit"]
        size = len(leaf) + len(data)
        while lane.sent + size > window and 2 * lane.sent > window:
            self.pump()
        lane.my_seq, lane.sent = lane.my_seq + 1, lane.sent + size
        if FLAGS[kind] & ENDS:
            lane.mine = "ended"
        self.batch([(channel, DATA, leaf, data) if data else (channel, FLAGS[kind], leaf)])
        self.forget(channel)

    def begin(self, kind, method, value=None, **fields):
        channel = self.highest[self.role == b"d"] = self.highest[self.role == b"d"] + 2
        lane = self.lanes[channel] = Lane()
        self.say(channel, kind, value, method=method, **fields)
        return channel, lane

    def cancel(self, channel, code=CANCELLED):
        self.lanes[channel].mine = "cancelled"
        self.send(CANCEL, struct.pack(">IB", channel, code))
        self.forget(channel)

    def finish(self, lane):
        """Wait until a channel is over."""
        while not lane.over:
            self.pump()

    # What applications do

    def receive(self, lane, proof=False):
        """The next value on a channel; `Ended` by its end."""
        while not lane.events:
            self.pump()
        message, evidence = lane.events.popleft()
        if not isinstance(message, Message):
            raise Ended("cancel", message)
        if message.kind == ERROR:
            raise Ended("error", *message.value[:2])
        if message.kind == END:
            raise Ended("end")
        return (message, evidence) if proof else message.value

    def call(self, method, value=None, **fields):
        return self.receive(self.begin(CALL, method, value, **fields)[1])

    def subscribe(self, topic):
        channel, lane = self.begin(SUBSCRIBE, topic)
        lane.topic = f"topic:{self.peer.hex()}/{topic}"
        return channel, lane, self.receive(lane)

    def ping(self, data):
        self.pings.append(data)
        self.send(PING, data)
        return self.wait("pong")

    def goaway(self, last, reason):
        self.send(GOAWAY, encode({"last": last, "reason": reason}))


def _context(me, role):
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_min_proto_version(SSL.TLS1_3_VERSION)
    context.use_privatekey(me.key)
    context.use_certificate(me.chain[0])
    for each in [*me.chain[1:], *(me.earlier[::-1] if role == "l" else ())]:
        context.add_extra_chain_cert(each)
    context.set_verify(
        SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, lambda *_: True
    )  # judged after HELLO
    context.set_alpn_protos([b"autolink/1"])
    context.set_alpn_select_callback(
        lambda _, offered: b"autolink/1" if b"autolink/1" in offered else SSL.NO_OVERLAPPING_PROTOCOLS
    )
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    return context
