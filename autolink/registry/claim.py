"""A registry's folder, before anything of it is read: whether there is a log in it, or one was lost, and who has it open."""

import fcntl
import os
from contextlib import suppress
from pathlib import Path
from typing import Final

from autolink.errors import SetupError, display
from autolink.registry.extent import NAME as SIGNED
from autolink.registry.extent import read_extent

DATABASE: Final = "log.db"
LOG_KEY: Final = "log.key"
LOCK: Final = "lock"
_UNFINISHED: Final = f"{DATABASE}-wal"


def check_there(folder: Path) -> None:
    """There is a log in a folder.

    Raises:
        SetupError: there is none, or it is lost: then another one in its place would be another past.
        OSError: it cannot be looked into.
    """
    if (folder / DATABASE).is_file():
        return
    check_not_lost(folder)
    raise SetupError(f"there is no registry in {display(str(folder))}: autolink registry init makes one")


def check_not_lost(folder: Path) -> None:
    """Nothing in a folder without a log is left of one.

    Raises:
        SetupError: something is, and what to do.
        OSError: it cannot be looked into.
    """
    left = [name for name in (LOG_KEY, SIGNED, _UNFINISHED) if (folder / name).exists()]
    if not left:
        return
    signed = 0
    with suppress(OSError):
        signed = read_extent(folder)
    has = f" with all entries that were signed ({signed})" if signed else ""
    # SQLite would take it for the copy's.
    first = f", after moving {_UNFINISHED} away" if _UNFINISHED in left else ""
    then = ""
    if SIGNED in left:
        then = "; never make another log under this key: a second past convicts it"
    elif left == [LOG_KEY]:  # as where `create_registry` was killed
        then = f". Only if nobody has its public key yet, remove {LOG_KEY} and make another registry"
    raise SetupError(
        f"the log of the registry in {display(str(folder))} is lost: {DATABASE} is missing, beside {' and '.join(left)}. "
        f"Restore a copy of it{has}{first}{then}"
    )


def claim(folder: Path) -> int:
    """Be the one process that has this registry open; the system lets go of it when the process ends, however it does.

    Returns:
        A descriptor, which holds the claim until it is closed.

    Raises:
        SetupError: there is no registry, or another process has it open.
        OSError: the folder cannot be used.
    """
    check_there(folder)
    held = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(held)
        raise SetupError(
            f"another process has the registry in {display(str(folder))} open: one at a time may, so end that one first"
        ) from None
    return held
