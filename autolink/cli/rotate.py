"""`autolink id rotate`: from the key in use to the next one, without a registry."""

from collections.abc import Sequence
from pathlib import Path

import click

from autolink import limits
from autolink.cli.edge import about
from autolink.cli.making import days_option, free, lifetime_of, report, say_where, unencrypted_option
from autolink.cli.options import FILE, json_option, option, passphrase_option, read, read_chain
from autolink.cli.passphrase import new_passphrase, passphrase_for
from autolink.cli.show import say
from autolink.errors import IdentityError, UsageError, display
from autolink.identity import Certificate, Credential, Keystore, save_key, show_name
from autolink.identity.keys import PrivateKey
from autolink.identity.rotation import split_chain
from autolink.identity.sealed import KEY_BYTES, is_sealed, unseal


@click.command()
@click.argument("name")
@option("--next-key", type=FILE, required=True, help="The file of the next key, as `id new` wrote it.")
@option("--next-key-passphrase-file", type=FILE, help="Holds its passphrase, if that is not the new key's.")
@option(
    "--next-key-out", type=FILE, help="Where to write the key after it; NAME.next-key-2, -3, … if not given."
)
@option(
    "--certificates", type=FILE,
    help="NAME is lost here: its certificates, as `id export --chain` wrote them, or its anchor if it was never rotated.",
)  # fmt: skip
@days_option(limits.LIFETIME_SELF_ISSUED_DAYS, "ten years")
@unencrypted_option
@passphrase_option
@json_option
def rotate(
    name: str, *, next_key: Path, next_key_passphrase_file: Path | None, next_key_out: Path | None,
    certificates: Path | None, days: float | None, unencrypted: bool, passphrase_file: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Replace the key of NAME by the next one, because it was lost or stolen or is old.

    Only for an identity that nobody issued and whose name is bound. It stays the same Auto ID: peers follow by themselves.
    """
    store = Keystore() if certificates is None else free(name)
    own = store.chain(name) if certificates is None else read_chain(certificates)
    _check_can(name, own)
    key = _open(next_key, next_key_passphrase_file or passphrase_file)
    with about(display(str(next_key))):
        credential = Credential.rotated(own, key, lifetime=lifetime_of(days))
    passphrase = new_passphrase(name, passphrase_file, unencrypted=unencrypted)
    kept = next_key_out or Path(f"{name}.next-key-{len(credential.rotations) + 1}")
    if credential.next_key is None:
        raise AssertionError("rotated without a hash of the key after the next one, so it was made here")
    save_key(kept, credential.next_key, passphrase, unencrypted=unencrypted)
    place = store.rotate if certificates is None else store.save_new
    try:
        place(name, credential, passphrase=passphrase, unencrypted=unencrypted)
    except BaseException:
        if not _may_be_in_place(store, name, credential):
            kept.unlink()
        raise
    report(name, credential.certificates, as_json=as_json, next_key_file=str(kept))
    if not as_json:
        say_where(kept, unencrypted=unencrypted)
        say(f"The key from {display(str(next_key))} is in use from now on: that file is needed no more.")


def _check_can(name: str, own: Sequence[Certificate]) -> None:
    """Said before anybody types a passphrase."""
    chain, _ = split_chain(own)
    if len(chain) > 1:
        issuer = show_name(chain[1].common_name)
        raise UsageError(
            f"{name} was issued by {issuer}, who alone gives it another key: ask with a new request (autolink id request "
            f"NEW --common-name {display(chain[0].common_name)!r})"
        )
    if chain[0].next_key_hash is None:
        raise UsageError(
            f"{name} has a plain name, which commits to no next key: nobody could tell its new key from an impostor's"
        )


def _open(path: Path, passphrase_file: Path | None) -> PrivateKey:
    with about(display(str(path))):
        data = read(path, KEY_BYTES)
    passphrase = passphrase_for(str(path), passphrase_file) if is_sealed(data) else None
    with about(display(str(path))):
        return unseal(data, passphrase)


def _may_be_in_place(store: Keystore, name: str, credential: Credential) -> bool:
    """Whether the rotation happened although an error came of it: then the key after it must not be thrown away."""
    try:
        return name in store.names() and store.chain(name)[0] == credential.leaf
    except IdentityError:
        return True
