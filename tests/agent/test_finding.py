"""A link to somebody whose address is found by a hook of the agent: each address in order, in one deadline."""

import anyio
import pytest

from autolink import AutoId, Refused, UsageError, limits
from autolink.errors import AutolinkError, LinkLost, LocalProtocolError, NotLocated, Reason
from autolink.identity import PeerId
from autolink.testing import Network
from autolink.transport import parse_address


def finding(*where):
    async def finder(auto_id):
        return [parse_address(text) for text in where]

    return finder


@pytest.fixture
def network(agents):
    network = Network()
    network.join(*agents)
    return network


async def test_each_address_is_tried_in_order_until_one_opens(agents, network, virtual_clock):
    seller, buyer = agents
    buyer.finder = finding("nobody:1", "seller:1", "never:1")
    tried = []
    reach = buyer.reach

    async def watched(address):
        tried.append(str(address))
        return await reach(address)

    buyer.reach = watched
    async with network.listening(seller, "seller:1"), buyer.connect(seller.auto_id) as link:
        assert link.peer.peer_id == seller.peer_id
    assert tried == ["nobody:1", "seller:1"]


async def test_whoever_else_answers_is_not_whom_was_meant(agents, network, virtual_clock):
    """An address says nothing about who is there: an impostor gets no link, and the next address is tried."""
    seller, buyer = agents
    buyer.finder = finding("impostor:1", "seller:1")
    impostor = type(seller)(buyer.credential, trust=buyer.trust)
    async with network.listening(impostor, "impostor:1"), network.listening(seller, "seller:1"):
        async with buyer.connect(seller.auto_id) as link:
            assert link.peer.peer_id == seller.peer_id
        buyer.finder = finding("impostor:1")
        with pytest.raises(Refused) as refusal:
            async with buyer.connect(seller.auto_id):
                pass
        assert refusal.value.by == "us"
        assert refusal.value.__notes__ == ["at impostor:1"]  # and not what the error says already
        async with network.listening(impostor, "impostor:2"):
            buyer.finder = finding("impostor:1", "impostor:2")
            with pytest.raises(Refused) as refusal:
                async with buyer.connect(seller.auto_id):
                    pass
    (note,) = refusal.value.__notes__
    assert note.startswith("at impostor:2: we refused ")
    assert note.endswith("; at impostor:1")


async def test_every_address_has_its_share_of_one_deadline(agents, network, virtual_clock):
    """Addresses where nobody answers cannot use up the time of those behind them, nor more of them more than there is."""
    seller, buyer = agents
    tried = []
    reach = buyer.reach

    async def silent(address):
        tried.append(address)
        if address.host == "silent":
            await anyio.sleep_forever()
        return await reach(address)

    buyer.reach = silent
    buyer.finder = finding(*(f"silent:{port}" for port in range(1, 15)), "seller:1")
    async with network.listening(seller, "seller:1"), buyer.connect(seller.auto_id):
        assert anyio.current_time() < limits.FINDING
    tried.clear()
    buyer.finder = finding(*(f"silent:{port}" for port in range(1, 1000)))
    began = anyio.current_time()
    with pytest.raises(LinkLost, match="at silent:16: it took too long") as error:
        async with buyer.connect(seller.auto_id):
            pass
    assert anyio.current_time() - began == pytest.approx(limits.FINDING)
    assert len(tried) == limits.ADDRESSES
    assert "at silent:1: it took too long" in str(error.value)


async def test_an_error_names_the_party_and_why_each_address_failed(agents, network, virtual_clock):
    seller, buyer = agents
    buyer.finder = finding("one:1", "two:2")
    with pytest.raises(LinkLost) as error:
        async with buyer.connect(seller.auto_id):
            pass
    for told in (str(seller.auto_id), "at one:1: ", "at two:2: ", "nobody listens at two:2"):
        assert told in str(error.value)
    assert isinstance(error.value.__cause__, ExceptionGroup)
    buyer.finder = finding()
    with pytest.raises(LinkLost, match=f"no address of {seller.auto_id} is found"):
        async with buyer.connect(seller.auto_id):
            pass


@pytest.mark.parametrize(
    "failure",
    [
        AutolinkError("no"),
        OSError("no"),
        Refused(Reason.UNTRUSTED, by="peer", peer="a registry"),
        LocalProtocolError("no: its link is draining"),
    ],
)
async def test_a_finder_that_fails_is_a_peer_that_is_not_found(agents, network, virtual_clock, failure):
    """Above all its own refusal is none of the peer's, and a registry that drains is nobody's mistake: a kept link goes on
    trying."""
    seller, buyer = agents
    failing = [failure]

    async def finder(auto_id):
        if failing:
            raise failing.pop()
        return [parse_address("seller:1")]

    buyer.finder = finder
    with pytest.raises(NotLocated, match=f"no address of {seller.auto_id} is found: .*(no|untrusted)"):
        async with buyer.connect(seller.auto_id):
            pass
    failing.append(failure)
    async with network.listening(seller, "seller:1"), buyer.keep_link(seller.auto_id) as kept:
        assert (await kept.ready()).peer.peer_id == seller.peer_id


async def test_a_finder_that_hangs_is_ended(agents, network, virtual_clock):
    seller, buyer = agents

    async def finder(auto_id):
        await anyio.sleep_forever()

    buyer.finder = finder
    with pytest.raises(TimeoutError):
        async with buyer.connect(seller.auto_id):
            pass
    assert anyio.current_time() == limits.FINDING


async def test_what_cannot_be_found_is_told_at_once(agents):
    seller, buyer = agents
    for where in (seller.auto_id, seller.peer_id):
        for operation in (buyer.connect, buyer.keep_link):
            with pytest.raises(UsageError, match=r"agent\.finder = RegistryFinder"):
                async with operation(where):
                    pass
    buyer.finder = finding("seller:1")
    with pytest.raises(UsageError, match="leave expect= out"):
        async with buyer.connect(seller.auto_id, expect=seller.peer_id):
            pass
    with pytest.raises(UsageError, match="a key alone is not found"):
        async with buyer.connect(PeerId(None, "sha256:" + "0" * 64)):
            pass
    with pytest.raises(UsageError, match="give AutoId.parse"):
        async with buyer.connect(seller.auto_id.hex):
            pass
    with pytest.raises(UsageError, match="a key alone"):
        async with buyer.keep_link(PeerId(None, "sha256:" + "0" * 64)):
            pass
    assert isinstance(seller.auto_id, AutoId)
