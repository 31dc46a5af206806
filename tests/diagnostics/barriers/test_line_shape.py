"""The shape of a line against curves whose shape is known."""

import numpy as np
import pytest
import torch
from torch import nn

from bnn_symm.diagnostics.barriers.monotonicity import line_shape, loss_along_line
from bnn_symm.errors import ConfigError
from bnn_symm.models import BayesianModel, Gaussian, Prior
from tests.diagnostics.barriers.test_barriers import dataset, gaussian
from tests.models.cases import normal

ALPHA = np.linspace(0, 1, 25)


def sine(number):
    return np.sin(number * np.pi / 24)


@pytest.mark.parametrize(
    ("loss", "delta", "is_monotone", "local_convexity", "global_convexity", "height"),
    [
        pytest.param(
            (1 - ALPHA) ** 2, -((1 / 24) ** 2), True, 1, 1, 0, id="parabola down to its bottom"
        ),
        pytest.param(1 - 0.7 * ALPHA, -0.7 / 24, True, 1, 1, 0, id="straight"),
        # The second difference of -cos has the sign of cos, which is 0 or more at 6 inner places of
        # each end; the largest step is the difference of two cosines around a quarter: 2 sin(11 pi
        # / 24) sin(pi / 24).
        pytest.param(
            1 - np.cos(2 * np.pi * ALPHA),
            2 * np.sin(11 * np.pi / 24) * np.sin(np.pi / 24),
            False,
            12 / 23,
            0,
            2,
            id="hill",
        ),
        pytest.param(
            np.minimum(1, 2 - 2 * ALPHA), 0, True, 22 / 23, 0, 0.5, id="plateau, then down"
        ),
        pytest.param(np.maximum(1 - 2 * ALPHA, 0), 0, True, 1, 1, 0, id="down, then plateau"),
    ],
)
def test_it_is_that_of_known_curves(
    loss, delta, is_monotone, local_convexity, global_convexity, height
):
    found = line_shape(loss.tolist())
    assert found.delta == pytest.approx(delta, abs=1e-12)
    assert found.is_monotone is is_monotone
    assert found.local_convexity == pytest.approx(local_convexity)
    assert found.global_convexity == pytest.approx(global_convexity)
    assert found.height == pytest.approx(height, abs=1e-12)
    assert found.alpha == pytest.approx(ALPHA.tolist())


def test_a_linear_model_has_a_parabola_along_every_line():
    """The NLL of y ~ Normal(w x, 1) is quadratic in w: known at every place, convex, monotone just
    to its bottom."""
    x, y = normal(20, 3), normal(20, seed=1)
    model = BayesianModel(nn.Linear(3, 1).double(), Prior(), Gaussian(noise=1.0))
    data = dataset(x, y, task="regression")
    posterior = gaussian(model, 0, scaling=data.scaling)
    design = torch.cat([x, torch.ones(20, 1)], 1).double()
    best = torch.linalg.lstsq(design, y[:, None]).solution[:, 0]
    start = best + normal(4, seed=2)

    def nll(flat):
        return float(0.5 * (y - design @ flat).square().mean() + 0.5 * np.log(2 * np.pi))

    down = loss_along_line(posterior, start, best, data.train)
    assert down.loss == pytest.approx(
        [nll(start + alpha * (best - start)) for alpha in ALPHA.tolist()]
    )
    assert (down.is_monotone, down.local_convexity, down.global_convexity) == (True, 1.0, 1.0)
    through = loss_along_line(posterior, start, 2 * best - start, data.train)
    assert (through.is_monotone, through.local_convexity, through.height) == (False, 1.0, 0.0)
    assert through.delta == pytest.approx(nll(start) - nll(start + (best - start) / 12))


def test_two_places_have_no_shape():
    with pytest.raises(ConfigError, match="got 2"):
        line_shape([1.0, 0.0])
