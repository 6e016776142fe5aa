"""What was believed can stop being believed: a live link ends when the first thing its verdict rests on ends."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import anyio
import pytest

from autolink import Credential, CredentialRequest, EntityKind, Reason, Refused, codec, limits
from autolink.protocol.frames import Frame, encode_frame
from autolink.testing import Authority, Network, link_pair
from autolink.trust import Contradicted, Grounds, IssuedBy, KnownAgents, Model, Pinned, UnsafeAnyone


def issued_for(authority, name, lifetime, *, key=None):
    """A credential that ends after `lifetime`; with `key`, a renewed one over the same key."""
    request = key or CredentialRequest.new(name)
    return request.complete(
        authority.credential.issue(request, kind=EntityKind.AGENT, lifetime=lifetime)
    ), request


async def test_rule_17_a_removed_pin_ends_the_live_link_on_both_ends_with_the_reason(
    acme, globex, virtual_clock
):
    mallory = globex.issue("mallory")
    pins = Pinned(mallory.peer_id)
    seller = acme.agent("seller", trust=pins)
    buyer = type(seller)(mallory, trust=IssuedBy(acme.anchor))
    async with link_pair(buyer, seller) as (link, far):
        pins.remove(mallory.peer_id)
        await link.closed()
        assert isinstance(link.lost, Refused)
        assert (link.lost.by, link.lost.reason) == ("peer", Reason.UNTRUSTED)
        assert (far.lost.by, far.lost.reason) == ("us", Reason.NOT_VOUCHED)
    assert seller.statistics().refused == {Reason.NOT_VOUCHED: 1}
    with pytest.raises(Refused):
        async with link_pair(buyer, seller):
            pytest.fail("must not open")


async def test_a_change_of_trust_that_still_vouches_leaves_the_link_alone(acme, globex, virtual_clock):
    mallory, other = globex.issue("mallory"), globex.issue("other")
    pins = Pinned(mallory.peer_id, other.peer_id)
    seller = acme.agent("seller", trust=pins)
    buyer = type(seller)(mallory, trust=IssuedBy(acme.anchor))
    async with link_pair(buyer, seller) as (link, far):
        pins.remove(other.peer_id)
        await anyio.sleep(100)
        assert link.lost is None
        assert far.lost is None


async def test_rule_17_a_verdict_ends_with_the_certificate(acme, globex, wall, virtual_clock):
    """At the second it expires, on both ends, although nothing is sent."""
    clock = wall()
    credential, _ = issued_for(globex, "buyer", timedelta(hours=2))
    seller = acme.agent("seller", trust=IssuedBy(globex.anchor), clock=clock)
    buyer = type(seller)(credential, trust=IssuedBy(acme.anchor), clock=clock)
    async with link_pair(buyer, seller) as (link, far):
        assert far.peer.valid_until == credential.leaf.not_after
        begun = anyio.current_time()
        await link.closed()
        assert anyio.current_time() - begun == pytest.approx(
            (credential.leaf.not_after - clock.start).total_seconds(), abs=2
        )
        assert (link.lost.by, link.lost.reason) == ("peer", Reason.EXPIRED)
        assert (far.lost.by, far.lost.reason) == ("us", Reason.EXPIRED)


async def test_rule_17_a_verdict_ends_with_its_grounds(acme, globex, wall, virtual_clock):
    clock = wall()

    class ForAnHour(Model):
        async def verify(self, presented, context):
            return Grounds("ForAnHour", "status", valid_until=clock.start + timedelta(hours=1))

    seller = acme.agent("seller", trust=ForAnHour(), clock=clock)
    buyer = globex.agent("buyer", trust=IssuedBy(acme.anchor), clock=clock)
    async with link_pair(buyer, seller) as (link, far):
        begun = anyio.current_time()
        await link.closed()
        assert anyio.current_time() - begun == pytest.approx(3600, abs=2)
        assert far.lost.reason is Reason.NOT_VOUCHED


async def test_rule_17_fresh_evidence_on_the_live_link_renews_the_verdict(acme, globex, wall, virtual_clock):
    """A renewed certificate over the same key, put into the running agent: the link and a call on it go on."""
    clock = wall()
    first, request = issued_for(globex, "buyer", timedelta(hours=2))
    second, _ = issued_for(globex, "buyer", timedelta(days=2), key=request)
    seller = acme.agent("seller", trust=IssuedBy(globex.anchor), clock=clock)
    buyer = type(seller)(first, trust=IssuedBy(acme.anchor), clock=clock)

    @seller.method
    async def sleep(call, body) -> str:
        await anyio.sleep(3 * 3600)
        return "slept"

    async with link_pair(buyer, seller) as (link, far), anyio.create_task_group() as tasks:

        async def renew() -> None:
            await anyio.sleep(3600)
            buyer.replace_credential(second)

        tasks.start_soon(renew)
        assert await link.call("sleep") == "slept"
        assert far.peer.valid_until == second.leaf.not_after


async def test_evidence_that_comes_while_the_old_is_being_judged_counts_but_does_not_put_off_the_verdict(
    acme, globex, wall, virtual_clock
):
    """A trust model takes its time, and the peer's next status was under way when the last one ran out."""
    clock = wall()

    class Slow(Model):
        async def verify(self, presented, context):
            if context.now - begun > timedelta(minutes=1):
                await anyio.sleep(5)
                if presented.evidence != (b"fresh",):
                    raise Contradicted("its status has run out", Reason.EXPIRED)
            grounds = await IssuedBy(globex.anchor).verify(presented, context)
            return replace(grounds, valid_until=context.now + timedelta(minutes=2))

    begun = clock()
    seller = acme.agent("seller", trust=Slow(), clock=clock)
    buyer = type(seller)(globex.issue("buyer"), trust=IssuedBy(acme.anchor), clock=clock)
    async with link_pair(buyer, seller) as (link, far):
        await anyio.sleep(122)
        buyer.replace_evidence(b"fresh")
        await anyio.sleep(60)
        assert link.lost is far.lost is None
        for number in range(100):
            buyer.replace_evidence(b"stale %d" % number)
            await anyio.sleep(0.2)
        assert far.lost.reason is Reason.EXPIRED
    assert clock() - begun < timedelta(minutes=4)


@pytest.mark.parametrize("who", ["dialer", "listener"])
async def test_a_chain_is_shown_with_the_evidence_that_fits_it_whenever_both_are_replaced(
    acme, globex, who, virtual_clock
):
    """At every moment of an opening: a status of the renewed certificate says nothing good of the one before it."""
    first, request = issued_for(globex, "buyer", timedelta(hours=2))
    second, _ = issued_for(globex, "buyer", timedelta(days=2), key=request)
    statuses = {first.leaf: (b"status of the first",), second.leaf: (b"status of the second",)}
    shown = []

    class Watching(Model):
        async def verify(self, presented, context):
            shown.append(presented.leaf)
            assert presented.evidence == statuses[presented.leaf]
            return await IssuedBy(globex.anchor).verify(presented, context)

    for moment in range(12):
        seller = acme.agent("seller", trust=Watching())
        buyer = type(seller)(first, trust=IssuedBy(acme.anchor))
        buyer.replace_evidence(*statuses[first.leaf])
        dialer, listener = (buyer, seller) if who == "dialer" else (seller, buyer)

        async def renew(buyer=buyer, moment=moment) -> None:
            await anyio.sleep(moment * 0.005 + 0.001)
            buyer.replace_credential(second, evidence=statuses[second.leaf])

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(renew)
            async with link_pair(dialer, listener, network=Network(latency=0.01)) as (link, far):
                await anyio.sleep(1)
                assert link.lost is far.lost is None
                [seen] = seller.links
                assert seen.peer.leaf == second.leaf
    assert {first.leaf, second.leaf} == set(shown)


async def test_a_link_that_drains_under_an_old_key_is_shown_nothing_about_the_new_one(
    acme, globex, virtual_clock
):
    """What is open on it ends in its own time, by what was shown with the chain that it was opened with."""
    first, second = globex.issue("buyer"), globex.issue("buyer")

    class Watching(Model):
        async def verify(self, presented, context):
            assert presented.evidence == ((b"of the second",) if presented.leaf == second.leaf else ())
            return await IssuedBy(globex.anchor).verify(presented, context)

    seller = acme.agent("seller", trust=Watching())
    buyer = type(seller)(first, trust=IssuedBy(acme.anchor))

    @seller.method
    async def sleep(call, body) -> str:
        await anyio.sleep(10)
        return "slept"

    async with link_pair(buyer, seller) as (link, _), anyio.create_task_group() as tasks:

        async def renew() -> None:
            await anyio.sleep(1)
            buyer.replace_credential(second, evidence=[b"of the second"])
            buyer.replace_evidence(b"of the second")

        tasks.start_soon(renew)
        assert await link.call("sleep") == "slept"
        assert link.draining
    assert seller.statistics().refused == {}


async def test_a_certificate_renewed_while_a_link_opens_is_shown_on_it(acme, globex, wall, virtual_clock):
    """TLS has shown the old one, which would have ended the link with it."""
    clock = wall()
    first, request = issued_for(globex, "buyer", timedelta(hours=2))
    second, _ = issued_for(globex, "buyer", timedelta(days=2), key=request)
    seller = acme.agent("seller", clock=clock)
    buyer = type(seller)(first, trust=IssuedBy(acme.anchor), clock=clock)

    class Slow(Model):
        async def verify(self, presented, context):
            if buyer.credential is first:
                buyer.replace_credential(second)
            return await IssuedBy(globex.anchor).verify(presented, context)

    seller.replace_trust(Slow())
    async with link_pair(buyer, seller) as (link, far):
        await link.ping()
        await far.ping()
        assert far.peer.leaf == second.leaf
        assert link.lost is far.lost is None


async def test_evidence_about_another_key_ends_the_link(acme, globex, hostile):
    seller = acme.agent("seller", trust=IssuedBy(globex.anchor))
    other = globex.issue("mallory")
    async with hostile(seller) as peer:
        await peer.open()
        chain = [certificate.der for certificate in other.chain]
        await peer.stream.send(encode_frame(Frame.EVIDENCE, codec.encode({"chain": chain})))
        assert await peer.refused() in ("wrong_peer", "untrusted")
    assert seller.links == ()


@pytest.mark.parametrize(
    "evidence", [{"chain": [b"junk"]}, {"chain": [b""]}, {"chain": 1}, {"evidence": [b"x"] * 99}]
)
async def test_evidence_that_is_none_ends_the_link(acme, globex, hostile, evidence):
    seller = acme.agent("seller", trust=IssuedBy(globex.anchor))
    async with hostile(seller) as peer:
        await peer.open()
        await peer.stream.send(encode_frame(Frame.EVIDENCE, codec.encode(evidence)))
        assert await peer.refused() == "malformed"


@pytest.mark.parametrize("step", [3600, -3600])
async def test_a_clock_that_is_stepped_by_an_hour_makes_no_message_late(
    acme, globex, wall, step, virtual_clock
):
    """Time on a link goes on from its opening; the verdicts of these agents outlast the hour."""
    clock = wall()
    seller = acme.agent("seller", trust=IssuedBy(globex.anchor), clock=clock)
    buyer = globex.agent("buyer", trust=IssuedBy(acme.anchor))

    @seller.method
    async def echo(call, body) -> object:
        return body

    async with link_pair(buyer, seller) as (link, _):
        assert await link.call("echo", 1) == 1
        clock.step(step)
        assert await link.call("echo", 2) == 2
        await anyio.sleep(60)
        assert await link.call("echo", 3) == 3


async def test_a_clock_stepped_past_the_end_of_a_verdict_is_noticed(acme, globex, wall, virtual_clock):
    clock = wall()
    credential, _ = issued_for(globex, "buyer", timedelta(hours=2))
    seller = acme.agent("seller", trust=IssuedBy(globex.anchor), clock=clock)
    buyer = type(seller)(credential, trust=IssuedBy(acme.anchor))
    async with link_pair(buyer, seller) as (link, _):
        clock.step(3 * 3600)
        begun = anyio.current_time()
        await link.closed()
        assert anyio.current_time() - begun <= limits.KEEPALIVE + 1


async def test_a_model_whose_file_another_process_changed_is_asked_again(acme, globex, virtual_clock):
    """It cannot call back; its epoch is looked at whenever the keeper wakes."""

    class File(Model):
        content = 0

        @property
        def epoch(self):
            return self.content

        async def verify(self, presented, context):
            if self.content:
                raise Refused(Reason.REVOKED, by="us")
            return Grounds("File", "empty")

    seller = acme.agent("seller", trust=File())
    buyer = globex.agent("buyer", trust=IssuedBy(acme.anchor))
    async with link_pair(buyer, seller) as (link, far):
        seller.trust.content = 1
        await link.closed()
        assert anyio.current_time() <= 2 * limits.KEEPALIVE
        assert isinstance(far.lost, Refused)


async def test_a_model_that_hangs_when_asked_again_ends_the_link_as_internal(acme, globex, virtual_clock):
    class Hangs(Model):
        hangs = False

        async def verify(self, presented, context):
            if self.hangs:
                await anyio.sleep_forever()
            return Grounds("Hangs", "ok")

    seller = acme.agent("seller", trust=Hangs())
    buyer = globex.agent("buyer", trust=IssuedBy(acme.anchor))
    async with link_pair(buyer, seller) as (link, far):
        seller.trust.hangs = True
        seller.trust._changed()
        await link.closed()
        assert (far.lost.reason, link.lost.reason) == (Reason.INTERNAL, Reason.INTERNAL)
        assert anyio.current_time() <= limits.VERDICT + 2


async def test_a_peer_that_falls_silent_is_pinged_and_given_up(agents, virtual_clock):
    seller, buyer = agents
    network = Network()
    async with link_pair(buyer, seller, network=network) as (link, _):
        await anyio.sleep(300)
        assert link.lost is None
        network.pause()
        begun = anyio.current_time()
        await link.closed()
        assert "silent" in str(link.lost)
        assert limits.KEEPALIVE < anyio.current_time() - begun < 4 * limits.KEEPALIVE


async def test_being_woken_twice_does_not_give_up_a_silent_peer_early(acme, globex, virtual_clock):
    """Two changes of trust just after a ping: the peer still has its whole time to answer."""
    mallory, other = globex.issue("mallory"), globex.issue("other")
    pins = Pinned(mallory.peer_id)
    seller = acme.agent("seller", trust=pins)
    buyer = type(seller)(mallory, trust=IssuedBy(acme.anchor))
    async with link_pair(buyer, seller, network=Network(latency=1)) as (_, far):
        await anyio.sleep(limits.KEEPALIVE + 1)
        for _ in range(3):
            pins.add(other.peer_id)
            await anyio.sleep(0.1)
        await anyio.sleep(100)
        assert far.lost is None


@pytest.mark.parametrize("limit", ["RECORDS", "LINK_AGE"])
async def test_rule_11_an_old_link_is_drained_so_that_it_is_made_again(
    agents, limit, monkeypatch, virtual_clock
):
    seller, buyer = agents
    async with link_pair(buyer, seller) as (link, far):
        await link.ping()
        monkeypatch.setattr(limits, limit, 1)
        await link.closed()
        await far.closed()
        assert anyio.current_time() <= 2 * limits.KEEPALIVE
        assert "drained" in str(link.lost) + str(far.lost)


async def test_rule_11_a_link_that_an_endless_channel_keeps_from_draining_is_ended(
    agents, monkeypatch, virtual_clock
):
    seller, buyer = agents

    @seller.channel
    async def endless(channel):
        await anyio.sleep_forever()

    async with link_pair(buyer, seller) as (link, far), link.open_channel("endless"):
        monkeypatch.setattr(limits, "RECORDS", 1)
        await anyio.sleep(2 * limits.KEEPALIVE)
        assert link.lost is None
        monkeypatch.setattr(limits, "RECORDS_MOST", 1)
        await link.closed()
        await far.closed()
        assert "one key may protect" in str(link.lost) + str(far.lost)


async def test_an_expired_certificate_does_not_open_a_link(globex, acme):
    past = datetime.now(UTC) - timedelta(days=400)
    old = Authority("old", now=past)
    request = CredentialRequest.new("late")
    chain = old.credential.issue(request, kind=EntityKind.AGENT, lifetime=timedelta(days=1), now=past)
    seller = acme.agent("seller", trust=IssuedBy(old.anchor))
    buyer = type(seller)(request.complete(chain), trust=IssuedBy(acme.anchor))
    with pytest.raises(Refused) as error:
        async with link_pair(buyer, seller):
            pytest.fail("must not open")
    assert (error.value.by, error.value.reason) == ("peer", Reason.EXPIRED)
    assert seller.statistics().refused == {Reason.EXPIRED: 1}


def test_a_credential_is_replaced_by_the_same_id_only(acme):
    agent = acme.agent("one")
    with pytest.raises(ValueError, match="same Auto ID"):
        agent.replace_credential(Credential.self_issued("other"))


async def test_rule_17_a_replaced_trust_model_judges_the_live_links_again(acme, globex, virtual_clock):
    """Whom it believes too stays; the others end, and so does a link that was being opened. What the first model thinks
    later is nobody's affair."""
    mallory, other = globex.issue("mallory"), globex.issue("other")
    first = Pinned(mallory.peer_id, other.peer_id)
    seller = acme.agent("seller", trust=first)
    buyers = [type(seller)(credential, trust=IssuedBy(acme.anchor)) for credential in (mallory, other)]
    async with link_pair(buyers[0], seller) as (link, far), link_pair(buyers[1], seller) as (staying, _):
        with pytest.raises(ValueError, match="trust model"):
            seller.replace_trust(None)
        seller.replace_trust(Pinned(other.peer_id))
        await link.closed()
        assert (link.lost.by, link.lost.reason) == ("peer", Reason.UNTRUSTED)
        assert (far.lost.by, far.lost.reason) == ("us", Reason.NOT_VOUCHED)
        first.remove(other.peer_id)
        await anyio.sleep(100)
        assert staying.lost is None
    with pytest.raises(Refused):
        async with link_pair(buyers[0], seller):
            pytest.fail("must not open")


async def test_rule_17_a_trust_model_that_is_replaced_during_a_judgement_does_not_decide(acme, globex):
    asked, answer = anyio.Event(), anyio.Event()

    class Slow(Model):
        async def verify(self, presented, context):
            asked.set()
            await answer.wait()
            return Grounds("Slow", "anybody")

    seller = acme.agent("seller", trust=Slow())
    buyer = globex.agent("buyer", trust=IssuedBy(acme.anchor))
    async with anyio.create_task_group() as tasks:

        async def dial() -> None:
            with pytest.raises(Refused) as refused:
                async with link_pair(buyer, seller):
                    pytest.fail("must not open")
            assert refused.value.reason in (Reason.UNTRUSTED, Reason.NOT_VOUCHED)

        tasks.start_soon(dial)
        await asked.wait()
        seller.replace_trust(Pinned(acme.credential.peer_id))
        answer.set()


async def test_rule_22_whom_a_person_forgets_is_not_learned_again_from_a_live_link(acme, globex, tmp_path):
    """First use is when we dial: judging a link again is no dialling, though the link was dialled once."""
    known = KnownAgents(tmp_path / "known", on_first="accept")
    seller = acme.agent("seller", trust=IssuedBy(globex.anchor))
    buyer = globex.agent("buyer", trust=known)
    async with link_pair(buyer, seller) as (link, _):
        assert known.forget(seller.auto_id)
        await link.closed()
        assert link.lost.reason is Reason.NOT_VOUCHED
    assert known.agents == {}


async def test_evidence_does_not_make_a_bare_key_the_author_of_another_name(acme, globex, hostile):
    """It opened the link under one name and would go on under another, whose proofs would show the first."""
    request = CredentialRequest.new("mallory")
    disguise = Authority("disguise").credential
    chains = [
        request.complete(issuer.issue(request, kind=EntityKind.AGENT))
        for issuer in (disguise, globex.credential)
    ]
    seller = acme.agent("seller", trust=IssuedBy(globex.anchor) | UnsafeAnyone())
    async with hostile(seller, credential=chains[0]) as peer:
        await peer.open()
        shown = {"chain": [certificate.der for certificate in chains[1].chain]}
        await peer.stream.send(encode_frame(Frame.EVIDENCE, codec.encode(shown)))
        assert await peer.refused() == "wrong_peer"
