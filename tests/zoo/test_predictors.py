"""Predictors recover planted targets, and only those that their invariance allows."""

import numpy as np
import pytest
import torch
from scipy.stats import kendalltau

from bnn_symm import BayesianModel, MLPConfig, Prior, SymmetryConfig, build_network, symmetry_group
from bnn_symm.likelihoods import Categorical
from bnn_symm.zoo.predictors import PREDICTORS, Inputs, Parts, weight_statistics
from bnn_symm.zoo.weight_blocks import WeightLayout

NETWORKS = 320


def random_networks(kind):
    """Return the inputs of networks with random weights, and the weights of their first layer."""
    config = MLPConfig(widths=(6,), symmetry=SymmetryConfig(kind=kind))
    net = build_network(config, input_shape=(6,), num_outputs=2, seed=0)
    model = BayesianModel(net, Prior(), Categorical())
    weights = torch.randn(
        NETWORKS, model.num_parameters, generator=torch.Generator().manual_seed(0)
    )
    layout = WeightLayout.of(symmetry_group(net, input_shape=(6,)), model)
    layers = model.layer_values(model.unflatten(weights))
    return Inputs.of(model, layout, weights, np.zeros((NETWORKS, 1))), layers


def tau(predictor, inputs, target):
    parts = Parts(
        train=np.arange(200), validation=np.arange(200, 240), held_out=np.arange(240, NETWORKS)
    )
    target = target.double().numpy()[:, None]
    predicted = PREDICTORS[predictor](inputs, target, parts, 0)
    assert predicted.shape == (80, 1)
    return kendalltau(predicted[:, 0], target[240:, 0]).statistic


@pytest.fixture(scope="module")
def standard():
    return random_networks("standard")


@pytest.mark.thorough
def test_the_ranking_by_an_invariant_function_is_recovered(standard):
    inputs, layers = standard
    target = inputs.flat.square().sum(1)
    assert tau("invariant", inputs, target) > 0.85
    assert tau("flat_mlp", inputs, target) < 0.6
    at_zero = layers["layers.0.bias"].relu() * layers["head.weight"][:, 0]
    assert tau("invariant", inputs, at_zero.sum(1)) > 0.85


@pytest.mark.thorough
def test_a_function_that_depends_on_the_numbering_is_recovered_only_without_symmetry(standard):
    def difference(layers):
        return layers["layers.0.bias"][:, 0] - layers["layers.0.bias"][:, 1]

    inputs, layers = standard
    assert abs(tau("invariant", inputs, difference(layers))) < 0.2
    assert tau("flat_mlp", inputs, difference(layers)) > 0.8
    inputs, layers = random_networks("weight_asymmetric")
    assert tau("invariant", inputs, difference(layers)) > 0.8


def test_statistics_are_those_of_each_tensor(standard):
    inputs, layers = standard
    net = build_network(MLPConfig(widths=(6,)), input_shape=(6,), num_outputs=2, seed=0)
    model = BayesianModel(net, Prior(), Categorical())
    own = weight_statistics(model, inputs.flat[:5])
    assert own.shape == (5, 4 * 7)
    first = layers["layers.0.weight"][:5].flatten(1).double().numpy()
    expected = [first.mean(1), first.var(1), *np.quantile(first, [0, 0.25, 0.5, 0.75, 1], axis=1)]
    np.testing.assert_allclose(own[:, :7], np.stack(expected, 1), rtol=1e-6, atol=1e-7)
    bias = layers["head.bias"][:5].double().numpy()
    np.testing.assert_allclose(own[:, -7], bias.mean(1), rtol=1e-6)


def test_ridge_and_boosting_recover_a_statistic(standard):
    inputs, layers = standard
    target = layers["layers.0.weight"].flatten(1).var(1)
    assert tau("statistics_ridge", inputs, target) > 0.95
    assert tau("statistics_boosting", inputs, target) > 0.85
