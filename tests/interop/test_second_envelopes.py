"""Envelopes of one implementation opened by the other, and the vectors by the second one too (see second.py)."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from autolink import (
    AutoId,
    Call,
    Envelope,
)
from autolink.messages import verify
from autolink.trust import IssuedBy
from tests.interop import second_formats as formats
from tests.interop.loopback import (
    GLOBEX,
    GLOBEX_ROOT,
    ME,
    ROOT,
    dial,
    listening,
    make_agent,
    second_is_trusted,
)
from tests.interop.second_formats import CALL, FORWARD, REPLY

VECTORS = Path(__file__).parents[1] / "vectors" / "spec"


# Envelopes


def sign_alone(party, leaf):
    """An Envelope that is signed for no link."""
    signature = formats.sign(party, formats.NO_LINK, b"e", 0, 1, formats.root_of([leaf]))
    return formats.make_envelope(party.der, [leaf], 0, formats.NO_LINK, b"e", 0, signature)


async def test_an_envelope_of_either_side_is_verified_by_the_other_offline():
    """Signed for no link."""
    agent, at = make_agent(), datetime.now(UTC)
    envelope = agent.sign(AutoId(ME.id), "order", "tea").to_bytes()
    message = formats.open_envelope(envelope, GLOBEX_ROOT, formats.now(), ME.id)
    assert (message.kind, message.method, message.value) == (CALL, "order", "tea")
    with pytest.raises(formats.Refused, match="tampered"):
        formats.open_envelope(envelope.replace(b"order", b"older"), GLOBEX_ROOT, formats.now())

    leaf = formats.new_message(ME.id, agent.auto_id.value, CALL, method="order", value="tea").leaf()
    verified = await verify(Envelope.from_untrusted(sign_alone(ME, leaf)), trust=second_is_trusted(), at=at)
    assert (verified.author.name, verified.message.value) == ("peer", "tea")


async def test_what_was_said_on_a_link_is_proved_to_others_by_either_side(handlers):
    kept = []

    @handlers.method
    async def keep(call: Call, value: str) -> str:
        kept.append(call.envelope().to_bytes())
        return "kept"

    def talk(link):
        message, proof = link.receive(link.begin(CALL, "keep", "tea")[1], proof=True)
        der = [each.public_bytes(Encoding.DER) for each in link.chain]
        return message, formats.make_envelope(der, *proof)

    agent = make_agent(handlers)
    async with listening(agent) as port:
        message, envelope = await dial(port, talk)
    asked = formats.open_envelope(kept[0], ROOT.chain[0], formats.now(), agent.auto_id.value)
    assert (asked.author, asked.value) == (ME.id, "tea")
    verified = await verify(
        Envelope.from_untrusted(envelope), trust=IssuedBy(GLOBEX.anchor), at=datetime.now(UTC)
    )
    assert (verified.author.auto_id, verified.message.value, message.value) == (agent.auto_id, "kept", "kept")


async def test_a_forwarded_envelope_is_acted_on_once_and_answered_by_one(handlers):
    """The reply names the question; a repetition, and what was said on a link, are refused as `replayed`."""
    agent = make_agent(handlers)
    question = formats.new_message(ME.id, agent.auto_id.value, CALL, method="order", value="tea")
    envelope = sign_alone(ME, question.leaf())

    def refusal(link, body):
        _, lane = link.begin(FORWARD, "", body)
        while not lane.events:
            link.pump()
        return lane.events[0][0].value

    def talk(link):
        _, lane = link.begin(FORWARD, "", envelope)
        reply = formats.open_envelope(link.receive(lane), GLOBEX_ROOT, formats.now(), ME.id)
        assert (reply.kind, reply.value) == (REPLY, "peer ordered tea")
        assert reply.headers == {"in-reply-to": question.id.hex()}
        leaf = question._replace(id=bytes(16)).leaf()
        signature = formats.sign(ME, link.id, b"d", 9, 1, formats.root_of([leaf]))
        on_a_link = formats.make_envelope(ME.der, [leaf], 0, link.id, b"d", 9, signature)
        elsewhere = sign_alone(ME, question._replace(recipient=bytes(32)).leaf())
        for body, reason in ((envelope, "replayed"), (on_a_link, "replayed"), (elsewhere, "wrong_recipient")):
            code, _, said = refusal(link, body)
            assert (code, said) == ("permission_denied", reason)
        assert refusal(link, b"\xc1")[::2] == ["permission_denied", "malformed"]
        assert refusal(link, None)[0] == "invalid_argument"

    async with listening(agent) as port:
        await dial(port, talk)


# The vectors, by the second side too


def outcome(subject, given):
    if subject == "value":
        formats.decode(bytes.fromhex(given["bytes"]))
    elif subject == "message":
        assert formats.message_of(bytes.fromhex(given["leaf"])).leaf().hex() == given["leaf"]
    elif subject == "merkle":
        leaves = [bytes.fromhex(leaf) for leaf in given["leaves"]]
        paths = [formats.path_of(leaves, index) for index in range(len(leaves))]
        assert all(
            formats.root_from(formats.sha(b"\0" + leaf), index, len(leaves), path) == formats.root_of(leaves)
            for index, (leaf, path) in enumerate(zip(leaves, paths, strict=True))
        )
        return {
            "root": formats.root_of(leaves).hex(),
            "paths": [[node.hex() for node in path] for path in paths],
        }
    elif subject == "envelope":
        root = x509.load_der_x509_certificate(bytes.fromhex(given["trust"]["issued_by"]))
        recipient = given["recipient"]
        if recipient and not recipient.startswith("topic:"):
            recipient = bytes.fromhex(recipient)
        message = formats.open_envelope(bytes.fromhex(given["envelope"]), root, given["at"], recipient)
        return {"author": message.author.hex(), "leaf_hash": formats.sha(b"\0" + message.leaf()).hex()}
    return None


def vectors():
    """All of four subjects, but for what a profile or a key says that the second side does not know."""
    for subject in ("value", "message", "merkle", "envelope"):
        for file in sorted((VECTORS / subject).glob("*.json")):
            scenario = json.loads(file.read_text())
            beyond = file.stem.startswith("chain-") or "issued_by" not in scenario["input"].get(
                "trust", {"issued_by": 0}
            )
            if not beyond and file.stem not in NOT_P256:
                yield pytest.param(subject, scenario, id=f"{subject}/{file.stem}")


NOT_P256 = {"ed25519"}


@pytest.mark.parametrize(("subject", "scenario"), list(vectors()))
def test_the_vectors_hold_for_the_second_side_too(subject, scenario):
    """The same results, and the same classes of failure."""
    if "refuse" in scenario:
        with pytest.raises(formats.Refused) as refused:
            outcome(subject, scenario["input"])
        assert refused.value.args[0] == scenario["refuse"]
    else:
        assert outcome(subject, scenario["input"]) in (None, scenario["expect"])
