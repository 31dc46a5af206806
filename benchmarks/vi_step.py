"""Measure a step of mean-field VI against a deterministic training step and peers.

    python -m benchmarks.vi_step [--quick]

The network is MLP 784-400-400-10, batch 256, one thread. A step draws its batch, takes one Monte
Carlo sample of the expected log likelihood, adds the KL to a Normal(0, 1) prior, and performs a
gradient and an Adam step. Ours is timed inside `MeanFieldVI.fit`: the difference of a long and a
short fit, divided by the number of steps between. It includes batches, noise and rows of the
history, and excludes set-up. The deterministic step is the same network with cross-entropy loss and
fused Adam. Peers are used as documented, with fused Adam where the optimizer is free:

- bayesian-torch: LinearReparameterization, LinearFlipout;
- BLiTZ: BayesianLinear;
- Pyro: SVI with AutoNormal and TraceMeanField_ELBO on the same Pyro model;
- TyXe's two estimators, written again for the current Pyro, since TyXe no longer runs: weights
  sampled from normals with autograd, and local reparameterization, with an analytic KL.
"""

import itertools
import math
import time
import warnings
from collections.abc import Callable
from typing import Any

import pyro
import torch
import torch.nn.functional as F
from pyro.infer import SVI, TraceMeanField_ELBO
from pyro.infer.autoguide import AutoNormal
from torch import Tensor, nn

from benchmarks.timing import interleaved, print_rows, ratio, row, timing_of
from bnn_symm import BayesianModel, Categorical, MeanFieldVI, MLPConfig, Prior, build_network
from bnn_symm.data import Dataset, load_dataset

SIZES = (784, 400, 400, 10)
BATCH, RATE, POINTS = 256, 1e-3, 5120
# Numbers of steps of the long and the short fit whose difference is timed.
LONG, SHORT = 60, 20

Step = Callable[[], object]


def data() -> Dataset:
    """Return 5,120 images of 28 x 28 pixels, without a validation split, which would be scored."""
    return load_dataset("fashion_mnist", limit=POINTS, validation_fraction=0)


def batches(dataset: Dataset) -> Callable[[], tuple[Tensor, Tensor]]:
    """Return a function that draws a batch of flat images."""
    x, y = dataset.train.x.flatten(1), dataset.train.y

    def draw() -> tuple[Tensor, Tensor]:
        index = torch.randint(len(x), (BATCH,))
        return x[index], y[index]

    return draw


def plain() -> nn.Sequential:
    """Return the network with ordinary layers."""
    layers: list[nn.Module] = []
    for a, b in itertools.pairwise(SIZES):
        layers += [nn.Linear(a, b), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def adam_step(loss: Callable[[], Tensor], parameters: Any, rate: float = RATE) -> Step:
    """Return an Adam step on a loss."""
    optimizer = torch.optim.Adam(parameters, lr=rate, fused=True)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        loss().backward()
        optimizer.step()

    return step


def deterministic(dataset: Dataset) -> Step:
    """Return the step with which every estimator is compared."""
    net, draw = plain(), batches(dataset)

    def loss() -> Tensor:
        x, y = draw()
        return F.cross_entropy(net(x), y)

    return adam_step(loss, net.parameters())


class _TyXeLayer(nn.Module):
    """Implement a layer of TyXe: normals sampled in weight space or locally."""

    def __init__(self, a: int, b: int, *, local: bool):
        super().__init__()
        self.loc = nn.Parameter(torch.randn(b, a + 1) / math.sqrt(a))
        self.log_scale = nn.Parameter(torch.full((b, a + 1), math.log(0.02)))
        self.local = local

    def forward(self, x: Tensor) -> Tensor:
        scale = self.log_scale.exp()
        if not self.local:
            weight = self.loc + scale * torch.randn_like(scale)
            return F.linear(x, weight[:, :-1], weight[:, -1])
        mean = F.linear(x, self.loc[:, :-1], self.loc[:, -1])
        variance = F.linear(x.square(), scale[:, :-1].square(), scale[:, -1].square())
        return mean + variance.sqrt() * torch.randn_like(mean)

    def kl(self) -> Tensor:
        distribution = torch.distributions.Normal(self.loc, self.log_scale.exp())
        return torch.distributions.kl_divergence(
            distribution, torch.distributions.Normal(0.0, 1.0)
        ).sum()


def tyxe_layers(dataset: Dataset, *, local: bool, rate: float = RATE) -> tuple[Step, nn.ModuleList]:
    """Return the step of TyXe's estimators, and their layers."""
    draw = batches(dataset)
    layers = nn.ModuleList([_TyXeLayer(a, b, local=local) for a, b in itertools.pairwise(SIZES)])

    def loss() -> Tensor:
        x, y = draw()
        for layer in layers[:-1]:
            x = layer(x).relu()
        kl = sum(layer.kl() for layer in layers)
        return F.cross_entropy(layers[-1](x), y) + kl / POINTS

    return adam_step(loss, layers.parameters(), rate), layers


def bayesian_torch(
    dataset: Dataset, kind: str, rate: float = RATE, *, summed: bool = False
) -> tuple[Step, nn.ModuleList]:
    """Return the step of bayesian-torch; its KL is a mean over weights unless `summed`."""
    from bayesian_torch import layers as theirs

    layer = getattr(theirs, kind)
    net = nn.ModuleList([layer(a, b) for a, b in itertools.pairwise(SIZES)])
    draw = batches(dataset)

    def loss() -> Tensor:
        x, y = draw()
        kl: Any = 0.0
        for number, layer in enumerate(net):
            x, more = layer(x)
            # bayesian-torch returns a mean over each tensor, so the sum is computed separately.
            kl = kl + (_summed_kl(layer) if summed else more)
            x = x.relu() if number < len(net) - 1 else x
        return F.cross_entropy(x, y) + kl / POINTS

    return adam_step(loss, net.parameters(), rate), net


def _summed_kl(layer: Any) -> Tensor:
    """Return the KL of a layer of bayesian-torch in nats."""
    total: Any = 0.0
    for name in ("weight", "bias"):
        loc, scale = getattr(layer, f"mu_{name}"), F.softplus(getattr(layer, f"rho_{name}"))
        total = total + 0.5 * (scale.square() + loc.square() - 1).sum() - scale.log().sum()
    return total


def blitz(dataset: Dataset) -> Step:
    """Return the step of BLiTZ; its KL is that of the sample."""
    from blitz.modules import BayesianLinear

    net = nn.ModuleList([BayesianLinear(a, b) for a, b in itertools.pairwise(SIZES)])
    draw = batches(dataset)

    def loss() -> Tensor:
        x, y = draw()
        for number, layer in enumerate(net):
            x = layer(x).relu() if number < len(net) - 1 else layer(x)
        kl = sum(layer.log_variational_posterior - layer.log_prior for layer in net)
        return F.cross_entropy(x, y) + kl / POINTS

    return adam_step(loss, net.parameters())


def auto_normal(
    model: BayesianModel, dataset: Dataset, *, rate: float = RATE, **keywords: Any
) -> tuple[Step, AutoNormal]:
    """Return the step of Pyro's SVI on the same model, and its guide."""
    x, y = dataset.train.x, dataset.train.y
    guide = AutoNormal(model, **keywords)
    svi = SVI(model, guide, pyro.optim.Adam({"lr": rate}), TraceMeanField_ELBO())

    def step() -> None:
        index = torch.randint(len(x), (BATCH,))
        svi.step(x[index], y[index], data_size=POINTS)

    return step, guide


class Ours:
    """Measure the seconds per step of `MeanFieldVI.fit`, which is timed as a whole."""

    def __init__(self, model: BayesianModel, dataset: Dataset, estimator: str):
        self._model, self._dataset, self._estimator = model, dataset, estimator
        self.seconds: list[float] = []

    def __call__(self) -> None:
        """Append the seconds per step, from the difference of a short and a long fit."""
        taken = []
        for steps in (SHORT, LONG):
            method = MeanFieldVI(
                estimator=self._estimator,  # type: ignore[arg-type]
                num_steps=steps,
                batch_size=BATCH,
                learning_rate=RATE,
                num_samples=1,
                log_every=LONG,
                num_draws=1,
            )
            started = time.perf_counter()
            method.fit(self._model, self._dataset, seed=0)
            taken.append(time.perf_counter() - started)
        self.seconds.append((taken[1] - taken[0]) / (LONG - SHORT))


def measure(*, quick: bool = False) -> list[dict[str, Any]]:
    """Return the rows: both estimators against the deterministic step and against peers."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    pyro.set_rng_seed(0)
    dataset = data()
    net = build_network(
        MLPConfig(widths=SIZES[1:-1]), input_shape=dataset.input_shape, num_outputs=SIZES[-1]
    )
    model = BayesianModel(net, Prior(), Categorical())
    ours = {name: Ours(model, dataset, name) for name in ("weight", "local")}
    steps: dict[str, Step] = {
        "the deterministic step": deterministic(dataset),
        "bayesian-torch, reparameterization": bayesian_torch(dataset, "LinearReparameterization")[
            0
        ],
        "BLiTZ": blitz(dataset),
        "Pyro AutoNormal": auto_normal(model, dataset)[0],
        "TyXe's weight-space estimator": tyxe_layers(dataset, local=False)[0],
        "TyXe's local reparameterization": tyxe_layers(dataset, local=True)[0],
        "bayesian-torch, flipout": bayesian_torch(dataset, "LinearFlipout")[0],
    }
    inner = {**dict.fromkeys(steps, 15), **dict.fromkeys(ours, 1)}
    found = interleaved({**ours, **steps}, repeats=3 if quick else 12, inner=inner)
    timings = {**found, **{name: timing_of(timed.seconds[1:]) for name, timed in ours.items()}}
    base = timings["the deterministic step"]
    compared = {
        "weight": {"the deterministic step": 1.5, **dict.fromkeys(list(steps)[1:5], 1.0)},
        "local": {"the deterministic step": 2.2, **dict.fromkeys(list(steps)[5:], 1.0)},
    }
    return [
        row(
            f"mean-field VI step, {name}{'-space' if name == 'weight' else ''}; MLP "
            f"{'-'.join(map(str, SIZES))}, batch {BATCH}, one sample",
            ours=1e3 * timings[name].median,
            peer=peer,
            theirs=1e3 * timings[peer].median,
            unit="ms",
            ratio=ratio(timings[name], timings[peer]),
            target=target,
            limit="the deterministic step is the limit"
            if peer.startswith("the det")
            else f"{timings[peer].median / base.median:.2f} x the deterministic step",
            note="a different low-variance estimator; there is no local one"
            if "flipout" in peer
            else "",
        )
        for name, peers in compared.items()
        for peer, target in peers.items()
    ]


if __name__ == "__main__":
    print_rows(measure, __doc__)
