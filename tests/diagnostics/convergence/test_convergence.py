import itertools

import numpy as np
import pytest
from scipy import stats

from bnn_symm.diagnostics.convergence.convergence import (
    Curve,
    TimeToTarget,
    area_under,
    band,
    curves_of_history,
    slowest,
    time_to_target,
)
from bnn_symm.diagnostics.convergence.plateau import find_plateau, pooled_flatness
from bnn_symm.diagnostics.convergence.smoothing import smooth
from bnn_symm.diagnostics.convergence.time_to_target import (
    adjusted,
    common_restriction,
    compare_paired,
    compare_unpaired,
    median_time,
    paired_scores,
    restricted_mean,
    sign_flip_p_value,
    smallest_p_value,
    speed,
)
from bnn_symm.randomness import numpy_generator

# Rows of planted curves are this many steps apart; their way is 10 long and ends at 1.
EVERY = 20.0


def planted(seed, *, rows=200, tau=15.0, noise=0.02, drift=0.0, unit=1.0, sign=1.0):
    """sign (1 + 10 exp(-i / tau) + drift i / rows + noise)."""
    i = np.arange(1.0, rows + 1)
    values = 1 + 10 * np.exp(-i / tau) + drift * i / rows
    values += noise * numpy_generator(seed, "planted curve").standard_normal(rows)
    return Curve(
        quantity="objective",
        direction="lower" if sign > 0 else "higher",
        values=sign * values,
        clocks={"step": EVERY * i, "seconds": 0.1 * i * unit},
    )


def reached(time, budget=100.0):
    return TimeToTarget(
        time=float(min(time, budget)),
        censored=bool(time > budget),
        low=None,
        high=None,
        budget=budget,
    )


def history(values, **columns):
    return [
        {"chain": 0, "step": 10 * (i + 1), "seconds": 0.5 * (i + 1), "objective": value, **columns}
        for i, value in enumerate(values)
    ]


# -- curves


def test_a_history_becomes_one_curve_a_chain_without_what_is_missing():
    rows = history([5.0, None, float("nan"), 2.0]) + history([7.0, 6.0], epoch=1.0)
    for row in rows[4:]:
        row["chain"] = 1
    first, second = curves_of_history(rows, "objective")
    assert (first.chain, second.chain) == (0, 1)
    np.testing.assert_array_equal(first.values, [5.0, 2.0])
    np.testing.assert_array_equal(first.clocks["step"], [10.0, 40.0])
    assert set(first.clocks) == {"step", "seconds"}
    assert set(second.clocks) == {"step", "epoch", "seconds"}
    assert curves_of_history(rows, "elbo") == []
    assert curves_of_history([], "objective") == []


def test_of_a_step_told_twice_the_later_row_counts():
    (curve,) = curves_of_history([*history([5.0, 4.0]), *history([9.0])], "objective")
    np.testing.assert_array_equal(curve.values, [9.0, 4.0])


def test_smoothing_leaves_lines_and_short_curves_as_they_are():
    line = 3.0 - 0.5 * np.arange(50.0)
    np.testing.assert_allclose(smooth(line).values, line, atol=1e-9)
    np.testing.assert_allclose(smooth(line).standard_error, 0, atol=1e-9)
    for size in (1, 2, 4):
        np.testing.assert_array_equal(smooth(line[:size]).values, line[:size])


def test_smoothing_removes_most_noise_and_its_error_is_about_true():
    errors, inside = [], []
    for seed in range(100):
        curve = planted(seed, noise=0.1)
        off = curve.smoothed.values - planted(0, noise=0.0).values
        errors.append(np.sqrt(np.mean(off[100:] ** 2)))
        inside.append(np.mean(np.abs(off) <= 2 * curve.smoothed.standard_error))
    # A third of the noise at most; and about nine of ten, as the module states.
    assert np.mean(errors) < 0.1 / 3
    assert 0.82 < np.mean(inside) < 0.97


# -- time to a target


def test_the_time_to_a_planted_target_is_found():
    truth = EVERY * 15 * np.log(20)  # where 10 exp(-i / 15) is 0.5
    times = np.array([time_to_target(planted(seed), 1.5, "step").time for seed in range(200)])
    # Within a row's distance on average, and in nearly every run.
    assert abs(times.mean() - truth) < EVERY / 2
    assert np.mean(np.abs(times - truth) < EVERY) > 0.95


def test_the_band_of_the_smoothed_curve_holds_the_time_mostly():
    truth = EVERY * 15 * np.log(20)
    held = []
    for seed in range(200):
        time = time_to_target(planted(seed, noise=0.1), 1.5, "step")
        assert time.low is not None
        assert time.high is not None
        held.append(time.low <= truth <= time.high)
    assert np.mean(held) > 0.75


def test_times_do_not_depend_on_the_unit_of_the_clock_and_not_on_the_sign():
    seconds, milliseconds, up = planted(3), planted(3, unit=1000.0), planted(3, sign=-1.0)
    one, other = (
        time_to_target(seconds, 1.5, "seconds"),
        time_to_target(milliseconds, 1.5, "seconds"),
    )
    assert other.time == pytest.approx(1000 * one.time, rel=1e-12)
    assert time_to_target(up, -1.5, "step") == time_to_target(seconds, 1.5, "step")
    # Between the same rows on every clock.
    assert time_to_target(seconds, 1.5, "step").time / EVERY == pytest.approx(
        one.time / 0.1, rel=1e-9
    )


def test_between_two_rows_time_is_interpolated():
    curve = Curve(
        quantity="nll",
        direction="lower",
        values=np.array([4.0, 2.0, 1.0]),
        clocks={"step": np.array([1.0, 3.0, 5.0])},
    )
    assert time_to_target(curve, 3.0, "step").time == pytest.approx(2.0)
    assert time_to_target(curve, 4.5, "step").time == 1.0


def test_a_target_that_is_never_reached_is_censored_at_the_budget():
    time = time_to_target(planted(0), 0.5, "step")
    assert time.censored
    assert time.time == time.budget == 200 * EVERY
    assert time.high is None


def test_a_run_is_as_slow_as_its_slowest_chain():
    both = slowest([reached(20), reached(50)])
    assert (both.time, both.censored) == (50.0, False)
    one = slowest([reached(90), reached(300, budget=80.0)])
    assert one.censored
    assert (one.time, one.budget) == (90.0, 80.0)


def test_the_area_is_the_mean_over_the_clock():
    clocks = {"step": np.array([1.0, 2.0, 5.0]), "seconds": np.array([1000.0, 2000.0, 5000.0])}
    curve = Curve(
        quantity="nll", direction="lower", values=np.array([4.0, 2.0, 2.0]), clocks=clocks
    )
    assert area_under([curve], "step", until=5.0) == pytest.approx((3.0 + 3 * 2.0) / 4)
    assert area_under([curve], "step", until=1.5) == pytest.approx(3.5)
    assert area_under([curve], "seconds", until=5000.0) == pytest.approx(
        area_under([curve], "step", until=5.0)
    )
    assert area_under([curve, curve], "step", until=5.0) == area_under([curve], "step", until=5.0)
    assert area_under([curve], "step", until=1.0) == 4.0


def test_a_band_is_the_median_over_runs_that_are_known():
    def run(level, rows):
        i = np.arange(1.0, rows + 1)
        return [
            Curve(
                quantity="nll", direction="lower", values=np.full(rows, level), clocks={"step": i}
            )
        ]

    runs = [run(1.0, 10), run(2.0, 10), run(6.0, 5)]
    found = band([*runs, []], "step", finished=[True, True, False, True])
    assert found is not None
    early, late = found.times <= 5, found.times > 5
    assert set(found.median[early]) == {2.0}
    assert set(found.median[late]) == {1.5}
    assert set(found.num_runs[late]) == {2.0}
    assert found.times[-1] == 10.0
    # A run that has finished stays where it ended.
    stays = band(runs, "step")
    assert stays is not None
    assert set(stays.median) == {2.0}
    assert set(stays.num_runs) == {3.0}
    # Where most were cut off, the band ends with them.
    cut = band([run(1.0, 10), run(2.0, 5), run(3.0, 5)], "step", finished=[True, False, False])
    assert cut is not None
    assert cut.times[-1] == 5.0
    assert band([[]], "step") is None


# -- plateaus


@pytest.mark.thorough
def test_the_interval_of_a_planted_plateau_covers_it():
    found = [find_plateau(planted(seed)) for seed in range(200)]
    assert {plateau.flatness for plateau in found} == {"reached"}
    covered = np.mean([plateau.low <= 1.0 <= plateau.high for plateau in found])
    # 95 % +- three Monte Carlo standard errors of 200 seeds.
    assert abs(covered - 0.95) < 3 * np.sqrt(0.95 * 0.05 / 200)
    starts = np.array([plateau.start for plateau in found])
    # It begins where what decays is as small as the noise (row 94), within the resolution.
    assert 70 < np.median(starts) < 120


def test_a_drifting_curve_is_no_plateau():
    for seed in range(50):
        plateau = find_plateau(planted(seed, drift=-1.0))
        assert plateau.flatness == "not reached"
        # Minus 1 over 4,000 steps.
        assert plateau.drift == pytest.approx(-0.25, abs=0.1)
        assert plateau.drift_high < 0


@pytest.mark.thorough
def test_the_interval_of_a_drift_covers_it():
    covered = []
    for seed in range(200):
        plateau = find_plateau(planted(seed, tau=2.0, noise=0.5, drift=-1.0))
        covered.append(plateau.drift_low <= -0.25 <= plateau.drift_high)
    assert abs(np.mean(covered) - 0.95) < 3 * np.sqrt(0.95 * 0.05 / 200)


def test_a_curve_on_its_way_has_not_reached_its_plateau():
    for noise in (0.0, 0.05):
        assert find_plateau(planted(0, tau=80.0, noise=noise)).flatness == "not reached"


def test_noise_that_hides_a_drift_is_no_plateau_either():
    found = [find_plateau(planted(seed, noise=1.0)).flatness for seed in range(50)]
    assert found.count("unclear") > 40
    assert "reached" not in found


def test_a_curve_without_noise_is_flat_where_nothing_is_left():
    plateau = find_plateau(planted(0, noise=0.0))
    assert plateau.flatness == "reached"
    assert plateau.level == pytest.approx(1.0, abs=1e-3)
    constant = Curve(
        quantity="nll",
        direction="lower",
        values=np.full(50, 2.0),
        clocks={"step": np.arange(1.0, 51.0)},
    )
    assert find_plateau(constant).flatness == "reached"
    assert find_plateau(constant).standard_error == 0


def test_few_rows_say_nothing():
    plateau = find_plateau(planted(0, rows=19))
    assert plateau.flatness == "too short"
    assert plateau.level is None


def test_the_way_is_positive_for_a_run_that_gets_better_in_either_direction():
    down, up = find_plateau(planted(1)), find_plateau(planted(1, sign=-1.0))
    assert down.way == pytest.approx(up.way)
    assert down.way > 9
    assert up.level == pytest.approx(-down.level)


def test_a_stationary_sampler_is_flat_within_its_own_spread():
    flat = []
    for seed in range(50):
        rows = numpy_generator(seed, "chain").standard_normal(50)
        curve = Curve(
            quantity="objective",
            direction="lower",
            values=rows,
            clocks={"step": 20 * np.arange(1.0, 51.0)},
        )
        flat.append(find_plateau(curve, spreads=2.0).flatness)
    assert flat.count("reached") > 20
    assert flat.count("not reached") <= 2


# -- speed


def test_censored_times_equal_a_hand_calculation():
    times = [reached(t) for t in (20, 35, 80, 200, 300)]
    # S falls to 0.8, 0.6, 0.4 at 20, 35, 80 and stays: 20 + 15 * 0.8 + 45 * 0.6 + 20 * 0.4.
    assert restricted_mean(times, 100.0) == pytest.approx(67.0)
    assert median_time(times) == 80.0
    assert median_time([reached(10), reached(200), reached(300)]) is None
    assert restricted_mean([reached(200)] * 3, 100.0) == 100.0


def test_kaplan_meier_equals_scipys():
    generator = numpy_generator(0, "kaplan meier")
    for _ in range(30):
        raw = generator.integers(1, 12, size=9).astype(float)
        budgets = generator.integers(4, 12, size=9).astype(float)
        times = [reached(t, budget=float(b)) for t, b in zip(raw, budgets, strict=True)]
        data = stats.CensoredData(
            uncensored=[t.time for t in times if not t.censored],
            right=[t.time for t in times if t.censored],
        )
        survival = stats.ecdf(data).sf
        grid = np.linspace(0, 9.0, 90_001)[:-1] + 5e-5
        assert restricted_mean(times, 9.0) == pytest.approx(
            9.0 * survival.evaluate(grid).mean(), abs=1e-9
        )
        below = survival.quantiles[survival.probabilities <= 0.5 + 1e-12]
        assert median_time(times) == (below[0] if below.size else None)


def test_no_run_is_dropped():
    found = speed([reached(10), reached(20), reached(500), reached(500)])
    assert (found.num_runs, found.num_censored) == (4, 2)
    assert found.restricted_mean.value == pytest.approx((10 + 20 + 100 + 100) / 4)
    assert found.median.value == 20.0
    assert found.median.high is None  # beyond all that was watched
    assert speed([reached(10), reached(20)]).median.low is None  # two runs have no interval


def test_the_bootstrap_interval_of_a_restricted_mean_is_about_a_normal_one():
    times = [reached(float(t)) for t in numpy_generator(1, "times").uniform(20, 60, size=40)]
    found = speed(times).restricted_mean
    half = 1.96 * np.std([t.time for t in times]) / np.sqrt(40)
    # The ends of 2,000 resamples have a standard error of about 5 % of the half width.
    assert found.value - found.low == pytest.approx(half, rel=0.2)
    assert found.high - found.value == pytest.approx(half, rel=0.2)


def test_the_restriction_ends_where_a_group_is_no_longer_watched():
    there, not_there = [reached(10), reached(20)], [reached(10), reached(300, budget=70.0)]
    assert common_restriction([there, there]) == 20.0
    assert common_restriction([there, not_there]) == 70.0


def test_pairs_are_cut_at_the_shorter_budget():
    scores = paired_scores(
        [reached(10), reached(50), reached(300), reached(30)],
        [reached(20), reached(300, budget=40.0), reached(300), reached(300, budget=40.0)],
    )
    # Both known; which of 50 and "more than 40" is shorter is not; neither ever; 30 is shorter than
    # 40 and more.
    np.testing.assert_allclose(scores, [np.log(0.5), 0.0, 0.0, np.log(0.75)])


def test_pair_scores_change_sign_with_the_order_whatever_the_budgets():
    # What makes the test exact: exchanging the times of a pair, not its budgets, turns the score
    # round.
    for a, b in itertools.product((10.0, 30.0, 50.0, 90.0), repeat=2):
        one = paired_scores([reached(a, budget=40.0)], [reached(b, budget=100.0)])
        other = paired_scores([reached(b, budget=40.0)], [reached(a, budget=100.0)])
        assert one[0] == pytest.approx(-other[0])


def test_sign_flip_p_values_are_those_of_enumeration():
    scores = numpy_generator(0, "scores").standard_normal(7) + 0.4
    sums = [abs(np.dot(signs, scores)) for signs in itertools.product((1, -1), repeat=7)]
    wanted = np.mean(np.array(sums) >= abs(scores.sum()) - 1e-12)
    assert sign_flip_p_value(scores) == pytest.approx(wanted)
    assert sign_flip_p_value(np.array([1.0, 2.0, 3.0, 4.0, 5.0])) == 1 / 16 == smallest_p_value(5)
    # An uninformative pair changes nothing.
    assert sign_flip_p_value(np.array([1.0, 2.0, 0.0, 3.0, 4.0, 5.0])) == 1 / 16
    assert sign_flip_p_value(np.zeros(3)) == 1.0
    # Of many pairs, by random flips.
    many = numpy_generator(1, "scores").standard_normal(30) + 1.0
    assert sign_flip_p_value(many) < 0.001


def test_p_values_are_uniform_where_nothing_differs():
    generator = numpy_generator(0, "null")
    p_values = []
    for _ in range(300):
        times = generator.lognormal(4.0, 0.7, size=(2, 8))  # about a fifth is censored at 100
        first, second = ([reached(float(t)) for t in row] for row in times)
        p_values.append(sign_flip_p_value(paired_scores(first, second)))
    # An exact test rejects at most as often as its level, and here nearly as often: three Monte
    # Carlo errors.
    for level in (0.1, 0.25, 0.5):
        rate = np.mean(np.array(p_values) <= level)
        assert abs(rate - level) < 3 * np.sqrt(level * (1 - level) / 300) + 1 / 64


def test_a_faster_kind_of_run_is_found_and_its_ratio():
    generator = numpy_generator(2, "pairs")
    base = generator.lognormal(3.0, 0.5, size=10)
    slow = base * generator.lognormal(0.7, 0.1, size=10)
    first, second = ([reached(float(t), budget=1000.0) for t in row] for row in (base, slow))
    test = compare_paired(first, second)
    assert test.p_value == pytest.approx(2 / 2**10)
    assert test.ratio.value == pytest.approx(base.mean() / slow.mean())
    assert test.ratio.low < np.exp(-0.7) < test.ratio.high
    # Pairs are more informative than groups: without seeds the ratio is less certain.
    apart = compare_unpaired(first, second)
    assert apart.ratio.high - apart.ratio.low > test.ratio.high - test.ratio.low
    again = (
        [reached(10 * t.time, budget=10_000.0) for t in first],
        [reached(10 * t.time, budget=10_000.0) for t in second],
    )
    assert compare_paired(*again).p_value == test.p_value
    assert compare_paired(*again).ratio.value == pytest.approx(test.ratio.value)


def test_the_unpaired_test_is_scipys_log_rank():
    first, second = (
        [reached(t) for t in (10, 20, 30, 40)],
        [reached(t) for t in (35, 60, 200, 300, 400)],
    )
    wanted = stats.logrank(
        stats.CensoredData(uncensored=[10.0, 20, 30, 40]),
        stats.CensoredData(uncensored=[35.0, 60], right=[100.0, 100, 100]),
    ).pvalue
    assert compare_unpaired(first, second).p_value == pytest.approx(wanted)
    assert compare_unpaired(first, second).num_censored == (0, 3)


def test_where_neither_is_ever_there_nothing_is_concluded():
    never = [reached(500)] * 4
    for test in (compare_paired(never, never), compare_unpaired(never, never)):
        assert test.p_value is None
        assert test.ratio.value == 1.0


def test_holms_p_values():
    assert adjusted([0.01, None, 0.04, 0.03]) == [
        pytest.approx(0.03),
        None,
        pytest.approx(0.06),
        pytest.approx(0.06),
    ]
    assert adjusted([0.9, 0.8]) == [1.0, 1.0]


def test_chains_of_one_sampler_tell_more_together_and_none_is_outvoted():
    def chain(seed, drift=0.0):
        rows = numpy_generator(seed, "chain").standard_normal(50) + drift * np.arange(50) / 50
        clocks = {"step": 20 * np.arange(1.0, 51.0)}
        curve = Curve(quantity="objective", direction="lower", values=rows, clocks=clocks)
        return find_plateau(curve, spreads=2.0)

    together = [pooled_flatness([chain(4 * run + i) for i in range(4)]) for run in range(25)]
    assert together.count("reached") >= 20
    assert pooled_flatness([chain(0), chain(1), chain(2), chain(3, drift=-20.0)]) == "not reached"


def test_a_band_of_chains_that_ran_one_after_the_other():
    def chain(first):
        clocks = {"seconds": np.array([first, first + 1.0])}
        return Curve(quantity="nll", direction="lower", values=np.array([2.0, 1.0]), clocks=clocks)

    found = band([[chain(1.0), chain(5.0)]], "seconds")
    assert found is not None
    assert np.isfinite(found.median).all()
