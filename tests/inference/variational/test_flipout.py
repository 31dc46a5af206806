"""Flipout: each point sees the law of sampled weights, gradients are unbiased, and a batch has less
variance."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnn_symm.architectures import CNNConfig, MLPConfig, build_network
from bnn_symm.data import load_dataset
from bnn_symm.inference import MeanFieldVI
from bnn_symm.inference.variational.flipout import Flipout, flipout_layers
from bnn_symm.inference.variational.objective import VariationalObjective
from bnn_symm.models import BayesianModel, Categorical, Gaussian, Prior
from bnn_symm.randomness import torch_generator


def randn(*shape: int, key: str) -> Tensor:
    return torch.randn(*shape, generator=torch_generator(0, key), dtype=torch.float64)


class Recorded:
    """Noise, and what was asked for."""

    def __init__(self, sign: float = 1.0):
        self.generator, self.sign, self.drawn = torch_generator(0, "noise"), sign, []

    def __call__(self, shape: torch.Size) -> Tensor:
        self.drawn.append(
            self.sign * torch.randn(shape, generator=self.generator, dtype=torch.float64)
        )
        return self.drawn[-1]


LAYERS = {
    "dense": (lambda: nn.Linear(4, 3), (5, 4)),
    "dense, over positions": (lambda: nn.Linear(4, 3), (5, 2, 4)),
    "without a bias": (lambda: nn.Linear(4, 3, bias=False), (5, 4)),
    "convolution": (lambda: nn.Conv2d(4, 6, 3, stride=2, padding=1), (5, 4, 6, 6)),
    "grouped convolution": (
        lambda: nn.Conv1d(4, 6, 3, groups=2, padding_mode="circular", padding=1),
        (5, 4, 6),
    ),
}


@pytest.fixture(params=LAYERS)
def treated(request) -> tuple[nn.Module, Tensor, dict[str, Tensor]]:
    """A layer, points and the scales of its parameters."""
    make, shape = LAYERS[request.param]
    layer = make().double()
    scales = {name: randn(*value.shape, key=name).exp() for name, value in layer.named_parameters()}
    return layer, randn(*shape, key="x"), scales


def pairs(layer: nn.Module, scales: dict[str, Tensor], name: str) -> list[tuple[Tensor, Tensor]]:
    return [(value, scales[own]) for own, value in layer.named_parameters() if own == name]


def outputs(layer: nn.Module, scales: dict[str, Tensor], x: Tensor, noise) -> Tensor:
    with (
        torch.no_grad(),
        Flipout(pairs(layer, scales, "weight"), pairs(layer, scales, "bias"), noise),
    ):
        return layer(x)


def test_each_point_has_the_outputs_of_weights_of_its_own_signs_of_one_noise(treated) -> None:
    """Which are distributed as sampled weights: the entries of the noise are independent and
    symmetric."""
    layer, x, scales = treated
    noise = Recorded()
    got = outputs(layer, scales, x, noise)
    drawn = {tuple(value.shape): value for value in noise.drawn}
    of_inputs, of_outputs = noise.drawn[0], noise.drawn[1]
    weight_noise = drawn[tuple(layer.weight.shape)]
    for point in range(len(x)):
        s, r = of_inputs[point].sign().flatten(), of_outputs[point].sign().flatten()
        per_group = layer.weight.shape[1]
        groups = len(s) // per_group
        # The signs of the inputs that each output reads.
        read = s.reshape(groups, per_group).repeat_interleave(len(r) // groups, 0)
        signs = (r[:, None] * read).reshape(
            *layer.weight.shape[:2], *[1] * (layer.weight.dim() - 2)
        )
        values = {"weight": layer.weight + scales["weight"] * weight_noise * signs}
        if layer.bias is not None:
            one = noise.drawn[4][point].sign().flatten()
            values["bias"] = layer.bias + scales["bias"] * drawn[tuple(layer.bias.shape)] * r * one
        wanted = torch.func.functional_call(layer, values, (x[point : point + 1],))
        torch.testing.assert_close(got[point : point + 1], wanted.detach(), rtol=1e-12, atol=1e-12)


def test_mirrored_noise_gives_the_mirrored_perturbation(treated) -> None:
    layer, x, scales = treated
    both = outputs(layer, scales, x, Recorded()) + outputs(layer, scales, x, Recorded(sign=-1.0))
    torch.testing.assert_close(0.5 * both, layer(x).detach(), rtol=1e-12, atol=1e-12)


@pytest.mark.thorough
def test_perturbations_of_two_points_are_uncorrelated() -> None:
    """The same input twice: with one draw for all points the correlation is 1."""
    layer, number = nn.Linear(4, 3).double(), 2000
    scales = {name: randn(*value.shape, key=name).exp() for name, value in layer.named_parameters()}
    x, noise = randn(1, 4, key="x").expand(2, 4), Recorded()
    samples = torch.stack([outputs(layer, scales, x, noise).flatten() for _ in range(number)])
    correlation = torch.corrcoef(samples.T)[:3, 3:]
    assert correlation.abs().max() < 4 / number**0.5  # standard error 1 / sqrt(n) of each of nine


class Reused(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(1, 2, 3), nn.Linear(2, 2), nn.Linear(2, 2)

    def forward(self, x):
        x = self.a(x).mean(dim=(2, 3)) + self.a.weight.sum()  # a's weight once more
        return self.c(self.b(self.b(x)))  # b twice


class Swapped(nn.Module):
    def forward(self, x):
        return x.transpose(0, 1)


def test_only_layers_used_once_a_point_are_treated() -> None:
    def found(net: nn.Module, *shape: int) -> list[str]:
        parameters = {name: value.detach() for name, value in net.named_parameters()}
        return [weight for weight, _ in flipout_layers(net, parameters, torch.ones(2, *shape))]

    cnn = build_network(CNNConfig(widths=(2,), norm="frn"), input_shape=(1, 8, 8), num_outputs=2)
    assert found(cnn, 1, 8, 8) == [
        name for name, value in cnn.named_parameters() if value.dim() in (2, 4)
    ]
    assert found(Reused(), 1, 4, 4) == ["c.weight"]
    over_positions = nn.Sequential(
        nn.Unflatten(1, (3, 2)), nn.Linear(2, 2), nn.Flatten(), nn.Linear(6, 2)
    )
    assert found(over_positions, 6) == ["1.weight", "3.weight"]
    # Positions come first, and their number equals a batch size of two points.
    positions_first = nn.Sequential(
        nn.Unflatten(1, (2, 3)), Swapped(), nn.Linear(3, 4), Swapped(), nn.Flatten()
    )
    assert found(positions_first, 6) == []
    rows_first = nn.Sequential(
        nn.Unflatten(1, (3, 2)), nn.Flatten(0, 1), nn.Linear(2, 2), nn.Unflatten(0, (-1, 3))
    )
    assert found(rows_first, 6) == []


def gradients(model: BayesianModel, data, estimator: str, steps: int = 300) -> Tensor:
    """(step, parameter), of loc and log scale, at one place."""
    generator = torch.Generator().manual_seed(1)
    loc = (
        model.initial() + 0.1 * torch.randn(model.num_parameters, generator=generator).double()
    ).requires_grad_()
    log_scale = torch.full_like(loc.detach(), -1.5).requires_grad_()
    method = MeanFieldVI(estimator=estimator, num_samples=1)
    objective = VariationalObjective(method, model, data, 0, loc, log_scale)
    found = []
    for step in range(steps):
        loc.grad.zero_()
        log_scale.grad.zero_()
        objective(step, data.train.x, data.train.y)
        found.append(torch.cat([loc.grad, log_scale.grad]))
    return torch.stack(found)


ARCHITECTURES = {"cnn": CNNConfig(widths=(2,)), "mlp": MLPConfig(widths=(6,), norm="layer")}


@pytest.mark.thorough
@pytest.mark.parametrize("architecture", ARCHITECTURES.values(), ids=ARCHITECTURES)
def test_its_gradient_is_that_of_sampled_weights_with_less_variance(architecture) -> None:
    data = load_dataset("digits", dtype=torch.float64, limit=60)
    net = build_network(architecture, input_shape=data.input_shape, num_outputs=10).double()
    model = BayesianModel(net, Prior(), Categorical())
    flipout, weight = (gradients(model, data, estimator) for estimator in ("flipout", "weight"))
    error = ((flipout.var(0) + weight.var(0)) / len(weight)).sqrt()
    # Some thousand numbers: the largest of as many standard normals is below 5 with probability
    # 0.999.
    assert ((flipout.mean(0) - weight.mean(0)).abs() <= 5 * error + 1e-12).all()
    # 43 points share one draw of weights or, but for what is no layer, have nearly independent
    # ones.
    assert flipout.var(0).sum() < 0.5 * weight.var(0).sum()


def test_antithetic_pairs_leave_no_noise_in_the_mean_of_a_linear_model() -> None:
    data = load_dataset("diabetes", dtype=torch.float64, limit=60)
    net = build_network(MLPConfig(widths=()), input_shape=data.input_shape, num_outputs=1).double()
    model = BayesianModel(net, Prior(), Gaussian(noise=0.7))
    loc = model.initial().requires_grad_()
    log_scale = torch.zeros_like(loc.detach()).requires_grad_()
    objective = VariationalObjective(
        MeanFieldVI(estimator="flipout"), model, data, 0, loc, log_scale
    )
    found = []
    for step in range(2):
        objective(step, data.train.x, data.train.y)
        found.append((loc.grad.clone(), log_scale.grad.clone()))
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-9, atol=1e-9)
    assert not torch.allclose(found[0][1], found[1][1])


def test_only_dense_layers_and_convolutions_are_replaced() -> None:
    layer, noise = nn.Linear(3, 3).double(), Recorded()
    with Flipout([(layer.weight, torch.ones_like(layer.weight))], [], noise):
        F.linear(torch.ones(2, 3).double(), layer.weight.clone())
        torch.matmul(torch.ones(2, 3).double(), layer.weight)
    assert noise.drawn == []
