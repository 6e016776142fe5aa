"""The histogram beside the library whose buckets it has."""

from fractions import Fraction
from math import ceil

import pytest
from hdrh.histogram import HdrHistogram
from hypothesis import given, settings
from hypothesis import strategies as st

from autolink.cli.bench.histogram import Histogram

fixed = settings(deadline=None, derandomize=True, database=None)

PERCENTS = (0.1, 1, 50, 90, 99, 99.9, 100)
LONGEST = 24 * 3600 * 1_000_000

latencies = st.lists(
    st.integers(0, 5000) | st.integers(0, 60_000_000) | st.integers(0, LONGEST), min_size=1, max_size=300
)


def recorded(values):
    made = Histogram()
    for value in values:
        made.record(value)
    return made


@fixed
@given(latencies)
def test_a_percentile_is_the_exact_one_rounded_up_to_the_bucket_that_hdrhistogram_has_for_it(values):
    """... and never above the largest value, which is kept exactly."""
    made, buckets, ordered = recorded(values), HdrHistogram(1, 2 * LONGEST, 3), sorted(values)
    for percent in PERCENTS:
        exact = ordered[ceil(Fraction(len(values)) * Fraction(str(percent)) / 100) - 1]
        assert made.percentile(percent) == min(buckets.get_highest_equivalent_value(exact), ordered[-1])
    assert (made.total, made.max, made.sum) == (len(values), ordered[-1], sum(values))


@fixed
@given(latencies, latencies)
def test_two_histograms_added_are_one_of_all_values_also_through_a_pipe(ones, others):
    """Workers hand theirs over as plain values; adding is what averaging percentiles only seems to be."""
    total = Histogram.from_plain(recorded(ones).as_plain())
    total.add(Histogram.from_plain(recorded(others).as_plain()))
    together = recorded(ones + others)
    assert total.as_plain() == together.as_plain()
    assert total.total == together.total


@fixed
@given(st.integers(0, LONGEST))
def test_what_comes_out_is_at_most_a_thousandth_off(value):
    made = recorded([value])
    made.max = 2 * LONGEST  # so that the bucket's own bound shows
    assert value <= made.percentile(50) <= value + value / 1000


def test_an_empty_histogram_has_no_latencies():
    empty = Histogram()
    assert (empty.percentile(50), empty.percentile(99.9), empty.mean, empty.max) == (0, 0, 0.0, 0)


def test_a_percentile_of_a_round_number_of_values_is_not_moved_by_a_float():
    """99.9 % of 1,000 values are 999, though 1000 * 99.9 / 100 is a little more."""
    assert recorded(range(1, 1001)).percentile(99.9) == 999
    assert recorded(range(1, 1001)).percentile(50) == 500
    assert recorded([1, 2, 3]).mean == pytest.approx(2)
