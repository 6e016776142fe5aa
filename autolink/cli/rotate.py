"""`autolink id rotate`: from the key in use to the next one; where a registry has the identity, on record there at once.

Here comes first, because the entry brings the certificate that is made here. So whatever the registry does, the keystore
has the new key, and `autolink id record-rotation` completes what could not be submitted. Where the registry alone knows the
next key, of an identity that was issued or has a plain name, it is the other way round: see `rotate_on_record`.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from autolink import limits
from autolink.cli.edge import about
from autolink.cli.keeping import KEPT
from autolink.cli.making import days_option, free, lifetime_of, say_where, unencrypted_option
from autolink.cli.options import FILE, json_option, option, output_option, passphrase_option, read_chain
from autolink.cli.passphrase import new_passphrase
from autolink.cli.record_options import void_from_option
from autolink.cli.registry_link import (
    NotOnRecord,
    Reach,
    key_of_its_log,
    log_key_option,
    reach,
    registry_option,
    timeout_option,
)
from autolink.cli.rotate_on_record import Rotation, check_committed, check_terms, complete, give_request
from autolink.cli.show import describe, print_facts, print_json, say
from autolink.cli.submitting import Submission, open_key
from autolink.cli.voiding import check_void_from, confirm_void_from
from autolink.errors import AutolinkError, IdentityError, LinkLost, UsageError, display
from autolink.identity import AutoId, Credential, Keystore, save_key
from autolink.registry import making
from autolink.registry.log.note import VerifierKey


@click.command()
@click.argument("name")
@click.argument("chain", type=FILE, required=False)
@option(
    "--next-key",
    type=FILE,
    required=True,
    help="The file of the next key, as `id new` or `id register` wrote it.",
)
@option("--next-key-passphrase-file", type=FILE, help="Holds its passphrase, if that is not the new key's.")
@option(
    "--next-key-out", type=FILE,
    help="Where to write the key after it; if not given, the first of NAME.next-key-2, -3, … that is not there.",
)  # fmt: skip
@option(
    "--certificates", type=FILE,
    help="NAME is lost here: its certificates, as `id export --chain` wrote them, or its anchor if it was never rotated.",
)  # fmt: skip
@days_option(limits.LIFETIME_SELF_ISSUED_DAYS, "ten years")
@unencrypted_option
@output_option
@registry_option(required=False, help="Contact of the registry that has NAME on record: it goes there, too.")
@log_key_option(required=False)
@void_from_option
@timeout_option(help="Seconds for the registry.")
@passphrase_option
@json_option
@click.pass_context
def rotate(
    ctx: click.Context, /, name: str, *, chain: Path | None, next_key: Path, next_key_passphrase_file: Path | None,
    next_key_out: Path | None, certificates: Path | None, days: float | None, unencrypted: bool, output: Path,
    passphrase_file: Path | None, void_from: int | None, yes: bool, as_json: bool, **how: Any,  # noqa: ANN401
) -> None:  # fmt: skip
    """Replace the key of NAME by the next one, because it was lost or stolen or is old.

    It stays the same Auto ID. With --registry the rotation is put on record, too. Where that fails, NAME is rotated here all
    the same, and `autolink id record-rotation` completes it.

    Of an identity that was issued the registry alone knows the next key, and the issuer has to certify it. So without CHAIN
    this writes the request for it (-o), which goes to the issuer (`autolink id issue`); with CHAIN, its answer, the rotation
    goes on record, and then the key in place. If that fails, repeat it. Of a plain name this is one step, with --registry.
    """
    reached = _reach(void_from, **how)
    store = Keystore() if certificates is None else free(name)
    own = store.chain(name) if certificates is None else read_chain(certificates)
    check_terms(name, own, chain, reached, days=days, void_from=void_from, next_key_out=next_key_out)
    key = open_key(next_key, next_key_passphrase_file or passphrase_file)
    if own[0].next_key_hash is None:
        rotation = Rotation(name, own, key, next_key, certificates)
        if reached is None or not (chain or own[0].self_issued):  # without a registry it is the first step
            if reached is not None:
                check_committed(rotation, reached)
            give_request(rotation, output, as_json=as_json)
        else:
            complete(
                rotation, chain, reached, after=next_key_out, void_from=void_from, yes=yes, lifetime=lifetime_of(days),
                passphrase_file=passphrase_file, unencrypted=unencrypted, as_json=as_json,
            )  # fmt: skip
        return
    with about(display(str(next_key))):
        credential = Credential.rotated(own, key, lifetime=lifetime_of(days))
    if reached is not None and void_from is not None:
        _check_void_from(reached, credential.auto_id, void_from, yes=yes)
    passphrase = new_passphrase(name, passphrase_file, unencrypted=unencrypted)
    kept = next_key_out or _not_there(name, max(2, len(credential.rotations) + 1))
    _store(store, name, credential, kept, passphrase, unencrypted=unencrypted, new=certificates is not None)
    facts = {"name": name, **describe(credential.certificates), "next_key_file": str(kept)}
    if not as_json:
        print_facts(facts)
        say_where(kept, unencrypted=unencrypted)
        say(f"The key from {display(str(next_key))} is in use from now on: that file is needed no more.")
    recorded = None
    if reached is not None:
        asked = ctx.get_parameter_source("registry") is ParameterSource.COMMANDLINE
        with _completed_later(name, void_from, facts):
            recorded = _put_on_record(name, credential, reached, void_from, asked=asked)
    elif (store.folder(name) / KEPT).exists() and not as_json:
        say(f"A registry has {name} on record: tell it, with autolink id record-rotation {name}")
    if as_json:
        print_json({"ok": True, **facts, "on_record": recorded})
    elif recorded is not None:
        print_facts(recorded)


def _store(
    store: Keystore, name: str, credential: Credential, kept: Path, passphrase: str | None, *, unencrypted: bool, new: bool
) -> None:  # fmt: skip
    """Both keys, or neither.

    Args:
        kept: where the one after this goes.
        new: the identity is not there yet.
    """
    if credential.next_key is None:
        raise AssertionError("rotated without a hash of the key after the next one, so it was made here")
    save_key(kept, credential.next_key, passphrase, unencrypted=unencrypted)
    place = store.save_new if new else store.rotate
    try:
        place(name, credential, passphrase=passphrase, unencrypted=unencrypted)
    except BaseException:
        if not _may_be_in_place(store, name, credential):
            kept.unlink()
        raise


def _reach(
    void_from: int | None, *, registry: str | None, log_key: VerifierKey | None, timeout: float
) -> Reach | None:
    """The registry, dialled by nobody in particular: the keys of NAME are about to change. None: there is none.

    Raises:
        UsageError: it cannot be, or something is missing.
    """
    if registry is None:
        if void_from is not None:
            raise UsageError("--void-from is about a registry's log: give its contact, --registry")
        return None
    log_key = key_of_its_log(log_key)
    return reach(registry=registry, log_key=log_key, as_name=None, timeout=timeout, passphrase_file=None)


def _check_void_from(reached: Reach, auto_id: AutoId, void_from: int, *, yes: bool) -> None:
    """Before the next key is spent; but a registry that is down keeps nobody from outrunning a thief elsewhere."""
    try:
        check_void_from(reached, auto_id, void_from, yes=yes)
    except (LinkLost, TimeoutError):
        confirm_void_from(void_from, "unknown, the registry is not reached", yes=yes)


def _not_there(name: str, first: int) -> Path:
    """Where a next key goes if nobody says: nothing is written over."""
    return next(path for number in count(first) if not (path := Path(f"{name}.next-key-{number}")).exists())


def _put_on_record(
    name: str, credential: Credential, reached: Reach, void_from: int | None, *, asked: bool
) -> dict[str, object] | None:
    """What has changed there; None where it has never been on record, and nobody has said that it is.

    Args:
        asked: the registry is of the command line, not of the environment, which is the same for every identity.
    """
    submission = Submission(
        credential.auto_id, lambda slot: making.rotate(credential, slot, void_from=void_from), name
    )
    try:
        return submission.append(reached)
    except NotOnRecord:
        if asked or void_from is not None:
            raise
        say(f"The registry of $AUTOLINK_REGISTRY does not have {name} on record, so it was told nothing.")
        return None


@contextmanager
def _completed_later(name: str, void_from: int | None, facts: Mapping[str, object]) -> Iterator[None]:
    """Whatever stops it is told behind how it stands and how to go on, and to scripts with what was done here."""
    more = "" if void_from is None else f" --void-from {void_from}"
    how = f"{name} is rotated here, and not on record: autolink id record-rotation {name}{more} completes it"
    try:
        yield
    except (click.ClickException, AutolinkError, OSError) as error:
        error.add_note(how)
        vars(error)["facts"] = facts
        raise
    except BaseException:
        say(how)
        raise


def _may_be_in_place(store: Keystore, name: str, credential: Credential) -> bool:
    """Whether the rotation happened although an error came of it: then the key after it must not be thrown away."""
    try:
        return name in store.names() and store.chain(name)[0] == credential.leaf
    except IdentityError:
        return True
