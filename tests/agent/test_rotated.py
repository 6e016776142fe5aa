"""Agents whose organisation, or who themselves, have rotated to the next key: the peer that they were, on every way."""

from dataclasses import replace

import anyio
import pytest

from autolink import Agent, Credential, CredentialRequest, EntityKind, Reason, Refused, UsageError, limits
from autolink.errors import EnvelopeRefused
from autolink.identity import dump_chain, load_chain
from autolink.identity.issuing import build_self_issued
from autolink.identity.rotation import encode_rotations
from autolink.messages import Envelope
from autolink.testing import Network, link_pair
from autolink.transport import server_context
from autolink.trust import IssuedBy, Model, Pinned, SelfCertified


def rotated(credential, times=1):
    for _ in range(times):
        credential = credential.rotate(credential.next_key)
    return credential


def issued(name, issuer, *, request=None):
    request = request or CredentialRequest.new(name)
    return request.complete(issuer.issue(request, kind=EntityKind.AGENT))


@pytest.fixture
def corp():
    """An organisation before its first rotation; what it has rotated to is made of it."""
    return Credential.self_issued("corp")


async def echo(call, body: object) -> object:
    return body


def agent(credential, trust):
    made = Agent(credential, trust=trust)
    made.method(echo)
    return made


@pytest.mark.parametrize("times", [1, 3])
async def test_rotated_agents_link_in_either_direction(corp, acme, times, virtual_clock):
    """The organisation's agents and the organisation itself; who believes it has an anchor from before."""
    after = rotated(corp, times)
    believing = acme.agent("seller", trust=IssuedBy(corp.anchor) | Pinned(corp.peer_id))
    believing.method(echo)
    for credential in (after, issued("clerk", after)):
        one = agent(credential, IssuedBy(acme.anchor))
        for dialer, listener in ((one, believing), (believing, one)):
            async with link_pair(dialer, listener, expect=listener.peer_id) as (link, far):
                assert await link.call("echo", 1) == 1
                assert {link.peer.peer_id, far.peer.peer_id} == {one.peer_id, believing.peer_id}
                for peer in (link.peer, far.peer):
                    assert len(peer.chain) <= 2
    assert one.peer_id.authority == "bound"


async def test_a_contact_outlasts_the_rotation_of_whom_it_names(corp, acme, virtual_clock):
    """Of a listening agent and its live links: they are drained, since TLS has proved the old key."""
    network = Network()
    listening = agent(corp, IssuedBy(acme.anchor))
    dialing = acme.agent("buyer", trust=Pinned(corp.peer_id))
    network.join(dialing)
    async with network.listening(listening) as listener:
        contact = listener.contact
        async with dialing.connect(contact) as link, dialing.keep_link(contact) as kept:
            assert await kept.call("echo", 1) == 1
            first = kept.link
            listening.replace_credential(rotated(corp))
            await link.closed()
            assert await kept.call("echo", 2) == 2
            assert kept.link is not first
            assert kept.link.peer.peer_id == corp.peer_id
            assert kept.link.peer.leaf != corp.leaf


async def test_a_live_link_is_shown_the_rotation_of_ones_organisation(corp, acme, virtual_clock):
    """The agent's own key is the same: the new chain goes over the link with the rotations that lead to its root."""
    request = CredentialRequest.new("clerk")
    before = issued("clerk", corp, request=request)
    clerk = agent(before, IssuedBy(acme.anchor))
    seller = acme.agent("seller", trust=IssuedBy(corp.anchor))
    async with link_pair(clerk, seller) as (link, far):
        for times in (1, 2):
            renewed = issued("clerk", rotated(corp, times), request=request)
            clerk.replace_credential(renewed)
            await link.ping()
            await anyio.sleep(1)
            assert far.lost is link.lost is None
            assert far.peer.leaf == renewed.leaf
            assert far.peer.peer_id == before.peer_id
        seller.invalidate()  # judged again from what was shown last
        await anyio.sleep(1)
        assert far.lost is None


async def test_other_evidence_is_shown_beside_the_rotations_and_not_in_their_place(corp, acme, virtual_clock):
    """When a link opens, and on a live one."""
    after = rotated(corp)
    clerk = agent(issued("clerk", after), IssuedBy(acme.anchor))
    clerk.replace_evidence(b"a status")
    seller = acme.agent("seller", trust=IssuedBy(corp.anchor))
    async with link_pair(clerk, seller) as (link, far):
        assert far.peer.presented.evidence == (*after.evidence, b"a status")
        clerk.replace_evidence(b"a newer one")
        await link.ping()
        await anyio.sleep(1)
        assert far.peer.presented.evidence == (*after.evidence, b"a newer one")
        assert far.lost is link.lost is None
    with pytest.raises(UsageError, match="at most 8 items"):
        clerk.replace_evidence(*[b"status"] * limits.EVIDENCE)


async def test_a_live_link_that_is_shown_the_chain_without_the_way_ends(
    corp, acme, virtual_clock, monkeypatch
):
    request = CredentialRequest.new("clerk")
    clerk = agent(issued("clerk", corp, request=request), IssuedBy(acme.anchor))
    seller = acme.agent("seller", trust=IssuedBy(corp.anchor))
    renewed = issued("clerk", rotated(corp), request=request)
    renewed.evidence = ()
    async with link_pair(clerk, seller) as (link, far):
        clerk.replace_credential(renewed)
        await link.closed()
        assert (far.lost.by, far.lost.reason) == ("us", Reason.IMPOSTOR)
        assert (link.lost.by, link.lost.reason) == ("peer", Reason.UNTRUSTED)


async def test_who_does_not_show_the_way_is_refused(corp, acme, hostile):
    """Or shows another's; what is wrong with it is our policy's business, so the wire says `untrusted`."""
    seller = acme.agent("seller", trust=IssuedBy(corp.anchor))
    after = rotated(corp)
    for evidence in ([], list(rotated(Credential.self_issued("corp")).evidence), [b"unknown"]):
        async with hostile(seller, credential=issued("clerk", after)) as peer:
            await peer.greet(evidence=evidence)
            assert await peer.refused() == "untrusted"
    assert seller.statistics().refused == {Reason.IMPOSTOR: 3}


# --- resumption --------------------------------------------------------------------------------------------


class Watching(Model):
    """Believes every bound path, and keeps how it was shown."""

    def __init__(self):
        self.asked = []

    async def verify(self, presented, context):
        self.asked.append((presented.bound, len(presented.chain), presented.evidence))
        return await SelfCertified().verify(presented, context)


async def test_rule_2_a_resumed_link_shows_the_rotations_again(corp, virtual_clock):
    """Both sides are rotated, and each judges the other from what this link has shown."""
    network, after = Network(), rotated(corp, 2)
    models = Watching(), Watching()
    listening, dialing = (agent(issued(str(place), after), models[place]) for place in range(2))
    network.join(dialing)
    async with network.listening(listening) as listener:
        for resumed in (False, True, True):
            for one in (listening, dialing):
                one.verdicts.clear()
            async with dialing.connect(listener.contact) as link:
                assert await link.call("echo", 1) == 1
                assert link.tls.resumed is resumed
    for model in models:
        assert model.asked == [(True, 2, after.evidence)] * 3


@pytest.mark.parametrize("silent", ["listening", "dialing"])
async def test_rule_2_a_resumed_link_without_them_is_refused(corp, virtual_clock, silent):
    network, after = Network(), rotated(corp)
    parties = {name: agent(issued(name, after), SelfCertified()) for name in ("listening", "dialing")}
    network.join(parties["dialing"])
    async with network.listening(parties["listening"]) as listener:
        async with parties["dialing"].connect(listener.contact):
            pass
        parties[silent].credential.evidence = ()
        with pytest.raises(Refused):
            async with parties["dialing"].connect(listener.contact) as link:
                pytest.fail(f"must not open: {link.tls}")
    (other,) = parties.keys() - {silent}
    assert parties[other].statistics().refused == {Reason.IMPOSTOR: 1}


# --- before we show ourselves ------------------------------------------------------------------------------


@pytest.mark.parametrize("shows", ["nothing", "junk", "another's way", "the victim's way"])
async def test_rule_9_an_impostor_of_a_bound_name_never_sees_our_certificate(
    corp, acme, shows, virtual_clock
):
    """It names itself as the expected one and may show whatever it likes behind its chain."""
    victim = rotated(corp, 2)
    mine = CredentialRequest.new("x").private_key
    fake = build_self_issued(
        corp.name, mine, kind=EntityKind.ORGANIZATION, next_key_hash=bytes(32), lifetime=None,
        now=corp.leaf.not_before,
    )  # fmt: skip

    class Fake:
        chain, private_key = (fake,), mine
        rotations = {
            "nothing": (), "junk": (acme.credential.leaf,), "the victim's way": victim.rotations,
            "another's way": rotated(Credential.self_issued("corp")).rotations,
        }[shows]  # fmt: skip

    impostor = agent(Credential.self_issued("other"), SelfCertified())
    impostor._server_context = server_context(Fake()), impostor.clock()
    buyer = acme.agent("buyer", trust=SelfCertified())
    network = Network()
    network.join(buyer)
    async with network.listening(impostor):
        with pytest.raises(Refused) as refused:
            async with buyer.connect("host:1", expect=corp.peer_id):
                pytest.fail("must not open")
    assert (refused.value.by, refused.value.reason) == ("us", Reason.WRONG_PEER)
    assert impostor.statistics().refused == {}  # it was told before it had anything to judge


async def test_what_else_a_listener_shows_behind_its_root_is_refused(corp, acme, virtual_clock):
    """Junk around somebody's chain would be another chain to whoever remembers it."""
    junk = acme.credential.leaf
    seller = agent(issued("seller", corp), SelfCertified())
    buyer = acme.agent("buyer", trust=SelfCertified())

    class Shows:
        chain, private_key, rotations = seller.credential.chain, seller.credential.private_key, (junk,)

    seller._server_context = server_context(Shows()), seller.clock()
    for said in ((), (encode_rotations([corp.leaf]),)):
        seller.credential.evidence = said
        with pytest.raises(Refused) as refused:
            async with link_pair(buyer, seller):
                pytest.fail("must not open")
        assert (refused.value.by, refused.value.reason) == ("us", Reason.MALFORMED)
    seller.credential.evidence = (encode_rotations([junk]),)  # says the same in HELLO: it is passed over
    async with link_pair(buyer, seller) as (link, _):
        assert [certificate.der for certificate in link.peer.chain] == [
            one.der for one in seller.credential.chain
        ]


# --- envelopes ---------------------------------------------------------------------------------------------


async def test_an_envelope_of_a_rotated_author_is_verified_by_itself(corp, acme, virtual_clock):
    """Signed for no link, forwarded, or taken out of a link's batch: the way to its key is in it."""
    after = rotated(corp, 2)
    reader = acme.agent("reader", trust=IssuedBy(corp.anchor) | SelfCertified())
    for credential in (after, issued("clerk", after)):
        author = agent(credential, SelfCertified())
        envelopes = [author.sign(reader.auto_id, "note", "text")]
        async with link_pair(reader, author) as (link, _):
            envelopes.append((await link.call_signed("echo", 1)).envelope())
        async with link_pair(author, reader) as (_, far):
            envelopes.append((await far.call_signed("echo", 1)).envelope())
        for envelope in envelopes:
            again = Envelope.from_untrusted(envelope.to_bytes())
            assert again.evidence == after.evidence
            assert (await reader.verify(again)).author.peer_id == credential.peer_id


async def test_an_envelope_without_the_way_is_an_impostors(corp, acme, virtual_clock):
    author = agent(rotated(corp), SelfCertified())
    reader = acme.agent("reader", trust=SelfCertified())
    signed = author.sign(reader.auto_id, "note", "text")
    for evidence in ((), (b"unknown",), rotated(Credential.self_issued("corp")).evidence):
        with pytest.raises(EnvelopeRefused) as refused:
            await reader.verify(replace(signed, evidence=evidence))
        assert refused.value.reason is Reason.IMPOSTOR
    assert (await reader.verify(signed)).author.peer_id == corp.peer_id


def test_an_agent_is_made_again_from_what_its_issuer_answered(corp):
    """One list in one file, and nobody has to know that there was a rotation."""
    request = CredentialRequest.new("clerk")
    answer = dump_chain(rotated(corp).issue(request, kind=EntityKind.AGENT))
    assert request.complete(load_chain(answer)).peer_id.authority == "bound"
