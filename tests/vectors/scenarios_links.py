"""Scenarios of links: transcripts of what the two parties send, lawful to the end or refused at the last step.

A step is who sends, "dialer" or "listener", and the bytes. Leaves and signatures are opaque here.
"""

import struct

from blocks import MICROS, pack

D, L = "dialer", "listener"
ITEM, OPENS, ENDS, ONLY, DATA = 0, 1, 2, 3, 4
WINDOW = 1000


def frame(kind, payload):
    return struct.pack(">BI", kind, len(payload)) + payload


def hello(**changes):
    limits = {"channels": 2, "credit": WINDOW, "message": 1000}
    fields = {"versions": [1], "clock": MICROS, "software": "vectors/1", "limits": limits}
    return frame(1, pack({key: value for key, value in (fields | changes).items() if value is not None}))


def accept(version=1):
    return frame(2, pack({"version": version}))


def refuse(reason, **more):
    return frame(3, pack({"reason": reason, **more}))


def batch(number, *items, count=None, tail=b""):
    """Items are (channel, flags, size of the leaf), with DATA also the size of the data."""
    leaves = [item(*each) for each in items]
    head = struct.pack(">QHH", number, len(items) if count is None else count, 8)
    return frame(4, head + b"unsigned" + b"".join(leaves) + tail)


def item(channel, flags, size, data=None):
    beside = b"" if data is None else struct.pack(">I", data) + bytes(data)
    return struct.pack(">IBI", channel, flags, size) + bytes(size) + beside


def credit(channel, size):
    return frame(5, struct.pack(">II", channel, size))


def cancel(channel, code=1):
    return frame(6, struct.pack(">IB", channel, code))


def ping(data, kind=7):
    return frame(kind, data)


def pong(data):
    return ping(data, kind=8)


def goaway(last):
    return frame(10, pack({"last": last, "reason": "shutdown"}))


GREETED = [(D, hello()), (L, hello())]
OPEN = [*GREETED, (D, accept()), (L, accept())]
STREAM = [*OPEN, (D, batch(0, (1, OPENS, 100)))]
CALLED = [*OPEN, (D, batch(0, (1, ONLY, 100)))]
ANSWERED = [*CALLED, (L, batch(0, (1, ENDS, 100)))]


def scenarios():
    for name, shows, steps, dialer, listener, channels in good():
        yield (
            "link",
            name,
            shows,
            {"steps": steps},
            {"dialer": dialer, "listener": listener, "open": channels},
        )
    for name, (shows, steps) in (bad_frames() | bad_orders() | bad_channels() | bad_credit()).items():
        yield "link", f"bad-{name}", shows, {"steps": steps}, "malformed"


def good():
    """name, what it shows, steps, state of dialer and listener, open channels of the dialer's and the listener's."""
    unknown = {"future": [1, {"x": None}], "grease": b"\0"}
    with_more = hello(**unknown, limits={"channels": 2, "credit": WINDOW, "message": 1, "future": 1})
    lots = [(D, batch(0, (1, OPENS, 400), (1, ITEM, 600)))]
    return [
        ("silence", "nothing was said", [], "silent", "silent", [0, 0]),
        ("greeted", "HELLO goes out without waiting", GREETED, "greeted", "greeted", [0, 0]),
        ("opening", "ACCEPT from both", OPEN, "open", "open", [0, 0]),
        ("hello-optional", "all fields", [(D, hello(features=["x"], chain=[b"c"], evidence=[b"e"]))],
         "greeted", "silent", [0, 0]),
        ("hello-unknown", "fields of the future", [(D, with_more), *OPEN[1:]], "open", "open", [0, 0]),
        ("early", "a batch rides behind ACCEPT", [*GREETED, (D, accept() + batch(0, (1, ONLY, 9))), (L, accept())],
         "open", "open", [1, 0]),
        ("refused", "instead of ACCEPT", [*GREETED, (L, refuse("untrusted"))], "greeted", "refused", [0, 0]),
        ("refused-clock", "with an offset", [*GREETED, (L, refuse("clock_skew", offset=-(10**8)))],
         "greeted", "refused", [0, 0]),
        ("refused-late", "at any time", [*OPEN, (D, refuse("expired"))], "refused", "open", [0, 0]),
        ("extension", "unknown types are ignored", [*OPEN, (D, frame(128, b"") + frame(255, b"x" * 9))],
         "open", "open", [0, 0]),
        ("ping", "answered in order", [*OPEN, (D, ping(b"12345678") + ping(b"abcdefgh")),
         (L, pong(b"12345678") + pong(b"abcdefgh"))], "open", "open", [0, 0]),
        ("call", "one item each way", ANSWERED, "open", "open", [0, 0]),
        ("called", "open until the answer", CALLED, "open", "open", [1, 0]),
        ("both-open", "each party has numbers of its own", [*CALLED, (L, batch(0, (2, OPENS, 5), (4, ONLY, 5)))],
         "open", "open", [1, 2]),
        ("window-full", "exactly the window", [*OPEN, *lots], "open", "open", [1, 0]),
        ("window-again", "after credit for all", [*OPEN, *lots, (L, credit(1, 1000)), (D, batch(1, (1, ITEM, 1000)))],
         "open", "open", [1, 0]),
        ("window-overdrawn", "by one item, while half is outstanding",
         [*OPEN, (D, batch(0, (1, OPENS, 500), (1, ITEM, 5000)))], "open", "open", [1, 0]),
        ("data", "beside a leaf; both count", [*STREAM, (D, batch(1, (1, DATA, 100, 800)))], "open", "open", [1, 0]),
        ("data-dropped", "to one who cancelled", [*STREAM, (L, cancel(1)), (D, batch(1, (1, DATA, 9, 9)))],
         "open", "open", [1, 0]),
        ("credit-late", "CREDIT that crossed with the end", [*ANSWERED, (D, credit(1, 100))], "open", "open", [0, 0]),
        ("cancel", "answered by CANCEL", [*STREAM, (D, cancel(1)), (L, cancel(1, 14))], "open", "open", [0, 0]),
        ("cancel-waits", "open until the answer", [*STREAM, (D, cancel(1))], "open", "open", [1, 0]),
        ("cancel-crossed", "items to one who cancelled", [*STREAM, (D, cancel(1)), (L, batch(0, (1, ITEM, 9))),
         (L, batch(1, (1, ENDS, 9)))], "open", "open", [0, 0]),
        ("cancel-late", "of a channel that is over", [*ANSWERED, (D, cancel(1))], "open", "open", [0, 0]),
        ("cancel-unknown-code", "a code of the future", [*CALLED, (L, cancel(1, 200))], "open", "open", [0, 0]),
        ("draining", "what is open goes on", [*CALLED, (L, goaway(1)), (L, batch(0, (1, ENDS, 9)))],
         "open", "draining", [0, 0]),
        ("draining-opens", "its sender may open", [*OPEN, (L, goaway(0)), (L, batch(0, (2, ONLY, 9)))],
         "open", "draining", [0, 1]),
        ("draining-above-last", "nothing of it was carried out", [*CALLED, (L, goaway(0)), (L, cancel(1, 14))],
         "open", "draining", [0, 0]),
    ]  # fmt: skip


def bad_frames():
    """Most are judged by their five header bytes."""
    limits = {"channels": 2, "credit": WINDOW, "message": 1}
    long_map = b"\xde\0\1" + pack({"version": 1})[1:]
    return {
        "frame-11": ("no such type", [*OPEN, (D, b"\x0b\0\0\0\0")]),
        "frame-0": ("no such type", [(D, bytes(5))]),
        "hello-too-long": ("judged by its header", [(D, struct.pack(">BI", 1, 65537))]),
        "batch-too-short": ("judged by its header", [*OPEN, (D, struct.pack(">BI", 4, 22))]),
        "batch-too-long": ("judged by its header", [*OPEN, (D, struct.pack(">BI", 4, 1384449))]),
        "refuse-too-long": ("judged by its header", [(D, struct.pack(">BI", 3, 1025))]),
        "extension-too-long": ("judged by its header", [*OPEN, (D, struct.pack(">BI", 200, 65537))]),
        "credit-7-bytes": ("judged by its header", [*OPEN, (D, struct.pack(">BI", 5, 7))]),
        "ping-9-bytes": ("judged by its header", [*OPEN, (D, struct.pack(">BI", 7, 9))]),
        "hello-array": ("not a map", [(D, frame(1, pack([1])))]),
        "hello-trailing": ("more than one value", [(D, frame(1, pack({}) + b"\xc0"))]),
        "hello-empty": ("nothing that it must have", [(D, frame(1, pack({})))]),
        "hello-clock-missing": ("not optional", [(D, hello(clock=None))]),
        "hello-clock-true": ("a boolean is no integer", [(D, hello(clock=True))]),
        "hello-clock-negative": ("out of bounds", [(D, hello(clock=-1))]),
        "hello-versions-text": ("a list of another type", [(D, hello(versions=["1"]))]),
        "hello-software-bytes": ("another type", [(D, hello(software=b"x"))]),
        "hello-credit-0": ("out of bounds", [(D, hello(limits=limits | {"credit": 0}))]),
        "hello-channels-2-31": ("out of bounds", [(D, hello(limits=limits | {"channels": 2**31}))]),
        "hello-message-2-32": ("out of bounds", [(D, hello(limits=limits | {"message": 2**32}))]),
        "hello-five-certificates": ("out of bounds", [(D, hello(chain=[b"c"] * 5))]),
        "hello-nine-statements": ("out of bounds", [(D, hello(evidence=[b"e"] * 9))]),
        "accept-long-map-header": ("not the one encoding", [*GREETED, (D, frame(2, long_map))]),
        "accept-version-2": ("another version than both speak", [*GREETED, (D, accept(2))]),
        "refuse-without-reason": ("not optional", [(D, frame(3, pack({"offset": 1})))]),
        "batch-of-none": ("a batch has an item", [*OPEN, (D, batch(0, tail=bytes(20)))]),
        "batch-count": ("more items than said", [*OPEN, (D, batch(0, (1, OPENS, 5), (1, ITEM, 5), count=1))]),
        "batch-cut": ("fewer items than said", [*OPEN, (D, batch(0, (1, OPENS, 5), count=2))]),
        "batch-trailing": ("lengths that do not add up", [*OPEN, (D, batch(0, (1, OPENS, 5), tail=b"x"))]),
        "data-empty": ("data has a byte", [*STREAM, (D, batch(1, (1, DATA, 5, 0)))]),
        "data-393217": ("a chunk's bytes", [*STREAM, (D, batch(1, (1, DATA, 5, 393_217))[:-393_217], 393_217)]),
        "data-without-flag": ("lengths that do not add up", [*STREAM, (D, batch(1, (1, ITEM, 5, 5)))]),
        "data-cut": ("fewer bytes than said", [*STREAM, (D, batch(1, (1, DATA, 5), tail=b"\0\0\0\5" + bytes(4)))]),
        "data-size-cut": ("no size", [*STREAM, (D, batch(1, (1, DATA, 5), tail=b"\0\0\0"))]),
        "batch-empty-leaf": ("a leaf has a byte", [*OPEN, (D, batch(0, (1, OPENS, 5), (1, ITEM, 0)))]),
    }  # fmt: skip


def bad_orders():
    return {
        "second-hello": ("HELLO twice", [*OPEN, (D, hello())]),
        "accept-first": ("ACCEPT before HELLO", [(D, accept())]),
        "accept-without-hello": ("before the other's HELLO", [(D, hello()), (D, accept())]),
        "accept-twice": ("ACCEPT twice", [*OPEN, (D, accept())]),
        "batch-before-accept": ("nothing but a verdict is due", [*GREETED, (D, batch(0, (1, ONLY, 5)))]),
        "ping-before-accept": ("nothing but a verdict is due", [*GREETED, (D, ping(bytes(8)))]),
        "extension-first": ("HELLO comes first", [(D, frame(128, b""))]),
        "refuse-twice": ("nothing follows REFUSE", [*OPEN, (D, refuse("busy")), (D, refuse("busy"))]),
        "goaway-twice": ("said once", [*OPEN, (D, goaway(0)), (D, goaway(0))]),
        "goaway-never-opened": ("of a channel that was not", [*OPEN, (L, goaway(1))]),
        "batch-number-1": ("numbers start at 0", [*OPEN, (D, batch(1, (1, ONLY, 5)))]),
        "batch-number-again": ("a replay", [*STREAM, (D, batch(0, (1, ITEM, 5)))]),
        "batch-number-gap": ("by one", [*STREAM, (D, batch(2, (1, ITEM, 5)))]),
        "pong-unasked": ("no PING waits", [*OPEN, (D, pong(bytes(8)))]),
        "pong-out-of-order": ("not the oldest", [*OPEN, (D, ping(b"12345678") + ping(b"abcdefgh")), (L, pong(b"abcdefgh"))]),
    }  # fmt: skip


def bad_channels():
    return {
        "channel-0": ("no such number", [*OPEN, (D, batch(0, (0, ONLY, 5)))]),
        "channel-of-the-other": ("the dialer's are odd", [*OPEN, (D, batch(0, (2, ONLY, 5)))]),
        "channel-2-31": ("numbers end below", [*OPEN, (D, batch(0, (2**31 + 1, ONLY, 5)))]),
        "channel-again": ("a number is used once", [*ANSWERED, (D, batch(1, (1, ONLY, 5)))]),
        "channel-descending": ("ascending", [*OPEN, (D, batch(0, (3, ONLY, 5), (1, ONLY, 5)))]),
        "channels-too-many": (
            "two are allowed",
            [*OPEN, (D, batch(0, (1, ONLY, 5), (3, ONLY, 5), (5, ONLY, 5)))],
        ),
        "channels-too-many-cancelled": (
            "a cancelled one counts until it is answered",
            [*OPEN, (D, batch(0, (1, ONLY, 5), (3, ONLY, 5))), (D, cancel(1)), (D, batch(1, (5, ONLY, 5)))],
        ),
        "item-unopened": ("never opened", [*OPEN, (D, batch(0, (1, ITEM, 5)))]),
        "item-opens-again": ("opened once", [*STREAM, (D, batch(1, (1, OPENS, 5)))]),
        "item-after-end": ("its direction has ended", [*CALLED, (D, batch(1, (1, ITEM, 5)))]),
        "item-after-cancel": (
            "its direction is cancelled",
            [*STREAM, (D, cancel(1)), (D, batch(1, (1, ITEM, 5)))],
        ),
        "item-over": ("the channel is over", [*ANSWERED, (L, batch(1, (1, ITEM, 5)))]),
        "item-opened-by-the-other": ("OPENS is the opener's", [*STREAM, (L, batch(0, (1, OPENS, 5)))]),
        "item-flag-8": ("no such flag", [*OPEN, (D, batch(0, (1, 9, 5)))]),
        "data-opens": ("DATA stands alone", [*OPEN, (D, batch(0, (1, DATA | OPENS, 5, 5)))]),
        "data-ends": ("DATA stands alone", [*STREAM, (D, batch(1, (1, DATA | ENDS, 5, 5)))]),
        "data-unopened": ("never opened", [*OPEN, (D, batch(0, (1, DATA, 5, 5)))]),
        "data-after-end": ("its direction has ended", [*CALLED, (D, batch(1, (1, DATA, 5, 5)))]),
        "data-over": ("the channel is over", [*ANSWERED, (L, batch(1, (1, DATA, 5, 5)))]),
        "one-bad-item": (
            "makes the whole batch an error",
            [*OPEN, (D, batch(0, (1, ONLY, 5), (3, ITEM, 5)))],
        ),
        "cancel-unopened": ("never opened", [*OPEN, (D, cancel(1))]),
        "cancel-0": ("no such number", [*OPEN, (D, cancel(0))]),
        "cancel-twice": ("said once", [*STREAM, (D, cancel(1)), (D, cancel(1))]),
    }


def bad_credit():
    half = (1, OPENS, 501)
    return {
        "overdraft": ("more than half is outstanding", [*OPEN, (D, batch(0, half, (1, ITEM, 500)))]),
        "overdraft-data": ("data counts", [*OPEN, (D, batch(0, half, (1, DATA, 100, 400)))]),
        "overdraft-twice": ("one may overdraw", [*OPEN, (D, batch(0, (1, OPENS, 5000), (1, ITEM, 1)))]),
        "overdraft-little-back": (
            "half of the window counts what was given back",
            [*OPEN, (D, batch(0, (1, OPENS, 800))), (L, credit(1, 299)), (D, batch(1, (1, ITEM, 500)))],
        ),
        "overdraft-after-cancel": (
            "also of items that are dropped",
            [*STREAM, (L, cancel(1)), (D, batch(1, (1, ITEM, 500))), (D, batch(2, (1, ITEM, 401)))],
        ),
        "credit-nothing": ("at least 1", [*STREAM, (L, credit(1, 0))]),
        "credit-too-much": ("at most what is outstanding", [*STREAM, (L, credit(1, 101))]),
        "credit-unopened": ("never opened", [*OPEN, (L, credit(1, 1))]),
        "credit-after-cancel": ("who cancelled gives none", [*STREAM, (L, cancel(1)), (L, credit(1, 100))]),
    }
