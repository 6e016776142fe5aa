"""The arithmetic of the harness, on figures that nobody had to measure."""

import pytest

from benchmarks.harness import Contest
from benchmarks.measuring import PERCENTILES, Sample, percentiles_us
from benchmarks.processes import StackFailed
from benchmarks.result import BARS, NEEDS, Bar, Findings, Result
from benchmarks.stacks import STACKS


class Told:
    """A progress that keeps what it is told."""

    def __init__(self):
        self.slots = []
        self.warnings = []
        self.expected = 0

    def expect(self, slots):
        self.expected += slots

    def slot(self, text):
        self.slots.append(text)

    def warn(self, line):
        self.warnings.append(line)


def rates(*values):
    """A measure that gives these rates one after the other."""
    left = iter(values)
    return lambda: Sample(next(left))


def costs(*values):
    left = iter(values)
    return lambda: Sample(1.0, next(left))


def test_a_ratio_is_against_the_two_neighbours_in_time():
    """The machine slows down to a quarter within the run; whoever is twice as fast stays twice as fast."""
    contest = Contest("call", "calls/s")
    measures = {"autolink": rates(400, 300, 200, 100), "other": rates(125, 75)}
    contest.run(measures, 2, Told(), warm_up=False)
    assert contest.ratios["other"] == [350 / 125, 150 / 75]
    assert contest.ratio("other") == pytest.approx((2.8 + 2.0) / 2)


def test_between_two_others_ours_runs_once_and_serves_both():
    contest, told = Contest("call", "calls/s"), Told()
    contest.run({"autolink": rates(10, 20, 30), "a": rates(5), "b": rates(5)}, 1, told, warm_up=False)
    assert [text.split(" · ")[1] for text in told.slots] == ["autolink", "a", "autolink", "b", "autolink"]
    assert contest.ratios == {"a": [3.0], "b": [5.0]}
    assert told.expected == len(told.slots)


def test_of_costs_the_smaller_is_the_better_one():
    """Ours takes half, so it is two times as good; by a rate, half would be half as good."""
    contest = Contest("verify", "CPU us", by="cpu_us")
    contest.run({"autolink": costs(50, 50), "floor": costs(100)}, 1, Told(), warm_up=False)
    assert contest.ratio("floor") == 2.0


def test_the_ratio_is_the_median_of_the_rounds():
    """One round in which the machine stood still counts as one of three."""
    contest = Contest("call", "calls/s")
    measures = {"autolink": rates(10, 10, 10, 10, 10, 10), "other": rates(5, 0.01, 4)}
    contest.run(measures, 3, Told(), warm_up=False)
    assert contest.ratio("other") == 2.5


def test_the_noise_is_ours_against_itself():
    contest = Contest("call", "calls/s")
    contest.run({"autolink": rates(10, 12, 30, 20), "other": rates(1, 1)}, 2, Told(), warm_up=False)
    assert contest.noises == [1.2, 1.5]
    assert contest.noise == pytest.approx(1.35)


def test_a_warm_up_is_not_counted():
    contest = Contest("call", "calls/s")
    contest.run({"autolink": rates(999, 10, 10), "other": rates(999, 5)}, 1, Told())
    assert contest.ratios == {"other": [2.0]}
    assert [sample.rate for sample in contest.samples["autolink"]] == [10, 10]


def test_alone_there_is_a_figure_and_no_noise():
    contest = Contest("verify", "CPU us", by="cpu_us")
    contest.run({"autolink": costs(3, 5, 4)}, 3, Told(), warm_up=False)
    (result,) = contest.results()
    assert (result.value, result.ratio, contest.noise) == (4, None, None)


def test_who_fails_is_left_out_with_a_line_and_the_rest_goes_on():
    """It fails in the second round: what it did in the first stays."""

    def broken():
        raise StackFailed("broken: its server died")

    first = iter([Sample(5.0)])

    def breaks_later():
        return next(first, None) or broken()

    contest, told = Contest("call", "calls/s"), Told()
    measures = {"autolink": rates(*[10] * 9), "a": breaks_later, "b": broken, "c": rates(2, 2)}
    contest.run(measures, 2, told, warm_up=False)
    assert told.warnings == ["broken: its server died"] * 2
    assert contest.ratios == {"a": [2.0], "c": [5.0, 5.0]}


def test_without_ours_there_is_nothing_to_compare():
    def broken():
        raise StackFailed("autolink: its server died")

    with pytest.raises(StackFailed, match="autolink"):
        Contest("call", "calls/s").run({"autolink": broken, "a": rates(1)}, 1, Told())


def test_a_slot_in_which_nothing_happened_gives_no_ratio():
    contest = Contest("call", "calls/s")
    contest.run({"autolink": rates(10, 10), "other": rates(0)}, 1, Told(), warm_up=False)
    assert contest.ratio("other") is None


def test_percentiles_are_those_of_all_latencies():
    """101 latencies from 0 to 100 ms: the n-th percentile is n ms. Order does not matter."""
    microseconds = percentiles_us([n / 1000 for n in reversed(range(101))])
    assert microseconds == pytest.approx([1000 * percentile for percentile in PERCENTILES])
    assert percentiles_us([]) == ()
    assert set(percentiles_us([0.5])) == {500_000}


def test_results_carry_medians_ratios_and_what_the_other_lacks():
    contest = Contest("handshake", "handshakes/s", params={"concurrency": 16})
    latencies = tuple(float(percentile) for percentile in PERCENTILES)
    ours = iter([Sample(10, 5.0, latencies), Sample(14, 7.0, latencies)])
    contest.run({"autolink": lambda: next(ours), "asyncio+ssl": rates(6)}, 1, Told(), warm_up=False)
    alone, other, beside = (result.as_json() for result in contest.results())
    assert (alone["value"], alone["cpu_us"], alone["p50_us"], alone["p99_us"]) == (12, 6, 50, 99)
    assert (alone["baseline"], alone["concurrency"], alone["latencies_us"]) == (None, 16, list(latencies))
    assert (other["stack"], other["value"], other["lacks"]) == (
        "asyncio+ssl",
        6,
        list(STACKS["asyncio+ssl"].lacks),
    )
    assert (beside["stack"], beside["baseline"], beside["ratio"]) == ("autolink", "asyncio+ssl", 2.0)


def test_a_row_of_the_table_is_met_from_its_own_side():
    """At least, or for a cost at most; exactly the mark is met."""
    assert Bar("a rate", 1.0, 2.0).meets(1.0, 1.0)
    assert not Bar("a rate", 1.0, 2.0).meets(1.9, 2.0)
    assert Bar("a cost", 10, 3, most=True).meets(3, 3)
    assert not Bar("a cost", 10, 3, most=True).meets(11, 10)


def test_every_row_is_in_the_json_measured_or_not():
    findings = Findings(table={"call_vs_floor": 0.55})
    findings.results.append(Result("call", "autolink", "calls/s", 1.0))
    written = findings.as_json()
    assert list(written["table"]) == list(BARS)
    assert written["table"]["call_vs_floor"] == 0.55
    assert written["table"]["handshake_vs_grpc"] is None
    assert written["bars"]["call_vs_floor"] | {"what": ""} == {
        "what": "", "bar": 0.5, "goal": 0.65, "at_most": False, "figure": 0.55, "bar_met": True, "goal_met": False,
        "note": "",
    }  # fmt: skip
    assert written["bars"]["handshake_vs_grpc"]["note"] == "not measured in this run"


def test_a_row_needs_a_neighbour_that_there_is():
    assert NEEDS.keys() <= BARS.keys()
    assert set(NEEDS.values()) <= set(STACKS)
