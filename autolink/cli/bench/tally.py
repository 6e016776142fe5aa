"""What a load has counted: latencies, errors by kind, links, and whether the asked rate was held."""

import socket
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from autolink import Link
from autolink.cli.bench.histogram import HOUR, empty_histogram
from autolink.cli.edge import Status, shown
from autolink.errors import (
    AutolinkError,
    BodyError,
    CallError,
    LinkLost,
    LocalProtocolError,
    Reason,
    Refused,
    RemoteProtocolError,
)

if TYPE_CHECKING:
    from hdrh.histogram import HdrHistogram

UNFINISHED: Final = "unfinished"
"""The kind of an operation that was still out some time after the load had ended."""

_KINDS: Final[tuple[tuple[type[BaseException], str], ...]] = (
    (TimeoutError, "timeout"),
    (BodyError, "body"),
    (RemoteProtocolError, "protocol"),
    (LocalProtocolError, "draining"),
    (LinkLost, "link_lost"),
)

_STATUS: Final = {
    "refused": Status.REFUSED,
    "answered": Status.ANSWERED,
    "draining": Status.UNREACHED,
    "link_lost": Status.UNREACHED,
    "unreached": Status.UNREACHED,
    "timeout": Status.UNREACHED,
    UNFINISHED: Status.UNREACHED,
}


def refusal(error: BaseException) -> Refused | None:
    """The judgement about us, or ours about the agent, behind an error; None if there is none.

    `busy` is none: it is not about who we are, and what a load is there to find.
    """
    while not isinstance(error, Refused):
        if error.__cause__ is None:
            return None
        error = error.__cause__
    return None if error.reason is Reason.BUSY else error


def kind_of(error: BaseException) -> str:
    """The kind under which an error is counted."""
    if isinstance(error, Refused):
        return f"refused:{error.reason}"
    if isinstance(error, CallError):
        return f"answered:{error.code}"
    if isinstance(error, LinkLost) and isinstance(error.__cause__, OSError | socket.gaierror):
        return "unreached"
    return next((kind for type_, kind in _KINDS if isinstance(error, type_)), type(error).__name__)


def status_of_kind(kind: str) -> Status:
    """The exit status if nothing but errors of this kind came of a load."""
    kind, _, _ = kind.partition(":")
    return _STATUS.get(kind, Status.FAILED)


@dataclass(slots=True)
class Failures:
    """Errors of one kind.

    Attributes:
        count: how many.
        first: the text of the first one, safe to show.
    """

    count: int
    first: str


@dataclass(slots=True)
class Tally:
    """See the module. Times are in seconds.

    Attributes:
        latencies: of the operations that went as they should, in microseconds; in an open loop from when they were due.
        over_an_hour: how many of those took longer, and are counted as an hour.
        in_time: how many of those ended before the load did; the rate is made of these.
        errors: by kind.
        links: opened under load or for it.
        resumed: those whose TLS session was resumed.
        started, due: operations that were begun, and (open loop) that should have been.
        latest: how much too late one was begun (open loop).
        seconds: how long the load lasted.
        cpu: processor time of the process meanwhile.
        last_success, last_failure: seconds after the begin of the load; 0 if there was none.
    """

    latencies: "HdrHistogram" = field(default_factory=empty_histogram)
    over_an_hour: int = 0
    in_time: int = 0
    errors: dict[str, Failures] = field(default_factory=dict)
    links: int = 0
    resumed: int = 0
    started: int = 0
    due: int = 0
    latest: float = 0.0
    seconds: float = 0.0
    cpu: float = 0.0
    last_success: float = 0.0
    last_failure: float = 0.0

    def succeeded(self, seconds: float, *, in_time: bool) -> None:
        """Count an operation that went as it should."""
        latency = round(seconds * 1_000_000)
        self.latencies.record_value(min(latency, HOUR))
        self.over_an_hour += latency > HOUR
        self.in_time += in_time

    def failed(self, error: AutolinkError | OSError) -> None:
        """Count one that did not."""
        kind = kind_of(error)
        if kind in self.errors:
            self.errors[kind].count += 1  # the text of an error is made once for each kind, not under load
        else:
            self.errors[kind] = Failures(1, shown(error))

    def left(self, count: int) -> None:
        """Count operations that did not end at all."""
        if count:
            self.errors[UNFINISHED] = Failures(count, "still out when the time to finish had passed")

    def opened(self, link: Link) -> None:
        """Count a link."""
        self.links += 1
        self.resumed += link.tls.resumed

    @property
    def failures(self) -> int:
        """Errors of all kinds."""
        return sum(failures.count for failures in self.errors.values())

    @property
    def ended_dead(self) -> bool:
        """Whether nothing succeeded in the last quarter of the time, and what came after the last success failed."""
        return self.last_success < min(0.75 * self.seconds, self.last_failure)

    def add(self, other: "Tally") -> None:
        """Count what another worker has counted, too. They ran side by side: the longest and the latest counts."""
        self.latencies.add(other.latencies)
        for kind, failures in other.errors.items():
            mine = self.errors.setdefault(kind, Failures(0, failures.first))
            mine.count += failures.count
        for name in ("over_an_hour", "in_time", "links", "resumed", "started", "due"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in ("latest", "seconds", "cpu", "last_success", "last_failure"):
            setattr(self, name, max(getattr(self, name), getattr(other, name)))

    def as_plain(self) -> dict[str, Any]:
        """For another process."""
        plain = {name: getattr(self, name) for name in self.__slots__}
        errors = {kind: [failures.count, failures.first] for kind, failures in self.errors.items()}
        return {**plain, "latencies": self.latencies.encode(), "errors": errors}

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> "Tally":
        """What `as_plain` made."""
        errors = {kind: Failures(*failures) for kind, failures in plain["errors"].items()}
        made = cls(**{**plain, "latencies": empty_histogram(), "errors": errors})
        made.latencies.decode_and_add(plain["latencies"])
        return made
