"""What an audit reads a log by, wherever it is; `sources` has those that there are.

Nothing that is read is believed. What cannot be read, or does not fit, is a `SourceFailed`: that convicts nobody, for
nobody has signed it.
"""

from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Protocol, Self

from autolink.errors import AutolinkError, LinkLost, UsageError
from autolink.identity import AutoId
from autolink.registry.log.checkpoint import Checkpoint

Progress = Callable[[int, int], None]
"""Told now and then how far something is, and of how much: entries, or statuses."""


class SourceFailed(AutolinkError):
    """A log could not be read there, or what was read does not fit to what the log has signed."""


class SourceLost(SourceFailed, LinkLost):
    """Nobody was reached there, or not for long enough: trying again may help."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.hint = "is it served there?"


class Source(Protocol):
    """A log as somebody holds it. A context manager."""

    def checkpoint(self) -> bytes:
        """The newest signed note that there is, unverified.

        Raises:
            SourceFailed: there is none.
        """

    def leaves(self, start: int, signed: Checkpoint) -> Iterator[bytes]:
        """The entries from place `start` on, up to those of a verified checkpoint.

        Raises:
            SourceFailed: one is not there, or not what was signed.
        """

    def is_registry(self) -> bool:
        """Whether a registry is there, which can be asked for statuses, records and entries.

        Raises:
            SourceFailed: that cannot be found out.
        """

    def status(self, auto_id: AutoId) -> bytes | None:
        """What is served as an ID's status, unverified; None for nothing.

        Raises:
            UsageError: nobody serves statuses there.
            SourceFailed: it cannot be read.
        """

    def status_json(self, auto_id: AutoId) -> bytes | None:
        """What is served as an ID's status to who wants JSON (`views.StatusView`); None for nothing.

        Raises:
            UsageError, SourceFailed: as `status`.
        """

    def record_json(self, auto_id: AutoId) -> bytes | None:
        """What is served as an ID's record (`views.RecordView`); None for nothing.

        Raises:
            UsageError, SourceFailed: as `status`.
        """

    def entry_json(self, index: int) -> bytes | None:
        """What is served as an entry (`views.EntryView`); None for nothing.

        Raises:
            UsageError, SourceFailed: as `status`.
        """

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Unserved:
    """A source of entries alone, which needs no closing: the base of those that are no registry."""

    def is_registry(self) -> bool:
        return False

    def status(self, auto_id: AutoId) -> bytes | None:
        raise _served_nowhere()

    def status_json(self, auto_id: AutoId) -> bytes | None:
        raise _served_nowhere()

    def record_json(self, auto_id: AutoId) -> bytes | None:
        raise _served_nowhere()

    def entry_json(self, index: int) -> bytes | None:
        raise _served_nowhere()

    def close(self) -> None:
        """Nothing more is read."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _served_nowhere() -> UsageError:
    return UsageError("nobody serves that there: ask the registry by its URL")
