"""Bins of confidence against `numpy.histogram`, and every calibration error at confidences on the
edges."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bnn_symm.data import Split
from bnn_symm.diagnostics import expected_calibration_error
from bnn_symm.diagnostics.calibration.calibration_errors import NUM_BINS, equal_width_bins
from bnn_symm.diagnostics.calibration.calibration_tests import calibration_test
from bnn_symm.diagnostics.calibration.reliability import reliability
from bnn_symm.diagnostics.scores.classification import class_statistics
from tests.diagnostics.scores.test_classification import predictions_of

EDGES = np.linspace(0, 1, NUM_BINS + 1)
NEAR_EDGES = [
    np.nextafter(np.float32(edge), np.float32(toward)) for edge in EDGES for toward in (0, 1)
]
CONFIDENCES = st.one_of(
    st.sampled_from(EDGES.tolist()),
    st.sampled_from([float(value) for value in EDGES.astype(np.float32)]),
    st.sampled_from([float(value) for value in NEAR_EDGES]),
    st.floats(0, 1, width=32),
)


@given(st.lists(CONFIDENCES, min_size=1, max_size=40))
def test_bins_are_those_of_numpys_histogram(confidences):
    confidences = np.array(confidences)
    counts = np.bincount(equal_width_bins(confidences), minlength=NUM_BINS)
    wanted, _ = np.histogram(confidences.astype(np.float32), EDGES.astype(np.float32))
    assert counts.tolist() == wanted.tolist()


@pytest.mark.parametrize("num_bins", [1, 2, 10, 15, 20])
def test_inner_edges_are_in_the_bin_above_and_the_last_bin_is_closed(num_bins):
    edges = np.linspace(0, 1, num_bins + 1)
    wanted = [*range(num_bins), num_bins - 1]
    assert equal_width_bins(edges, num_bins).tolist() == wanted
    assert equal_width_bins(edges.astype(np.float32), num_bins).tolist() == wanted
    # The same probabilities as sums, whose last bits differ.
    sums = np.array([sum([1 / num_bins] * k) for k in range(num_bins + 1)])
    assert equal_width_bins(sums, num_bins).tolist() == wanted


def test_what_rounding_leaves_outside_is_in_the_first_or_the_last_bin():
    assert equal_width_bins(np.array([-1e-9, 1 + 1e-6])).tolist() == [0, NUM_BINS - 1]


# (probabilities, labels, ECE by hand): a confidence of exactly 1 shares the last bin.
CERTAIN = [
    ([[0.05, 0.95], [0.0, 1.0]], [1, 0], abs(1 - 1.95) / 2),
    ([[0.05, 0.95], [0.0, 1.0], [0.0, 1.0]], [0, 1, 1], abs(2 - 2.95) / 3),
    ([[0.0, 1.0]] * 4, [1, 1, 1, 0], 0.25),
    ([[0.4, 0.6], [0.0, 1.0], [0.06, 0.94]], [1, 0, 1], (0.4 + abs(1 - 1.94)) / 3),
]


@pytest.mark.parametrize(("probabilities", "y", "wanted"), CERTAIN)
def test_certain_points_share_the_last_bin_in_every_error(probabilities, y, wanted):
    predictions = predictions_of(probabilities, y)
    values = class_statistics(predictions)(np.ones((1, len(y))))
    assert values["ece"][0] == pytest.approx(wanted, abs=1e-12)
    p, labels = torch.tensor(probabilities), torch.tensor(y)
    assert expected_calibration_error(p, labels) == pytest.approx(wanted, abs=1e-7)
    assert calibration_test(predictions, num_simulations=10).value == pytest.approx(
        wanted, abs=1e-12
    )
    diagram = reliability(p.double(), Split(x=torch.zeros(len(y), 1), y=labels))
    assert diagram.right.max() <= 1
    gaps = diagram.count * np.abs(diagram.accuracy - diagram.confidence)
    assert gaps.sum() / len(y) == pytest.approx(wanted, abs=1e-7)
    assert values["mce"][0] == pytest.approx(
        np.abs(diagram.accuracy - diagram.confidence).max(), abs=1e-7
    )


@pytest.mark.parametrize("seed", range(3))
def test_class_wise_error_is_that_of_bins_by_numpy(seed):
    random = np.random.default_rng(seed)
    votes = random.multinomial(15, [0.6, 0.3, 0.1], size=60)
    p, y = votes / 15, random.integers(0, 3, 60)
    found = class_statistics(predictions_of(p, y))(np.ones((1, 60)))["cwce"][0]
    wanted = []
    for k in range(3):
        bins = np.minimum(votes[:, k], 14)  # 15 bins of votes of 15: exact
        wanted.append(sum(abs(((y == k) - p[:, k])[bins == b].sum()) for b in range(15)) / 60)
    assert found == pytest.approx(np.mean(wanted), abs=1e-12)
