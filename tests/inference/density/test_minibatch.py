"""The compiled gradient of a minibatch is that of autograd, for every minibatch and position."""

import pytest
import torch

from bnn_symm.architectures import CNNConfig, MLPConfig, asymmetrize, build_network
from bnn_symm.inference import SGLD
from bnn_symm.inference.density.compiled import has_compiler
from bnn_symm.inference.density.minibatch import MinibatchDensity
from bnn_symm.models import BayesianModel, Categorical, Gaussian, Prior

TASKS = ["classes with weights", "numbers with learned noise"]


def model_of(task: str) -> BayesianModel:
    outputs = 3 if task == "classes with weights" else 1
    net = build_network(MLPConfig(widths=(6, 5)), input_shape=(4,), num_outputs=outputs)
    likelihood = Categorical() if outputs == 3 else Gaussian()
    return BayesianModel(asymmetrize(net, kind="weight_asymmetric").double(), Prior(), likelihood)


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
    assert compiled._replayed is not None
    assert compiled._replayed.is_replayed


def test_other_networks_are_not_compiled():
    net = build_network(CNNConfig(widths=(2,)), input_shape=(1, 6, 6), num_outputs=2)
    density = MinibatchDensity(SGLD(), BayesianModel(net, Prior(), Categorical()), 9, compile=True)
    position = density._model.initial(0)
    x, y = torch.randn(3, 1, 6, 6), torch.tensor([0, 1, 1])
    gradient, terms = density(position, x, y)
    step = 1e-2 * gradient / gradient.norm()
    ends = [density(position + sign * step, x, y)[1][0] for sign in (1, -1)]
    assert torch.isclose(ends[0] - ends[1], 2 * (step @ gradient).double(), rtol=1e-2)
    assert torch.isclose(terms[0], -terms[1] - terms[2])


def test_long_fits_are_compiled():
    assert SGLD().is_compiled()
    assert not SGLD(num_warmup=10, num_draws=10).is_compiled()
    assert SGLD(num_draws=1, compile=True).is_compiled()
