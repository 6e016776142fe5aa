"""The commands of `autolink id` that change what a registry has on record: `register` to `recover`.

Each command makes one entry with the keys that it takes, has it appended, and keeps the registry's receipt and proof in the
identity's folder. Where somebody on another machine has to sign too, the entry goes there in a file.
"""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click

from autolink import limits
from autolink.cli.making import free
from autolink.cli.options import FILE, Number, json_option, option, read_chain
from autolink.cli.passphrase import load_identity
from autolink.cli.record_options import (
    chosen_guardians,
    guardian_options,
    make_sure,
    next_key_options,
    out_option,
    void_from_option,
    yes_option,
)
from autolink.cli.registry_link import auto_id_of, reach, reach_options
from autolink.cli.submitting import (
    Submission,
    fetch,
    in_keystore,
    issuer_of,
    load_guardians,
    named,
    next_key_hash,
    open_key,
    write_entry,
)
from autolink.cli.succeeding import check_may_succeed, make_successor
from autolink.cli.voiding import check_void_from
from autolink.errors import UsageError, display
from autolink.identity import AutoId, Certificate, Credential, Keystore
from autolink.identity.keystore import is_entry_name
from autolink.identity.rotation import split_chain
from autolink.registry import making
from autolink.registry.entries import Entry
from autolink.registry.making import Slot

# --- entries of one's own ----------------------------------------------------------------------------------


@click.command()
@click.argument("name")
@next_key_options
@guardian_options
@out_option
@reach_options(required=False)
@json_option
def register(
    name: str, *, next_key: Path | None, unencrypted: bool, guardian: tuple[str, ...], threshold: int | None,
    delay: float, guardians_file: Path | None, out: Path | None, as_json: bool, passphrase_file: Path | None,
    **how: Any,  # noqa: ANN401
) -> None:  # fmt: skip
    """Put NAME on record: from then on it can be looked up, revoked and recovered.

    An identity that was issued needs its issuer's signature, too: it is made here if the issuer is in this keystore, else
    with --out and `autolink id countersign`. Once it is on record, what proves that is fetched.
    """
    credential = load_identity(name, passphrase_file)
    issued = len(credential.chain) > 1
    if out and not issued:
        raise UsageError(f"{name} signs for itself: leave --out out, and submit it")
    reached = None if out else reach(passphrase_file=passphrase_file, **how)
    issuer = None
    if issued and reached is not None:
        try:
            issuer = issuer_of(name, credential, passphrase_file)
        except UsageError:
            if fetch(name, credential, reached, as_json=as_json):
                return
            raise
    chosen = chosen_guardians(name, credential, reached, guardian, threshold, delay, guardians_file)
    following, key_file = next_key_hash(name, credential, next_key, passphrase_file, unencrypted=unencrypted)

    def make(slot: Slot) -> Entry:
        entry = making.register(credential, slot, next_key=following, guardians=chosen.guardians)
        return making.countersign(entry, issuer) if issuer else entry

    if reached is None and out:
        write_entry(out, make, how["log_key"].name)
    elif reached:
        more = {} if key_file is None else {"next_key_file": str(key_file)}
        submission = Submission(credential.auto_id, make, name, registers=True)
        with chosen.written_down():
            submission.submit(reached, as_json=as_json, **more)


@click.command()
@click.argument("name")
@click.argument("chain", type=FILE, required=False)
@option(
    "--days",
    type=Number(0, limits.LIFETIME_SELF_ISSUED_DAYS, min_open=True),
    help="Lifetime of a self-issued one's.",
)
@reach_options()
@json_option
def renew(
    name: str, *, chain: Path | None, days: float | None, as_json: bool, passphrase_file: Path | None, **how: Any  # noqa: ANN401
) -> None:  # fmt: skip
    """Put a newer certificate of NAME on record, over the same key.

    Of an identity that was issued, CHAIN, its issuer's answer, which is put in place when it is on record, so that a served
    agent shows nothing that its peers do not find there; without CHAIN the one that `autolink id accept` has put in place.
    A self-issued one is given another.
    """
    reached = reach(passphrase_file=passphrase_file, **how)
    credential, store = load_identity(name, passphrase_file), Keystore()
    new: tuple[Certificate, ...] | None = None
    if chain is not None:
        new = read_chain(chain)
        certificates, rotations = split_chain(new)
        credential = Credential(certificates, credential.private_key, rotations=rotations)
    elif len(credential.chain) == 1:
        lifetime = None if days is None else timedelta(days=days)
        leaf = making.renewed(credential, now=datetime.now(UTC), lifetime=lifetime)
        new = (leaf, *store.chain(name)[1:])
        credential = Credential((leaf,), credential.private_key, rotations=credential.rotations)
    if days is not None and len(credential.chain) > 1:
        raise UsageError(f"{name} was issued: its issuer says for how long (autolink id issue)")
    submission = Submission(credential.auto_id, lambda slot: making.renew(credential, slot), name)
    submission.submit(reached, as_json=as_json)
    if new is not None:
        store.accept(name, new)


@click.command("record-rotation")
@click.argument("name")
@void_from_option
@reach_options()
@json_option
def record_rotation(
    name: str, *, void_from: int | None, yes: bool, as_json: bool, passphrase_file: Path | None,
    **how: Any,  # noqa: ANN401
) -> None:  # fmt: skip
    """Put on record that NAME has gone on to its next key: what `autolink id rotate` has done here, and could not there.

    That outruns a thief of the old key, ends a recovery that is under way, and makes a revoked ID active again.
    """
    if Keystore().chain(name)[0].next_key_hash is None:
        raise UsageError(
            f"the certificate of {name} commits to no next key, so its rotation goes on record before anything is changed "
            f"here: autolink id rotate {name} --next-key FILE"
        )
    reached = reach(passphrase_file=passphrase_file, **how)
    credential = load_identity(name, passphrase_file)
    check_void_from(reached, credential.auto_id, void_from, yes=yes)
    submission = Submission(
        credential.auto_id, lambda slot: making.rotate(credential, slot, void_from=void_from), name
    )
    submission.submit(reached, as_json=as_json)


@click.command()
@click.argument("who", metavar="AUTOID|NAME")
@option("--by", metavar="NAME", help="Who revokes it: its issuer, or one above that; itself if not given.")
@yes_option
@reach_options()
@json_option
def revoke(
    who: str, *, by: str | None, yes: bool, as_json: bool, passphrase_file: Path | None, **how: Any  # noqa: ANN401
) -> None:  # fmt: skip
    """End the key of an Auto ID, and with it every link of it and of what stands below it.

    The key never comes back; the ID does, by rotating to its next key or by a recovery. Asks before that.
    """
    auto_id, signer = auto_id_of(who), by or who
    if not is_entry_name(signer) or (by is None and _is_id(who)):
        raise UsageError("who signs it? --by NAME, an identity of this keystore")
    reached = reach(passphrase_file=passphrase_file, **how)
    why = "its key never comes back, and every link of it and of what stands below it ends"
    make_sure(f"Revoke {named(auto_id)}?", why, yes=yes)
    credential = load_identity(signer, passphrase_file)
    submission = Submission(auto_id, lambda slot: making.revoke(auto_id, slot, by=credential), signer)
    submission.submit(reached, as_json=as_json)


def _is_id(text: str) -> bool:
    return len(text) == 64 and not set(text) - set("0123456789abcdef")


@click.command()
@click.argument("who", metavar="AUTOID|NAME")
@option("--next-key", type=FILE, help="The file of its next key, which alone ends it itself.")
@option("--by", metavar="NAME", help="Who ends it instead: an issuer above it.")
@yes_option
@reach_options()
@json_option
def deactivate(
    who: str, *, next_key: Path | None, by: str | None, yes: bool, as_json: bool, passphrase_file: Path | None,
    **how: Any,  # noqa: ANN401
) -> None:  # fmt: skip
    """End an Auto ID for ever. Nothing and nobody brings it back, and its name is never free again. Asks before that."""
    if (next_key is None) == (by is None):
        raise UsageError(
            "an ID is ended with its next key (--next-key FILE), or by an issuer above it (--by NAME)"
        )
    auto_id = auto_id_of(who)
    reached = reach(passphrase_file=passphrase_file, **how)
    make_sure(f"End {named(auto_id)} for ever?", "this cannot be undone", yes=yes)
    key = None if next_key is None else open_key(next_key, passphrase_file)
    ancestor = None if by is None else load_identity(by, passphrase_file)
    keep_in = by or who
    submission = Submission(
        auto_id, lambda slot: making.deactivate(auto_id, slot, next_key=key, by=ancestor), keep_in
    )
    submission.submit(reached, as_json=as_json)


@click.command()
@click.argument("name")
@reach_options()
@json_option
def delay(name: str, *, as_json: bool, passphrase_file: Path | None, **how: Any) -> None:  # noqa: ANN401
    """Make the recovery of NAME take once more as long: its current key may do that, once."""
    reached = reach(passphrase_file=passphrase_file, **how)
    credential = load_identity(name, passphrase_file)
    submission = Submission(credential.auto_id, lambda slot: making.delay(credential, slot), name)
    submission.submit(reached, as_json=as_json)


@click.command()
@click.argument("name")
@option("--next-key", type=FILE, required=True, help="The file of its next key, which alone may do this.")
@guardian_options
@reach_options()
@json_option
def guardians(
    name: str, *, next_key: Path, guardian: tuple[str, ...], threshold: int | None, delay: float,
    guardians_file: Path | None, as_json: bool, passphrase_file: Path | None, **how: Any,  # noqa: ANN401
) -> None:  # fmt: skip
    """Choose who may recover NAME from now on, instead of those before; nobody if none is given."""
    reached = reach(passphrase_file=passphrase_file, **how)
    key = open_key(next_key, passphrase_file)
    credential = load_identity(name, passphrase_file)
    chosen = chosen_guardians(name, credential, reached, guardian, threshold, delay, guardians_file)
    auto_id = credential.auto_id
    submission = Submission(
        auto_id, lambda slot: making.guardians(auto_id, slot, chosen.guardians, next_key=key), name
    )
    with chosen.written_down():
        submission.submit(reached, as_json=as_json)


# --- recovery ----------------------------------------------------------------------------------------------


@click.command()
@click.argument("name")
@option(
    "--guardians-file", type=FILE, help="What `id register` wrote down of the guardians of a self-issued one."
)
@option(
    "--guardian", metavar="AUTOID|NAME", multiple=True,
    help="Which of the guardians sign; the first ones of the file if not given. Repeatable.",
)  # fmt: skip
@option(
    "--of",
    metavar="AUTOID|NAME",
    help="Make NAME first, a new key for this Auto ID, which has a bound name; its next key goes to --next-key FILE.",
)
@void_from_option
@next_key_options
@out_option
@reach_options()
@json_option
def recover(
    name: str, *, guardians_file: Path | None, guardian: tuple[str, ...], of: str | None, void_from: int | None,
    yes: bool, next_key: Path | None, unencrypted: bool, out: Path | None, as_json: bool, passphrase_file: Path | None,
    **how: Any,  # noqa: ANN401
) -> None:  # fmt: skip
    """Begin to give an Auto ID the key of NAME, a new identity of the same Auto ID, because the old one is lost or stolen.

    The issuer signs it, or guardians of a self-issued one; those in this keystore at once, others with --out and `autolink
    id countersign`. The new key takes over when the delay on record has passed. A bound name does not lead to such a key:
    those peers believe it that believe this registry, and no others.
    """
    if of is not None:  # all that can be wrong is said before a key is made
        free(name)
        revealed = _revealed(auto_id_of(of), guardians_file, guardian)
        if not out:
            _in_this_keystore(revealed)
    reached = reach(passphrase_file=passphrase_file, **how)
    if of is not None:
        check_void_from(reached, auto_id_of(of), void_from, yes=yes)
        make_successor(name, auto_id_of(of), reached, next_key, passphrase_file, unencrypted=unencrypted)
        next_key = None
    credential = load_identity(name, passphrase_file)
    issued = len(credential.chain) > 1
    if not issued:
        check_may_succeed(credential, reached.log_key)
    if of is None:
        check_void_from(reached, credential.auto_id, void_from, yes=yes)
    revealed = {} if issued else _revealed(credential.auto_id, guardians_file, guardian)
    signers = [] if out else _signers(name, credential, revealed, passphrase_file)
    following, _ = next_key_hash(name, credential, next_key, passphrase_file, unencrypted=unencrypted)

    def make(slot: Slot) -> Entry:
        entry = making.recover(credential, slot, next_key=following, void_from=void_from, revealed=revealed)
        for signer in signers:
            entry = making.countersign(entry, signer)
        return entry

    if out:
        place = reached.use(lambda client: client.place(credential.auto_id))
        write_entry(out, make, reached.log_key.name, place)
    else:
        Submission(credential.auto_id, make, name).submit(reached, as_json=as_json)


def _revealed(auto_id: AutoId, file: Path | None, guardian: tuple[str, ...]) -> dict[AutoId, bytes]:
    """Who signs, each with its salt."""
    if file is None:
        raise UsageError("who are its guardians? --guardians-file FILE, which `autolink id register` wrote")
    threshold, salts = load_guardians(file, auto_id)
    chosen = [auto_id_of(text) for text in guardian] or list(salts)[:threshold]
    for one in chosen:
        if one not in salts:
            raise UsageError(f"{one} is no guardian in {display(str(file))}")
    if len(set(chosen)) < threshold:
        raise UsageError(
            f"a recovery takes {threshold} guardians, not {len(set(chosen))}: name more with --guardian"
        )
    return {one: salts[one] for one in chosen}


def _signers(
    name: str, credential: Credential, revealed: dict[AutoId, bytes], passphrase_file: Path | None
) -> list[Credential]:
    """Who else has to sign, all of them from this keystore."""
    if not revealed:
        return [issuer_of(name, credential, passphrase_file)]
    return [load_identity(here, passphrase_file) for here in _in_this_keystore(revealed)]


def _in_this_keystore(revealed: Iterable[AutoId]) -> list[str]:
    found = {auto_id: in_keystore(auto_id) for auto_id in revealed}
    away = [str(auto_id) for auto_id, here in found.items() if here is None]
    if away:
        raise UsageError(
            f"{', '.join(away)} must sign and is not in this keystore: write the entry with --out FILE"
        )
    return [here for here in found.values() if here]
