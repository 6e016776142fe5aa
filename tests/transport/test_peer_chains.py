"""Rule 9: what no trust model could want is refused during the handshake; all else is left to judgement."""

import ast
from pathlib import Path

import anyio
import anyio.to_thread
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import crypto

import autolink
from autolink import limits
from autolink.errors import Reason, Refused
from autolink.transport import client_context, secure_stream, server_context

pytestmark = pytest.mark.anyio


def der(identity) -> tuple[bytes, ...]:
    return tuple(issued.x509.public_bytes(Encoding.DER) for issued in identity.chain)


WEAK = {
    "rsa-1024": lambda: rsa.generate_private_key(65537, 1024),  # noqa: S505
    "p-384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "p-521": lambda: ec.generate_private_key(ec.SECP521R1()),
    "brainpool": lambda: ec.generate_private_key(ec.BrainpoolP256R1()),
    "ed448": ed448.Ed448PrivateKey.generate,
}


@pytest.mark.parametrize("kind", WEAK)
@pytest.mark.parametrize("side", ["dialler", "listener"])
async def test_rule_9_a_key_off_the_list_is_refused_with_an_alert(kind, side, me, make):
    """With plain "accept in the callback" all but the first would finish the handshake."""
    weak = make.lax_context(make.Identity(make.issue("weak", key=WEAK[kind]())))
    if side == "dialler":
        refused, judge = await make.handshake(*make.sockets(), weak, server_context(me))
        assert isinstance(judge, Refused)
        with pytest.raises(Refused, match="refused us"):  # a dialler learns it when it reads
            await refused.receive()
        await refused.abort()
    else:
        judge, refused = await make.handshake(*make.sockets(), client_context(me), weak)
        assert isinstance(judge, Refused)
        assert isinstance(refused, Refused)
        assert (refused.by, refused.reason) == ("peer", Reason.UNTRUSTED)
    assert (judge.by, judge.reason) == ("us", Reason.MALFORMED)
    assert "certificate 0 of the chain" in judge.detail


@pytest.mark.parametrize("digest", [hashes.SHA224(), hashes.SHA3_256()])
async def test_rule_9_a_signature_algorithm_off_the_list_is_refused(digest, me, make):
    weak = make.lax_context(make.Identity(make.issue("weak", digest=digest)))
    _, judge = await make.handshake(*make.sockets(), client_context(me), weak)
    judge, _ = await make.handshake(*make.sockets(), client_context(me), weak)
    assert isinstance(judge, Refused)
    assert judge.reason is Reason.MALFORMED
    assert "algorithm" in judge.detail


@pytest.mark.parametrize("side", ["dialler", "listener"])
async def test_rule_9_a_certificate_that_openssl_reads_and_we_do_not_is_malformed(side, me, make):
    """Here one of version 18: the peer's fault, and no `internal` of ours."""
    good = make.issue("odd")
    tbs = good.x509.tbs_certificate_bytes.replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x12", 1)
    signature = good.key.sign(tbs, ec.ECDSA(hashes.SHA256()))
    algorithm = bytes.fromhex("300a06082a8648ce3d040302")
    content = tbs + algorithm + bytes((3, len(signature) + 1, 0)) + signature
    odd = crypto.load_certificate(crypto.FILETYPE_ASN1, b"\x30\x82" + len(content).to_bytes(2) + content)
    lax = make.lax_context(make.Identity(good))
    # pyOpenSSL would rather have the certificate of `cryptography`, which cannot read this one.
    with pytest.warns(DeprecationWarning, match="X509"):
        lax.use_certificate(odd)
    pair = (lax, server_context(me)) if side == "dialler" else (client_context(me), lax)
    ends = await make.handshake(*make.sockets(), *pair)
    judge, other = ends[side == "dialler"], ends[side == "listener"]
    if side == "dialler":  # its handshake is over before it is judged
        await other.abort()
    assert isinstance(judge, Refused)
    assert (judge.by, judge.reason) == ("us", Reason.MALFORMED)


async def test_rule_9_a_weak_key_higher_in_the_chain_is_refused_too(me, make):
    root = make.issue("root", key=WEAK["p-521"]())
    weak = make.lax_context(make.Identity(make.issue("leaf", root, ca=False), root))
    judge, _ = await make.handshake(*make.sockets(), client_context(me), weak)
    assert isinstance(judge, Refused)
    assert "certificate 1 of the chain" in judge.detail


@pytest.mark.parametrize("length", [limits.CHAIN, limits.CHAIN + 1, 100])
@pytest.mark.parametrize("in_path", [True, False])
async def test_rule_9_a_chain_that_is_too_long_is_refused_on_both_sides(length, in_path, me, make):
    """Certificates in excess that are in no path make the chain too long just as well."""
    if in_path:
        chain = make.path(length)
    else:
        leaf = make.path(2).chain[0]
        chain = make.Identity(*[leaf] * length)
    long = make.lax_context(chain)
    judge, other = await make.handshake(*make.sockets(), client_context(me), long)
    late, judge_too = await make.handshake(*make.sockets(), long, server_context(me))
    if length <= limits.CHAIN:
        for stream in (judge, other, late, judge_too):
            await stream.abort()
        return
    assert isinstance(judge, Refused)
    assert isinstance(judge_too, Refused)
    assert judge.reason is judge_too.reason is Reason.MALFORMED
    assert f"it shows {length} certificates" in judge.detail
    await late.abort()


@pytest.mark.parametrize(
    ("behind", "allowed"),
    [(limits.ROTATIONS, True), (limits.ROTATIONS + 3, False), (100, False)],
)
async def test_behind_its_root_a_listener_may_show_as_many_as_lead_to_a_rotated_key(
    behind, allowed, me, make
):
    """What they are is for whoever judges. A dialler has HELLO to show them in: of it they are in excess."""
    *chain, root = make.path(limits.CHAIN).chain
    long = make.lax_context(make.Identity(*chain, root, *[root] * behind))
    judge, other = await make.handshake(*make.sockets(), client_context(me), long)
    if allowed:
        assert len(judge.peer_chain) == limits.CHAIN + behind
        await judge.abort()
        await other.abort()
    else:
        assert isinstance(judge, Refused)
        assert judge.reason is Reason.MALFORMED
    late, judge_too = await make.handshake(*make.sockets(), long, server_context(me))
    assert isinstance(judge_too, Refused)
    assert judge_too.reason is Reason.MALFORMED
    await late.abort()


async def test_a_rotated_listener_shows_its_roots_earlier_certificates_behind_its_chain(me, make):
    rotated = make.Identity(*make.path(2).chain)
    rotated.rotations = make.issue("first"), make.issue("second")
    dialler, listener = await make.handshake(*make.sockets(), client_context(me), server_context(rotated))
    assert dialler.peer_chain == (*der(rotated), *der(make.Identity(*reversed(rotated.rotations))))
    await dialler.abort()
    await listener.abort()


@pytest.mark.parametrize("days", [(-30, -1), (1, 30)])
async def test_rule_9_validity_times_and_unknown_issuers_are_left_to_judgement(days, me, make):
    """A trust model judges them with the caller's clock; here no clock is read that a test could not set."""
    other = make.Identity(make.issue("odd", days=days))
    dialler, listener = await make.handshake(*make.sockets(), client_context(other), server_context(me))
    assert listener.peer_chain == der(other)
    await dialler.abort()
    await listener.abort()


async def test_rule_9_a_chain_that_ends_below_its_root_is_left_to_judgement(me, make):
    leaf, middle, _ = make.path(3).chain
    for cut in ((leaf,), (leaf, middle)):
        other = make.Identity(*cut)
        dialler, listener = await make.handshake(*make.sockets(), client_context(other), server_context(me))
        assert listener.peer_chain == der(other)
        await dialler.abort()
        await listener.abort()


async def test_rule_9_an_issuer_that_is_no_authority_is_refused(me, make):
    root = make.issue("root", ca=False)
    other = make.Identity(make.issue("leaf", root, ca=False), root)
    judge, _ = await make.handshake(*make.sockets(), client_context(me), server_context(other))
    assert isinstance(judge, Refused)
    assert judge.reason is Reason.MALFORMED


async def test_rule_9_a_forged_signature_in_the_chain_is_refused(me, make):
    """The leaf names a root that never signed it."""
    root, namesake = make.issue("root"), make.issue("root")
    other = make.Identity(make.issue("leaf", namesake, ca=False), root)
    judge, _ = await make.handshake(*make.sockets(), client_context(me), server_context(other))
    assert isinstance(judge, Refused)
    assert (judge.by, judge.reason) == ("us", Reason.MALFORMED)


async def test_rule_9_a_peer_that_does_not_hold_the_key_is_refused(me, make, rogue):
    """The chain is a victim's, CertificateVerify is made with another key."""
    a, b = make.sockets()
    thief = make.Identity(*me.chain)
    thief.private_key = ec.generate_private_key(ec.SECP256R1())
    bad = rogue(a)

    def dial() -> None:
        with pytest.raises(bad.api.TLSRemoteAlert):
            bad.dial_and_read(thief)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(anyio.to_thread.run_sync, dial)
        with pytest.raises(Refused, match="does not hold the key") as refusal:
            await secure_stream(b, server_context(me), dialer=False)
    assert refusal.value.reason is Reason.IMPOSTOR


async def test_rule_9_a_dialler_without_a_certificate_is_refused(me, make, rogue):
    a, b = make.sockets()
    bad = rogue(a)

    def dial() -> None:
        with pytest.raises(bad.api.TLSRemoteAlert) as alert:
            bad.dial_and_read(None)
        assert alert.value.description == 116  # certificate_required

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(anyio.to_thread.run_sync, dial)
        with pytest.raises(Refused, match="shows no certificate"):
            await secure_stream(b, server_context(me), dialer=False)


async def test_rule_9_an_impostor_never_sees_our_certificate(me, make):
    """`expect` is asked before ours is sent: the impostor's own callback is never called."""
    seen: list[int] = []
    impostor = make.issue("impostor")
    asked = []

    def expect(chain: tuple[bytes, ...]) -> str:
        asked.append(chain)
        return "the leaf is not the one that was expected"

    context = make.lax_context(make.Identity(impostor), seen=seen)
    judge, other = await make.handshake(*make.sockets(), client_context(me), context, expect=expect)
    assert isinstance(judge, Refused)
    assert (judge.by, judge.reason) == ("us", Reason.WRONG_PEER)
    assert judge.detail == "the leaf is not the one that was expected"
    assert isinstance(other, Refused)
    assert other.by == "peer"
    assert asked == [der(make.Identity(impostor))]
    assert seen == []


async def test_an_expectation_that_fails_is_a_refusal_and_not_an_acceptance(me, make, transports):
    def expect(_chain: tuple[bytes, ...]) -> None:
        raise ZeroDivisionError

    judge, _ = await make.handshake(*transports(), client_context(me), server_context(me), expect=expect)
    assert isinstance(judge, Refused)
    assert (judge.by, judge.reason) == ("us", Reason.INTERNAL)
    assert "ZeroDivisionError" in judge.detail


async def test_an_expectation_that_is_met_lets_the_handshake_pass(me, make, transports):
    dialler, listener = await make.handshake(
        *transports(), client_context(me), server_context(me), expect=lambda chain: None
    )
    await dialler.abort()
    await listener.abort()


def test_rule_9_get_verified_chain_is_banned():
    """It calls chains verified that nobody has verified."""
    for path in Path(autolink.__file__).parent.joinpath("transport").rglob("*.py"):
        names = {
            node.attr for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)
        }
        assert not names & {"get_verified_chain", "SSL_get0_verified_chain"}, path
