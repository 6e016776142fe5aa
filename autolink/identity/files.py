"""Files read with a bound, and written whole or not at all."""

import errno
import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Final

from autolink.errors import IdentityError, display

_NO_LINKS: Final = (errno.EPERM, errno.ENOTSUP)
"""What a file system without hard links answers, such as FAT, which most sticks have."""


def read_bounded(path: str | os.PathLike[str], limit: int) -> bytes:
    """The content of a file that its owner named.

    Raises:
        IdentityError: it is larger than `limit` bytes.
        OSError: it cannot be read.
    """
    with Path(path).open("rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise IdentityError(f"{display(os.fspath(path))} is larger than {limit} bytes")
    return data


def write_atomic(
    name: str, data: bytes, *, folder: int | None = None, mode: int = 0o600, replace: bool = True
) -> None:
    """Write a file so that another process, a crash or a full disk sees the old content or the new, never a
    part.

    Args:
        name: a path, or a file's name inside the directory opened as `folder`.
        replace: whether an existing file gives way; if not, FileExistsError.

    Raises:
        OSError: it could not be written; nothing is left behind.
    """
    temporary = f"{name}.{secrets.token_hex(8)}.tmp"
    try:
        descriptor = os.open(
            temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode, dir_fd=folder
        )
    except OSError as error:
        error.filename = name  # which is what the caller knows
        raise
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if replace:
            os.replace(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
        else:
            _name_new(temporary, name, folder, mode)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=folder)
    sync_folder(name, folder)


def _name_new(temporary: str, name: str, folder: int | None, mode: int) -> None:
    """Give a file the name that it is for. A link fails where a file already is; a rename would take its place. Where there
    are no links, the name is claimed by an empty file for the rename to replace.

    Raises:
        OSError: as `write_atomic`.
    """
    try:
        os.link(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode, dir_fd=folder))
        try:
            os.replace(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
        except OSError:
            os.unlink(name, dir_fd=folder)
            raise


def sync_folder(name: str, folder: int | None) -> None:
    """Make the new name itself survive a crash."""
    if folder is not None:
        os.fsync(folder)
        return
    descriptor = os.open(Path(name).parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
