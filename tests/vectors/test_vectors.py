"""Every vector, run against autolink; and the vectors themselves are what their generator writes."""

import ast
import hashlib
import json
import struct
import subprocess
import sys
from collections.abc import Awaitable
from datetime import datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from autolink import codec
from autolink.errors import (
    BadSignature,
    Code,
    EntryRefused,
    EnvelopeRefused,
    IdentityError,
    Reason,
    RemoteProtocolError,
)
from autolink.identity import AutoId, Certificate, CredentialRequest, PeerId, TrustAnchor
from autolink.identity.keys import spki
from autolink.identity.names import check_common_name, make_bound
from autolink.messages import (
    BatchHeader,
    ChunkReader,
    Envelope,
    ReplayWindow,
    decode_untrusted,
    encode,
    instant,
    merkle,
    microseconds,
    verify,
    verify_batch,
)
from autolink.protocol import LinkProtocol
from autolink.protocol.frames import (
    OPENS,
    Frame,
    FrameReader,
    decode_batch_untrusted,
    decode_cancel,
    decode_credit,
    encode_frame,
)
from autolink.protocol.payloads import code_of
from autolink.registry import Registered, VerifierKey
from autolink.trust import IssuedBy, Pinned, SelfCertified
from tests.vectors import registry_runners

HERE = Path(__file__).resolve().parent
SPEC = HERE / "spec"
FILES = sorted(SPEC.glob("*/*.json"))
CLASSES = {
    "malformed", "tampered", "impostor", "wrong_recipient", "late", "not_yet_valid", "expired", "unknown_issuer",
    "not_vouched", "revoked", "certificate", "unauthorised",
}  # fmt: skip
AUTHORS = {"bound acme": "bound", "plain acme": "sha256:" + "00" * 32}


def value(given):
    return {"value": tagged(codec.decode_untrusted(given.hex("bytes"), what="vector"))}


def tagged(item):
    """A value in the vectors' JSON form."""
    match item:
        case bool() | None | str():
            return item
        case int():
            return {"int": str(item)}
        case float():
            return {"float": struct.pack(">d", item).hex()}
        case bytes():
            return {"bytes": item.hex()}
        case datetime():
            return {"time": str(microseconds(item))}
        case list():
            return [tagged(entry) for entry in item]
        case dict():
            return {"map": [[key, tagged(entry)] for key, entry in item.items()]}


def autoid(given):
    ids = AutoId.derive_path(given.take("names"))
    return {"ids": [each.hex for each in ids], "uris": [each.uri for each in ids]}


def bound(given):
    name = make_bound(given.take("label"), given.hex("spki"), given.hex("next_key_hash"))
    return {"name": name, "id": AutoId.derive(name).hex}


def name(given):
    check_common_name(given.take("common_name"), issued=given.take("issued"))
    return {}


def certificate(given):
    parsed = Certificate.parse_untrusted(given.hex("der"))
    return {
        "common_name": parsed.common_name,
        "auto_id": parsed.auto_id.hex,
        "kind": parsed.kind.value,
        "next_key_hash": parsed.next_key_hash.hex() if parsed.next_key_hash else None,
        "recovered_in": parsed.recovered_in.hex() if parsed.recovered_in else None,
        "fingerprint": parsed.fingerprint.hex(),
        "spki_sha256": parsed.spki_sha256.hex(),
    }


def request(given):
    parsed = CredentialRequest.from_pem(x509.load_der_x509_csr(given.hex("der")).public_bytes(Encoding.PEM))
    return {"name": parsed.name, "spki": spki(parsed.public_key).hex()}


def merkle_tree(given):
    hashes = [merkle.leaf_hash(bytes.fromhex(leaf)) for leaf in given.take("leaves")]
    return {
        "root": merkle.root(hashes).hex(),
        "paths": [[node.hex() for node in merkle.path(hashes, index)] for index in range(len(hashes))],
    }


def message(given):
    leaf = given.hex("leaf")
    parsed = decode_untrusted(leaf)
    assert encode(parsed) == leaf
    fields = parsed._asdict()
    for field in ("author", "recipient"):
        fields[field] = str(fields[field])
    for field in ("id", "body"):
        fields[field] = fields[field].hex()
    return {"fields": fields, "leaf_hash": merkle.leaf_hash(leaf).hex()}


def batch(given):
    signer = Certificate.parse_untrusted(given.hex("certificate"))
    hashes = [merkle.leaf_hash(bytes.fromhex(leaf)) for leaf in given.take("leaves")]
    header = BatchHeader(
        signer.fingerprint, given.hex("link"), given.take("role").encode(), given.take("number"), len(hashes)
    )
    signature = bytes.fromhex(given.expected["signature"])
    verify_batch(signer, header, merkle.root(hashes), signature)
    return {"preimage": header.preimage(merkle.root(hashes)).hex(), "signature": signature.hex()}


def parsed_root(der):
    return Certificate.parse_untrusted(bytes.fromhex(der))


TRUST = {
    "issued_by": lambda root: IssuedBy(TrustAnchor((parsed_root(root),))),
    "self_certified": lambda _: SelfCertified(),
    "pinned": lambda der: Pinned(parsed_root(der)),
    "registered": lambda log: Registered(VerifierKey(log["origin"], bytes.fromhex(log["key"]))),
}


async def envelope(given):
    [(model, argument)] = given.take("trust").items()
    trust = TRUST[model](argument)
    at, recipient = instant(given.take("at")), given.take("recipient")
    if recipient is not None and not recipient.startswith("topic:"):
        recipient = AutoId.parse(recipient)
    parsed = Envelope.from_untrusted(given.hex("envelope"))
    assert Envelope.from_untrusted(parsed.to_bytes()) == parsed
    verified = await verify(parsed, trust=trust, at=at, recipient=recipient)
    assert verified.message.author == verified.author.auto_id
    return {"author": verified.author.auto_id.hex, "leaf_hash": merkle.leaf_hash(parsed.leaf).hex()}


def stream(given):
    reader, chunks = ChunkReader(), given.take("chunks")
    *parts, last = [reader.receive(bytes.fromhex(body), bytes.fromhex(data)) for body, data in chunks]
    assert last is None
    assert reader.complete
    return {"sha256": hashlib.sha256(b"".join(parts)).hexdigest()}


def replay(given):
    with ReplayWindow(
        None, started=instant(given.take("started")), capacity=given.take("capacity")
    ) as window:
        for number, step in enumerate(given.take("steps")):
            author = PeerId(AutoId.derive("acme"), AUTHORS[step.pop("author")])
            wanted = step.pop("gets")
            try:
                window.admit(author, bytes.fromhex(step.pop("id")), **step)
                gets = "taken"
            except EnvelopeRefused as refused:
                gets = refused.reason.value
            assert gets == wanted, f"step {number}"
    return {}


def say(party, data):
    """What a transcript has a party send, said by ours: it must be allowed, and the same bytes."""
    reader = FrameReader()
    reader.feed(data)
    while (kind := reader.peek()) is not None:
        payload = reader.take()
        values = codec.decode_untrusted(payload, what="vector") if kind in MAPS else {}
        match kind:
            case Frame.HELLO:
                party.hello(
                    {name: each for name, each in values.items() if name not in ("versions", "limits")}
                )
                continue  # with other bytes: it greases
            case Frame.ACCEPT:
                party.accept()
                continue
            case Frame.EXTENSION:
                continue  # ours says none but grease
            case Frame.BATCH:
                number, signature, items = decode_batch_untrusted(payload)
                for channel, flags, _, _ in items:
                    assert not flags & OPENS or party.open_channel() == channel
                said = b"".join(party.batch(number, signature, items))
            case Frame.CANCEL:
                channel, code = decode_cancel(payload)
                said = party.cancel(channel, code_of(code))
                if not said or not 0 < code <= len(Code):
                    continue  # it knows better than to cancel what is over, or by a code of the future
            case Frame.GOAWAY:
                said = party.go_away(**values)
            case Frame.REFUSE:
                offset = values.get("offset")
                said = party.refuse(Reason(values["reason"]), offset if offset is None else offset / 1e6)
            case Frame.CREDIT:
                said = party.credit(*decode_credit(payload))
            case Frame.PING:
                said = party.ping(payload)
            case Frame.PONG:
                said = party.pong(payload)
        assert said == encode_frame(kind, payload)


def step(party, us, who, data):
    if who == us:
        say(party, data)
    else:
        party.receive_data(data)
    while party.next_event():
        pass


def link(given):
    """Seen by both parties, or, where the last step is refused, by whom it is sent to."""
    steps = [(who, bytes.fromhex(data) + bytes(*zeros)) for who, data, *zeros in given.take("steps")]
    *before, last = steps or [("dialer", b"")]
    other = {"dialer": "listener", "listener": "dialer"}
    seen = []
    for us in other if given.expected else [other[last[0]]]:
        party = LinkProtocol(us == "dialer", channels=2, credit=1000)
        try:
            for one in before:
                step(party, us, *one)
        except RemoteProtocolError as error:
            raise AssertionError("refused before its last step") from error
        step(party, us, *last)
        counts = party.statistics()
        states, channels = [*map(str, party.state)], [counts.channels_opened, counts.channels_accepted]
        in_order = 1 if us == "dialer" else -1
        dialer, listener = states[::in_order]
        seen.append({"dialer": dialer, "listener": listener, "open": channels[::in_order]})
    assert seen[0] == seen[-1]
    return seen[0]


MAPS = {Frame.HELLO, Frame.GOAWAY, Frame.REFUSE}
RUNNERS = {
    "value": value, "autoid": autoid, "bound": bound, "name": name, "certificate": certificate, "request": request,
    "merkle": merkle_tree, "message": message, "batch": batch, "envelope": envelope, "stream": stream,
    "replay": replay, "link": link, **registry_runners.RUNNERS,
}  # fmt: skip


class Given:
    """A vector's input; every key must be used, and no other may stand there."""

    def __init__(self, scenario):
        self._left = dict(scenario["input"])
        self.expected = scenario.get("expect")

    def take(self, key):
        return self._left.pop(key)

    def hex(self, key):
        return bytes.fromhex(self.take(key))

    def check_all_taken(self):
        assert not self._left, f"the harness does not know {sorted(self._left)}"


async def outcome(runner, given):
    try:
        result = runner(given)
        return await result if isinstance(result, Awaitable) else result
    except (EnvelopeRefused, IdentityError) as refused:
        return refused.reason.value
    except EntryRefused as refused:
        return refused.fault.value
    except RemoteProtocolError:
        return Reason.MALFORMED.value
    except BadSignature:
        return Reason.TAMPERED.value


@pytest.mark.parametrize("file", FILES, ids=[f"{file.parent.name}/{file.stem}" for file in FILES])
async def test_a_vector_has_its_expected_result_or_class_of_failure(file):
    """One scenario a file; an unknown subject, key or class is an error of the harness, never a pass."""
    scenario = json.loads(file.read_text())
    assert set(scenario) in ({"name", "shows", "input", "expect"}, {"name", "shows", "input", "refuse"})
    assert scenario["name"] == file.stem
    wanted = scenario.get("expect", scenario.get("refuse"))
    assert isinstance(wanted, dict) or wanted in CLASSES
    given = Given(scenario)
    assert await outcome(RUNNERS[file.parent.name], given) == wanted
    given.check_all_taken()


def test_every_subject_has_vectors_and_every_class_of_failure_is_shown():
    """Nothing of the harness is there for no vector."""
    refused = {json.loads(file.read_text()).get("refuse") for file in FILES}
    assert {file.parent.name for file in FILES} == set(RUNNERS)
    assert refused - {None} == CLASSES


def test_the_generator_writes_these_very_files(tmp_path):
    """Byte for byte, from fixed keys: the committed vectors are what generate.py makes, no more and no less."""
    subprocess.run([sys.executable, HERE / "generate.py", tmp_path], check=True, timeout=100)
    made = {file.relative_to(tmp_path): file.read_bytes() for file in tmp_path.glob("*/*.json")}
    assert made == {file.relative_to(SPEC): file.read_bytes() for file in FILES}


def test_the_generator_imports_nothing_of_what_it_tests():
    """The standard library, msgpack, cryptography and its own files."""
    own = {
        file.stem
        for pattern in ("generate.py", "blocks*.py", "scenarios_*.py")
        for file in HERE.glob(pattern)
    }
    allowed = set(sys.stdlib_module_names) | {"msgpack", "cryptography"} | own
    for name in own:
        for node in ast.walk(ast.parse((HERE / f"{name}.py").read_text())):
            names = [node.module] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            assert {each.split(".")[0] for each in names} <= allowed, name
