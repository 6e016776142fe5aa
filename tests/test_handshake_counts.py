"""What opening a link costs, counted and not timed: a heavier handshake fails here on any machine.

One unit is a link that is opened over a loopback socket, judged by both, used for one call and closed; both ends run in this
process. The bounds leave a few percent of room, as in `test_hot_path_counts`.
"""

import gc
import sys
from dataclasses import dataclass

import pytest
import trio

from autolink import Agent
from autolink.testing import Authority
from autolink.trust import IssuedBy

UNITS = 20


@dataclass(eq=False)
class Counts(trio.abc.Instrument):
    """Of the event loop and of the interpreter."""

    steps: float = 0
    tasks: float = 0
    calls: float = 0
    openssl: float = 0

    def before_task_step(self, task):
        self.steps += 1 / UNITS

    def task_spawned(self, task):
        self.tasks += 1 / UNITS

    def profile(self, frame, event, argument):
        if event in ("call", "c_call"):
            self.calls += 1 / UNITS
            self.openssl += getattr(argument, "__name__", "") == "SSL_do_handshake" and 1 / UNITS


MOST = {
    "full": Counts(steps=14, tasks=3, calls=2940, openssl=4),
    "resumed": Counts(steps=14, tasks=3, calls=2920, openssl=4),
}


@pytest.mark.parametrize("kind", MOST)
async def test_opening_a_link_gets_no_heavier(kind):
    """Three tasks (the listener's link and its handler, the dialer's reader), one wait for each flight but the first, one
    call into OpenSSL for each; leaving the link waits once, for the peer's goodbye."""
    acme = Authority("acme")
    seller = acme.agent("seller", trust=IssuedBy(acme.anchor))
    buyer = Agent(acme.issue("buyer"), trust=IssuedBy(acme.anchor), resume=kind == "resumed")

    @seller.method
    async def echo(call: object, body: object) -> object:
        return body

    async with seller.listening("127.0.0.1:0") as listener:

        async def once():
            async with buyer.connect(listener.contact) as link:
                assert await link.call("echo", b"x" * 100) == b"x" * 100
                return link.tls.resumed

        for _ in range(UNITS):
            await once()
        counts = Counts()
        gc.collect()
        gc.disable()  # a finalizer that runs meanwhile is nobody's cost
        try:
            trio.lowlevel.add_instrument(counts)
            resumed = [await once() for _ in range(UNITS)]
            trio.lowlevel.remove_instrument(counts)
            sys.setprofile(counts.profile)
            for _ in range(UNITS):
                await once()
        finally:
            sys.setprofile(None)
            gc.enable()
    assert resumed == [kind == "resumed"] * UNITS
    print(kind, counts)
    most = MOST[kind]
    over = {name for name in most.__dataclass_fields__ if getattr(counts, name) > getattr(most, name) + 0.5}
    assert not over, f"{counts} where at most {most} is right"
