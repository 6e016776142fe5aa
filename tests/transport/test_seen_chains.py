"""A dialer does not have OpenSSL verify a chain again that it has verified; all else is as at the first time."""

import anyio
import anyio.to_thread
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from autolink import Agent
from autolink.errors import Reason, Refused
from autolink.testing import Authority
from autolink.transport import client_context, secure_stream, server_context, tls
from autolink.trust import IssuedBy

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def passed():
    """What is remembered, of this test alone."""
    before = dict(tls._passed)
    tls._passed.clear()
    yield tls._passed
    tls._passed.clear()
    tls._passed.update(before)


@pytest.fixture
def examined(monkeypatch):
    """The depths at which OpenSSL asked, of Contexts that are made from now on."""
    depths = []
    verify = tls._verify

    def noting(connection, verification, certificate, error, depth):
        if verification.dialer:
            depths.append(depth)
        return verify(connection, verification, certificate, error, depth)

    monkeypatch.setattr(tls, "_verify", noting)
    return depths


async def meet(make, dialer, listener, **how):
    ends = await make.handshake(*make.sockets(), dialer, listener, **how)
    for end in ends:
        if not isinstance(end, Exception):
            await end.abort()
    return ends


async def test_a_chain_is_examined_once(me, make, examined):
    dialer, listener = client_context(me), server_context(me)
    await meet(make, dialer, listener)
    assert examined == [1, 1, 0]  # the root nobody knows, then the signatures
    examined.clear()
    again, _ = await meet(make, dialer, listener)
    assert examined == [1]
    assert len(again.peer_chain) == 2
    other = make.path(2)
    await meet(make, dialer, server_context(other))
    assert examined == [1, 1, 1, 0]


async def test_a_chain_of_other_bytes_is_examined(me, make):
    """The leaf of one that passed below a namesake of its root, which never signed it."""
    root, namesake = make.issue("root"), make.issue("root")
    leaf = make.issue("leaf", root, ca=False)
    await meet(make, client_context(me), server_context(make.Identity(leaf, root)))
    for _ in range(2):
        judge, _ = await meet(make, client_context(me), server_context(make.Identity(leaf, namesake)))
        assert isinstance(judge, Refused)
        assert (judge.by, judge.reason) == ("us", Reason.MALFORMED)


async def test_a_chain_that_was_refused_is_not_remembered(me, make, passed):
    weak = make.lax_context(make.Identity(make.issue("weak", key=ec.generate_private_key(ec.SECP521R1()))))
    for _ in range(2):
        judge, _ = await meet(make, client_context(me), weak)
        assert isinstance(judge, Refused)
    judge, _ = await meet(make, client_context(me), server_context(me), expect=lambda _: "somebody else")
    assert isinstance(judge, Refused)
    assert not passed


async def test_who_is_expected_is_asked_each_time_before_our_certificate_is_shown(me, make):
    seen: list[int] = []
    known = make.lax_context(make.path(2), seen=seen)
    first, _ = await meet(make, client_context(me), known)
    assert len(first.peer_chain) == 2
    seen.clear()
    judge, other = await meet(make, client_context(me), known, expect=lambda _: "somebody else")
    assert (judge.by, judge.reason) == ("us", Reason.WRONG_PEER)
    assert other.by == "peer"
    assert seen == []


async def test_a_listener_that_shows_a_known_chain_must_hold_its_key(me, make, rogue, passed):
    honest = make.path(2)
    await meet(make, client_context(me), server_context(honest))
    assert passed
    thief = make.Identity(*honest.chain)
    thief.private_key = ec.generate_private_key(ec.SECP256R1())
    a, b = make.sockets()
    bad = rogue(b)

    def listen() -> None:
        with pytest.raises(bad.api.TLSRemoteAlert):
            bad.listen(thief)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(anyio.to_thread.run_sync, listen)
        with pytest.raises(Refused, match="does not hold the key") as refusal:
            await secure_stream(a, client_context(me), dialer=True)
    assert refusal.value.reason is Reason.IMPOSTOR


async def test_a_listener_examines_each_chain(me, make, passed):
    """Its OpenSSL takes a no for a no."""
    dialer, listener = client_context(make.path(2)), server_context(me)
    for _ in range(2):
        _, judged = await meet(make, dialer, listener)
        assert len(judged.peer_chain) == 2
        assert judged.peer_chain not in passed


async def test_only_the_most_recent_are_remembered(me, make, monkeypatch, passed):
    monkeypatch.setattr("autolink.limits.CHAINS_PASSED", 1)
    for other in (make.path(2), make.path(1)):
        dialer, _ = await meet(make, client_context(me), server_context(other))
        assert list(passed) == [dialer.peer_chain]


async def test_a_session_of_a_connection_whose_chain_was_known_can_be_resumed():
    acme = Authority("acme")
    seller, first = (
        acme.agent("seller"),
        Agent(acme.issue("first"), trust=IssuedBy(acme.anchor), resume=False),
    )
    buyer = acme.agent("buyer")  # as every agent, it resumes where it can
    resumed = []
    async with seller.listening("127.0.0.1:0") as listener:
        for agent in (first, buyer, buyer):
            async with agent.connect(listener.contact) as link:
                await link.ping()
                resumed.append(link.tls.resumed)
    assert resumed == [False, False, True]
