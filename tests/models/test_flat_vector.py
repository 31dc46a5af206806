import math

import pytest
import torch
from scipy import stats
from torch import nn

from bnn_symm.architectures import MLPConfig, SymmetryConfig, build_network, free_parameters
from bnn_symm.architectures.asymmetric.fixed_entries import FixedEntries
from bnn_symm.errors import ConfigError
from bnn_symm.models import BayesianModel, Categorical, Gaussian, Prior
from tests.models.cases import CASES, normal


def test_the_vector_holds_parameters_in_their_order_then_latent_variables() -> None:
    model = CASES["gaussian-learned"].model()
    assert list(model.shapes) == [
        *(name for name, _ in model.net.named_parameters()),
        "likelihood.log_noise",
    ]
    assert model.num_net_parameters == sum(p.numel() for p in model.net.parameters())
    assert model.num_parameters == model.num_net_parameters + 1


@pytest.mark.parametrize("leading", [(), (4,), (2, 3)], ids=str)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_unflatten_gives_every_shape_and_flatten_undoes_it(case, leading) -> None:
    model = case.model()
    flat = normal(*leading, model.num_parameters)
    values = model.unflatten(flat)
    assert {name: value.shape for name, value in values.items()} == {
        name: (*leading, *shape) for name, shape in model.shapes.items()
    }
    assert torch.equal(model.flatten(values), flat)
    assert torch.equal(
        model.flatten(dict(reversed(values.items()))), flat
    )  # order of the mapping is no matter


def test_slices_cover_the_vector_and_say_where_a_name_lies() -> None:
    model = CASES["gaussian-learned"].model()
    flat = normal(model.num_parameters)
    slices, values = model.slices(), model.unflatten(flat)
    assert list(slices) == list(model.shapes)
    assert [i for where in slices.values() for i in range(where.start, where.stop)] == list(
        range(len(flat))
    )
    for name, where in slices.items():
        assert torch.equal(flat[where], values[name].flatten())


def test_a_batch_of_draws_is_every_draw_by_itself() -> None:
    model = CASES["gaussian-learned"].model()
    draws = normal(2, 3, model.num_parameters)
    together = model.unflatten(draws)
    for name, value in model.unflatten(draws[1, 2]).items():
        assert torch.equal(together[name][1, 2], value)
    assert torch.equal(model.latents(draws)["log_noise"], draws[..., -1])


def test_outputs_are_those_of_the_network_with_these_parameters() -> None:
    model = CASES["categorical"].model()
    flat, x = normal(model.num_parameters), normal(6, 2, seed=1)
    before = {name: value.clone() for name, value in model.net.state_dict().items()}
    outputs = model.outputs(flat, x)
    assert all(torch.equal(value, before[name]) for name, value in model.net.state_dict().items())
    model.net.load_state_dict(model.unflatten(flat))
    torch.testing.assert_close(outputs, model.net(x).detach(), rtol=1e-14, atol=1e-14)


def test_initial_values_are_the_networks_own_and_prior_means_of_latents() -> None:
    model = CASES["gaussian-learned"].model()
    initial = model.initial()
    for name, value in model.net.named_parameters():
        assert torch.equal(initial[model.slices()[name]], value.detach().flatten())
    assert float(initial[-1]) == -0.7
    assert not initial.requires_grad


def test_initial_values_of_a_seed_are_those_of_a_network_built_with_it() -> None:
    config = MLPConfig(widths=(4, 3))
    model = BayesianModel(
        build_network(config, input_shape=(2,), num_outputs=3, seed=0), Prior(), Categorical()
    )
    before = model.initial()
    other = BayesianModel(
        build_network(config, input_shape=(2,), num_outputs=3, seed=7), Prior(), Categorical()
    )
    assert torch.equal(model.initial(seed=7), other.initial())
    assert not torch.equal(model.initial(seed=7), before)
    assert torch.equal(model.initial(), before)


def test_values_are_told_apart_by_network_and_likelihood() -> None:
    model = CASES["gaussian-learned"].model()
    values = model.unflatten(normal(model.num_parameters))
    assert list(model.net_values(values)) == [name for name, _ in model.net.named_parameters()]
    assert list(model.latent_values(values)) == ["log_noise"]


def test_a_network_of_one_unnamed_layer_works() -> None:
    model = BayesianModel(nn.Linear(3, 1).double(), Prior(scale="fan_in"), Gaussian(noise=1.0))
    flat = normal(4)
    assert list(model.shapes) == ["weight", "bias"]
    expected = stats.norm.logpdf(flat.numpy(), scale=math.sqrt(2 / 3)).sum()
    assert float(model.log_prior(flat)) == pytest.approx(expected, rel=1e-12)


def test_a_submodule_named_like_the_likelihood_is_refused():
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.likelihood = torch.nn.Linear(2, 1)

        def forward(self, x):
            return self.likelihood(x)

    with pytest.raises(
        ConfigError, match=r"likelihood\.weight: names that begin with 'likelihood.' are reserved"
    ):
        BayesianModel(Net(), Prior(), Gaussian())


def test_fixed_entries_are_no_coordinates_and_change_no_fan_in():
    def model(kind):
        config = MLPConfig(widths=(16,), norm="layer", symmetry=SymmetryConfig(kind=kind))
        net = build_network(config, input_shape=(9,), num_outputs=2, seed=1).double()
        return BayesianModel(net, Prior(scale="fan_in"), Categorical())

    standard, asymmetric = model("standard"), model("weight_asymmetric")
    layers = {
        name: module
        for name, module in asymmetric.net.named_modules()
        if isinstance(module, FixedEntries)
    }
    assert set(layers) == {"layers.0", "head"}
    fixed = sum(int((~layer.mask).sum()) for layer in layers.values())
    assert asymmetric.num_parameters == standard.num_parameters - fixed
    assert list(asymmetric.shapes) == list(standard.shapes)
    # The prior of what is left is the standard network's: of each coordinate its own density.
    flat = standard.initial()
    values = free_parameters(asymmetric.net, standard.unflatten(flat))
    free = asymmetric.flatten(values)
    density = standard.cross_entropy(flat, torch.full_like(flat, 0.3))
    wanted = asymmetric.flatten(free_parameters(asymmetric.net, standard.unflatten(density)))
    torch.testing.assert_close(asymmetric.cross_entropy(free, torch.full_like(free, 0.3)), wanted)
    # The same function of whole weights, and of a batch of vectors.
    x = normal(4, 9)
    effective = asymmetric.layer_values(asymmetric.unflatten(free))
    assert torch.equal(
        standard.outputs(standard.flatten(effective), x), asymmetric.outputs(free, x)
    )
    assert torch.equal(asymmetric.initial(), free)
    assert not torch.equal(asymmetric.initial(seed=5), free)
    batch = torch.stack([free, 2 * free])
    assert asymmetric.layer_values(asymmetric.unflatten(batch))["head.weight"].shape == (2, 2, 16)
    scales = asymmetric.layer_scales(asymmetric.unflatten(torch.ones_like(free)))
    assert torch.equal(scales["head.weight"], layers["head"].mask.double())


def test_a_copy_of_a_network_declares_the_shape_of_the_points_that_it_has_seen():
    net = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(27, 1))
    model = BayesianModel(net, Prior(), Gaussian(noise=0.1))
    model.outputs(model.initial(), torch.zeros(2, 2, 5, 5))
    assert model.net.input_shape == (2, 5, 5)
    assert not hasattr(net, "input_shape")
