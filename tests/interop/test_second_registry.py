"""autolink's registry against a second implementation: each takes the entries that the other makes, and its log's word."""

from contextlib import asynccontextmanager

import anyio
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from autolink import AutoId, Credential, CredentialRequest, EntityKind
from autolink.messages import instant
from autolink.registry import Open, Rate, Registered, Registrar, RegistryService, SqliteStore
from autolink.registry.entries import Op
from autolink.registry.registrar import Appended
from autolink.trust import IssuedBy, SelfCertified
from tests.interop import second_certificates as certificates
from tests.interop import second_registry as registry
from tests.interop import second_tlog as tlog
from tests.interop.loopback import anchor_of, dial, dialled, listening, make_agent, serve_echo
from tests.interop.second import Ended
from tests.interop.second_certificates import Refused, encode, now, sha
from tests.interop.second_formats import ITEM, OPEN, root_of
from tests.interop.second_log import Ledger
from tests.interop.second_registry import (
    DAY,
    DEACTIVATE,
    DELAY,
    GUARDIANS,
    RECOVER,
    REGISTER,
    RENEW,
    REVOKE,
    ROTATE,
    SERVICE,
)
from tests.interop.second_service import find_service
from tests.registry.conftest import Log, Party, new_key

ORIGIN = "registry.example/log"
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
LOG = tlog.Log(ORIGIN, KEY.public_key().public_bytes_raw())
RECORD = encode(["autolink/1 service", ["tea.example:4433"], [["order", {"type": "string"}, {}]], [], 2**50])


class Both:
    """autolink's log in a folder, and the second side's of the same entries; their time is ours to move."""

    def __init__(self, store):
        self.time, self.ledger, self.store = now(), Ledger(ORIGIN), store
        self.registrar = Registrar(store, KEY, lambda: self.time)

    def append(self, entry):
        """Both take it, and the second side verifies what autolink's log says of it."""
        (taken,) = self.registrar.append([entry])
        assert isinstance(taken, Appended), taken
        self.ledger.append(taken.logged_at, entry)
        leaf, proof = self.ledger.leaves[-1], self.registrar.proof(taken.index).to_bytes()
        assert self.store.read_leaves(taken.index, taken.index + 1) == [leaf]
        assert tlog.open_proof(proof, sha(b"\0" + leaf), LOG) == (
            taken.index,
            taken.index + 1,
            self.ledger.root,
        )
        parsed = registry.parse_entry(entry)
        if parsed.op in (ROTATE, REVOKE, DEACTIVATE, RECOVER):
            change = registry.open_word("change", taken.change, LOG)
            assert (change["id"], change["op"], change["index"]) == (parsed.id, parsed.op, taken.index)
            assert change["state"] == self.ledger.records[parsed.id].state
        else:
            assert not taken.change
        self.time += 10**6
        self.same_standing()

    def same_standing(self):
        """Of everybody on record, in autolink's statuses and by the second side's rules."""
        self.ledger.time = self.time
        for id_ in self.ledger.records:
            said = registry.open_status(self.registrar.status(AutoId(id_)).to_bytes(), LOG)
            record = self.ledger.find(id_)
            assert (said["state"], said["because"]) == self.ledger.standing(id_)
            assert (said["key"], said["issuers"]) == (record.key, record.issuers)
            assert (said["entries"], said["at"]) == (record.entries, self.time)

    def make(self, op, party, fields, *signers):
        """The second side's entry."""
        previous = b"" if op == REGISTER else self.ledger.records[party.id].last
        return registry.make_entry(ORIGIN, op, party.id, previous, self.time + DAY, fields, *signers)

    def register(self, party, issuer=None, guardians=(), threshold=0):
        fields = [issuer and issuer.id, party.der[0], party.next, sorted(guardians), threshold, 3600]
        signers = [(each.id, each.key, False) for each in (party, issuer) if each]
        self.append(self.make(REGISTER, party, fields, *signers))

    def say(self, op, party, fields, *signers):
        self.append(self.make(op, party, fields, *(signers or [(party.id, party.key, False)])))


@pytest.fixture
def both(tmp_path):
    SqliteStore.create(tmp_path / "registry", ORIGIN)
    with SqliteStore(tmp_path / "registry") as store:
        yield Both(store)


def test_every_kind_of_entry_of_the_second_side_is_taken(both):
    """The state that follows is what the second side makes of the specification, entry by entry."""
    guards = [certificates.self_issued(f"guard-{number}") for number in range(2)]
    revealed = [[guard.id, bytes([number]) * 16] for number, guard in enumerate(guards)]
    root = certificates.self_issued("tea")
    desk = certificates.issued(root, "desk", ca=True)
    clerk = certificates.issued(desk, "clerk")
    for guard in guards:
        both.register(guard)
    both.register(root, guardians=[registry.guardian_hash(salt, id_) for id_, salt in revealed], threshold=2)
    both.register(desk, root)
    both.register(clerk, desk)
    both.say(SERVICE, clerk, [RECORD])
    renewed = certificates.issued(desk, "clerk", key=clerk.key, after=clerk.chain[0])
    both.say(RENEW, clerk, [renewed.der[0]])
    both.say(REVOKE, clerk, [], (root.id, root.key, False))
    fresh = certificates.issued(desk, "clerk", key=clerk.next_key, after=renewed.chain[0])
    both.say(ROTATE, clerk, [fresh.der[0], fresh.next, 5], (clerk.id, fresh.key, False))
    both.say(GUARDIANS, clerk, [[], 0, 7200], (clerk.id, fresh.next_key, True))
    second = certificates.rotated(root)
    both.say(ROTATE, root, [second.der[0], second.next, None], (root.id, second.key, False))
    found = certificates.recovered(second, LOG.name)
    signers = [(root.id, found.key, False), *((guard.id, guard.key, False) for guard in guards)]
    both.say(RECOVER, root, [found.der[0], found.next, None, revealed], *signers)
    both.say(DELAY, root, [], (root.id, second.key, False))
    assert both.ledger.standing(clerk.id) == ("recovering", root.id)
    both.time += 2 * 3600 * 10**6
    both.same_standing()
    assert both.ledger.standing(clerk.id) == ("active", root.id)
    both.say(DEACTIVATE, root, [], (root.id, found.next_key, True))
    assert both.ledger.standing(clerk.id) == ("deactivated", root.id)


def test_every_kind_of_entry_of_autolinks_is_taken_by_the_second_side():
    """The same states follow."""
    log, ledger = Log(), Ledger(ORIGIN)

    def say(entry):
        ledger.append(log.now, entry.to_bytes())
        log.append(entry)

    def party(name, guards=()):
        credential = Credential.self_issued(name, now=instant(log.now))
        made = Party(log, credential, credential.next_key, guards=guards)
        say(made.register())
        return made

    guards = [(party(f"guard-{number}"), bytes([number]) * 16) for number in range(3)]
    acme = party("acme", guards)
    request = CredentialRequest.new("echo")
    chain = acme.credential.issue(request, kind=EntityKind.AGENT, now=instant(log.now))
    echo = Party(log, request.complete(chain), new_key(), issuer=acme)
    say(echo.register())
    for owner, op in (
        (echo, Op.RENEW), (echo, Op.SERVICE), (acme, Op.GUARDIANS), (acme, Op.RENEW), (echo, Op.REVOKE), (echo, Op.RECOVER),
        (acme, Op.REVOKE), (acme, Op.ROTATE), (echo, Op.DEACTIVATE), (guards[0][0], Op.DEACTIVATE),
    ):  # fmt: skip
        log.wait(1)
        say(owner.make(op))
    assert {id_: ledger.standing(id_) for id_ in ledger.records} == {
        each.auto_id.value: (log.standing(each).state, log.standing(each).because.value)
        for each in [acme, echo, *(guard for guard, _ in guards)]
    }


# Over a link


@asynccontextmanager
async def serving(folder):
    """A registry at a port, on the real clock."""
    SqliteStore.create(folder, ORIGIN)
    with SqliteStore(folder) as store:
        registrar = Registrar(store, KEY, now)
        service = RegistryService(store, registrar, Open(Rate(anyio.current_time)))
        agent = make_agent(service.handlers, SelfCertified())
        async with service.running(agent), listening(agent) as port:
            yield registrar, port


class Client:
    """The second side as a registry's client (section 27), which keeps what it is told as a log of its own."""

    def __init__(self, link):
        self.link, self.ledger, self.number = link, Ledger(ORIGIN), 0
        self.channel, self.lane = link.begin(OPEN, "registry.submit")

    def submit(self, op, party, fields, *signers):
        """Its place, or the fault."""
        self.number += 1
        previous = b"" if op == REGISTER else self.link.call("registry.record", party.id)["head"]
        signers = [(each.id, each.key, False) for each in signers or [party]]
        entry = registry.make_entry(ORIGIN, op, party.id, previous, now() + DAY, fields, *signers)
        self.link.say(self.channel, ITEM, [self.number, entry])
        promise, answer = self.link.receive(self.lane), self.link.receive(self.lane)
        assert promise["number"] == answer["number"] == self.number
        registry.open_receipt(promise["receipt"], LOG, registry.parse_entry(entry), now())
        if answer["fault"]:
            return answer["fault"]
        self.ledger.append(answer["logged_at"], entry)
        proved = tlog.open_proof(answer["proof"], sha(b"\0" + self.ledger.leaves[-1]), LOG)
        assert proved == (answer["index"], answer["index"] + 1, self.ledger.root)
        return answer["index"]

    def register(self, party, *issuer):
        fields = [issuer[0].id if issuer else None, party.der[0], party.next, [], 0, 3600]
        return self.submit(REGISTER, party, fields, party, *issuer)

    def find_service(self, party):
        """The record that a stranger finds, by what the registry answers alone."""
        said = registry.open_status(self.link.call("registry.status", party.id), LOG)
        places = self.link.call("registry.history", [party.id, 0])
        assert (len(places), places[-1]) == (said["entries"], said["index"])
        leaves = self.link.call("registry.entries", places)
        for place, leaf in zip(places, leaves, strict=True):
            assert (
                tlog.open_proof(self.link.call("registry.proof", place), sha(b"\0" + leaf), LOG)[0] == place
            )
        return find_service(said, leaves, party.chain[0])


async def test_the_second_side_is_registered_and_looked_up_over_a_link(tmp_path):
    """From its first entry to a verdict on it, and to the feed that tells of its end."""
    root = certificates.self_issued("tea")
    desk = certificates.issued(root, "desk", ca=True)
    clerk = certificates.issued(desk, "clerk")

    def talk(link):
        client = Client(link)
        _, lane, _ = link.subscribe("registry.changes")
        assert [client.register(root), client.register(desk, root), client.register(clerk, desk)] == [0, 1, 2]
        assert client.register(clerk, desk) == "taken"
        assert client.find_service(clerk) is None
        assert client.submit(SERVICE, clerk, [RECORD]) == 3
        assert client.find_service(clerk)["methods"] == [["order", {"type": "string"}, {}]]
        status = link.call("registry.status", clerk.id)
        said = registry.judge_status(status, clerk.chain, LOG, now(), 3600 * 10**6)
        assert (said["because"], said["entries"], said["size"]) == (root.id, 2, 4)
        with pytest.raises(Ended, match="not_found"):
            link.call("registry.status", bytes(32))
        found = link.call("registry.consistency", [2, None])
        size, newest = tlog.open_checkpoint(found["checkpoint"], LOG)
        tlog.check_consistency((2, size), (root_of(client.ledger.leaves[:2]), newest), found["path"])
        assert (size, newest) == (4, client.ledger.root)
        assert client.submit(REVOKE, clerk, [], root) == 4
        told = link.receive(lane)
        assert link.call("registry.changes_since", 0) == [[4, told]]
        for words in ({"changes": [told]}, {"seen": [link.call("registry.status", clerk.id)]}):
            with pytest.raises(Refused, match=r"revoked|older"):
                registry.judge_status(status, clerk.chain, LOG, now(), 3600 * 10**6, **words)

    async with serving(tmp_path / "registry") as (_, port):
        await dial(port, talk, me=clerk)


async def test_the_second_side_shows_its_status_and_is_believed_until_it_is_revoked(both, handlers):
    """By an agent that believes whom autolink's log has on record as active, also below a root that was rotated."""
    root = certificates.self_issued("tea")
    both.register(root)
    second = certificates.rotated(root)
    both.say(ROTATE, root, [second.der[0], second.next, None], (root.id, second.key, False))
    clerk = certificates.issued(second, "clerk")
    both.register(clerk, second)

    def shown():
        return {"evidence": [*clerk.evidence, both.registrar.status(AutoId(clerk.id)).to_bytes()]}

    agent = make_agent(handlers, Registered(both.registrar.verifier_key))
    async with listening(agent) as port:
        assert await dial(port, lambda link: link.call("echo", 1), me=clerk, hello=shown()) == 1
        with pytest.raises(Refused, match="untrusted"):
            await dial(port, lambda link: None, me=clerk)
        both.say(REVOKE, clerk, [])
        with pytest.raises(Refused, match="revoked"):
            await dial(port, lambda link: None, me=clerk, hello=shown())


async def test_a_recovered_root_of_the_second_side_is_believed_where_its_log_says_so(both, handlers):
    """And nowhere else, whoever its anchor is: neither the name nor rotations lead to its key."""
    both.time -= 3590 * 10**6  # the recovery takes an hour, and these certificates are just as old
    root, guard = certificates.self_issued("tea"), certificates.self_issued("guard")
    both.register(guard)
    both.register(root, guardians=[registry.guardian_hash(bytes(16), guard.id)], threshold=1)
    found = certificates.recovered(root, LOG.name)
    signers = [(root.id, found.key, False), (guard.id, guard.key, False)]
    both.say(RECOVER, root, [found.der[0], found.next, None, [[guard.id, bytes(16)]]], *signers)
    both.time += 3600 * 10**6
    clerk = certificates.issued(found, "clerk")
    both.register(clerk, found)
    shown = {"evidence": [both.registrar.status(AutoId(clerk.id)).to_bytes()]}
    async with listening(make_agent(handlers, Registered(both.registrar.verifier_key))) as port:
        assert await dial(port, lambda link: link.call("echo", 1), me=clerk, hello=shown) == 1
    async with listening(make_agent(handlers, IssuedBy(anchor_of(root)))) as port:
        with pytest.raises(Refused, match="untrusted"):
            await dial(port, lambda link: None, me=clerk, hello=shown)


async def test_the_second_side_shows_the_way_to_its_rotated_root_in_either_role(handlers):
    """The agent has the anchor from before; the second side's HELLO leads from it to the third key, and so does its TLS."""
    root = certificates.self_issued("tea")
    clerk = certificates.issued(certificates.rotated(certificates.rotated(root)), "clerk")
    agent = make_agent(handlers, IssuedBy(anchor_of(root)))
    async with listening(agent) as port:
        assert await dial(port, lambda link: link.call("echo", 1), me=clerk) == 1
        with pytest.raises(Refused, match="untrusted"):
            await dial(port, lambda link: None, me=clerk, hello={"evidence": []})
    async with dialled(agent, serve_echo, me=clerk) as link:
        assert await link.call("echo", 2) == 2
