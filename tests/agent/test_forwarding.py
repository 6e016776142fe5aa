"""Messages that somebody else carries: the author is judged, not the carrier, and each is acted on once."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from autolink import (
    Agent,
    CallError,
    Code,
    Credential,
    CredentialRequest,
    EntityKind,
    EnvelopeRefused,
    Handlers,
    Reason,
    UsageError,
    codec,
    limits,
)
from autolink.identity.keystore import Keystore
from autolink.messages import Kind
from autolink.testing import Authority, Network, link_pair
from autolink.trust import IssuedBy, Pinned

pytestmark = pytest.mark.anyio


@pytest.fixture
def three(acme, globex):
    """(echo of acme, carrier of globex, author of globex): echo believes both, and serves `say` to forwarded messages."""
    echo = acme.agent("echo", trust=IssuedBy(globex.anchor))
    echo.seen = []

    @echo.method("say", forwarded=True)
    async def say(call, body: str) -> str:
        echo.seen.append((call.author.name, call.peer.name, body))
        return body.upper()

    @echo.method
    async def private(call, body) -> str:
        pytest.fail("must not run")

    carrier = globex.agent("carrier", trust=IssuedBy(acme.anchor))
    author = globex.agent("author", trust=IssuedBy(acme.anchor))
    return echo, carrier, author


async def refused(link, envelope):
    with pytest.raises(EnvelopeRefused) as error:
        await link.forward(envelope)
    assert error.value.by == "peer"
    return error.value.reason


async def test_rule_29_the_author_is_not_the_peer_and_the_answer_is_signed_for_the_author(three):
    echo, carrier, author = three
    async with link_pair(carrier, echo) as (link, _):
        answer = await link.forward(author.sign(echo.auto_id, "say", "hello"))
    assert echo.seen == [("author", "carrier", "hello")]
    verified = await author.verify(answer)
    assert (verified.author.name, verified.message.kind, verified.message.value) == (
        "echo",
        Kind.REPLY,
        "HELLO",
    )


async def test_rule_29_handlers_must_opt_in(three):
    echo, carrier, author = three
    async with link_pair(carrier, echo) as (link, _):
        for method in ("private", "nothing"):
            with pytest.raises(CallError) as error:
                await link.forward(author.sign(echo.auto_id, method))
            assert error.value.code is Code.UNIMPLEMENTED


async def test_rule_29_the_author_is_judged_by_the_recipients_own_trust(three, acme):
    """A peer that is believed carries the message of somebody who is not."""
    echo, carrier, _ = three
    stranger = acme.agent("stranger")
    async with link_pair(carrier, echo) as (link, _):
        assert await refused(link, stranger.sign(echo.auto_id, "say", "x")) is Reason.UNTRUSTED
    assert echo.statistics().refused == {Reason.UNKNOWN_ISSUER: 1}
    assert echo.seen == []


async def test_tampered_misaddressed_replayed_and_foreign_envelopes_are_refused_by_name(three):
    """Each one counted by the agent that refused it, and told to the carrier."""
    echo, carrier, author = three
    good = author.sign(echo.auto_id, "say", "hello")
    async with link_pair(carrier, echo) as (link, _):
        await link.forward(good)
        assert await refused(link, good) is Reason.REPLAYED
        tampered = replace(good, leaf=good.leaf.replace(b"hello", b"jello"))
        assert await refused(link, tampered) is Reason.TAMPERED
        assert await refused(link, author.sign(carrier.auto_id, "say", "x")) is Reason.WRONG_RECIPIENT
        theirs = replace(
            author.sign(echo.auto_id, "say", "x"), chain=carrier.sign(echo.auto_id, "say", "x").chain
        )
        assert await refused(link, theirs) is Reason.UNTRUSTED
    assert echo.statistics().refused == {
        Reason.REPLAYED: 1, Reason.TAMPERED: 1, Reason.WRONG_RECIPIENT: 1, Reason.IMPOSTOR: 1,
    }  # fmt: skip
    assert len(echo.seen) == 1


async def test_our_own_envelope_that_comes_back_is_refused(three):
    echo, carrier, _ = three
    async with link_pair(carrier, echo) as (link, _):
        assert await refused(link, echo.sign(echo.auto_id, "say", "x")) is Reason.UNTRUSTED
    assert echo.statistics().refused == {Reason.SELF: 1}


@pytest.mark.parametrize(("age", "reason"), [(300, Reason.LATE), (-300, Reason.NOT_YET_VALID)])
async def test_late_and_future_envelopes_are_refused(three, globex, age, reason):
    echo, carrier, _ = three
    author = globex.agent(
        "author", trust=carrier.trust, clock=lambda: datetime.now(UTC) - timedelta(seconds=age)
    )
    envelope = author.sign(echo.auto_id, "say", "x", lifetime=100)
    async with link_pair(carrier, echo) as (link, _):
        assert await refused(link, envelope) is reason


async def test_a_lifetime_is_bounded(three):
    echo, _, author = three
    for lifetime in (0, -1, limits.ENVELOPE_LIFETIME + 1):
        with pytest.raises(UsageError):
            author.sign(echo.auto_id, "say", lifetime=lifetime)


async def test_a_message_said_on_a_link_cannot_be_acted_on_again_by_forwarding_it(three):
    """Its proof may be shown to anybody; the author signed it for that link and not to be forwarded."""
    echo, carrier, author = three
    kept = []

    @echo.method("pay", forwarded=True)
    async def pay(call, body) -> None:
        kept.append(call.envelope())

    async with link_pair(author, echo) as (link, _):
        await link.call("pay", 5)
    async with link_pair(carrier, echo) as (link, _):
        assert await refused(link, kept[0]) is Reason.REPLAYED
    assert len(kept) == 1


async def test_a_forwarder_passes_on_what_is_addressed_to_others_unchanged(three, globex, acme):
    """carrier → relay → echo: the relay neither judges nor touches it, and the answer comes all the way back."""
    echo, carrier, author = three
    relay = globex.agent("relay", trust=IssuedBy(globex.anchor, acme.anchor))
    passed = []
    async with link_pair(relay, echo) as (onward, _):

        @relay.forwarder
        async def carry(call, envelope):
            passed.append((call.peer.name, envelope.to_bytes()))
            return await onward.forward(envelope)

        carrier.trust = IssuedBy(globex.anchor)
        envelope = author.sign(echo.auto_id, "say", "hi")
        async with link_pair(carrier, relay) as (link, _):
            answer = await link.forward(envelope)
            assert (await author.verify(answer)).message.value == "HI"
            assert await refused(link, envelope) is Reason.REPLAYED
    assert passed[0] == ("carrier", envelope.to_bytes())
    assert echo.seen == [("author", "relay", "hi")]
    assert relay.statistics().refused == {}
    assert relay.statistics().refused_by_peer == {Reason.REPLAYED: 1}


async def test_rule_28_a_captured_envelope_at_another_worker_and_after_a_restart(three, tmp_path, globex):
    """Two processes of one agent share the memory in its folder, and it outlives both."""
    echo, carrier, author = three
    home = tmp_path
    credential = echo.credential  # its folder is what a keystore would give; here it is set by hand
    folder = home / "echo"
    folder.mkdir(mode=0o700)
    workers = []
    for _ in range(3):
        worker = Agent(credential, trust=echo.trust, handlers=echo.handlers)
        worker.credential = Credential(
            credential.chain, credential.private_key, folder=folder, made_here=credential.made_here
        )
        workers.append(worker)
    envelope = author.sign(echo.auto_id, "say", "once")
    async with link_pair(carrier, workers[0]) as (link, _):
        await link.forward(envelope)
    async with link_pair(carrier, workers[1]) as (link, _):
        assert await refused(link, envelope) is Reason.REPLAYED
    del workers[:2]
    async with link_pair(carrier, workers[0]) as (link, _):
        assert await refused(link, envelope) is Reason.REPLAYED
    assert len(echo.seen) == 1


async def test_rule_28_processes_that_are_forked_share_a_memory_although_the_credential_has_no_folder(
    three, tmp_path
):
    """Each of them opens the file that was made before; one that must make it anew knows that something was lost."""
    echo, carrier, author = three
    forked = [Agent(echo.credential, trust=echo.trust, handlers=echo.handlers) for _ in range(3)]
    for agent in forked:
        agent.share_replay(tmp_path)
    envelope = author.sign(echo.auto_id, "say", "once")
    async with link_pair(carrier, forked[0]) as (link, _):
        await link.forward(envelope)
        assert await refused(link, envelope) is Reason.REPLAYED
    async with link_pair(carrier, forked[1]) as (link, _):
        assert await refused(link, envelope) is Reason.REPLAYED
    for file in tmp_path.glob("replay.db*"):
        file.unlink()
    async with link_pair(carrier, forked[2]) as (link, _):
        assert await refused(link, author.sign(echo.auto_id, "say", "another")) is Reason.LATE
    assert len(echo.seen) == 1


async def test_rule_28_a_memory_that_was_lost_refuses_what_was_signed_before_it(three, globex):
    """A credential from elsewhere, without a folder: it may have taken the message in an earlier life."""
    echo, _, author = three
    initech = Authority("initech")
    credential = initech.issue("echo")
    carrier = globex.agent("carrier", trust=IssuedBy(initech.anchor))
    envelope = author.sign(credential.auto_id, "say", "old")
    pem = Credential.from_key(credential.chain, credential.private_key)
    again = Agent(pem, trust=echo.trust, handlers=echo.handlers)
    async with link_pair(carrier, again) as (link, _):
        assert await refused(link, envelope) is Reason.LATE


async def test_rule_28_an_agent_that_is_made_again_takes_no_message_twice(three, acme):
    """In one process, without a folder: with the same credential, and with a renewed one of the same Auto ID."""
    echo, carrier, author = three
    envelope = author.sign(echo.auto_id, "say", "once")
    async with link_pair(carrier, echo) as (link, _):
        await link.forward(envelope)
    for credential in (echo.credential, acme.issue("echo")):
        again = Agent(credential, trust=echo.trust, handlers=echo.handlers)
        async with link_pair(carrier, again) as (link, _):
            assert await refused(link, envelope) in (Reason.REPLAYED, Reason.LATE)
    assert len(echo.seen) == 1


async def test_rule_28_a_message_stays_taken_when_its_author_is_believed_for_another_reason(three, globex):
    """A pin gives a plain author another authority, so another PeerId; whoever kept the message must gain nothing."""
    echo, carrier, _ = three
    umbrella = Credential.self_issued("umbrella", plain=True)
    request = CredentialRequest.new("author")
    author = Agent(
        request.complete(umbrella.issue(request, kind=EntityKind.AGENT)), trust=IssuedBy(umbrella.anchor)
    )
    pins = Pinned()
    echo.trust = pins | IssuedBy(umbrella.anchor, globex.anchor)
    envelope = author.sign(echo.auto_id, "say", "once")
    async with link_pair(carrier, echo) as (link, _):
        await link.forward(envelope)
        pins.add(author.credential.leaf)
        assert await refused(link, envelope) is Reason.REPLAYED


@pytest.mark.parametrize("body", [None, b"", b"junk", "text", [1], b"x" * 2000])
async def test_what_is_no_envelope_is_refused(three, body):
    echo, carrier, _ = three
    async with link_pair(carrier, echo, network=Network()) as (link, far):
        with pytest.raises((EnvelopeRefused, CallError)):
            await link._exchange(Kind.FORWARD, "say", codec.encode(body), None)
        assert far.lost is None


async def test_an_envelope_as_large_as_it_may_be_is_carried(three):
    """A body of the full size and its proof fit into a FORWARD message."""
    echo, carrier, author = three
    text = "x" * (limits.MESSAGE - 16)
    async with link_pair(carrier, echo) as (link, _):
        with pytest.raises(CallError) as error:  # its answer of the same size fits too; so does the request
            await link.forward(author.sign(echo.auto_id, "private", text))
        assert error.value.code is Code.UNIMPLEMENTED


def test_handlers_have_one_forwarder():
    handlers = Handlers()

    @handlers.forwarder
    async def carry(call, envelope):
        return None

    assert handlers.forwarding is carry


async def test_a_new_identity_of_a_keystore_takes_forwarded_messages_at_once_and_one_that_lost_its_memory_not(
    acme, globex, tmp_path
):
    """From its creation on nothing can have been forgotten; after its first message only the window knows."""
    store = Keystore(tmp_path, scrypt_n=2)
    store.save_new("echo", acme.issue("echo"), passphrase=None, unencrypted=True)
    author, carrier = globex.agent("author"), globex.agent("carrier", trust=IssuedBy(acme.anchor))
    later = datetime.now(UTC) + timedelta(seconds=limits.SKEW + 1)
    for agent in (author, carrier):
        agent.clock = lambda: later

    async def forward_one() -> None:
        echo = Agent(store.load("echo"), trust=IssuedBy(globex.anchor), clock=lambda: later)

        @echo.method(forwarded=True)
        async def say(call, body):
            return body

        async with link_pair(carrier, echo) as (link, _):
            await link.forward(author.sign(echo.auto_id, "say", "hello"))

    await forward_one()
    await forward_one()
    (store.folder("echo") / "replay.db").unlink()
    with pytest.raises(EnvelopeRefused) as refused:
        await forward_one()
    assert refused.value.reason is Reason.LATE


async def test_an_identity_restored_from_an_image_is_not_taken_for_a_new_one(acme, globex, tmp_path):
    """Its note that it is unused is as old as the image, and comes back with every start."""
    store = Keystore(tmp_path, scrypt_n=2)
    store.save_new("echo", acme.issue("echo"), passphrase=None, unencrypted=True)
    author, carrier = globex.agent("author"), globex.agent("carrier", trust=IssuedBy(acme.anchor))
    later = datetime.now(UTC) + timedelta(seconds=limits.FRESH + 1)
    for agent in (author, carrier):
        agent.clock = lambda: later
    echo = Agent(store.load("echo"), trust=IssuedBy(globex.anchor), clock=lambda: later)
    echo.method("say", forwarded=True)(_say)
    async with link_pair(carrier, echo) as (link, _):
        with pytest.raises(EnvelopeRefused) as refused:
            await link.forward(author.sign(echo.auto_id, "say", "hello"))
    assert refused.value.reason is Reason.LATE


async def _say(call, body):
    return body
