"""Where a passphrase comes from: a file, the environment, or a person; never an argument, which `ps` shows to all."""

import logging
import sys
from pathlib import Path
from typing import Final

import click

from autolink import limits
from autolink.cli.options import read
from autolink.errors import UsageError, display
from autolink.identity import Credential, EntityKind, Keystore, environment_passphrase, show_name

_log: Final = logging.getLogger("autolink.cli")
_BYTES = 4 * limits.KIB


def passphrase_for(whose: str, file: Path | None, *, new: bool = False) -> str:
    """The passphrase of a stored key, or a new one.

    Args:
        whose: named in the question.
        file: given on the command line; its last line end is not part of the passphrase.
        new: ask twice.

    Raises:
        UsageError: there is none, or no one to ask.
        IdentityError, OSError: the file cannot be read.
    """
    if file is not None:
        passphrase = read(file, _BYTES).decode(errors="surrogateescape").removesuffix("\n").removesuffix("\r")
    else:
        passphrase = environment_passphrase() or ""
        if not passphrase and has_person():
            passphrase = click.prompt(
                f"{'New passphrase' if new else 'Passphrase'} of {display(whose)}",
                hide_input=True, confirmation_prompt=new, err=True,
            )  # fmt: skip
    if not passphrase:
        where = f"{display(str(file))} is empty" if file else "nobody to ask for it"
        other = ", or store the key with --unencrypted" if new else ""
        raise UsageError(
            f"no passphrase for {display(whose)} ({where}): use --passphrase-file or $AUTOLINK_PASSPHRASE{other}"
        )
    return passphrase


def new_passphrase(whose: str, file: Path | None, *, unencrypted: bool) -> str | None:
    """The passphrase under which to store a key; None for none, where that was asked for.

    Raises:
        UsageError: as `passphrase_for`, or both were asked for.
    """
    if not unencrypted:
        return passphrase_for(whose, file, new=True)
    if file is not None:
        raise UsageError("a key is stored under a passphrase or with --unencrypted, not both")
    return None


def load_identity(name: str, passphrase_file: Path | None) -> Credential:
    """An identity from the keystore, its passphrase asked for only where it needs one.

    Raises:
        KeystoreError: as `Keystore.load`.
        UsageError, IdentityError, OSError: as `passphrase_for`.
    """
    store = Keystore()
    passphrase = passphrase_for(name, passphrase_file) if store.is_encrypted(name) else None
    return store.load(name, passphrase=passphrase)


def warn_if_own(credential: Credential) -> None:
    """Say why peers are going to refuse an identity that nobody issued, before they do."""
    if credential.leaf.self_issued:
        whose = "a person" if credential.leaf.kind is EntityKind.PERSON else "an organisation"
        _log.warning(
            "%s is %s's own identity; peers that trust its issuer:FILE believe only whom it issued: make an agent "
            "with `autolink id request`",
            show_name(credential.name), whose,
        )  # fmt: skip


def has_person() -> bool:
    """Whether somebody is there to answer."""
    return sys.stdin.isatty()
