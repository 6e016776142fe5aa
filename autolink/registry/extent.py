"""How far a log was signed, in a small file beside its database.

From a write-ahead log SQLite drops all that stands behind a wrong checksum, and says nothing. After a crash one bit that has
rotted there would take groups with it that were acknowledged, and the log would go on without them: it would have signed
two pasts. So the size that was signed last is written down once more, after each commit and without another sync: what a
power failure leaves here may be older than the database, never newer.
"""

import os
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Final, final

from autolink.errors import SetupError, display

NAME: Final = "signed"
"""The file: a decimal number of 20 digits and the CRC-32 of these, so that each write is of the same few bytes."""

_DIGITS: Final = 20
_BYTES: Final = _DIGITS + 1 + 8 + 1


def check_extent(folder: Path, found: int) -> None:
    """All that a folder's log has signed is among the `found` entries.

    Raises:
        SetupError: it is not, and what can be done.
        OSError: the file is there, and cannot be read.
    """
    if found < (signed := read_extent(folder)):
        raise SetupError(
            f"the registry in {display(str(folder))} has lost entries that it has signed: of {signed} there are {found}. "
            f"Restore a newer copy of its database; without one, remove the file {NAME!r} to go on with what there is, "
            "which whoever has seen more will hold against this log"
        )


def read_extent(folder: Path) -> int:
    """The size that the log has had at least; 0 where nothing can be said.

    Raises:
        OSError: the file is there, and cannot be read.
    """
    try:
        descriptor = os.open(folder / NAME, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return 0
    with os.fdopen(descriptor, "rb") as file:
        data = file.read(_BYTES + 1)
    size = int(data[:_DIGITS]) if data[:_DIGITS].isdigit() else 0
    return size if data == _line(size) else 0


@final
class Extent:
    """The file, open for the one who appends.

    Raises:
        OSError: it cannot be opened or written.
    """

    def __init__(self, folder: Path, size: int) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        self._file = os.open(folder / NAME, flags, 0o600)
        try:
            os.pwrite(self._file, _line(size), 0)
            os.ftruncate(self._file, _BYTES)
        except OSError:
            self.close()
            raise

    def write(self, size: int) -> None:
        """After a commit. The group is kept, so a disk that fails here changes nothing: an older size says less, but nothing
        false."""
        with suppress(OSError):
            os.pwrite(self._file, _line(size), 0)

    def close(self) -> None:
        os.close(self._file)


def _line(size: int) -> bytes:
    digits = b"%0*d" % (_DIGITS, size)
    return b"%s %08x\n" % (digits, zlib.crc32(digits))
