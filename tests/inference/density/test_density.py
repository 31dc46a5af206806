"""The compiled density of a batch is the model's own, in value and gradient, whatever network and
data."""

import subprocess
import sys
import warnings

import pytest
import torch
from torch import nn

from bnn_symm.architectures import CNNConfig, MLPConfig, asymmetrize, build_network
from bnn_symm.data import load_dataset
from bnn_symm.inference import NUTS
from bnn_symm.inference.density import compiled, density
from bnn_symm.inference.density.batched_mlp import BatchedMLP
from bnn_symm.inference.density.compiled import Compiled, CompilerWarning, has_compiler
from bnn_symm.inference.density.density import TemperedDensity
from bnn_symm.models import BayesianModel, Categorical, Gaussian, Prior

needs_compiler = pytest.mark.skipif(not has_compiler(), reason="no C++ compiler")


def problem(kind="mlp"):
    name = "digits" if kind == "cnn" else "iris"
    data = load_dataset(name)
    config = (
        CNNConfig(widths=(3,)) if kind == "cnn" else MLPConfig(widths=(5, 4), activation="tanh")
    )
    net = build_network(config, input_shape=data.input_shape, num_outputs=data.num_outputs)
    if kind == "asymmetric":
        net = asymmetrize(net, kind="weight_asymmetric")
    return BayesianModel(net.double(), Prior(name="laplace"), Categorical()), data.to(
        torch.device("cpu"), torch.float64
    )


def check(found: TemperedDensity, model, data, positions, **keywords) -> None:
    energies, gradients = found(positions)
    for position, energy, gradient in zip(positions, energies, gradients, strict=True):
        wanted, value = torch.func.grad_and_value(
            lambda flat: model.potential(flat, data.train.x, data.train.y, **keywords)
        )(position)
        assert torch.isclose(energy, value, rtol=1e-10)
        assert torch.allclose(gradient, wanted, rtol=1e-8, atol=1e-9)


def starts(model, number):
    return torch.stack([model.initial(seed) for seed in range(number)])


def network(kind):
    """A regression network of 13 features, and whether its layers are known one by one."""
    match kind:
        case "layer_norm" | "narrow" | "linear" | "figlu" | "block_fixed":
            widths = {"narrow": (1, 4, 1), "linear": ()}.get(kind, (6, 4))
            norm = "layer" if kind == "layer_norm" else "none"
            config = MLPConfig(
                widths=widths, activation="gelu" if kind == "layer_norm" else "tanh", norm=norm
            )
            net = build_network(config, input_shape=(10,), num_outputs=1)
            if kind == "figlu":
                net = asymmetrize(net, kind="sigma_asymmetric", input_shape=(10,))
            if kind == "block_fixed":
                net = asymmetrize(net, kind="block_fixed", input_shape=(10,))
            return net, True
        case "sequence":
            inner = nn.Sequential(
                nn.Linear(10, 4, bias=False), nn.LayerNorm(4, elementwise_affine=False), nn.SiLU()
            )
            return nn.Sequential(nn.Flatten(), inner, nn.Linear(4, 1)), True
        case "batch_free":
            return nn.Sequential(
                nn.Linear(10, 4), nn.Unflatten(1, (2, 2)), nn.Flatten(), nn.Linear(4, 1)
            ), False
        case "hook":
            net = nn.Sequential(nn.Linear(10, 4), nn.Tanh(), nn.Linear(4, 1))
            net[1].register_forward_hook(lambda module, inputs, output: 2 * output)
            return net, False
        case "shared":
            shared = nn.Linear(4, 4)
            return nn.Sequential(
                nn.Linear(10, 4), shared, nn.Tanh(), shared, nn.Linear(4, 1)
            ), False
        case "tied":
            net = nn.Sequential(
                nn.Linear(10, 4), nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4), nn.Linear(4, 1)
            )
            net[3].weight = net[1].weight
            return net, False
        case "other norm":
            return nn.Sequential(nn.Linear(10, 4), _DoubledNorm(4), nn.Linear(4, 1)), False
        case "subclass":
            return nn.Sequential(_Doubling(10, 4), nn.Tanh(), nn.Linear(4, 1)), False
    raise AssertionError(kind)


class _Doubling(nn.Linear):
    def forward(self, input):
        return 2 * super().forward(input)


class _DoubledNorm(nn.LayerNorm):
    def forward(self, input):
        return 2 * super().forward(input)


@pytest.mark.parametrize(
    "kind",
    [
        *("layer_norm", "narrow", "linear", "figlu", "block_fixed", "sequence"),
        *("batch_free", "hook", "subclass", "shared", "tied", "other norm"),
    ],
)
def test_layers_that_are_known_are_computed_unit_by_unit_to_the_same(kind):
    net, known = network(kind)
    data = load_dataset("diabetes", dtype=torch.float64)
    model = BayesianModel(net.double(), Prior(scale=0.7), Gaussian())
    assert (BatchedMLP.of(model) is not None) == known
    positions = starts(model, 3) + 0.1 * torch.randn(
        model.num_parameters, generator=torch.manual_seed(0)
    )
    found = TemperedDensity(
        model, data.train, temperature=0.5, prior_weight=1.0, like=positions, compile=False
    )
    check(found, model, data, positions, temperature=0.5)


@pytest.mark.parametrize("kind", ["mlp", "asymmetric", "cnn"])
@pytest.mark.parametrize("tempering", ["likelihood", "posterior"])
def test_it_is_the_models_own(kind, tempering):
    model, data = problem(kind)
    positions = starts(model, 3)
    weight = 1.0 if tempering == "likelihood" else 1 / 0.3
    found = TemperedDensity(
        model, data.train, temperature=0.3, prior_weight=weight, like=positions, compile=False
    )
    check(found, model, data, positions, temperature=0.3, tempering=tempering)


def check_compiled(pass_bytes: int) -> None:
    density._PASS_BYTES = pass_bytes
    model, data = problem()
    positions = starts(model, 3)
    found = TemperedDensity(
        model, data.train, temperature=1.0, prior_weight=1.0, like=positions, compile=True
    )
    assert found.is_compiled
    assert found.passes == 1 if pass_bytes > 1_000_000 else found.passes > 2
    with warnings.catch_warnings():
        warnings.simplefilter("error", CompilerWarning)
        check(found, model, data, positions)


@pytest.mark.thorough
@needs_compiler
def test_compiled_it_is_the_same():
    # In a process of its own: functions whose annotations are checked, as they are here, cannot be
    # compiled. One pass over the data, then many: one process serves both, because starting the
    # compiler takes longer than either check.
    code = (
        "from tests.inference.density.test_density import check_compiled\n"
        "for pass_bytes in (500_000_000, 20_000):\n"
        "    check_compiled(pass_bytes)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_data_too_large_for_one_pass_are_passed_over_in_pieces(monkeypatch):
    model, data = problem()
    positions = starts(model, 3)
    whole = TemperedDensity(
        model, data.train, temperature=1.0, prior_weight=1.0, like=positions, compile=False
    )
    assert whole.passes == 1
    monkeypatch.setattr(density, "_PASS_BYTES", 20_000)
    found = TemperedDensity(
        model, data.train, temperature=1.0, prior_weight=1.0, like=positions, compile=False
    )
    assert found.passes > 2
    check(found, model, data, positions)


@pytest.mark.parametrize(("number", "calls"), [(6, 3), (7, 4)])
def test_vectors_too_many_for_the_cache_are_evaluated_in_groups_of_one_size(
    number, calls, monkeypatch
):
    model, data = problem()
    positions = starts(model, number)
    # What the gradient keeps of one vector, from the passes of one: two vectors fit.
    monkeypatch.setattr(
        density,
        "_GROUP_BYTES",
        2.5 * density.bytes_kept(model, positions[0], data.train)[1] * len(data.train),
    )
    found = TemperedDensity(
        model, data.train, temperature=1.0, prior_weight=1.0, like=positions, compile=False
    )
    sizes = []
    whole = found._evaluate_group
    monkeypatch.setattr(
        found, "_evaluate_group", lambda group: sizes.append(len(group)) or whole(group)
    )
    check(found, model, data, positions)
    assert sizes == [2] * calls
    # What threads are chosen by, before there is a density.
    assert NUTS(num_chains=number).chains_per_gradient(model, data.train) == 2
    assert NUTS(num_chains=number, engine="pyro").chains_per_gradient(model, data.train) == 1


class _Branches(nn.Module):
    """A network that looks at its values, which `vmap` cannot."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x):
        y = self.layer(x)
        return y if float(y.detach().sum()) > 0 else 2 * y


def test_a_network_that_vmap_refuses_is_evaluated_vector_by_vector():
    data = load_dataset("iris", dtype=torch.float64)
    model = BayesianModel(_Branches().double(), Prior(), Categorical())
    positions = torch.stack([model.initial(), -model.initial()])
    found = TemperedDensity(
        model, data.train, temperature=1.0, prior_weight=1.0, like=positions, compile=True
    )
    assert not found.is_compiled
    check(found, model, data, positions)


def test_without_a_compiler_it_warns_and_works(monkeypatch):
    monkeypatch.setattr(compiled, "has_compiler", lambda: False)
    with pytest.warns(CompilerWarning, match="runs uncompiled and slower: there is no C"):
        function = Compiled(torch.sin, "the sine")
    assert torch.equal(function(torch.ones(2)), torch.ones(2).sin())


@needs_compiler
def test_what_cannot_be_compiled_runs_uncompiled_with_a_warning():
    def looks(x):
        return x + 1 if float(x.sum()) > 0 else x

    function = Compiled(looks, "the function that looks")
    with pytest.warns(CompilerWarning, match="the function that looks runs uncompiled"):
        assert torch.equal(function(torch.ones(2)), torch.full((2,), 2.0))
    assert torch.equal(function(-torch.ones(2)), -torch.ones(2))


@needs_compiler
def test_an_error_of_the_function_itself_is_raised():
    def fails(x):
        raise ZeroDivisionError("as it is")

    with pytest.raises(ZeroDivisionError, match="as it is"):
        Compiled(fails, "the function")(torch.ones(2))
