"""A link that resumes a TLS session is judged, signed and ended like any other; all it saves is a proof to TLS."""

import pickle
from datetime import UTC, datetime, timedelta

import anyio
import pytest

import autolink.agent.opening as opening
from autolink import Credential, CredentialRequest, EntityKind, Reason, Refused, limits
from autolink.agent.sessions import Session, Sessions
from autolink.testing import Network
from autolink.transport import _openssl
from autolink.trust import IssuedBy, Model, Pinned


@pytest.fixture
def pair(acme, globex):
    """Makes (seller of acme, buyer of globex) on one network, with a clock and what else an agent takes."""

    def make(*, clock=None, seller_trust=None, buyer_credential=None, **settings):
        network = Network()
        handlers_of = type(acme.agent("nobody"))
        seller = handlers_of(
            acme.issue("seller"), trust=seller_trust or IssuedBy(globex.anchor), clock=clock, **settings
        )
        buyer = handlers_of(
            buyer_credential or globex.issue("buyer"), trust=IssuedBy(acme.anchor), clock=clock, **settings
        )
        seller.method(echo)
        network.join(buyer)
        return network, seller, buyer

    return make


async def echo(call, body: object) -> object:
    return body


async def resumes(buyer, listener):
    """Open a link, use it, and tell what both ends say about resumption."""
    async with buyer.connect(listener.contact) as link:
        assert await link.call("echo", "hello") == "hello"
        [far] = listener._agent.links
        assert link.tls.resumed == far.tls.resumed
        return link.tls.resumed


async def far_end(link, agent):
    """The other end of a link, which opens when our first words are there."""
    await link.ping()
    [far] = agent.links
    return far


async def test_the_second_link_to_a_peer_is_resumed(pair, virtual_clock):
    """With fresh keys (the post-quantum group included), the same identities, and signed messages."""
    network, seller, buyer = pair()
    async with network.listening(seller) as listener:
        assert not await resumes(buyer, listener)
        async with buyer.connect(listener.contact) as link:
            assert link.tls.resumed
            assert link.tls.group == "X25519MLKEM768"
            assert (await link.call_signed("echo", 1)).envelope().chain[0] == seller.credential.leaf.der
            far = await far_end(link, seller)
            assert (link.peer.peer_id, far.peer.peer_id) == (seller.peer_id, buyer.peer_id)
            assert [len(end.peer.chain) for end in (link, far)] == [2, 2]
        assert await resumes(buyer, listener)


@pytest.mark.parametrize("who", ["seller", "buyer"])
async def test_an_agent_that_does_not_resume_neither_gives_nor_takes(pair, virtual_clock, who):
    network, seller, buyer = pair()
    (seller if who == "seller" else buyer).resume = False
    seller.renew_server_context()
    async with network.listening(seller) as listener:
        assert [await resumes(buyer, listener) for _ in range(3)] == [False] * 3


class Watching(Model):
    """Believes everyone that `inner` does, and keeps what it was asked about."""

    def __init__(self, inner):
        self.inner, self.asked = inner, []

    async def verify(self, presented, context):
        self.asked.append(presented.names)
        return await self.inner.verify(presented, context)


async def test_rule_2_a_resumed_peer_is_judged_from_its_whole_chain(pair, globex, virtual_clock):
    """TLS shows the listener the leaf alone; the trust model sees what it saw the first time."""
    model = Watching(IssuedBy(globex.anchor))
    network, seller, buyer = pair(seller_trust=model)
    async with network.listening(seller) as listener:
        assert not await resumes(buyer, listener)
        seller.verdicts.clear()
        assert await resumes(buyer, listener)
    assert len(model.asked) == 2
    assert model.asked[0] == model.asked[1]
    assert len(model.asked[0]) == 2


@pytest.mark.parametrize("silent", ["buyer", "seller"])
async def test_rule_2_without_a_complete_chain_the_dialer_does_a_full_handshake(
    pair, virtual_clock, monkeypatch, silent
):
    """Whichever end leaves its chain out, the other one asks for a full handshake, and one more dial does it."""
    network, seller, buyer = pair()
    silent_agent = seller if silent == "seller" else buyer
    other = buyer if silent == "seller" else seller
    says = opening._hello

    def hello(agent, credential, evidence, *, resumed):
        return says(agent, credential, evidence, resumed=resumed and agent is not silent_agent)

    monkeypatch.setattr(opening, "_hello", hello)
    async with network.listening(seller) as listener:
        assert not await resumes(buyer, listener)
        assert not await resumes(buyer, listener)
    assert other.statistics().refused == {Reason.FULL_HANDSHAKE_NEEDED: 1}
    assert silent_agent.statistics().refused_by_peer == {Reason.FULL_HANDSHAKE_NEEDED: 1}


async def test_rule_3_the_ticket_key_is_replaced_every_hour(pair, wall, virtual_clock):
    clock = wall()
    network, seller, buyer = pair(clock=clock)
    async with network.listening(seller) as listener:
        assert not await resumes(buyer, listener)
        clock.step(limits.TICKET_KEY - 1)
        assert await resumes(buyer, listener)
        clock.step(2)
        assert not await resumes(buyer, listener)
        assert await resumes(buyer, listener)


async def test_rule_3_a_chain_of_resumptions_ends_an_hour_after_tls_proved_the_key(pair, wall, virtual_clock):
    """Each link brings a new session; none of them makes the first proof younger."""
    clock = wall()
    network, seller, buyer = pair(clock=clock)
    clock.step(limits.TICKET_KEY / 2)
    seller.renew_server_context()
    async with network.listening(seller) as listener:
        first = clock()
        assert not await resumes(buyer, listener)
        for _ in range(3):
            clock.step(limits.TICKET_KEY / 4)
            async with buyer.connect(listener.contact) as link:
                assert link.tls.resumed
                assert link.peer.key_proved_at == first
        seller.resume = False  # keeps its ticket key for longer than it should
        clock.step(limits.TICKET_KEY / 4)
        assert not await resumes(buyer, listener)


async def test_rule_3_both_ends_say_when_tls_last_proved_the_key(pair, wall, virtual_clock):
    """A listener cannot know it of a resumed link; it says when its ticket key was made, which is no later."""
    clock = wall()
    network, seller, buyer = pair(clock=clock)
    made = clock()
    async with network.listening(seller) as listener:
        clock.step(60)
        proved = clock()
        async with buyer.connect(listener.contact) as link:
            far = await far_end(link, seller)
            assert link.peer.key_proved_at == far.peer.key_proved_at == proved
        clock.step(60)
        async with buyer.connect(listener.contact) as link:
            far = await far_end(link, seller)
            assert link.peer.key_proved_at == proved
            assert far.peer.key_proved_at == made


async def test_rule_3_a_removed_pin_cannot_resume(pair, globex, virtual_clock):
    credential = globex.issue("buyer")
    pins = Pinned(credential.peer_id)
    network, seller, buyer = pair(seller_trust=pins, buyer_credential=credential)
    async with network.listening(seller) as listener:
        assert not await resumes(buyer, listener)
        pins.remove(credential.peer_id)
        with pytest.raises(Refused) as refused:
            async with buyer.connect(listener.contact):
                pytest.fail("must not open")
        assert (refused.value.by, refused.value.reason) == ("peer", Reason.UNTRUSTED)
        assert seller.statistics().refused == {Reason.NOT_VOUCHED: 1}
        assert len(buyer._sessions) == 0
        pins.add(credential.peer_id)
        assert not await resumes(buyer, listener)


async def test_rule_3_an_expired_peer_cannot_resume(pair, globex, wall, virtual_clock):
    clock = wall()
    request = CredentialRequest.new("buyer")
    lifetime = timedelta(seconds=limits.TICKET_KEY / 2)
    chain = globex.credential.issue(request, kind=EntityKind.AGENT, lifetime=lifetime)
    network, seller, buyer = pair(clock=clock, buyer_credential=request.complete(chain))
    async with network.listening(seller) as listener:
        assert not await resumes(buyer, listener)
        clock.step(limits.TICKET_KEY / 2 + 1)
        with pytest.raises(Refused) as refused:
            async with buyer.connect(listener.contact):
                pytest.fail("must not open")
        assert (refused.value.by, refused.value.reason) == ("peer", Reason.EXPIRED)


async def test_rule_5_a_session_survives_a_peer_that_vanished(pair, virtual_clock):
    """Cut off without close_notify, which makes OpenSSL spoil the session object that its connection holds."""
    network, seller, buyer = pair()
    async with network.listening(seller) as listener:
        async with buyer.connect(listener.contact) as link:
            far = await far_end(link, seller)
            await far._stream.abort()
            await link.closed()
        assert await resumes(buyer, listener)


async def test_rule_5_a_session_is_used_once(pair, virtual_clock, monkeypatch):
    """Offered twice it would tell an observer that two links are one peer's (RFC 8446, appendix C.4)."""
    network, seller, buyer = pair()
    offered = []
    offer = _openssl.offer_session

    def record(connection, session):
        offered.append(session)
        offer(connection, session)

    monkeypatch.setattr(_openssl, "offer_session", record)
    async with network.listening(seller) as listener:
        for _ in range(4):
            await resumes(buyer, listener)
        assert len(set(offered)) == 3
        assert len(buyer._sessions) == 1


async def test_rule_5_links_that_open_at_once_use_a_session_each(pair, virtual_clock):
    network, seller, buyer = pair()
    async with network.listening(seller) as listener:
        for expected in (False, True):
            resumed = []

            async def one(resumed=resumed):
                async with buyer.connect(listener.contact) as link:
                    resumed.append(link.tls.resumed)

            async with anyio.create_task_group() as tasks:
                for _ in range(5):
                    tasks.start_soon(one)
            assert resumed == [expected] * 5


@pytest.mark.parametrize("who", ["seller", "buyer"])
async def test_rule_5_a_replaced_credential_resumes_nothing(pair, acme, globex, virtual_clock, who):
    """The session remembers the old certificate: the far end would go on believing that."""
    network, seller, buyer = pair()
    agent, authority = (seller, acme) if who == "seller" else (buyer, globex)
    async with network.listening(seller) as listener:
        assert not await resumes(buyer, listener)
        old = agent.credential
        agent.replace_credential(authority.issue(who))
        async with buyer.connect(listener.contact) as link:
            far = await far_end(link, seller)
            seen = link.peer.leaf if who == "seller" else far.peer.leaf
            assert not link.tls.resumed
            assert seen == agent.credential.leaf != old.leaf


async def test_rule_5_a_credential_replaced_while_its_session_waits_for_the_connection_resumes_nothing(
    pair, globex, virtual_clock
):
    """What was taken for the old one is offered by the old one or by nobody."""
    network, seller, buyer = pair()
    async with network.listening(seller) as listener:
        assert not await resumes(buyer, listener)
        reach = buyer.reach

        async def replace_and_reach(address):
            buyer.replace_credential(globex.issue("buyer"))
            return await reach(address)

        buyer.reach = replace_and_reach
        assert not await resumes(buyer, listener)
        assert seller.statistics().refused == {}


async def test_rule_5_a_session_of_another_listener_leads_to_a_full_handshake(pair, acme, virtual_clock):
    """Not to an alert: the same identity in another process has another ticket key."""
    network, seller, buyer = pair()
    async with network.listening(seller) as listener:
        assert not await resumes(buyer, listener)
    twin = type(seller)(seller.credential, trust=seller.trust, handlers=seller.handlers)
    address = listener.addresses[0]
    async with network.listening(twin, address) as listener:
        assert not await resumes(buyer, listener)


async def test_nobody_in_particular_is_not_resumed(pair, virtual_clock):
    """A session is kept for whom we expected."""
    from autolink import ANYONE_TRUSTED

    network, seller, buyer = pair()
    async with network.listening(seller) as listener:
        for _ in range(2):
            async with buyer.connect(listener.addresses[0], expect=ANYONE_TRUSTED) as link:
                assert not link.tls.resumed
    assert len(buyer._sessions) == 0


# --- the store -----------------------------------------------------------------------------------------------

NOW = datetime(2030, 1, 1, tzinfo=UTC)


def keys(count):
    peer_id = Credential.self_issued("acme").peer_id
    return [(peer_id, f"host:{port}") for port in range(1, count + 1)]


def test_rule_5_sessions_are_bounded_by_number_size_and_peer(monkeypatch):
    monkeypatch.setattr(limits, "SESSIONS", 6)
    monkeypatch.setattr(limits, "SESSIONS_EACH", 2)
    monkeypatch.setattr(limits, "SESSIONS_BYTES", 100)
    sessions = Sessions()
    first, second, third, fourth = keys(4)
    for number in range(5):
        sessions.keep(first, Session(bytes([number]), NOW))
    assert len(sessions) == 2
    assert sessions.take(first, NOW) == Session(b"\4", NOW)
    for key in (second, third, fourth):
        for _ in range(2):
            sessions.keep(key, Session(b"x", NOW))
    assert len(sessions) == 6
    assert sessions.take(first, NOW) is None, "dialled longest ago"
    sessions.keep(second, Session(bytes(99), NOW))
    assert len(sessions) == 2
    assert sessions.take(third, NOW) is None
    assert sessions.take(fourth, NOW) is None


def test_a_session_ends_with_its_age_and_when_the_clock_was_set_back():
    sessions = Sessions()
    [key] = keys(1)
    for seconds in (limits.TICKET_KEY, -1):
        sessions.keep(key, Session(b"x", NOW))
        sessions.keep(key, Session(b"y", NOW))
        assert sessions.take(key, NOW + timedelta(seconds=seconds)) is None
        assert len(sessions) == 0


def test_a_session_shows_no_key_and_is_not_pickled():
    session = Session(b"secret", NOW)
    assert "secret" not in repr(session)
    with pytest.raises(TypeError):
        pickle.dumps(session)
