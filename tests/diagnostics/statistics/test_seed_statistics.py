from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from bnn_symm.diagnostics.convergence.time_to_target import sign_flip_p_value
from bnn_symm.diagnostics.statistics.paired_comparison import (
    estimate,
    pair_estimate,
    paired_difference,
    pseudo_values,
    share_of_effect,
)
from bnn_symm.randomness import numpy_generator

# Simulations of a coverage; its Monte Carlo error is sqrt(.05 * .95 / 1500) = 0.6 % at 95 %.
SIMULATIONS = 1500


def drawn(*key, size):
    return numpy_generator(0, "seed statistics", *key).standard_normal(size)


def by_seed(values):
    return {seed: float(value) for seed, value in enumerate(values)}


def pairs_of(num_seeds, *key, effect=1.0, noise=0.5, mean=0.0):
    """Values with effects of the seeds and noise of the pairs."""
    own, noises = (
        drawn(*key, "effects", size=num_seeds),
        drawn(*key, "noise", size=(num_seeds, num_seeds)),
    )
    return {
        (i, j): float(mean + effect * (own[i] + own[j]) + noise * noises[i, j])
        for i, j in combinations(range(num_seeds), 2)
    }


# -- one value a seed


def test_the_interval_is_students():
    values = drawn("student", size=6)
    found = estimate(values.tolist())
    reference = stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((reference.low, reference.high), rel=1e-12)
    assert (found.mean, found.sd, found.n) == pytest.approx((values.mean(), values.std(ddof=1), 6))
    assert (found.kind, found.reason) == ("seeds", None)


def test_what_cannot_have_an_interval_says_why():
    assert estimate([]).reason == "there is no value"
    assert estimate([float("nan")]).mean is None
    one, two = estimate([2.0]), estimate([2.0, 4.0, float("nan")])
    assert (one.mean, one.sd, one.low, one.n) == (2.0, None, None, 1)
    assert one.reason == "1 seed; an interval needs at least 3"
    assert (two.mean, two.low, two.n) == (3.0, None, 2)
    assert two.reason is not None
    assert two.reason.startswith("2 seeds")
    equal = estimate([0.1 + 0.2, 0.3, 0.3])
    assert (equal.sd, equal.low) == (0.0, None)
    assert equal.reason == "all 3 values are equal, so their spread is unknown"
    infinite = estimate([1.0, float("inf"), 2.0])
    assert (infinite.mean, infinite.reason) == (None, "infinite in 1 of 3")


def test_the_order_of_values_makes_no_difference():
    values = drawn("order", size=7).tolist()
    assert estimate(values) == estimate(values[::-1]) == estimate(sorted(values))


# -- one value a pair of seeds


def test_pairs_that_share_no_seed_are_independent_values():
    values = drawn("disjoint", size=4).tolist()
    found = pair_estimate({(2 * i, 2 * i + 1): value for i, value in enumerate(values)})
    alone = estimate(values)
    assert (found.mean, found.low, found.high, found.n) == (alone.mean, alone.low, alone.high, 4)
    assert found.kind == "pairs"
    assert pair_estimate({(0, 1): 1.0}).reason == "1 pair; an interval needs at least 3"


def test_pseudo_values_by_hand():
    # Mean 2; without seed 0 it is 3, without seed 1 it is 2, without seed 2 it is 1.
    pairs = {(0, 1): 1.0, (0, 2): 2.0, (1, 2): 3.0}
    assert pseudo_values(pairs) == pytest.approx(
        {0: 3 * 2 - 2 * 3, 1: 3 * 2 - 2 * 2, 2: 3 * 2 - 2 * 1}
    )
    found = pair_estimate(pairs)
    # sd of 0, 2, 4 is 2; t with two degrees is 4.3027.
    assert found.mean == pytest.approx(2.0)
    assert found.high == pytest.approx(2 + 4.302653 * 2 / np.sqrt(3), rel=1e-6)
    assert (found.n, found.kind, found.sd) == (3, "pairs of seeds", pytest.approx(1.0))


def test_the_mean_of_pseudo_values_is_the_mean_over_pairs():
    pairs = pairs_of(6, "mean")
    assert np.mean(list(pseudo_values(pairs).values())) == pytest.approx(
        np.mean(list(pairs.values()))
    )


def test_pairs_that_are_sums_have_the_interval_of_the_seeds():
    own = drawn("sums", size=5)
    found = pair_estimate(
        {(i, j): float(own[i] + own[j]) / 2 for i, j in combinations(range(5), 2)}
    )
    alone = estimate(own.tolist())
    # The jackknife of a mean of seeds is exact.
    assert (found.mean, found.low, found.high) == pytest.approx((alone.mean, alone.low, alone.high))


def test_a_seed_that_failed_leaves_the_others_complete():
    pairs = pairs_of(5, "failed")
    left = {pair: value for pair, value in pairs.items() if 4 not in pair}
    lost = {pair: value if 4 not in pair else float("nan") for pair, value in pairs.items()}
    assert pair_estimate(lost) == pair_estimate(left)
    assert pair_estimate(left).n == 4


def test_a_missing_pair_is_left_out_of_the_mean():
    pairs = pairs_of(5, "missing")
    del pairs[(1, 3)]
    found = pair_estimate(pairs)
    assert found.mean == pytest.approx(np.mean(list(pairs.values())))
    assert found.n == 5
    assert found.low is not None


def test_pairs_that_all_share_a_seed_have_no_interval():
    star = {(0, 1): 1.0, (0, 2): 2.0, (0, 3): 4.0}
    found = pair_estimate(star)
    assert (found.mean, found.low, found.n) == (pytest.approx(7 / 3), None, 4)
    assert found.reason == "all 3 pairs share a seed; an interval needs pairs of the other seeds"
    with pytest.raises(ValueError, match="seed 0 is in all 3 pairs"):
        pseudo_values(star)


def test_pairs_that_balance_have_no_spread_to_tell():
    pairs = {(0, 1): 1.0, (2, 3): 1.0, (0, 2): 2.0, (1, 3): 2.0, (0, 3): 3.0, (1, 2): 3.0}
    found = pair_estimate(pairs)
    assert (found.mean, found.low) == (2.0, None)
    assert found.reason == "all 4 seeds give the same mean, so its spread is unknown"


@pytest.mark.thorough
@pytest.mark.parametrize("num_seeds", [5, 8])
@pytest.mark.parametrize(
    ("effect", "noise", "stated"), [(1.0, 0.0, 0.95), (1.0, 1.0, 0.96), (0.0, 1.0, 0.99)]
)
def test_jackknife_intervals_hold_the_truth_as_often_as_is_said(num_seeds, effect, noise, stated):
    key = ("coverage", num_seeds, str(effect), str(noise))
    own = drawn(*key, "effects", size=(SIMULATIONS, num_seeds))
    noises = drawn(*key, "noise", size=(SIMULATIONS, num_seeds, num_seeds))
    held = 0
    for x, e in zip(own, noises, strict=True):
        found = pair_estimate(
            {
                (i, j): float(effect * (x[i] + x[j]) + noise * e[i, j])
                for i, j in combinations(range(num_seeds), 2)
            }
        )
        held += found.low <= 0 <= found.high
    # Four Monte Carlo errors, and half a percent for the rounding of the table.
    assert (
        abs(held / SIMULATIONS - stated) < 4 * np.sqrt(stated * (1 - stated) / SIMULATIONS) + 0.005
    )


def test_pairs_taken_for_independent_would_hold_it_far_less_often():
    own = drawn("naive", size=(SIMULATIONS, 8))
    held = 0
    for x in own:
        found = estimate(float(x[i] + x[j]) for i, j in combinations(range(8), 2))
        held += found.low <= 0 <= found.high
    assert held / SIMULATIONS < 0.6


# -- differences


def test_the_paired_test_is_students():
    first, second = drawn("first", size=6) + 0.8, drawn("second", size=6)
    found = paired_difference(by_seed(first), by_seed(second))
    reference = stats.ttest_rel(first, second)
    interval = reference.confidence_interval(0.95)
    assert found.p_value == pytest.approx(reference.pvalue, rel=1e-10)
    assert (found.mean, found.low, found.high) == pytest.approx(
        ((first - second).mean(), interval.low, interval.high), rel=1e-10
    )
    assert found.sign_flip_p == pytest.approx(sign_flip_p_value(first - second))
    assert (found.n, found.smallest_sign_flip_p, found.reason) == (6, 2 / 2**6, None)


def test_only_seeds_that_both_have_are_compared():
    first = {0: 1.0, 1: 2.0, 2: 4.0, 7: 100.0, 8: float("nan")}
    second = {8: 1.0, 2: 1.0, 1: 1.0, 0: 1.0, 9: -100.0}
    assert paired_difference(first, second).mean == pytest.approx(4 / 3)
    assert paired_difference(first, second).n == 3
    apart = paired_difference({0: 1.0}, {1: 1.0})
    assert (apart.mean, apart.n, apart.reason) == (None, 0, "they have no seed in common")


def test_too_few_or_equal_differences_have_no_p_value_and_say_why():
    two = paired_difference({0: 1.0, 1: 2.0}, {0: 0.0, 1: 0.5})
    assert (two.mean, two.low, two.p_value, two.sign_flip_p) == (1.25, None, None, 0.5)
    assert two.reason == "2 seeds; an interval needs at least 3"
    one = paired_difference({0: 1.0}, {0: 0.0})
    assert (one.mean, one.p_value, one.sign_flip_p) == (1.0, None, None)
    shifted = paired_difference({0: 1.1, 1: 2.1, 2: 3.1}, {0: 1.0, 1: 2.0, 2: 3.0})
    assert (shifted.mean, shifted.p_value) == (pytest.approx(0.1), None)
    assert shifted.reason == "all 3 values are equal, so their spread is unknown"
    same = paired_difference({0: 0.1 + 0.2, 1: 2.0, 2: 3.0}, {0: 0.3, 1: 2.0, 2: 3.0})
    assert (same.mean, same.p_value, same.low, same.reason) == (0.0, 1.0, None, "the same in all 3")
    assert paired_difference({0: 1.0, 1: 1.0}, {0: 1.0, 1: 1.0}).p_value is None
    one_differs = paired_difference({0: 1.0, 1: 2.0, 2: 4.0}, {0: 1.0, 1: 2.0, 2: 3.0})
    assert (one_differs.sign_flip_p, one_differs.smallest_sign_flip_p) == (1.0, 1.0)
    infinite = paired_difference({0: float("inf"), 1: 1.0}, {0: float("inf"), 1: 1.0})
    assert (infinite.mean, infinite.reason) == (None, "infinite in 1 of 2")


def test_differences_of_pairs_of_seeds_go_through_the_jackknife():
    first, second = pairs_of(5, "a", mean=1.0), pairs_of(5, "b")
    found = paired_difference(first, second)
    alone = pair_estimate({pair: first[pair] - second[pair] for pair in first})
    assert (found.mean, found.low, found.high, found.n) == pytest.approx(
        (alone.mean, alone.low, alone.high, 5)
    )
    assert (found.kind, found.sign_flip_p, found.smallest_sign_flip_p) == (
        "pairs of seeds",
        None,
        None,
    )
    values = np.array(
        list(pseudo_values({pair: first[pair] - second[pair] for pair in first}).values())
    )
    assert found.p_value == pytest.approx(stats.ttest_1samp(values, 0.0).pvalue, rel=1e-10)


def test_the_test_of_pairs_of_seeds_gives_few_false_alarms():
    alarms = 0
    for number in range(SIMULATIONS):
        first, second = pairs_of(5, "null a", number), pairs_of(5, "null b", number)
        alarms += paired_difference(first, second).p_value < 0.05
    # At most 5 %, and four Monte Carlo errors.
    assert alarms / SIMULATIONS < 0.05 + 4 * np.sqrt(0.05 * 0.95 / SIMULATIONS)
    assert alarms > 0


def test_differences_of_disjoint_pairs_have_an_exact_test():
    first = {(0, 1): 1.0, (2, 3): 2.0, (4, 5): 1.5}
    found = paired_difference(first, dict.fromkeys(first, 0.0))
    assert (found.n, found.kind, found.sign_flip_p) == (3, "pairs", 0.25)


def test_how_seeds_are_numbered_makes_no_difference():
    pairs, others = pairs_of(6, "p", mean=0.5), pairs_of(6, "q")
    numbers = numpy_generator(0, "numbers").permutation(6)

    def renumbered(values):
        moved = {(int(numbers[i]), int(numbers[j])): value for (i, j), value in values.items()}
        return dict(sorted(moved.items(), key=lambda item: -item[1]))

    a, b = (
        paired_difference(pairs, others),
        paired_difference(renumbered(pairs), renumbered(others)),
    )
    assert (a.mean, a.low, a.high, a.p_value) == pytest.approx(
        (b.mean, b.low, b.high, b.p_value), rel=1e-9
    )


# -- shares


def test_fiellers_ends_are_where_the_t_test_begins_to_tell():
    treatment = 2 + 0.3 * drawn("t", size=6)
    control = 0.7 * treatment + 0.2 * drawn("c", size=6)
    found = share_of_effect(by_seed(control), by_seed(treatment))
    assert found.value == pytest.approx(control.mean() / treatment.mean())
    assert found.low < found.value < found.high
    for end in (found.low, found.high):
        assert stats.ttest_1samp(control - end * treatment, 0.0).pvalue == pytest.approx(
            0.05, rel=1e-9
        )


def test_the_share_is_defined_just_where_the_effect_is_told():
    noise = drawn("edge", size=5)
    noise = (noise - noise.mean()) / noise.std(ddof=1)
    edge = stats.t.ppf(0.975, 4) / np.sqrt(5)
    control = by_seed(drawn("edge control", size=5))
    assert share_of_effect(control, by_seed(1.001 * edge + noise)).high is not None
    below = share_of_effect(control, by_seed(0.999 * edge + noise))
    assert (below.value, below.low, below.reason) == (
        None,
        None,
        "the effect is not significant",
    )


def test_a_share_wants_three_seeds_in_common():
    assert share_of_effect({0: 1.0, 1: 1.0}, {0: 2.0, 1: 2.1}).reason.startswith("2 seeds")
    assert share_of_effect({0: 1.0}, {1: 2.0}).reason == "they have no seed in common"
    assert share_of_effect({0: float("inf")}, {0: 2.0}).reason == "a value is infinite"
    star = {(0, 1): 1.0, (0, 2): 2.0, (0, 3): 4.0}
    assert share_of_effect(star, star).reason.startswith("all 3 pairs share a seed")


def test_the_whole_effect_is_a_share_of_one():
    effect = by_seed(1 + 0.1 * drawn("whole", size=5))
    found = share_of_effect(effect, effect)
    assert (found.value, found.low, found.high) == pytest.approx((1.0, 1.0, 1.0), abs=1e-6)


@pytest.mark.thorough
@pytest.mark.parametrize("of_pairs", [False, True])
def test_fiellers_intervals_hold_the_truth(of_pairs):
    held = significant = 0
    for number in range(SIMULATIONS):
        if of_pairs:
            baseline = pairs_of(5, "base", number)
            treatment = pairs_of(5, "treatment", number, mean=8.0)
            control = pairs_of(5, "control", number, mean=4.0)
        else:
            baseline = by_seed(drawn("base", number, size=5))
            treatment = by_seed(8 + drawn("treatment", number, size=5))
            control = by_seed(4 + drawn("control", number, size=5))
        found = share_of_effect(
            {unit: control[unit] - baseline[unit] for unit in baseline},
            {unit: treatment[unit] - baseline[unit] for unit in baseline},
        )
        significant += found.value is not None
        held += found.value is not None and found.low <= 0.5 <= found.high
    # An effect this large is nearly always significant; for pairs, intervals are a little wide.
    assert significant / SIMULATIONS > 0.97
    margin = 4 * np.sqrt(0.05 * 0.95 / SIMULATIONS)
    assert 0.95 - margin < held / significant < 0.95 + margin + (0.02 if of_pairs else 0)
