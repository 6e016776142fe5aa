"""Latencies in bounded memory, with the buckets of HdrHistogram.

A value below 2,048 has a bucket of its own. Above, each doubling is cut into 1,024 equal buckets, so that a bucket's
width is at most a thousandth of what is in it: three significant digits from a microsecond to any length, in some
thousands of counters at most. Histograms of several processes are added bucket by bucket, and percentiles are taken from
the sum: percentiles themselves cannot be averaged.

The tests compare every result with the library `hdrhistogram`. It is no dependency of the package, because it would
bring two packaging tools, `pbr` and `setuptools` (83 or newer), into every installation, and has to be compiled on some
platforms.
"""

from collections import Counter
from collections.abc import Mapping
from math import ceil
from typing import Any, Final

_HALF: Final = 10
"""Bits: 2**10 buckets for each doubling. (HdrHistogram with three significant digits.)"""


class Histogram:
    """Counts of values, in whole microseconds.

    Attributes:
        total: how many were recorded.
        sum: of them all, exactly.
        max: the largest, exactly; 0 if there is none.
        counts: by bucket.
    """

    def __init__(self) -> None:
        self.total = 0
        self.sum = 0
        self.max = 0
        self.counts: Counter[int] = Counter()

    def record(self, value: int) -> None:
        """Count one value, 0 or more."""
        self.counts[_bucket(value)] += 1
        self.total += 1
        self.sum += value
        self.max = max(self.max, value)

    def add(self, other: "Histogram") -> None:
        """Count what the other one has counted, too."""
        self.counts.update(other.counts)
        self.total += other.total
        self.sum += other.sum
        self.max = max(self.max, other.max)

    @property
    def mean(self) -> float:
        """0 if nothing was recorded."""
        return self.sum / self.total if self.total else 0.0

    def percentile(self, percent: float) -> int:
        """The value that so many percent do not exceed: the highest one of its bucket, and at most `max`."""
        wanted = max(
            ceil(self.total * percent / 100 - 1e-9), 1
        )  # 99.9 % of 1,000 are 999, whatever floats say
        seen = 0
        for bucket in sorted(self.counts):
            seen += self.counts[bucket]
            if seen >= wanted:
                return min(_highest(bucket), self.max)
        return 0

    def as_plain(self) -> dict[str, Any]:
        """For another process."""
        return {"sum": self.sum, "max": self.max, "counts": dict(self.counts)}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> "Histogram":
        """What `as_plain` made."""
        made = cls()
        made.sum, made.max = plain["sum"], plain["max"]
        made.counts.update(plain["counts"])
        made.total = made.counts.total()
        return made


def _bucket(value: int) -> int:
    shift = max(value.bit_length() - _HALF - 1, 0)
    return (shift << _HALF) + (value >> shift)


def _highest(bucket: int) -> int:
    """The largest value of a bucket."""
    shift = max((bucket >> _HALF) - 1, 0)
    return ((bucket - (shift << _HALF) + 1) << shift) - 1
