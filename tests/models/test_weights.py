"""A point of an integer weight has exactly the density of that many points."""

import pyro.poutine as poutine
import pytest
import torch

from bnn_symm.data import Split
from bnn_symm.errors import ConfigError
from tests.models.cases import CASES, normal

COUNTS = torch.tensor([2, 0, 1, 3])


def parts(case):
    """Return points with weights, and the same points repeated."""
    x, y = normal(len(COUNTS), 2, seed=1), case.targets(len(COUNTS))
    weighted = Split(x=x, y=y, weight=COUNTS.double())
    where = torch.arange(len(COUNTS)).repeat_interleave(COUNTS)
    return weighted, Split(x=x[where], y=y[where])


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_integer_weights_are_repeated_points_in_value_and_gradient(case) -> None:
    model = case.model()
    values = []
    for part in parts(case):
        flat = normal(model.num_parameters, seed=3).requires_grad_()
        value = model.potential(flat, part.x, part.targets, temperature=0.7)
        (gradient,) = torch.autograd.grad(value, flat)
        values.append((value, gradient))
    torch.testing.assert_close(values[0], values[1], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_pyro_model_has_the_same_weights(case) -> None:
    model, (part, _) = case.model(), parts(case)
    flat = normal(model.num_parameters, seed=3)
    conditioned = poutine.condition(model, model.unflatten(flat))
    trace = poutine.trace(conditioned).get_trace(part.x, part.targets)
    expected = -model.potential(flat, part.x, part.targets)
    torch.testing.assert_close(trace.log_prob_sum(), expected, rtol=1e-10, atol=1e-10)


def test_classes_of_weighted_points_are_checked() -> None:
    model = CASES["categorical"].model()
    part = Split(x=normal(2, 2), y=torch.tensor([0, 3]), weight=torch.ones(2).double())
    with pytest.raises(ConfigError, match="classes from 0 to 3"):
        model.log_likelihood(normal(model.num_parameters), part.x, part.targets)


def test_sums_and_means_of_a_split_count_observations() -> None:
    part = Split(x=torch.zeros(3, 1), y=torch.zeros(3), weight=torch.tensor([0.0, 1.0, 3.0]))
    values = torch.tensor([torch.inf, 2.0, 4.0])
    assert part.num_observations == 4
    assert part.total(values) == 14
    assert part.mean(values) == 3.5
    assert part.take([2]).weight.tolist() == [3.0]
    plain = Split(x=part.x, y=part.y)
    assert plain.num_observations == 3
    assert plain.targets is plain.y
