"""Test permutation training: rows keep their values, and a planted arrangement is found."""

import warnings

import pytest
import torch
from torch import nn

from bnn_symm import BayesianModel, Dataset, Prior
from bnn_symm.architectures import MLPConfig, SymmetryConfig, build_network, effective_parameters
from bnn_symm.data import load_dataset
from bnn_symm.inference import PermutationTraining
from bnn_symm.inference.fit_context import initial_positions
from bnn_symm.inference.optimization.permutation_training import Rearrangement
from bnn_symm.likelihoods import Categorical, Gaussian
from tests.models.cases import normal


def sorted_rows(model: BayesianModel, flat: torch.Tensor) -> list[torch.Tensor]:
    """The sorted values of each row of every weight, fixed entries included."""
    values = effective_parameters(model.net, model.unflatten(flat)).values()
    return [value.flatten(1).sort(dim=1).values for value in values if value.ndim > 1]


@pytest.mark.thorough
@pytest.mark.parametrize(
    "symmetry",
    [SymmetryConfig(), SymmetryConfig(kind="weight_asymmetric", fixed_per_row=(0, 4))],
    ids=lambda symmetry: symmetry.kind,
)
def test_rows_keep_their_values_and_the_fit_improves(symmetry):
    data = load_dataset("iris")
    config = MLPConfig(widths=(16,), symmetry=symmetry)
    model = BayesianModel(
        build_network(config, input_shape=(4,), num_outputs=3), Prior(), Categorical()
    )
    # The number of steps is no multiple of the period, and yet the result is arranged.
    steps = {"num_steps": 63, "period": 10, "learning_rate": 0.02}
    method = PermutationTraining(num_members=2, chain_method="sequential", **steps)
    posterior = method.fit(model, data, seed=0)
    starts = initial_positions(model, None, 2, seed=0)
    for chain, start in enumerate(starts):
        (flat,) = posterior.read(chain, 0, 1)
        assert not torch.equal(flat, start)
        for own, initial in zip(sorted_rows(model, flat), sorted_rows(model, start), strict=True):
            assert torch.equal(own, initial)
        x, y = data.train.x, data.train.y
        before, after = (nn.functional.cross_entropy(model.outputs(w, x), y) for w in (start, flat))
        assert after < before - 0.3
    assert not torch.equal(*(posterior.read(chain, 0, 1) for chain in (0, 1)))


def test_a_planted_arrangement_is_found():
    net = nn.Sequential(nn.Linear(8, 1))
    model = BayesianModel(net, Prior(), Gaussian(noise=0.1))
    start = initial_positions(model, None, 1, seed=0)[0]
    weight = model.unflatten(start)["0.weight"][0]
    order = torch.tensor([3, 0, 7, 1, 6, 2, 5, 4])
    x = normal(400, 8, seed=1).to(weight.dtype)
    data = Dataset.from_arrays(x, x @ weight[order] + 0.7, standardize=False)
    method = PermutationTraining(num_steps=400, learning_rate=0.02)
    posterior = method.fit(model, data, seed=0)
    found = model.unflatten(posterior.mean())
    assert torch.equal(found["0.weight"][0], weight[order])
    assert found["0.bias"].item() == pytest.approx(0.7, abs=0.01)  # optimized, not arranged


def test_values_are_arranged_in_the_order_of_others():
    net = nn.Sequential(nn.Linear(3, 2))
    model = BayesianModel(net, Prior(), Gaussian(noise=0.1))
    values = torch.tensor([1.0, 2.0, 3.0, 6.0, 5.0, 4.0, 0.5, 0.6])
    position = torch.tensor([0.3, 0.1, 0.2, -1.0, 7.0, 0.0, 8.0, 9.0])
    arranged = Rearrangement(model, values)(position)
    assert arranged.tolist() == [3.0, 1.0, 2.0, 4.0, 6.0, 5.0, 8.0, 9.0]


def test_a_fit_that_moves_no_weight_says_so():
    model = BayesianModel(nn.Sequential(nn.Linear(4, 3)), Prior(), Categorical())
    for rate, is_noted in ((1e-6, True), (0.3, False)):
        method = PermutationTraining(num_steps=20, period=10, learning_rate=rate)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            method.fit(model, load_dataset("iris"), seed=0)
        notes = [note for note in caught if "where it started, in 1 of 1" in str(note.message)]
        assert bool(notes) == is_noted
