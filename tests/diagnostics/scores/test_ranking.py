import numpy as np
import pytest
from scipy.stats import kendalltau
from sklearn import metrics

from bnn_symm.diagnostics.scores.ranking import (
    area_under_risk_coverage,
    auroc,
    average_precision,
    false_positive_rate,
    kendall_tau,
    tie_starts,
)
from bnn_symm.randomness import numpy_generator

RANDOM = numpy_generator(0, "ranking")
SCORE = RANDOM.normal(size=60)
TIED = np.round(SCORE, 1)
POSITIVE = RANDOM.uniform(size=60) < 0.3
ONES = np.ones((1, 60))
COUNTS = RANDOM.multinomial(60, np.full(60, 1 / 60), size=5).astype(np.float64)


def fpr_of_scikit_learn(positive, score, weights=None, recall=0.95):
    wrong, found, _ = metrics.roc_curve(
        positive, score, sample_weight=weights, drop_intermediate=False
    )
    return wrong[np.argmax(found >= recall - 1e-12)]


@pytest.mark.parametrize("score", [SCORE, TIED, np.zeros(60)], ids=["distinct", "tied", "constant"])
@pytest.mark.parametrize("weights", [ONES, COUNTS], ids=["data", "resamples"])
def test_areas_equal_scikit_learns(score, weights):
    for i, own in enumerate(weights):
        wanted = metrics.roc_auc_score(POSITIVE, score, sample_weight=own)
        assert auroc(weights, score, POSITIVE)[i] == pytest.approx(wanted, abs=1e-12)
        wanted = metrics.average_precision_score(POSITIVE, score, sample_weight=own)
        assert average_precision(weights, score, POSITIVE)[i] == pytest.approx(wanted, abs=1e-12)
        wanted = fpr_of_scikit_learn(POSITIVE, score, own)
        assert false_positive_rate(weights, score, POSITIVE)[i] == pytest.approx(wanted, abs=1e-12)


def test_a_constant_score_is_guessing():
    constant = np.zeros(60)
    assert auroc(ONES, constant, POSITIVE)[0] == 0.5
    assert average_precision(ONES, constant, POSITIVE)[0] == pytest.approx(POSITIVE.mean())
    assert false_positive_rate(ONES, constant, POSITIVE)[0] == 1.0
    assert area_under_risk_coverage(ONES, constant, POSITIVE)[0] == pytest.approx(POSITIVE.mean())


@pytest.mark.parametrize("positive", [np.zeros(60, bool), np.ones(60, bool)], ids=["none", "all"])
def test_one_kind_alone_is_undefined(positive):
    for area in (auroc, average_precision, false_positive_rate):
        assert np.isnan(area(ONES, SCORE, positive)[0])


def test_infinite_scores_are_the_ends():
    ends = np.append(SCORE[:58], [-np.inf, np.inf])
    finite = np.append(SCORE[:58], [-100.0, 100.0])
    for area in (auroc, average_precision, false_positive_rate, area_under_risk_coverage):
        assert area(COUNTS, ends, POSITIVE) == pytest.approx(area(COUNTS, finite, POSITIVE))


def test_risk_coverage_by_hand():
    # By confidence: right, wrong, right, wrong; error rates 0, 1/2, 1/3, 1/2.
    confidence = np.array([0.6, 0.9, 0.7, 0.8])
    wrong = np.array([True, False, False, True])
    wanted = (0 + 1 / 2 + 1 / 3 + 1 / 2) / 4
    assert area_under_risk_coverage(np.ones((1, 4)), confidence, wrong)[0] == pytest.approx(wanted)


def test_risk_coverage_of_ties_is_the_mean_over_their_orders():
    confidence = np.array([0.5, 0.5, 0.9, 0.5])
    wrong = np.array([True, False, False, False])
    orders = [
        np.array([0.3, 0.2, 0.9, 0.1]),
        np.array([0.2, 0.3, 0.9, 0.1]),
        np.array([0.1, 0.3, 0.9, 0.2]),
    ]
    ones = np.ones((1, 4))
    wanted = np.mean([area_under_risk_coverage(ones, order, wrong)[0] for order in orders])
    assert area_under_risk_coverage(ones, confidence, wrong)[0] == pytest.approx(wanted)


def test_weights_are_repetitions():
    counts = COUNTS[0].astype(int)
    score, positive = np.repeat(TIED, counts), np.repeat(POSITIVE, counts)
    for area in (auroc, average_precision, false_positive_rate, area_under_risk_coverage):
        assert area(COUNTS[:1], TIED, POSITIVE)[0] == pytest.approx(
            area(ONES, score, positive)[0], abs=1e-12
        )


# -- scores that are equal as probabilities


def votes_in_two_orders(draws, points, classes, seed, dtype=np.float64):
    """Class probabilities k/n, as whole numbers over n and as means of one-hot draws in an order of
    every point."""
    random = numpy_generator(seed, "votes")
    counts = random.multinomial(draws, random.dirichlet(np.ones(classes)), size=points)
    total = np.zeros((points, classes), dtype=dtype)
    for point in range(points):
        cast = np.repeat(np.eye(classes, dtype=dtype), counts[point], axis=0)[
            random.permutation(draws)
        ]
        for vote in cast:
            total[point] += vote / dtype(draws)
    return counts, total.astype(np.float64)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize(("draws", "classes"), [(3, 3), (7, 2), (10, 4), (49, 10), (100, 5)])
@pytest.mark.parametrize("seed", range(4))
def test_votes_that_are_equal_tie(draws, classes, seed, dtype):
    counts, p = votes_in_two_orders(draws, 60, classes, seed, dtype)
    doubt = np.sort(p, axis=1)[:, :-1].sum(1)
    exact = draws - counts.max(1)
    assert len(np.unique(doubt)) >= len(np.unique(exact))
    for weights in (ONES, COUNTS):
        for area in (auroc, average_precision, false_positive_rate):
            assert area(weights, doubt, POSITIVE) == pytest.approx(
                area(weights, exact.astype(float), POSITIVE), abs=0
            )
        wanted = area_under_risk_coverage(weights, -exact.astype(float), POSITIVE)
        assert area_under_risk_coverage(weights, -doubt, POSITIVE) == pytest.approx(wanted, abs=0)
    assert auroc(ONES, doubt, POSITIVE)[0] == pytest.approx(
        metrics.roc_auc_score(POSITIVE, exact), abs=1e-12
    )
    wanted = metrics.average_precision_score(POSITIVE, exact)
    assert average_precision(ONES, doubt, POSITIVE)[0] == pytest.approx(wanted, abs=1e-12)


@pytest.mark.parametrize(
    ("ascending", "starts"),
    [
        ([0.1 + 0.1 + 0.1, 0.3], [0]),
        ([-0.3, -0.3 + 1e-16, 0.0, 0.3], [0, 2, 3]),
        ([0.0, 0.0, 1e-300, 1e-20, 1.0], [0, 2, 3, 4]),
        ([1e-18, 2e-18, 2e-18 * (1 + 1e-9), 3e-18], [0, 1, 3]),
        ([-np.inf, -np.inf, 0.0, np.inf, np.inf], [0, 2, 3]),
        ([-np.inf, np.inf], [0, 1]),
        ([1.0], [0]),
    ],
)
def test_equality_is_relative(ascending, starts):
    assert tie_starts(np.sort(np.array(ascending))).tolist() == starts


@pytest.mark.thorough
def test_many_close_scores_are_not_one_group():
    # Two million scores, each within rounding of the next: groups span no more than the tolerance.
    scores = np.linspace(0.5, 1.0, 2_000_001)
    starts = tie_starts(scores)
    ends = np.append(starts[1:], len(scores)) - 1
    assert (scores[ends] <= scores[starts] * (1 + 1.001e-6)).all()
    assert 4e5 < len(starts) < 8e5


def test_a_score_that_is_no_number_makes_areas_that_are_none():
    broken = np.append(SCORE[:59], np.nan)
    for area in (auroc, average_precision, false_positive_rate, area_under_risk_coverage):
        assert np.isnan(area(COUNTS, broken, POSITIVE)).all()


@pytest.mark.parametrize("score", [SCORE, TIED], ids=["distinct", "tied"])
def test_kendall_tau_is_that_of_scipy(score):
    target = np.round(score + RANDOM.normal(size=60), 1)
    for counts, own in zip(COUNTS, kendall_tau(COUNTS, score, target), strict=True):
        rows = np.repeat(np.arange(60), counts.astype(int))
        assert own == pytest.approx(kendalltau(score[rows], target[rows]).statistic)
    assert kendall_tau(ONES, target, target) == pytest.approx(1)
    assert np.isnan(kendall_tau(ONES, score, np.ones(60))).all()
