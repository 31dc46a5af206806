"""Units that were pruned by hand are found, and no others."""

import numpy as np
import pytest
import torch

from bnn_symm.architectures import CNNConfig, MLPConfig, SymmetryConfig, build_network
from bnn_symm.data import Scaling
from bnn_symm.diagnostics.elbo.pruning import Pruning, pruned_units
from bnn_symm.diagnostics.mixing.parameter_index import ParameterIndex
from bnn_symm.errors import ConfigError
from bnn_symm.models import BayesianModel, Categorical, Prior
from bnn_symm.posteriors import GaussianPosterior, SamplePosterior
from bnn_symm.symmetry import permutation_spec
from tests.models.cases import normal

SCALING = Scaling(x_mean=np.zeros(2), x_scale=np.ones(2), y_mean=0.0, y_scale=1.0)
SPARSE = SymmetryConfig(kind="weight_asymmetric", fixed_per_row=(2, 2, 0), kappa=1.0)
ZEROS = SymmetryConfig(kind="weight_asymmetric", fixed_per_row=(2, 2, 0), kappa=0.0)


def model_of(config=None, shape=(4,)) -> BayesianModel:
    config = config or MLPConfig(widths=(6, 5))
    return BayesianModel(
        build_network(config, input_shape=shape, num_outputs=3).double(), Prior(), Categorical()
    )


def used(model: BayesianModel) -> tuple[torch.Tensor, torch.Tensor]:
    """Every weight far from 0 and narrow."""
    sign = normal(model.num_parameters).sign()
    return sign, torch.full_like(sign, 0.1)


def found_in(model: BayesianModel, loc: torch.Tensor, scale: torch.Tensor) -> Pruning:
    found = pruned_units(GaussianPosterior(model, SCALING, loc=loc, scale=scale))
    assert found is not None
    return found


def silence(model: BayesianModel, loc: torch.Tensor, tensor: str, units: list[int]) -> None:
    """What reads some units of a layer gets a mean of a hundredth of its standard deviation."""
    where = model.slices()[tensor]
    loc[where].view(model.shapes[tensor])[:, units] = 0.001


def test_no_unit_of_a_posterior_that_uses_all_is_pruned():
    model = model_of()
    found = found_in(model, *used(model))
    assert found.fraction == 0
    assert found.num_units == 11
    assert all((group.signal_to_noise > 9).all() for group in found.groups.values())


def test_units_at_the_prior_are_reverted_and_silent_ones_are_silent():
    model = model_of()
    loc, scale = used(model)
    places = ParameterIndex(model, permutation_spec(model.net)).units
    first, second = places
    for unit in (1, 4):
        loc[places[first][unit]], scale[places[first][unit]] = 0.0, 1.0
    silence(model, loc, "head.weight", [2])
    found = found_in(model, loc, scale)
    assert np.flatnonzero(found.groups[first].reverted).tolist() == [1, 4]
    assert np.flatnonzero(found.groups[first].silent).tolist() == [1, 4]
    assert np.flatnonzero(found.groups[second].pruned).tolist() == [2]
    assert not found.groups[second].reverted.any()
    assert found.fraction == pytest.approx(3 / 11)


def test_the_thresholds_are_what_the_documentation_says():
    """A standard deviation a tenth below the prior's is 0.0104 nats, a mean of 0.14 of it
    0.0098."""
    model = model_of(MLPConfig(widths=(3,)))
    zeros, ones = (
        torch.zeros(model.num_parameters).double(),
        torch.ones(model.num_parameters).double(),
    )
    assert not found_in(model, zeros, 0.90 * ones).groups["layers.0"].reverted.any()
    assert found_in(model, zeros, 0.91 * ones).groups["layers.0"].reverted.all()
    assert found_in(model, 0.14 * ones, ones).groups["layers.0"].reverted.all()
    assert not found_in(model, 0.15 * ones, ones).groups["layers.0"].reverted.any()
    assert found_in(model, 0.09 * ones, 0.1 * ones).groups["layers.0"].silent.all()
    assert not found_in(model, 0.11 * ones, 0.1 * ones).groups["layers.0"].silent.any()


def test_one_reader_that_is_told_from_zero_is_enough():
    model = model_of()
    loc, scale = used(model)
    silence(model, loc, "head.weight", [0, 1])
    loc[model.slices()["head.weight"]].view(3, 5)[2, 1] = 0.2
    assert np.flatnonzero(found_in(model, loc, scale).groups["layers.1"].silent).tolist() == [0]


def test_channels_are_units_and_flattened_maps_read_them():
    model = model_of(CNNConfig(widths=(3, 4)), (1, 4, 4))
    loc, scale = used(model)
    spec = permutation_spec(model.net)
    last = list(spec.groups)[-1]
    tensor, _, segment, _ = next(place for place in spec.occurrences(last) if place[1] == 1)
    where = model.slices()[tensor]
    read = loc[where].view(model.shapes[tensor]).view(3, segment.outer, 4, segment.inner)
    assert segment.outer * segment.inner > 1
    read[:, :, 2] = 0.001
    assert np.flatnonzero(found_in(model, loc, scale).groups[last].silent).tolist() == [2]


def test_a_unit_that_a_fixed_entry_reads_is_heard_and_may_still_be_reverted():
    model = model_of(MLPConfig(widths=(4, 4), symmetry=SPARSE))
    loc, scale = used(model)
    places = ParameterIndex(model, permutation_spec(model.net)).units
    for unit in range(4):
        loc[places["layers.0"][unit]], scale[places["layers.0"][unit]] = 0.0, 1.0
    found = found_in(model, loc, scale)
    assert found.groups["layers.0"].reverted.all()
    mask = model.net.get_submodule("layers.1").mask
    np.testing.assert_array_equal(found.groups["layers.0"].silent, mask.all(0).numpy())
    assert np.isinf(found.groups["layers.0"].signal_to_noise[~mask.all(0).numpy()]).all()


def test_entries_that_are_fixed_at_zero_carry_nothing():
    model = model_of(MLPConfig(widths=(4, 4), symmetry=ZEROS))
    loc, scale = used(model)
    loc[model.slices()["layers.1.weight"]] = 0.001
    assert found_in(model, loc, scale).groups["layers.0"].silent.all()


def test_gates_hear_every_unit():
    gated = SymmetryConfig(kind="sigma_asymmetric")
    model = model_of(MLPConfig(widths=(4,), symmetry=gated))
    loc, scale = used(model)
    silence(model, loc, "head.weight", [0, 1, 2, 3])
    assert not found_in(model, loc, scale).groups["layers.0"].silent.any()


def test_permuting_a_posterior_permutes_what_is_pruned():
    model = model_of()
    loc, scale = used(model)
    silence(model, loc, "layers.1.weight", [0, 5])
    posterior = GaussianPosterior(model, SCALING, loc=loc, scale=scale)
    permutation = permutation_spec(model.net).random(0)
    before, after = pruned_units(posterior), pruned_units(posterior.permute(permutation))
    assert before is not None
    assert after is not None
    moved = before.groups["layers.0"].pruned[permutation.indices["layers.0"].numpy()]
    np.testing.assert_array_equal(after.groups["layers.0"].pruned, moved)


def test_a_network_without_hidden_units_has_no_fraction():
    model = model_of(MLPConfig(widths=()))
    assert found_in(model, *used(model)).fraction is None


def test_draws_are_not_judged_and_thresholds_must_be_positive():
    model = model_of()
    assert (
        pruned_units(SamplePosterior.from_draws(model, normal(1, 3, model.num_parameters))) is None
    )
    loc, scale = used(model)
    with pytest.raises(ConfigError, match="kl_below: got 0"):
        pruned_units(GaussianPosterior(model, SCALING, loc=loc, scale=scale), kl_below=0.0)
