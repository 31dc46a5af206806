"""Kronecker factors against whole blocks, and draws against precisions."""

import dataclasses
import math

import pytest
import torch
from torch import nn

from bnn_symm.architectures import MLPConfig, SymmetryConfig, build_network
from bnn_symm.data import load_dataset
from bnn_symm.errors import ConfigError
from bnn_symm.inference import LaplaceApproximation
from bnn_symm.inference.laplace import structures
from bnn_symm.inference.laplace.blocks import (
    DenseBlock,
    DiagonalBlock,
    KroneckerBlock,
    deviation,
    from_state,
    to_state,
)
from bnn_symm.inference.laplace.curvature import blocks, diagonals
from bnn_symm.inference.laplace.kronecker import kronecker_factors, kronecker_layers
from bnn_symm.inference.laplace.structures import plan_curvature
from bnn_symm.models import BayesianModel, Categorical, Gaussian, Prior, PriorOverride
from bnn_symm.posteriors import SamplePosterior
from bnn_symm.testing import TEMPERINGS, exact_posterior, linear_regression
from tests.inference import test_fixed_entries
from tests.models.cases import CASES, normal


def part_of(model, x, y):
    return dataclasses.replace(load_dataset("iris").train, x=x, y=y)


def total(terms):
    """Return B and A of each layer."""
    by_layer = zip(*terms, strict=True)
    return [tuple(sum(pair) for pair in zip(*own, strict=True)) for own in by_layer]


def precision_of(factor):
    """Return the precision matrix whose normal the deviations are: (L L^T)^-1."""
    size = factor.coordinates.numel()
    root = torch.stack([factor.deviation(row) for row in torch.eye(size).double()], 1)
    return torch.linalg.inv(root @ root.T)


def dense(block, prior):
    """Return the precision matrix of a Kronecker block by its definition."""
    return torch.kron(block.left, block.right) + prior[block.coordinates.flatten()].diag()


@pytest.mark.parametrize("name", CASES)
def test_of_one_point_it_is_the_whole_block(name):
    """Each layer of a network with a norm, with every likelihood, also where entries are fixed."""
    case = CASES[name]
    model = case.model()
    part = part_of(model, normal(1, 2), case.targets(1))
    position = normal(model.num_parameters, seed=1)
    plan = plan_curvature("kronecker", 1, model, part.x)
    found = plan.blocks(model, position, part, torch.ones_like(position), 1.0)
    assert {type(block) for block in found} == {DenseBlock, KroneckerBlock}
    covered = torch.cat([block.coordinates.flatten() for block in found])
    assert covered.sort().values.tolist() == list(range(model.num_parameters))
    for block in found:
        wanted = sum(blocks(model, position, block.coordinates.flatten(), part))
        own = block.curvature if isinstance(block, DenseBlock) else dense(block, 0 * position)
        torch.testing.assert_close(own, wanted, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize(("temperature", "tempering"), TEMPERINGS)
def test_of_linear_regression_it_is_the_exact_posterior(temperature, tempering):
    model, data = linear_regression()
    exact = exact_posterior(data, temperature, tempering)
    method = LaplaceApproximation(
        structure="kronecker", temperature=temperature, tempering=tempering
    )
    plan = plan_curvature("kronecker", 1, model, data.train.x)
    prior = method.prior_weight * torch.ones(11).double()
    (block,) = plan.blocks(model, exact.mean, data.train, prior, temperature)
    factor = block.factor(prior)
    torch.testing.assert_close(precision_of(factor), exact.precision, rtol=1e-9, atol=1e-9)
    assert factor.log_determinant() == pytest.approx(float(exact.precision.logdet()))


def test_entries_that_are_not_free_are_conditioned_on():
    model, data = test_fixed_entries.linear_regression()
    exact, _ = test_fixed_entries.exact(model, data)
    plan = plan_curvature("kronecker", 1, model, data.train.x)
    prior = torch.ones(6).double()
    (block,) = plan.blocks(model, exact.mean, data.train, prior, 1.0)
    torch.testing.assert_close(precision_of(block.factor(prior)), exact.precision)


def image_model(**keywords):
    """A convolution with as many places as its stride leaves, and a dense layer."""
    net = nn.Sequential(
        nn.Conv2d(2, 3, 3, **keywords), nn.Tanh(), nn.Flatten(), nn.LazyLinear(4)
    ).double()
    net(torch.zeros(1, 2, 5, 4).double())
    return BayesianModel(net, Prior(), Categorical())


def test_a_convolution_with_one_place_is_a_dense_layer():
    net = nn.Sequential(nn.Conv2d(2, 3, (5, 4)), nn.Tanh(), nn.Flatten(), nn.Linear(3, 4)).double()
    model = BayesianModel(net, Prior(), Categorical())
    part = part_of(model, normal(1, 2, 5, 4), torch.tensor([1]))
    position = normal(model.num_parameters, seed=1)
    for layer, (left, right) in zip(
        layers := kronecker_layers(model, part.x),
        total(kronecker_factors(model, position, layers, part)),
        strict=True,
    ):
        wanted = sum(blocks(model, position, layer.coordinates.flatten(), part))
        torch.testing.assert_close(torch.kron(left, right), wanted, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize(
    "keywords",
    [{}, {"stride": 2, "padding": 1}, {"dilation": (2, 1), "bias": False}, {"padding": "same"}],
)
def test_inputs_of_a_convolution_are_its_patches(keywords):
    """The factor of inputs is that of unfold; the trace is that of places as independent points."""
    model = image_model(**keywords)
    part = part_of(model, normal(6, 2, 5, 4), torch.tensor([0, 1, 2, 3, 0, 1]))
    position = normal(model.num_parameters, seed=1)
    layer = kronecker_layers(model, part.x)[0]
    ((left, right),) = total(kronecker_factors(model, position, [layer], part))
    padding = keywords.get("padding", 0)
    unfold = {"padding": 1 if padding == "same" else padding}
    unfold |= {key: keywords[key] for key in ("stride", "dilation") if key in keywords}
    patches = nn.functional.unfold(part.x, 3, **unfold).movedim(1, -1).flatten(0, 1)
    if keywords.get("bias", True):
        patches = torch.cat([patches, torch.ones(len(patches), 1).double()], 1)
    torch.testing.assert_close(right, patches.T @ patches / len(patches))
    assert left.shape == (3, 3)


def test_gradients_of_a_convolution_are_those_at_its_output():
    """The bias of a layer has the gradient of its output, summed over places; with one place each,
    the sum over rows of its squares is the trace of B."""
    model = image_model(stride=4)
    part = part_of(model, normal(6, 2, 5, 4), torch.tensor([0, 1, 2, 3, 0, 1]))
    position = normal(model.num_parameters, seed=1)
    layers = kronecker_layers(model, part.x)
    factors = total(kronecker_factors(model, position, layers, part))
    diagonal = sum(diagonals(model, position, part))
    for layer, (left, _) in zip(layers, factors, strict=True):
        torch.testing.assert_close(left.diagonal(), diagonal[layer.coordinates[:, -1]])


def test_chunks_of_points_add_up(monkeypatch):
    model = image_model()
    part = part_of(model, normal(6, 2, 5, 4), torch.tensor([0, 1, 2, 3, 0, 1]))
    position = normal(model.num_parameters, seed=1)
    layers = kronecker_layers(model, part.x)
    whole = total(kronecker_factors(model, position, layers, part))
    monkeypatch.setattr("bnn_symm.inference.laplace.kronecker._POINTS_AT_ONCE", 4)
    terms = list(kronecker_factors(model, position, layers, part))
    assert len(terms) == 2
    for own, wanted in zip(total(terms), whole, strict=True):
        torch.testing.assert_close(own[0], wanted[0])
        torch.testing.assert_close(own[1], wanted[1])


def test_convolutions_in_groups_have_no_factors():
    net = nn.Sequential(
        nn.Conv1d(4, 4, 2, groups=2), nn.Flatten(), nn.Linear(4, 3, bias=False)
    ).double()
    model = BayesianModel(net, Prior(), Categorical())
    assert [layer.weight for layer in kronecker_layers(model, normal(1, 4, 2))] == ["2.weight"]
    plan = plan_curvature("kronecker", 1, model, normal(1, 4, 2))
    assert [len(coordinates) for coordinates in plan.tensors] == [16, 4]


@pytest.mark.parametrize(
    "prior", [Prior(scale=0.3), Prior(scale=2.0, overrides={"*.bias": PriorOverride(scale=0.1)})]
)
def test_adding_the_prior_is_exact(prior):
    net = build_network(MLPConfig(widths=(4,)), input_shape=(2,), num_outputs=3).double()
    model = BayesianModel(net, prior, Categorical())
    part = part_of(model, normal(9, 2), CASES["categorical"].targets(9))
    position = normal(model.num_parameters, seed=1)
    precisions = model.prior_standard_deviations(position).pow(-2)
    plan = plan_curvature("kronecker", 1, model, part.x)
    for block in plan.blocks(model, position, part, precisions, 0.5):
        factor = block.factor(precisions)
        assert factor.kind == "kronecker"
        wanted = dense(block, precisions)
        torch.testing.assert_close(precision_of(factor), wanted, rtol=1e-8, atol=1e-8)
        assert factor.log_determinant() == pytest.approx(float(wanted.logdet()))
        torch.testing.assert_close(
            block.eigenvalues(torch.ones(model.num_parameters), model.num_parameters).sort().values,
            torch.linalg.eigvalsh(dense(block, 0 * precisions)).clamp(min=0),
            atol=1e-10,
            rtol=1e-8,
        )
        # A prior that differs by row has no eigendecomposition, and is as exact.
        uneven = precisions * torch.linspace(1, 2, len(precisions))
        factor = block.factor(uneven)
        assert factor.kind == "dense"
        torch.testing.assert_close(precision_of(factor), dense(block, uneven), rtol=1e-8, atol=1e-8)


def test_factors_are_stored_as_arrays():
    coordinates = torch.arange(10)
    curvature = normal(3, 3)
    found = [
        KroneckerBlock(
            coordinates[:4].reshape(2, 2), torch.eye(2).double(), 2 * torch.eye(2).double()
        ),
        DenseBlock(coordinates[4:7], curvature @ curvature.T),
        DiagonalBlock(coordinates[7:9], torch.tensor([1.0, 2.0]).double()),
    ]
    factors = [block.factor(torch.ones(10).double()) for block in found]
    state = {name: torch.from_numpy(value) for name, value in to_state(factors).items()}
    noise, like = normal(9, seed=2), torch.zeros(10).double()
    restored = from_state({"position": like, **state})
    assert [factor.kind for factor in restored] == ["kronecker", "dense", "diagonal"]
    one, other = (deviation(own, noise, like) for own in (factors, restored))
    assert torch.equal(one, other)
    assert one[9] == 0
    assert (one[:9] != 0).all()


def test_the_subnetwork_has_the_largest_variances():
    case = CASES["gaussian-learned"]
    model = case.model()
    part = part_of(model, normal(9, 2), case.targets(9))
    position = normal(model.num_parameters, seed=1)
    prior = torch.ones_like(position)
    plan = plan_curvature("subnetwork", 4, model, part.x)
    (block,) = plan.blocks(model, position, part, prior, 1.0)
    net = model.num_net_parameters
    smallest = sum(diagonals(model, position, part))[:net].sort().indices[:4]
    # With the likelihood's own variable.
    assert block.coordinates.tolist() == [*smallest.sort().values.tolist(), net]
    wanted = sum(blocks(model, position, block.coordinates, part))
    torch.testing.assert_close(block.curvature, wanted)


def test_large_tensors_outside_of_layers_have_a_diagonal(monkeypatch):
    monkeypatch.setattr(structures, "_LARGEST_TENSOR", 2)
    case = CASES["gaussian-learned"]
    model = case.model()
    part = part_of(model, normal(9, 2), case.targets(9))
    position = normal(model.num_parameters, seed=1)
    plan = plan_curvature("kronecker", 1, model, part.x)
    found = plan.blocks(model, position, part, torch.ones_like(position), 1.0)
    kinds = [type(block) for block in found[len(plan.layers) :]]
    # Of a norm, its scale and shift; then the noise.
    assert kinds == [DiagonalBlock, DiagonalBlock, DenseBlock]
    diagonal = sum(diagonals(model, position, part))
    for block in found[len(plan.layers) :]:
        own = block.curvature if block.curvature.dim() == 1 else block.curvature.diagonal()
        torch.testing.assert_close(own, diagonal[block.coordinates])


def test_blocks_that_are_too_large_are_refused(monkeypatch):
    monkeypatch.setattr(structures, "LARGEST_BLOCK", 20)
    symmetry = SymmetryConfig(kind="weight_asymmetric")
    wide = {"widths": (8,), "symmetry": symmetry}
    net = build_network(MLPConfig(**wide), input_shape=(6,), num_outputs=3)
    model = BayesianModel(net, Prior(), Categorical())
    x = torch.zeros(1, 6)
    with pytest.raises(ConfigError, match=r"layers\.0\.weight has .* expected at most 20 in such"):
        plan_curvature("kronecker", 1, model, x)
    with pytest.raises(ConfigError, match=r"structure=full: the network has .*structure=kron"):
        plan_curvature("full", 1, model, x)
    with pytest.raises(ConfigError, match=r"subnetwork_size: got 21, expected at most 20; set "):
        plan_curvature("subnetwork", 21, model, x)


def test_draws_have_the_moments_of_the_posterior():
    model, data = linear_regression()
    exact, number = exact_posterior(data), 1500
    at = LaplaceApproximation(
        num_steps=1, learning_rate=1e-14, structure="kronecker", num_draws=number
    )
    start = SamplePosterior.from_draws(model, exact.mean[None, None])
    posterior = at.fit(model, data, seed=0, initial=start)
    white = (posterior.draws() - exact.mean) @ torch.linalg.cholesky(exact.precision)
    # Standard errors of means and covariances of white draws: 1 / sqrt(n), and sqrt(2 / n) at most;
    # five of them.
    assert white.mean(0).abs().max() < 5 / math.sqrt(number)
    assert (white.T @ white / number - torch.eye(11)).abs().max() < 5 * math.sqrt(2 / number)


def test_a_network_without_layers_has_blocks_of_its_tensors():
    class Scale(nn.Module):
        def __init__(self):
            super().__init__()
            self.factor = nn.Parameter(torch.ones(1).double())

        def forward(self, x):
            return x[:, :1] * self.factor

    model = BayesianModel(Scale(), Prior(), Gaussian(noise=1.0))
    part = part_of(model, normal(5, 2), normal(5))
    position = model.initial()
    (block,) = plan_curvature("kronecker", 1, model, part.x).blocks(
        model, position, part, torch.ones_like(position), 1.0
    )
    torch.testing.assert_close(block.curvature[0, 0], part.x[:, 0].square().sum())
