"""What this keystore was shown of each registry's log: its newest checkpoint, from which the log goes on at the next visit.

::

    $AUTOLINK_HOME
    └── registries/
        └── <key id of the log>.checkpoint      a signed note, as the log gave it

One file for all identities: whichever of them saw it, a log that is shorter, or has another past, has lost what it signed.
"""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from autolink import limits
from autolink.cli.edge import about
from autolink.cli.show import say
from autolink.errors import display
from autolink.identity import Keystore, files
from autolink.registry.client import RegistryClient
from autolink.registry.log.checkpoint import Checkpoint, verify_untrusted
from autolink.registry.log.note import VerifierKey

T = TypeVar("T")


async def held_to(client: RegistryClient, work: Callable[[RegistryClient], Awaitable[T]]) -> T:
    """Do something with a registry whose log goes on from what was seen of it, and remember what it shows.

    Raises:
        LogConvicted, Unproved: it does not.
        IdentityError, RemoteProtocolError, BadSignature, OSError: what was seen cannot be read.
    """
    client.seen = before = recall(client.log_key)
    try:
        if before is not None:
            await client.catch_up()
        done = await work(client)
        meanwhile = recall(client.log_key)  # another command may have been shown another past
        if meanwhile is not None and meanwhile != before:
            await client.go_on_with(meanwhile)
        return done
    finally:
        _remember(client.log_key, client.seen)


def recall(log_key: VerifierKey) -> Checkpoint | None:
    """The newest checkpoint that was seen of a log; None if none was."""
    path = _place(log_key)
    with about(display(str(path))):
        try:
            return verify_untrusted(files.read_bounded(path, limits.LOG_PROOF), log_key)
        except FileNotFoundError:
            return None


def _remember(log_key: VerifierKey, seen: Checkpoint | None) -> None:
    """Where there is a keystore; of two commands at once, what the one has seen that saw more."""
    path = _place(log_key)
    if seen is None or not path.parent.parent.exists():
        return
    known = recall(log_key)
    if known is not None and known.size >= seen.size:
        return
    try:
        path.parent.mkdir(mode=0o700, exist_ok=True)
        files.write_atomic(str(path), seen.note)
    except OSError as error:
        why = f"{display(str(path))}: {error.strerror}"
        say(f"WARNING: what was seen of the log is not kept, so nobody here notices if it is lost ({why})")


def _place(log_key: VerifierKey) -> Path:
    return Keystore().home / "registries" / f"{log_key.key_id.hex()}.checkpoint"
