"""A test of one's own: no sockets, no files, and time that the test moves."""

import anyio

from autolink import Call, Handlers, Link
from autolink.testing import Authority, Network, link_pair
from autolink.trust import IssuedBy

handlers = Handlers()


@handlers.method
async def nap(call: object, body: None) -> None:
    await anyio.sleep(3600)


async def test_a_nap_ends_with_its_caller() -> None:
    acme, globex = Authority("acme"), Authority("globex")
    server = acme.agent("server", trust=IssuedBy(globex.anchor), handlers=handlers)
    client = globex.agent("client", trust=IssuedBy(acme.anchor))
    async with link_pair(client, server, network=Network(latency=0.1)) as (near, far):
        end: Link = far
        with anyio.move_on_after(10) as scope:
            await near.call("nap")
        assert scope.cancelled_caught
        assert end.statistics().handlers == 0


def a_call_knows_its_method(call: Call) -> str:
    return call.method
