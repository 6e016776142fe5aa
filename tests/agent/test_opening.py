"""How links open, and how they do not: every refusal is told to both ends and counted where it was made."""

from datetime import UTC, datetime, timedelta

import anyio
import pytest

from autolink import Credential, PeerId, Reason, Refused, RemoteProtocolError, limits
from autolink.protocol.frames import Frame, encode_frame
from autolink.testing import Network, link_pair
from autolink.trust import Contradicted, Grounds, IssuedBy, Model, Pinned, SelfCertified, UnsafeAnyone


class Asked(Model):
    """Vouches for anybody when `answer` is set, and remembers whether it was asked."""

    def __init__(self):
        self.asked, self.answer = anyio.Event(), anyio.Event()
        self.times = 0

    async def verify(self, presented, context):
        self.times += 1
        self.asked.set()
        await self.answer.wait()
        return Grounds("Asked", "told so")


async def opened(agents, **how):
    """The errors of (dialler, listener), or None for a side whose link opened."""
    dialer, listener = agents
    near, far = (how.pop("network", None) or Network()).connection()
    errors = {}

    async def open_end(agent, end, *, dials):
        try:
            async with (await agent.open_on(end, dialer=dials, **(how if dials else {}))).running():
                errors[dials] = None
        except Exception as error:
            errors[dials] = error

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: open_end(listener, far, dials=False))
        tasks.start_soon(lambda: open_end(dialer, near, dials=True))
    return errors[True], errors[False]


async def test_rule_18_a_refusal_reaches_both_ends_the_peer_learns_the_closed_code_only(acme, globex):
    """Policy is `untrusted` on the wire and named here; each side counts its own."""
    seller = acme.agent("seller", trust=IssuedBy(acme.anchor))
    buyer = globex.agent("buyer", trust=IssuedBy(acme.anchor))
    theirs, ours = await opened((buyer, seller))
    assert (ours.by, ours.reason) == ("us", Reason.UNKNOWN_ISSUER)
    assert (theirs.by, theirs.reason, theirs.detail) == ("peer", Reason.UNTRUSTED, "")
    assert seller.statistics().refused == {Reason.UNKNOWN_ISSUER: 1}
    assert buyer.statistics().refused_by_peer == {Reason.UNTRUSTED: 1}
    assert seller.statistics().links == buyer.statistics().links == 0


async def test_an_impostor_of_the_same_name_is_refused(acme, globex):
    """A plain name proves nothing: another key under it contradicts the anchor."""
    real = Credential.self_issued("corp", plain=True)
    fake = Credential.self_issued("corp", plain=True)
    seller = acme.agent("seller", trust=Pinned(real.peer_id))
    buyer = globex.agent("buyer", trust=IssuedBy(acme.anchor))
    buyer.replace_credential(buyer.credential)
    impostor = type(buyer)(fake, trust=IssuedBy(acme.anchor))
    _, ours = await opened((impostor, seller))
    assert ours.reason is Reason.IMPOSTOR


async def test_the_dialler_gets_whom_it_expects_or_nobody(acme, agents):
    seller, buyer = agents
    other = acme.issue("other")
    theirs, _ = await opened((buyer, seller), expect=other.peer_id)
    assert (theirs.by, theirs.reason) == ("us", Reason.WRONG_PEER)
    assert await opened((buyer, seller), expect=seller.peer_id) == (None, None)


async def test_clocks_too_far_apart_are_refused_with_the_offset_on_both_sides(acme, globex, virtual_clock):
    skewed = globex.agent(
        "buyer", trust=IssuedBy(acme.anchor), clock=lambda: datetime.now(UTC) + timedelta(seconds=120)
    )
    seller = acme.agent("seller", trust=IssuedBy(globex.anchor))
    theirs, ours = await opened((skewed, seller))
    assert (ours.reason, round(ours.offset)) == (Reason.CLOCK_SKEW, 120)
    assert (theirs.reason, round(theirs.offset)) == (Reason.CLOCK_SKEW, -120)
    assert "differ by +120 s" in str(ours)


async def test_rule_19_a_link_to_ones_own_key_is_refused_unless_asked_for(acme):
    one = acme.agent("one")
    theirs, ours = await opened((one, one))
    assert theirs.reason is Reason.SELF
    assert ours.reason in (Reason.SELF, Reason.UNTRUSTED)
    allowed = type(one)(one.credential, trust=one.trust, allow_self=True)
    assert await opened((allowed, allowed)) == (None, None)


async def test_rule_19_a_trust_model_that_hangs_is_a_refusal_internal_on_both_sides(
    acme, globex, virtual_clock
):
    """One deadline covers all of it, and leaves time to say so."""
    seller = acme.agent("seller", trust=Asked())
    buyer = globex.agent("buyer", trust=IssuedBy(acme.anchor))
    begun = anyio.current_time()
    theirs, ours = await opened((buyer, seller))
    assert (ours.by, ours.reason, ours.detail) == (
        "us",
        Reason.INTERNAL,
        "the trust model gave no verdict in time",
    )
    assert (theirs.by, theirs.reason) == ("peer", Reason.INTERNAL)
    assert anyio.current_time() - begun < limits.OPENING


async def test_rule_19_a_trust_model_that_raises_is_a_refusal_internal(acme, globex):
    class Broken(Model):
        async def verify(self, presented, context):
            raise ZeroDivisionError("bug")

    seller = acme.agent("seller", trust=Broken())
    buyer = globex.agent("buyer", trust=IssuedBy(acme.anchor))
    theirs, ours = await opened((buyer, seller))
    assert ours.reason is theirs.reason is Reason.INTERNAL
    assert "ZeroDivisionError" in str(ours)


async def test_an_agent_at_its_capacity_refuses_as_busy(agents, monkeypatch):
    seller, buyer = agents
    monkeypatch.setattr("autolink.limits.LINKS", 2)
    async with link_pair(buyer, seller), link_pair(buyer, seller):
        theirs, ours = await opened((buyer, seller))
        assert {(theirs.by, theirs.reason), (ours.by, ours.reason)} <= {
            ("us", Reason.BUSY),
            ("peer", Reason.BUSY),
        }
    assert await opened((buyer, seller)) == (None, None)


async def test_rule_16_nothing_of_the_peers_reaches_a_handler_before_our_verdict(acme, globex, hostile):
    """A call rides behind the peer's ACCEPT, waits, and runs once we have accepted."""
    seller = acme.agent("seller", trust=Asked())
    ran = anyio.Event()

    @seller.method
    async def echo(call, body):
        ran.set()

    async with hostile(seller) as peer:
        await peer.greet()
        await peer.wait_for(Frame.HELLO)
        await peer.accept()
        await peer.call()
        await seller.trust.asked.wait()
        await anyio.wait_all_tasks_blocked()
        assert not ran.is_set()
        assert Frame.ACCEPT not in peer.frames
        seller.trust.answer.set()
        await peer.wait_for(Frame.BATCH)
        assert ran.is_set()


async def test_rule_16_a_refusal_guarantees_that_none_of_it_was_processed(acme, globex, hostile):
    seller = acme.agent("seller", trust=IssuedBy(acme.anchor))

    @seller.method
    async def echo(call, body):
        pytest.fail("must not run")

    async with hostile(seller) as peer:
        await peer.greet()
        await peer.wait_for(Frame.HELLO)
        await peer.accept()
        for number in range(50):
            await peer.call(2 * number + 1)
        assert await peer.refused() == "untrusted"
    assert seller.statistics().messages_verified == 0


async def test_rule_16_trust_that_changes_during_the_judgement_judges_again(acme, globex):
    """The pin is removed after the model has vouched and before its verdict is used."""

    class Slow(Model):
        def __init__(self, inner):
            self.inner, self.asked, self.answer, self.times = inner, anyio.Event(), anyio.Event(), 0
            inner.on_change(self._changed)

        async def verify(self, presented, context):
            self.times += 1
            grounds = await self.inner.verify(presented, context)
            self.asked.set()
            await self.answer.wait()
            return grounds

    mallory = globex.issue("mallory")
    pins = Pinned(mallory.peer_id)
    seller = acme.agent("seller", trust=Slow(pins))
    buyer = type(seller)(mallory, trust=IssuedBy(acme.anchor))
    async with anyio.create_task_group() as tasks:

        async def change() -> None:
            await seller.trust.asked.wait()
            pins.remove(mallory.peer_id)
            seller.trust.answer.set()

        tasks.start_soon(change)
        _, ours = await opened((buyer, seller))
    assert ours.reason is Reason.NOT_VOUCHED
    assert seller.trust.times == 2


async def test_no_verdict_is_made_for_a_peer_that_never_greets(agents, hostile, virtual_clock):
    seller, _ = agents
    network = Network()
    near, far = network.connection()
    async with network.listening(seller) as listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, far, "memory")
        begun = anyio.current_time()
        with pytest.raises(anyio.EndOfStream):
            while True:
                await near.receive()
        assert anyio.current_time() - begun == pytest.approx(limits.OPENING, abs=limits.REFUSAL_DRAIN + 0.1)
    assert seller.statistics().links == 0


@pytest.mark.parametrize(
    "frame",
    [
        encode_frame(Frame.PING, bytes(8)),
        encode_frame(Frame.ACCEPT, b"\x80"),
        encode_frame(99, b""),
        encode_frame(Frame.HELLO, b"\xc1"),
        b"\x01\xff\xff\xff\xff",
    ],
    ids=["ping", "accept", "unknown", "no_map", "too_long"],
)
async def test_what_is_no_hello_is_refused_as_malformed(agents, hostile, frame):
    """And told so: frames before ACCEPT are a protocol error at this end."""
    seller, _ = agents
    async with hostile(seller) as peer:
        await peer.stream.send(frame)
        assert await peer.refused() == "malformed"
        assert isinstance(await peer.end(), RemoteProtocolError)


async def test_no_version_in_common_is_refused_as_version(agents, hostile):
    seller, _ = agents
    async with hostile(seller) as peer:
        peer.protocol._versions = (7,)
        await peer.greet()
        assert await peer.refused() == "version"


async def test_both_sides_judge_and_either_may_refuse(acme, globex):
    seller = acme.agent("seller", trust=IssuedBy(globex.anchor))
    buyer = globex.agent("buyer", trust=IssuedBy(globex.anchor))
    theirs, ours = await opened((buyer, seller))
    assert (theirs.by, theirs.reason) == ("us", Reason.UNKNOWN_ISSUER)
    assert (ours.by, ours.reason) == ("peer", Reason.UNTRUSTED)


async def test_a_model_that_knows_better_refuses_whoever_else_vouches(acme, globex):
    class Knows(Model):
        async def verify(self, presented, context):
            raise Contradicted("not in this state", Reason.REVOKED)

    seller = acme.agent("seller", trust=SelfCertified() | Knows())
    buyer = globex.agent("buyer", trust=IssuedBy(acme.anchor))
    theirs, ours = await opened((buyer, seller))
    assert ours.reason is theirs.reason is Reason.REVOKED


async def test_the_verdict_says_when_the_key_was_proved(agents):
    seller, buyer = agents
    async with link_pair(buyer, seller) as (link, _):
        assert datetime.now(UTC) - link.peer.key_proved_at < timedelta(minutes=1)


async def test_refused_links_leave_nothing_behind(acme, globex):
    seller = acme.agent("seller", trust=IssuedBy(acme.anchor))
    buyer = globex.agent("buyer", trust=IssuedBy(acme.anchor))
    for _ in range(3):
        with pytest.raises(Refused):
            async with link_pair(buyer, seller):
                pytest.fail("must not open")
    for agent in (seller, buyer):
        assert agent._rows == agent._links == set()


async def test_expecting_a_key_looks_at_it_before_our_certificate_is_shown(acme):
    """A plain name's contact holds a key: another one under the same name is refused during TLS."""
    real, fake = (Credential.self_issued("corp", plain=True) for _ in range(2))
    buyer = acme.agent("buyer", trust=Pinned(real.peer_id))
    for credential, reason in ((real, None), (fake, Reason.WRONG_PEER)):
        corp = type(buyer)(credential, trust=IssuedBy(acme.anchor))
        theirs, _ = await opened((buyer, corp), expect=real.peer_id)
        assert getattr(theirs, "reason", None) is reason
    bound = type(buyer)(fake, trust=IssuedBy(acme.anchor))
    theirs, _ = await opened((buyer, bound), expect=PeerId(fake.auto_id, "bound"))
    assert (theirs.reason, theirs.by) == (Reason.WRONG_PEER, "us")
    assert "bound" in theirs.detail


async def test_rule_23_a_key_principal_signs_under_the_name_it_claims_and_is_verified_as_its_key_only(
    acme, globex
):
    seller = acme.agent("seller", trust=UnsafeAnyone())
    buyer = globex.agent("buyer", trust=IssuedBy(acme.anchor))

    @seller.method
    async def who(call, body) -> object:
        return [call.peer.auto_id is None, call.peer.principal.startswith("key:sha256:")]

    async with link_pair(buyer, seller) as (link, _):
        assert await link.call("who") == [True, True]


async def test_a_model_whose_epoch_cannot_be_read_is_a_refusal_internal(acme, globex):
    class Broken(Model):
        @property
        def epoch(self):
            raise OSError("disk gone")

        async def verify(self, presented, context):
            pytest.fail("must not be asked")

    seller = acme.agent("seller", trust=Broken())
    buyer = globex.agent("buyer", trust=IssuedBy(acme.anchor))
    theirs, ours = await opened((buyer, seller))
    assert ours.reason is theirs.reason is Reason.INTERNAL
    assert "disk gone" in str(ours)


async def test_a_stranger_who_is_gone_before_our_refusal_disturbs_nobody(acme, hostile):
    """There is nobody to tell, and the refusal is counted all the same."""
    seller = acme.agent("seller", trust=Asked())
    seller.trust.answer.set()
    async with hostile(seller) as peer:
        await peer.greet(clock=datetime(2000, 1, 1, tzinfo=UTC))
        ended = await peer.end()
        assert isinstance(ended, (Refused, anyio.BrokenResourceError, anyio.EndOfStream))
