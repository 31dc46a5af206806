"""Barriers of layers are those of the very networks with one layer of the other posterior."""

from dataclasses import replace

import pytest
import torch

from bnn_symm.diagnostics.barriers.barriers import barrier
from bnn_symm.diagnostics.barriers.interpolation import couple, losses
from bnn_symm.diagnostics.barriers.layerwise import LayerPath, layer_barriers, layers_of
from bnn_symm.errors import ConfigError
from bnn_symm.posteriors import GaussianPosterior
from tests.diagnostics.barriers.test_barriers import gaussian, model_of
from tests.diagnostics.barriers.test_repair import X, points, with_norm
from tests.diagnostics.barriers.test_temperature_scaled import DATA


def test_heights_are_those_of_the_very_networks() -> None:
    first, second = (gaussian(model_of(), seed, size=3.0) for seed in (1, 2))
    result = barrier(first, second, DATA, num_draws=4, num_tau=3, layers=True, seed=2)
    assert result.layers is not None
    layers = layers_of(first.model)
    assert [own.layer for own in result.layers] == list(layers)
    assert sum(own.num_parameters for own in result.layers) == first.model.num_parameters
    a, b = couple([first, second], num_draws=4, seed=2).draws
    ends = [losses(first, draws, DATA.test).marginal_nll for draws in (a, b)]
    for own in result.layers:
        for key, start, end in (("at_first", a, b), ("at_second", b, a)):
            above = []
            for tau in (0.0, 0.5, 1.0):
                moved = start.clone()
                weight = tau if key == "at_first" else 1 - tau
                for where in layers[own.layer]:
                    moved[:, where] = (1 - weight) * start[:, where] + weight * end[:, where]
                nll = losses(first, moved, DATA.test).marginal_nll
                above.append(nll - (1 - tau) * ends[0] - tau * ends[1])
            assert getattr(own, key).height == pytest.approx(max(above), abs=1e-9)
            assert getattr(own, key).tau == 0.5 * above.index(max(above))
            assert getattr(own, key).standard_error > 0
    # All layers together are the whole path, at the same positions.
    curve, last = result.test, result.layers[-1].cumulative
    at = {tau: curve.marginal_nll[curve.tau.index(tau)] for tau in (0.0, 0.5, 1.0)}
    assert last.height == pytest.approx(max(0.0, at[0.5] - (at[0.0] + at[1.0]) / 2))


def test_only_the_layer_that_differs_has_a_barrier() -> None:
    first = gaussian(model_of(), 1, size=3.0)
    layers = layers_of(first.model)
    loc = first.loc.clone()
    name = next(iter(layers))
    for where in layers[name]:
        loc[where] = -loc[where].flip(0)
    second = GaussianPosterior(first.model, first.scaling, loc=loc, scale=first.scale)
    rows = layer_barriers(couple([first, second], num_draws=3), first, DATA.test, 3, 0)
    assert rows[0].at_first == rows[0].at_second == rows[-1].cumulative
    for own in rows[1:]:
        # Nothing moves, so the loss is that of one end, while the chord leads to the other.
        assert {own.at_first.tau, own.at_second.tau} <= {0.0, 1.0}


def test_statistics_move_with_their_layer() -> None:
    first, second = points(with_norm, X, same_model=False)
    pairs = couple([first, second], num_draws=1)
    nothing = torch.zeros(first.model.num_parameters, dtype=torch.bool)
    for layers, expected in (({"1"}, 0.5), ({"0"}, 0.0)):
        model = LayerPath(pairs, nothing, frozenset(layers), 0).model(0.5)
        assert model is not None
        for name, value in model.statistics.items():
            a, b = (own.model.statistics[name] for own in (first, second))
            assert torch.allclose(value, a + expected * (b - a))


def test_curves_are_refused() -> None:
    first, second = (gaussian(model_of(), seed) for seed in (1, 2))
    pairs = replace(couple([first, second], num_draws=1), bend=0 * first.loc)
    with pytest.raises(ConfigError, match="straight"):
        layer_barriers(pairs, first, DATA.test, 3, 0)
