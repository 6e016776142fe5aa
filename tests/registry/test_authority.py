"""Who must have signed which entry, and what a thief of the current key can do with it."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from autolink.errors import EntryRefused, Fault
from autolink.identity import Certificate, EntityKind, keys
from autolink.identity.issuing import build_self_issued
from autolink.messages import instant
from autolink.registry.entries import Guardians, Op, Signature, guardian_hash
from autolink.registry.records import State

from .conftest import DELAY, Log, Party, new_key


def refused(log: Log, entry: Any) -> Fault:
    before = dict(log.ledger.records)
    with pytest.raises(EntryRefused) as refusal:
        log.append(entry)
    assert log.ledger.records == before
    return refusal.value.fault


def prepared(op: Op, party: Party, log: Log) -> Any:
    if op is Op.DELAY:
        log.append(party.recover())
    return party.make(op)


CHANGES = [op for op in Op if op is not Op.REGISTER]


@pytest.mark.parametrize("op", CHANGES)
@pytest.mark.parametrize("who", ["acme", "echo"])
def test_an_entry_has_exactly_its_signatures(
    who: str, op: Op, log: Log, organisation: Any, request: Any
) -> None:
    """None, one too many, in another order, by somebody else, or with one byte changed: refused, nothing happens."""
    party = request.getfixturevalue(who)
    entry = prepared(op, party, log)
    stranger = organisation("stranger")
    right = entry.signatures
    forged = replace(
        right[-1],
        value=keys.sign(stranger.key, entry.preimage(right[-1].by, keys.spki(stranger.key.public_key()))),
    )
    wrong = [
        (),
        right[:-1],
        (*right, right[0]),
        (*right, *entry.signed(stranger.auto_id, stranger.key).signatures[-1:]),
        (*right[:-1], forged),
        (*right[:-1], replace(right[-1], by=stranger.auto_id)),
        (*right[:-1], replace(right[-1], value=_changed(right[-1].value))),
    ]
    if len(right) > 1:
        wrong.append(right[::-1])
    for signatures in wrong:
        assert refused(log, entry.with_signatures(signatures)) in (Fault.UNAUTHORISED, Fault.NOT_COMMITTED)
    log.append(entry)


def _changed(signature: bytes) -> bytes:
    return signature[:-1] + bytes([signature[-1] ^ 1])


@pytest.mark.parametrize("who", ["acme", "echo"])
def test_a_registration_is_signed_by_the_key_and_by_the_issuer(
    who: str, log: Log, organisation: Any, issued: Any, acme: Party
) -> None:
    party = (
        organisation("beta", registered=False) if who == "acme" else issued(acme, "beta", registered=False)
    )
    entry = party.register()
    for left_out in range(len(entry.signatures)):
        kept = tuple(one for place, one in enumerate(entry.signatures) if place != left_out)
        assert refused(log, entry.with_signatures(kept)) is Fault.UNAUTHORISED
    log.append(entry)


@pytest.mark.parametrize("op", CHANGES)
def test_a_signature_shows_its_key_only_where_the_log_does_not_have_it(op: Op, log: Log, acme: Party) -> None:
    entry = prepared(op, acme, log)
    one = entry.signatures[0]
    shown = keys.spki((acme.next_key if op in (Op.DEACTIVATE, Op.GUARDIANS) else acme.key).public_key())
    other = replace(one, key=b"" if one.key else shown)
    assert refused(log, entry.with_signatures((other, *entry.signatures[1:]))) is Fault.UNAUTHORISED


@pytest.mark.parametrize("op", [Op.ROTATE, Op.DEACTIVATE, Op.GUARDIANS])
@pytest.mark.parametrize("who", ["acme", "echo"])
def test_rule_35_the_current_key_neither_rotates_nor_deactivates_nor_names_guardians(
    who: str, op: Op, log: Log, request: Any
) -> None:
    party = request.getfixturevalue(who)
    party.next_key = new_key()  # a thief of the current key has another one at most
    assert refused(log, party.make(op)) is Fault.NOT_COMMITTED
    party.next_key = party.key
    assert refused(log, party.make(op)) in (Fault.NOT_COMMITTED, Fault.KEY_USED)


def test_rule_35_the_current_key_lengthens_a_recovery_once_and_does_not_end_it(log: Log, acme: Party) -> None:
    log.append(acme.recover())
    ready = log.record(acme).recovery.ready_at  # type: ignore[union-attr]
    after = log.append(acme.delay()).recovery
    assert after is not None
    assert after.ready_at == ready + DELAY * 1_000_000
    assert refused(log, acme.delay()) is Fault.RECOVERING
    log.wait(2 * DELAY - 10)
    assert log.state(acme) is State.RECOVERING
    log.wait(20)
    assert log.state(acme) is State.ACTIVE
    assert log.record(acme).key == after.key


def test_rule_35_a_revoked_key_does_not_lengthen_a_recovery(log: Log, acme: Party, echo: Party) -> None:
    log.append(echo.recover())
    log.append(echo.revoke(by=acme))
    assert refused(log, echo.delay()) is Fault.REVOKED
    assert refused(log, echo.revoke(by=acme)) is Fault.REVOKED


@pytest.mark.parametrize("who", ["acme", "echo"])
def test_rule_35_a_recovery_is_ended_only_by_the_committed_key(who: str, log: Log, request: Any) -> None:
    """By guardians or by the issuer."""
    party = request.getfixturevalue(who)
    log.append(party.recover())
    for op in (Op.RENEW, Op.SERVICE, Op.RECOVER, Op.GUARDIANS):
        assert refused(log, party.make(op)) is Fault.RECOVERING
    assert log.append(party.revoke()).recovery is not None
    record = log.append(party.rotate())
    assert record.state is State.ACTIVE
    assert record.recovery is None
    log.wait(3 * DELAY)
    assert log.record(party).key == record.key


@pytest.mark.parametrize("who", ["acme", "echo"])
def test_rule_36_a_revoked_key_is_not_renewed_and_is_nobodys_again(
    who: str, log: Log, organisation: Any, request: Any
) -> None:
    """Only another key makes the ID active: the committed one, or one that a recovery brings."""
    party = request.getfixturevalue(who)
    log.append(party.revoke())
    log.wait(2)
    for op in (Op.RENEW, Op.SERVICE, Op.REVOKE):
        assert refused(log, party.make(op)) is Fault.REVOKED
    other = organisation("other", registered=False)
    other.credential = type(other.credential).from_key((_self_issued("other", party.key, log),), party.key)
    assert refused(log, other.register()) is Fault.KEY_USED
    assert refused(log, party.recover(party.key)) is Fault.KEY_USED
    assert log.append(party.rotate()).state is State.ACTIVE


def test_a_thief_of_the_current_key_cannot_outrun_its_owner(log: Log, acme: Party) -> None:
    """Entries of the current key do not make stale what takes the ID out of its hands; only each other."""
    rotation, renewal = acme.rotate(), acme.renew()
    for _ in range(3):
        log.wait(2)
        log.append(acme.service())
    log.append(acme.revoke())
    assert refused(log, renewal) is Fault.REVOKED
    assert log.append(rotation).state is State.ACTIVE
    assert refused(log, rotation) is Fault.STALE


@pytest.mark.parametrize("op", [Op.ROTATE, Op.RECOVER])
def test_rule_35_a_renewal_outruns_neither_a_rotation_nor_a_recovery(op: Op, log: Log, acme: Party) -> None:
    """A self-issued ID's thief can give it a certificate that begins this very second, every second."""
    log.wait(3600)
    entry = acme.make(op)
    log.wait(60)
    log.append(acme.renew())
    begins = Certificate.parse_untrusted(entry.certificate).not_before
    assert begins < Certificate.parse_untrusted(log.record(acme).certificate).not_before
    assert log.append(entry).head == entry.hash


@pytest.mark.parametrize("op", [Op.ROTATE, Op.DEACTIVATE])
@pytest.mark.parametrize("who", ["acme", "echo"])
def test_rule_35_a_delay_does_not_outrun_who_ends_a_recovery(
    who: str, op: Op, log: Log, request: Any
) -> None:
    party = request.getfixturevalue(who)
    log.append(party.recover())
    entry = party.make(op)
    log.append(party.delay())  # the thief, in between
    assert log.append(entry).recovery is None


def test_a_renewal_commits_to_the_next_key_on_record(log: Log, acme: Party, organisation: Any) -> None:
    """Or a thief's renewal would make a name look bound to other keys, or lead its rotations elsewhere."""
    plain = organisation("plain", plain=True)
    log.wait(60)
    elsewhere = keys.hash_of_key(new_key().public_key())
    for _ in range(2):  # with its first key, and with a later one
        misled = acme.renew(certificate=acme.certify(acme.key, elsewhere).der)
        assert refused(log, misled) is Fault.CERTIFICATE
        assert log.append(acme.renew()).next_key == keys.hash_of_key(acme.next_key.public_key())
        key, after = acme.next_key, new_key()
        log.append(acme.rotate(after))
        acme.take_key(key, after)
        log.wait(60)
    silent = build_self_issued(
        acme.credential.leaf.common_name, acme.key, kind=EntityKind.ORGANIZATION, now=instant(log.now),
        next_key_hash=None, lifetime=timedelta(days=365),
    )  # fmt: skip
    assert refused(log, acme.renew(certificate=silent.der)) is Fault.CERTIFICATE
    log.append(plain.renew())  # a name that is not bound may leave it unsaid


def test_a_renewal_is_over_the_current_key(log: Log, acme: Party, echo: Party) -> None:
    """Whoever signs it: another key comes by a rotation or a recovery."""
    log.wait(60)
    for party in (acme, echo):
        other = new_key()
        for signer in (party.key, other, party.next_key):
            renewal = party.entry(Op.RENEW, certificate=party.certify(other).der)
            assert refused(log, renewal.signed(party.auto_id, signer)) is Fault.CERTIFICATE
        own = party.entry(Op.RENEW, certificate=party.certify(party.key).der)
        assert refused(log, own.signed(party.auto_id, other)) is Fault.UNAUTHORISED


def test_a_certificate_that_commits_commits_to_the_entrys_next_key(log: Log, organisation: Any) -> None:
    """Whatever its name is; and never to its own key."""
    shop = organisation("shop", plain=True, registered=False)
    own, other = (keys.hash_of_key(key.public_key()) for key in (shop.key, new_key()))
    committed = build_self_issued(
        "shop", shop.key, kind=EntityKind.ORGANIZATION, now=instant(log.now), next_key_hash=other,
        lifetime=timedelta(days=365),
    ).der  # fmt: skip
    assert refused(log, shop.register(certificate=committed)) is Fault.CERTIFICATE
    assert refused(log, shop.register(next_key=own)) is Fault.KEY_USED
    assert log.append(shop.register(certificate=committed, next_key=other)).next_key == other


def test_rule_41_an_ancestor_revokes_and_deactivates_and_it_is_said_who(
    log: Log, acme: Party, issued: Any, organisation: Any
) -> None:
    team = issued(acme, "team", may_issue=0)
    agent = issued(team, "agent")
    sibling, stranger = issued(acme, "sibling"), organisation("stranger")
    for nobody in (sibling, stranger):
        assert refused(log, agent.revoke(by=nobody)) is Fault.UNAUTHORISED
        assert refused(log, agent.deactivate(by=nobody)) is Fault.UNAUTHORISED
    assert refused(log, team.revoke(by=agent)) is Fault.UNAUTHORISED  # not upwards
    assert log.append(agent.revoke(by=acme)).revoked_by == acme.auto_id
    assert log.append(agent.deactivate(by=team)).deactivated_by == team.auto_id


def test_rule_41_without_its_issuer_an_id_is_not_rotated_and_can_be_deactivated(
    log: Log, echo: Party, organisation: Any
) -> None:
    """A rotation takes a certificate that the issuer has signed, and it may refuse that; a deactivation takes none."""
    log.append(echo.recover())
    elsewhere = replace(echo, issuer=organisation("elsewhere")).certify(echo.next_key)
    for certificate, fault in (
        (elsewhere, Fault.CERTIFICATE),
        (_self_issued("echo", echo.next_key, log), Fault.CERTIFICATE),
        (echo.credential.leaf, Fault.KEY_USED),  # the issuer's last one, over the current key
    ):
        assert refused(log, echo.rotate(certificate=certificate.der)) is fault
    assert log.append(echo.deactivate()).deactivated_by == echo.auto_id
    log.wait(2 * DELAY)
    assert log.state(echo) is State.DEACTIVATED


def test_an_ancestor_that_is_not_active_itself_does_nothing(log: Log, acme: Party, echo: Party) -> None:
    log.append(acme.revoke())
    assert refused(log, echo.revoke(by=acme)) is Fault.ISSUER
    assert refused(log, echo.renew()) is Fault.ISSUER
    assert refused(log, echo.recover()) is Fault.ISSUER
    assert log.append(echo.revoke()).revoked_by == echo.auto_id  # its own key still can


def test_rule_35_guardians_are_those_committed_to_each_once_and_judged_by_their_state_at_recovery(
    log: Log, acme: Party, organisation: Any
) -> None:
    first, second, third = acme.guards
    outsider = (organisation("outsider"), bytes([7]) * 16)
    for guards in ([], [first], [first, outsider], [first, (second[0], bytes(16))]):
        assert refused(log, acme.recover(guards=guards)) is Fault.UNAUTHORISED
    assert refused(log, acme.recover(guards=[first, first])) is Fault.UNAUTHORISED
    log.append(first[0].revoke())
    assert refused(log, acme.recover(guards=[first, second])) is Fault.UNAUTHORISED
    after = log.append(acme.recover(guards=[second, third])).recovery
    assert after is not None
    log.append(second[0].revoke())
    log.wait(DELAY)
    assert log.record(acme).key == after.key


def test_a_guardian_signs_once(log: Log, acme: Party) -> None:
    first, second, _ = acme.guards
    assert refused(log, acme.recover(guards=(first, second, first))) is Fault.UNAUTHORISED


def test_rule_35_whom_an_id_has_issued_is_no_guardian_of_it(log: Log, organisation: Any, issued: Any) -> None:
    """Its current key could issue a guardian that is not on record yet, and seize one that is: so could its thief."""
    friend = (organisation("friend"), bytes(16))
    globex = organisation("globex", guards=[friend])
    team = issued(globex, "team", may_issue=0)
    clerk = issued(team, "clerk", registered=False)
    guards = [friend, (team, bytes([1]) * 16), (clerk, bytes([2]) * 16)]
    hashes = tuple(sorted(guardian_hash(guard.auto_id, salt) for guard, salt in guards))
    log.append(globex.guardians(guardians=Guardians(hashes, 2, DELAY)))
    log.append(clerk.register())
    for chosen in ([friend, guards[1]], [friend, guards[2]], guards[1:], guards):
        assert refused(log, globex.recover(guards=chosen)) is Fault.UNAUTHORISED
    other = (organisation("other"), bytes([3]) * 16)
    more = tuple(sorted((*hashes, guardian_hash(other[0].auto_id, other[1]))))
    log.append(globex.guardians(guardians=Guardians(more, 2, DELAY)))
    assert log.append(globex.recover(guards=[friend, guards[1], other])).recovery is not None


def test_rule_21_a_bound_name_is_registered_with_the_key_that_it_is_bound_to(
    log: Log, organisation: Any
) -> None:
    """Whoever has read the name can make a certificate of it; a log that took it would have it taken for ever."""
    holder = organisation("holder", registered=False)
    key, following = new_key(), keys.hash_of_key(new_key().public_key())
    for public, commits in ((key, following), (holder.key, following)):
        forged = build_self_issued(
            holder.credential.leaf.common_name, public, kind=EntityKind.ORGANIZATION, now=instant(log.now),
            next_key_hash=commits, lifetime=timedelta(days=30),
        )  # fmt: skip
        entry = holder.register(certificate=forged.der, next_key=commits).with_signatures(())
        assert refused(log, entry.signed(holder.auto_id, public)) is Fault.CERTIFICATE
    log.append(holder.register())


def test_an_id_without_guardians_is_recovered_by_nobody(log: Log, organisation: Any) -> None:
    alone = organisation("alone")
    assert refused(log, alone.recover()) is Fault.UNAUTHORISED
    named = Guardians((guardian_hash(alone.auto_id, bytes(16)),), 1, DELAY)
    log.append(alone.guardians(guardians=named))
    alone.guards = ((alone, bytes(16)),)  # nor by itself alone: that would be the current key
    assert refused(log, alone.recover()) is Fault.UNAUTHORISED


def test_an_issued_id_has_no_guardians(log: Log, acme: Party, issued: Any) -> None:
    echo = issued(acme, "echo", registered=False)
    named = Guardians((bytes(32),), 1, DELAY)
    assert refused(log, echo.register(guardians=named)) is Fault.MALFORMED
    log.append(echo.register())
    assert refused(log, echo.guardians(guardians=named)) is Fault.MALFORMED


def test_a_certificate_is_what_the_issuer_may_give_and_this_ids(
    log: Log, acme: Party, echo: Party, issued: Any
) -> None:
    other = issued(acme, "other", registered=False)
    assert refused(log, echo.renew(certificate=other.credential.leaf.der)) is Fault.CERTIFICATE
    # The same again.
    assert refused(log, echo.renew(certificate=echo.credential.leaf.der)) is Fault.CERTIFICATE
    assert refused(log, echo.renew(certificate=b"\x30\x00")) is Fault.CERTIFICATE
    log.wait(400 * 24 * 3600)  # acme's own has expired
    echo.entry(Op.SERVICE)
    late = echo.entry(Op.RENEW, certificate=echo.credential.leaf.der).signed(echo.auto_id, echo.key)
    assert refused(log, late) is Fault.CERTIFICATE


def test_an_older_certificate_does_not_come_back(log: Log, echo: Party) -> None:
    first = echo.renew()
    log.wait(10)
    second = echo.renew()
    log.append(second)
    replayed = echo.renew(certificate=first.certificate)
    assert refused(log, replayed) is Fault.CERTIFICATE


def test_a_key_is_one_ids_once(log: Log, acme: Party, echo: Party, organisation: Any) -> None:
    old = acme.key
    log.append(acme.rotate(after := new_key()))
    acme.take_key(acme.next_key, after)
    squatter = organisation("squatter", registered=False)
    # The same key under another name.
    squatter.credential = type(squatter.credential).from_key((_self_issued("plain", old, log),), old)
    assert refused(log, squatter.register()) is Fault.KEY_USED
    back = acme.rotate(certificate=acme.certify(acme.next_key, keys.hash_of_key(old.public_key())).der,
                       next_key=keys.hash_of_key(old.public_key()))  # fmt: skip
    assert refused(log, back) is Fault.KEY_USED


def _self_issued(name: str, key: Any, log: Log) -> Any:
    from autolink.identity import EntityKind
    from autolink.identity.issuing import build_self_issued

    return build_self_issued(
        name, key, kind=EntityKind.ORGANIZATION, now=instant(log.now), next_key_hash=None, lifetime=timedelta(days=1)
    )  # fmt: skip


def test_a_signature_counts_for_its_key_only(log: Log, acme: Party) -> None:
    """The preimage names the key: a signature does not verify under a second key that fits it."""
    entry = acme.service()
    one = entry.signatures[0]
    other = keys.spki(new_key().public_key())
    assert entry.preimage(one.by, other) != entry.preimage(one.by, keys.spki(acme.key.public_key()))
    assert refused(log, entry.with_signatures((Signature(one.by, other, one.value),))) is Fault.UNAUTHORISED
