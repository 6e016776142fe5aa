"""Folders and files that nobody but their owner can have read or changed.

They are opened one from the other by descriptor and without following links, and judged after they are open, so nothing can
be exchanged between the look and the use. What is not ours, is readable by others, or has a second name (a hard link) is
refused.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from autolink.errors import IdentityError, KeystoreError, display

_NOT_OURS: Final = (errno.ELOOP, errno.ENOTDIR)
_OPEN: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK  # NONBLOCK: a FIFO must not hang us


@contextmanager
def errors_about(path: Path) -> Iterator[None]:
    """The one edge where errors get the name of the place, and the operating system's become ours.

    Raises:
        KeystoreError: for each IdentityError and OSError of the block.
    """
    shown = display(str(path))
    try:
        yield
    except IdentityError as error:
        raise KeystoreError(f"{shown}: {error}", error.reason) from None
    except OSError as error:
        odd = "a link or another kind of file is in its place"
        what = odd if error.errno in _NOT_OURS else error.strerror
        raise KeystoreError(f"{shown}: {what} ({display(str(error.filename or ''), 80)})") from error


@contextmanager
def open_folder(name: str | Path, parent: int | None) -> Iterator[int]:
    """The descriptor of a folder: of the path `name`, or of that name in the folder `parent`.

    Raises:
        KeystoreError: it is not ours alone.
        OSError: it is not there, or no folder.
    """
    descriptor = os.open(name, _OPEN | os.O_DIRECTORY, dir_fd=parent)
    try:
        _check_ours(os.fstat(descriptor), str(name))
        yield descriptor
    finally:
        os.close(descriptor)


def read(folder: int, name: str, limit: int) -> bytes:
    """The content of a file in an open folder.

    Raises:
        KeystoreError: it is not ours alone, no plain file, or larger than `limit` bytes.
        OSError: it is not there, or cannot be read.
    """
    descriptor = os.open(name, _OPEN, dir_fd=folder)
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        _check_ours(status, name)
        if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
            raise KeystoreError(
                f"{name} is no plain file, or has a second name: it may have been put there by others"
            )
        data = file.read(limit + 1)
    if len(data) > limit:
        raise KeystoreError(f"{name} is larger than {limit} bytes")
    return data


def read_optional(folder: int, name: str, limit: int) -> bytes | None:
    """As `read`; None where there is no such file."""
    try:
        return read(folder, name, limit)
    except FileNotFoundError:
        return None


def _check_ours(status: os.stat_result, name: str) -> None:
    shown = display(name)
    if status.st_uid != os.geteuid():
        raise KeystoreError(f"{shown} belongs to another user")
    if stat.S_IMODE(status.st_mode) & 0o077:
        raise KeystoreError(
            f"{shown} is open to other users: chmod go= it, and consider whether its key was read"
        )
