"""The histogram of the PIT, and the band of a calibrated model."""

import json

import numpy as np
import pytest
from scipy import stats

from bnn_symm.diagnostics.calibration.pit import pit_histogram
from bnn_symm.io.atomic import json_text


@pytest.mark.parametrize(("points", "bins"), [(1, 10), (399, 10), (400, 20)])
def test_every_point_is_in_a_bin(points, bins):
    pit = np.linspace(0, 1, points)
    histogram = pit_histogram(pit)
    assert len(histogram.count) == bins
    assert histogram.count.sum() == points
    assert json.loads(json_text(histogram.to_dict()))["count"] == histogram.count.tolist()


def test_a_bin_of_a_calibrated_model_is_in_the_band_with_its_level():
    generator = np.random.default_rng(0)
    histograms = [pit_histogram(generator.uniform(size=300)) for _ in range(300)]
    inside = 1 - np.mean([own.num_outside / 10 for own in histograms])
    first = histograms[0]
    number = stats.binom(300, 0.1)
    expected = number.cdf(first.high) - number.cdf(first.low - 1)
    assert expected >= 0.95
    assert inside == pytest.approx(expected, abs=0.01)


def test_intervals_of_a_wrong_width_leave_the_band():
    z = np.random.default_rng(0).normal(size=1000)
    assert pit_histogram(stats.norm.cdf(z)).num_outside <= 3
    assert pit_histogram(stats.norm.cdf(2 * z)).num_outside > 5  # too narrow
    assert pit_histogram(stats.norm.cdf(z / 2)).num_outside > 5  # too wide
