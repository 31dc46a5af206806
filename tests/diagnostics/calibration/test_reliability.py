import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

from bnn_symm.data import Split
from bnn_symm.diagnostics import expected_calibration_error
from bnn_symm.diagnostics.calibration.calibration_tests import calibration_test
from bnn_symm.diagnostics.calibration.reliability import reliability, reliability_of_predictions
from bnn_symm.diagnostics.statistics.evidence import Evidence
from bnn_symm.io.atomic import json_text
from bnn_symm.randomness import numpy_generator
from tests.diagnostics.scores.test_classification import predictions_of
from tests.diagnostics.scores.test_regression import normal_predictions


def binary(points, *, temperature=1.0, key="binary"):
    """Predictions of two classes whose logits are `temperature` times too small, against labels
    drawn from them."""
    random = numpy_generator(0, key)
    logit = 2 * random.normal(size=points)
    y = (random.uniform(size=points) < 1 / (1 + np.exp(-logit))).astype(int)
    p = 1 / (1 + np.exp(-logit / temperature))
    return predictions_of(np.stack([1 - p, p], 1), y)


def test_bins_by_hand():
    # Four points of confidence 0.9 (two right), two of 0.62 (both right), one of 0.96 and one
    # certain, both right.
    p = torch.tensor([[0.9, 0.1]] * 4 + [[0.38, 0.62]] * 2 + [[0.04, 0.96], [0.0, 1.0]]).double()
    y = torch.tensor([0, 0, 1, 1, 1, 1, 1, 1])
    found = reliability(p, Split(x=torch.zeros(8, 1), y=y))
    assert found.count.tolist() == [2, 4, 2]
    np.testing.assert_allclose(found.confidence, [0.62, 0.9, 0.98])
    np.testing.assert_allclose(found.accuracy, [1.0, 0.5, 1.0])
    np.testing.assert_allclose(found.left, [9 / 15, 13 / 15, 14 / 15])
    np.testing.assert_allclose(found.right, [10 / 15, 14 / 15, 1.0])
    np.testing.assert_allclose(
        found.low, stats.binom([2, 4, 2], [0.62, 0.9, 0.98]).ppf(0.025) / [2, 4, 2]
    )
    np.testing.assert_allclose(found.high, 1.0)
    json.loads(json_text(found.to_dict()))


def test_bins_make_the_expected_calibration_error():
    predictions = binary(500)
    found = reliability_of_predictions(predictions)
    error = (found.count * np.abs(found.accuracy - found.confidence)).sum() / 500
    preds, y = torch.from_numpy(predictions.probabilities), torch.from_numpy(predictions.y)
    assert error == pytest.approx(expected_calibration_error(preds, y), abs=1e-6)


def test_quantiles_by_hand():
    predictions = normal_predictions(200)
    found = reliability_of_predictions(predictions)
    assert found.nominal.tolist() == [percent / 100 for percent in range(5, 100, 5)]
    z = (predictions.target - predictions.mean) / predictions.sd
    np.testing.assert_allclose(
        found.observed, [(z <= stats.norm.ppf(level)).mean() for level in found.nominal]
    )
    np.testing.assert_allclose(found.low, stats.binom(200, found.nominal).ppf(0.025) / 200)
    np.testing.assert_allclose(found.high, stats.binom(200, found.nominal).ppf(0.975) / 200)
    json.loads(json_text(found.to_dict()))


def test_the_band_holds_a_calibrated_model():
    # Every bin's accuracy is outside its band with a probability of at most 5 %; of 20 x 8 bins at
    # most 8 on average, and not more than 8 + 4 sqrt(8).
    outside = 0
    for trial in range(20):
        found = reliability_of_predictions(binary(400, key=f"band {trial}"))
        outside += int(((found.accuracy < found.low) | (found.accuracy > found.high)).sum())
    assert outside < 8 + 4 * np.sqrt(8)


def test_probabilities_and_targets_of_different_lengths():
    with pytest.raises(ValueError, match="probabilities of 3 points and 2 targets"):
        reliability(
            torch.full((3, 2), 0.5).double(), Split(x=torch.zeros(2, 1), y=torch.zeros(2).long())
        )


@pytest.mark.thorough
def test_a_calibrated_model_seldom_fails():
    tests = [calibration_test(binary(200, key=f"own {i}"), num_simulations=200) for i in range(100)]
    tests += [
        calibration_test(normal_predictions(100, key=f"own {i}"), num_simulations=200)
        for i in range(100)
    ]
    failed = sum(not test.is_calibrated for test in tests)
    # At most 5 % of 200, 10, with a standard deviation of 3.1; and not never.
    assert 1 <= failed <= 10 + 3 * 3.1


@pytest.mark.parametrize(("temperature", "word"), [(0.5, "overconfident"), (2.5, "underconfident")])
def test_the_direction_of_classes(temperature, word):
    test = calibration_test(binary(1000, temperature=temperature))
    assert not test.is_calibrated
    assert test.direction == word
    assert test.verdict.startswith(word)
    assert test.value > test.threshold > test.expected
    assert test.p_value < 0.01


@pytest.mark.parametrize(("stretch", "word"), [(0.6, "overconfident"), (1.6, "underconfident")])
def test_the_direction_of_numbers(stretch, word):
    test = calibration_test(normal_predictions(500, stretch=stretch))
    assert not test.is_calibrated
    assert test.verdict.startswith(word)
    json.loads(json_text(test.to_dict()))


def test_a_bias_is_neither():
    test = calibration_test(normal_predictions(200, bias=0.25, key="biased"))
    assert not test.is_calibrated
    assert test.verdict.startswith("miscalibrated, but neither over- nor underconfident")


def test_few_errors_are_no_underconfidence():
    # All right at a confidence of 0.99: of 50 points a calibrated model makes no error in 60 % of
    # cases.
    test = calibration_test(predictions_of(np.tile([0.99, 0.01], (50, 1)), np.zeros(50, int)))
    assert test.is_calibrated


def test_one_point_is_told_to_be_few():
    test = calibration_test(predictions_of([[0.7, 0.3]], [0]))
    assert test.is_calibrated
    assert "no miscalibration detected with 1 point" in test.verdict
    assert "this few show gross errors only" in test.verdict


def test_wrong_arguments():
    with pytest.raises(ValueError, match="at least one simulation"):
        calibration_test(binary(10), num_simulations=0)


# -- the number that decided a verdict


def decided_by(test):
    return [one["measure"] for one in test.to_dict()["decided_by"]]


def test_a_gap_alone_is_quoted_with_its_limits():
    # Every target within the central 90 %, the PIT elsewhere uniform: the quantile error stays
    # inside its limit.
    found = []
    for seed in range(20):
        predictions = normal_predictions(60, key=f"gap {seed}")
        pit = predictions.pit.clip(0.051, 0.949)
        found.append(calibration_test(replace(predictions, pit=pit), num_simulations=300))
    alone = [test for test in found if decided_by(test) == ["gap"]]
    assert len(alone) > 10
    for test in alone:
        assert test.value <= test.threshold
        assert (test.direction, test.is_calibrated) == ("underconfident", False)
        head = test.verdict.partition(";")[0]
        assert "100 % (limits" in head
        assert f"{test.value:.3g}" not in head


def test_an_error_alone_is_quoted_with_its_limit():
    test = calibration_test(normal_predictions(200, bias=0.25, key="biased"))
    assert decided_by(test) == ["value"]
    assert test.verdict.index("quantile calibration error") < test.verdict.index("the central 90 %")
    assert test.gap_low <= test.gap <= test.gap_high


def test_gap_and_error_are_both_named_where_both_decide():
    for temperature in (0.5, 2.5):
        assert decided_by(calibration_test(binary(1000, temperature=temperature))) == [
            "gap",
            "value",
        ]


def test_all_of_it_is_the_evidence_of_a_calibrated_model():
    test = calibration_test(binary(300))
    assert test.is_calibrated
    assert all(one["is_inside"] for one in test.to_dict()["decided_by"])
    assert decided_by(test) == ["gap", "value"]


@pytest.mark.parametrize(
    ("evidence", "words"),
    [
        (Evidence(measure="m", value=0.12345, high=0.12344), "0.1235 (limit 0.1234)"),
        (Evidence(measure="m", value=0.5, high=0.25), "0.5 (limit 0.25)"),
        (Evidence(measure="m", value=0.5, low=0.25, high=0.75), "0.5 (limits 0.25 to 0.75)"),
        (Evidence(measure="m", value=1.0, high=1.0), "1 (limit 1)"),
        (Evidence(measure="m", value=0.3, high=0.1 + 0.2), "0.3 (limit 0.3)"),
        (Evidence(measure="m", value=3.0), "3"),
    ],
)
def test_evidence_is_written_in_as_many_digits_as_tell_it_from_its_limit(evidence, words):
    assert evidence.describe() == words


def test_evidence_that_is_no_number_is_outside():
    assert not Evidence(measure="m", value=float("nan"), low=0.0).is_inside
    assert Evidence(measure="m", value=float("inf"), low=0.0).is_inside
    assert not Evidence(measure="m", value=float("inf"), high=9.0).is_inside
