"""The compiled gradient of a minibatch is that of autograd, for every minibatch and position."""

from dataclasses import replace

import pytest
import torch

from bnn_symm.architectures import CNNConfig, MLPConfig, asymmetrize, build_network
from bnn_symm.data import load_dataset
from bnn_symm.inference import (
    MAP,
    NUTS,
    SGLD,
    SWAG,
    DeepEnsemble,
    IterativePruning,
    LaplaceApproximation,
)
from bnn_symm.inference.density.compiled import has_compiler
from bnn_symm.inference.density.minibatch import MinibatchDensity
from bnn_symm.models import BayesianModel, Categorical, Gaussian, Prior

TASKS = ["classes with weights", "numbers with learned noise"]


def model_of(task: str) -> BayesianModel:
    outputs = 3 if task == "classes with weights" else 1
    net = build_network(MLPConfig(widths=(6, 5)), input_shape=(4,), num_outputs=outputs)
    likelihood = Categorical() if outputs == 3 else Gaussian()
    return BayesianModel(asymmetrize(net, kind="weight_asymmetric").double(), Prior(), likelihood)


def convolutional() -> BayesianModel:
    net = build_network(CNNConfig(widths=(2,)), input_shape=(1, 6, 6), num_outputs=2)
    return BayesianModel(net, Prior(), Categorical())


def minibatch(task: str, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    x, y = torch.randn(7, 5, generator=generator, dtype=torch.float64).split([4, 1], 1)
    if task == "classes with weights":
        return x, torch.cat([torch.randint(3, (7, 1), generator=generator), y.abs()], 1)
    return x, y[:, 0]


@pytest.mark.thorough
@pytest.mark.skipif(not has_compiler(), reason="there is no C++ compiler")
@pytest.mark.parametrize("task", TASKS)
def test_the_compiled_gradient_is_that_of_autograd(task):
    model = model_of(task)
    method = SGLD(temperature=0.5)
    compiled, plain = (
        MinibatchDensity(method, model, 50, compile=compile) for compile in (True, False)
    )
    generator = torch.Generator().manual_seed(0)
    for _ in range(6):  # the last calls are replayed
        position = torch.randn(model.num_parameters, generator=generator, dtype=torch.float64)
        batch = minibatch(task, generator)
        found, expected = compiled(position, *batch), plain(position, *batch)
        for value, wanted in zip(found, expected, strict=True):
            torch.testing.assert_close(value, wanted, rtol=1e-9, atol=1e-9)
        # Through a function of the position, as for masks and dropped units.
        factor = torch.linspace(0, 2, len(position), dtype=torch.float64, requires_grad=True)
        slopes = [
            torch.autograd.grad(3 * density.potential(factor * position, *batch)[0], factor)[0]
            for density in (compiled, plain)
        ]
        torch.testing.assert_close(*slopes, rtol=1e-9, atol=1e-9)
    assert compiled._replayed is not None
    assert compiled._replayed.is_replayed


def test_other_networks_are_not_compiled():
    density = MinibatchDensity(SGLD(), convolutional(), 9, compile=True)
    position = density.model.initial(0)
    x, y = torch.randn(3, 1, 6, 6), torch.tensor([0, 1, 1])
    gradient, terms = density(position, x, y)
    step = 1e-2 * gradient / gradient.norm()
    ends = [density(position + sign * step, x, y)[1][0] for sign in (1, -1)]
    assert torch.isclose(ends[0] - ends[1], 2 * (step @ gradient).double(), rtol=1e-2)
    assert torch.isclose(terms[0], -terms[1] - terms[2])


@pytest.mark.thorough
@pytest.mark.skipif(not has_compiler(), reason="there is no C++ compiler")
@pytest.mark.parametrize(
    "method",
    [
        DeepEnsemble(num_members=2, chain_method="parallel"),
        IterativePruning(num_levels=2),
        SWAG(),
        LaplaceApproximation(structure="full"),
    ],
    ids=lambda method: method.name,
)
def test_compiled_optimizations_end_where_others_do(method):
    net = build_network(MLPConfig(widths=(5,), activation="tanh"), input_shape=(4,), num_outputs=3)
    model, data = BayesianModel(net.double(), Prior(), Categorical()), load_dataset("iris")
    short = replace(method, num_steps=60, batch_size=20, learning_rate=0.01)
    ends = [
        replace(short, compile=compile).fit(model, data, seed=0).draws()
        for compile in (True, False)
    ]
    torch.testing.assert_close(*ends, rtol=1e-6, atol=1e-6)


def test_long_fits_of_fully_connected_networks_are_compiled():
    mlp, other = model_of(TASKS[0]), convolutional()
    assert SGLD().is_compiled(mlp)
    assert not SGLD(num_warmup=10, num_draws=10).is_compiled(mlp)
    assert SGLD(num_draws=1, compile=True).is_compiled(mlp)
    assert DeepEnsemble(num_members=5, num_steps=4000).is_compiled(mlp)
    assert not DeepEnsemble(num_members=4, num_steps=4000).is_compiled(mlp)
    assert not MAP(num_steps=30_000, compile=False).is_compiled(mlp)
    laplace = LaplaceApproximation(compile=True)
    evidence = BayesianModel(mlp.net, Prior(scale="evidence"), mlp.likelihood)
    assert laplace.is_compiled(mlp)
    assert not laplace.is_compiled(evidence)
    assert not SGLD(compile=True).is_compiled(other)
    assert not DeepEnsemble(compile=True).is_compiled(other)
    assert NUTS(compile=True).is_compiled(other)
