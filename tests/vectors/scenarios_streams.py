"""What is judged in its order: the chunks of a byte stream, and what a replay window is asked."""

from blocks import MICROS, SECOND, pack, pieces_root, sha256


def scenarios():
    yield from streams()
    yield from replays()


def streams():
    """subject `stream`: body and data of the chunks, in order."""
    ident = sha256(b"a stream")[:16]

    def chunk(index, data, *, stream=ident, size=None, signs=None):
        signed = pieces_root(data if signs is None else signs)
        return [pack([stream, index, len(data) if size is None else size, signed]), data]

    def last(index, total, root):
        return [pack([ident, index, None, total, root]), b""]

    def chunks(*parts):
        content = b"".join(parts)
        made = [chunk(index, part) for index, part in enumerate(parts)]
        return [*made, last(len(parts), len(content), pieces_root(content))], sha256(content)

    long = bytes(range(256)) * 300
    for name, parts in {
        "empty": [], "one-chunk": [b"content"], "two-chunks": [b"con", b"tent"],
        "across-a-piece": [long[:50_000], long[50_000:]],
        "pieces": [long[:65_536], long[65_536:65_636], long[65_636:65_700]],
        "two-pieces-in-a-chunk": [long[:65_546], long[65_546:65_700]],
    }.items():  # fmt: skip
        made, digest = chunks(*parts)
        shows = "each body signs its bytes, and the last one all of them, in pieces of 65,536 however they were chunked"
        yield "stream", name, shows, {"chunks": made}, {"sha256": digest}
    first, second, end = chunks(b"con", b"tent")[0]
    for name, sequence in {
        "twice": [first, first], "gap": [second], "end-too-early": [first, end],
        "wrong-root": [first, last(1, 3, bytes(32))], "after-the-end": [first, second, end, chunk(3, b"x")],
        "empty-chunk": [chunk(0, b"")], "too-long": [chunk(0, b"con", size=393_217)],
        "other-stream": [first, chunk(1, b"x", stream=bytes(16))],
        "no-data": [[first[0], b""]], "data-with-the-last": [first, second, [end[0], b"x"]],
        "in-the-body": [[pack([ident, 0, b"con"]), b"con"]], "short-hash": [[pack([ident, 0, 3, bytes(31)]), b"con"]],
    }.items():  # fmt: skip
        yield "stream", name, "refused at the last chunk", {"chunks": sequence}, "malformed"
    for name, other in {
        "other-data": chunk(1, b"tent", signs=b"Tent"), "shorter-data": chunk(1, b"ten", size=4, signs=b"tent"),
        "another-size": chunk(1, b"tent", size=5),
    }.items():  # fmt: skip
        yield "stream", name, "not the data that is signed", {"chunks": [first, other]}, "tampered"


def replays():
    """subject `replay`: steps on one window of 2, new at `started`; each says what it gets."""
    a, b = "bound acme", "plain acme"

    def step(author, number, sent, expires, now, gets):
        return {"author": author, "id": bytes([number]) * 16, "sent_at": MICROS + sent * SECOND,
                "expires_at": MICROS + expires * SECOND, "now": MICROS + now * SECOND, "gets": gets}  # fmt: skip

    steps = [
        step(a, 1, 59, 500, 61, "late"),
        step(a, 1, 60, 100, 61, "taken"),
        step(a, 1, 60, 100, 62, "replayed"),
        step(b, 1, 60, 100, 62, "taken"),
        step(a, 2, 60, 100, 62, "busy"),
        step(a, 1, 60, 100, 63, "replayed"),
        step(a, 3, 61, 100, 161, "late"),
        step(a, 4, 160, 300, 161, "taken"),
        step(a, 5, 90, 100, 90, "late"),
    ]
    given = {"started": MICROS, "capacity": 2, "steps": steps}
    shows = "once per author and id; full is busy; forgotten after expiry, and then late, even if the clock goes back"
    yield "replay", "one-window", shows, given, {}
