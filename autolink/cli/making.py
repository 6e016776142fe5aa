"""What the commands share that make an identity or replace its key."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

from autolink.cli.options import Number, option
from autolink.cli.passphrase import new_passphrase
from autolink.cli.show import describe, print_facts, print_json, say
from autolink.errors import KeystoreError, display
from autolink.identity import Certificate, Credential, Keystore, save_key

F = TypeVar("F", bound=Callable[..., Any])


def unencrypted_option(function: F) -> F:
    """`--unencrypted`."""
    return option("--unencrypted", is_flag=True, help="Store the private key without a passphrase.")(function)


def days_option(cap: int, default: str) -> Callable[[F], F]:
    """`--days`, at most `cap`."""
    return option(
        "--days",
        type=Number(0, cap, min_open=True),
        help=f"Lifetime in days; {default} if not given.",
    )


def lifetime_of(days: float | None) -> timedelta | None:
    """What `--days` says."""
    return None if days is None else timedelta(days=days)


def free(name: str) -> Keystore:
    """The keystore, if the name is still free: asked before anybody types a passphrase, and again on saving."""
    store = Keystore()
    store.folder(name)
    if name not in store.names():
        return store
    hint = "choose another name, or see autolink id list"
    with suppress(KeystoreError):  # it was not requested here, so there is nothing to send to an issuer again
        store.request_pem(name)
        hint = (
            f"to renew it, have its request issued again (autolink id export {name} --request), then: "
            f"autolink id accept {name} CHAIN"
        )
    raise KeystoreError(f"there is an identity {name!r} already: {hint}")


def save_with_next_key(
    store: Keystore, name: str, credential: Credential, next_key: Path | None, passphrase_file: Path | None, *,
    unencrypted: bool,
) -> Path | None:  # fmt: skip
    """Store a new identity and, under the same passphrase, the key that may follow.

    Args:
        next_key: where that goes; None for NAME.next-key.

    Returns:
        Where it went; None if there is none.

    Raises:
        KeystoreError, UsageError: nothing was stored.
    """
    passphrase = new_passphrase(name, passphrase_file, unencrypted=unencrypted)
    kept = None
    if credential.next_key is not None:
        kept = next_key or Path(f"{name}.next-key")
        save_key(kept, credential.next_key, passphrase, unencrypted=unencrypted)
    try:
        store.save_new(name, credential, passphrase=passphrase, unencrypted=unencrypted)
    except BaseException:
        if kept:  # a next key without its identity is of no use to anybody
            kept.unlink()
        raise
    return kept


def report(name: str, certificates: Sequence[Certificate], *, as_json: bool, **more: object) -> None:
    """What an identity is now."""
    facts = {"name": name, **describe(certificates), **more}
    if as_json:
        print_json({"ok": True, **facts})
    else:
        print_facts(facts)


def say_where(next_key: Path, *, unencrypted: bool) -> None:
    """What to do with the file of a next key."""
    how = "WITHOUT a passphrase" if unencrypted else "under the same passphrase"
    say(
        f"The next key is in {display(str(next_key))}, {how}. Move it to another place than this machine: it is what "
        "takes the identity back when this key is lost."
    )
