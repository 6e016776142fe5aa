"""Latencies are counted by the library `hdrhistogram`: its histograms of several processes add up, as percentiles cannot.

Whoever uses autolink without its load tester can do without that library: there is no wheel of it for some platforms. So it
is imported when the first histogram is made, and what is missing is told then.
"""

from typing import TYPE_CHECKING, Final

import click

if TYPE_CHECKING:
    from hdrh.histogram import HdrHistogram

HOUR: Final = 3_600_000_000
"""Microseconds: the longest latency that is told from longer ones. All counters together take 190 KB."""

_DIGITS: Final = 3
"""Significant ones, so that a percentile is at most a thousandth too high."""


def empty_histogram() -> "HdrHistogram":
    """One for whole microseconds, up to `HOUR`.

    Raises:
        click.ClickException: the library is not installed; the error says how to get it.
    """
    try:
        from hdrh.histogram import HdrHistogram
    except ImportError as error:
        raise click.ClickException(
            f"a load test needs the package hdrhistogram ({error}): pip install hdrhistogram, which takes a C compiler "
            "where there is no wheel of it"
        ) from error
    return HdrHistogram(1, HOUR, _DIGITS)
