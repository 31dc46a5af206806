"""A step of mean-field VI, MLP 784-400-400-10, batch 256, one thread, against a deterministic
training step and peers.

    python -m benchmarks.vi_step [--quick]

A step draws its batch, makes one Monte Carlo sample of the expected log likelihood, adds the KL
with a Normal(0, 1) prior, takes the gradient and an Adam step. Ours is timed inside
`MeanFieldVI.fit`: a long fit less a short one, over the steps between, so that batches, noise and
the history's rows count and set-up does not. The deterministic step is the same network with
cross-entropy loss and fused Adam. Peers are each used as their documentation says, with fused Adam
where they leave the optimizer to the user:

- bayesian-torch: LinearReparameterization, LinearFlipout;
- BLiTZ: BayesianLinear;
- Pyro: SVI with AutoNormal and TraceMeanField_ELBO over the same Pyro model;
- TyXe's two estimators, written again for the Pyro of today, since it no longer runs: weights
  sampled from normals that autograd follows, and local reparameterization, with an analytic KL.
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
# Steps of the long and the short fit whose difference is timed.
LONG, SHORT = 60, 20

Step = Callable[[], object]


def data() -> Dataset:
    """5,120 images of 28 x 28 pixels; no validation part, which would be scored now and then."""
    return load_dataset("fashion_mnist", limit=POINTS, validation_fraction=0)


def batches(dataset: Dataset) -> Callable[[], tuple[Tensor, Tensor]]:
    """A function that draws a batch of flat images."""
    x, y = dataset.train.x.flatten(1), dataset.train.y

    def draw() -> tuple[Tensor, Tensor]:
        index = torch.randint(len(x), (BATCH,))
        return x[index], y[index]

    return draw


def plain() -> nn.Sequential:
    """The network with ordinary layers."""
    layers: list[nn.Module] = []
    for a, b in itertools.pairwise(SIZES):
        layers += [nn.Linear(a, b), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def trained(loss: Callable[[], Tensor], parameters: Any, rate: float = RATE) -> Step:
    """An Adam step on a loss."""
    optimizer = torch.optim.Adam(parameters, lr=rate, fused=True)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        loss().backward()
        optimizer.step()

    return step


def deterministic(dataset: Dataset) -> Step:
    """The step that every estimator is compared with."""
    net, draw = plain(), batches(dataset)

    def loss() -> Tensor:
        x, y = draw()
        return F.cross_entropy(net(x), y)

    return trained(loss, net.parameters())


class _Written(nn.Module):
    """A layer as TyXe has it: normals with a mean and a scale, sampled in weight space or
    locally."""

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


def written(dataset: Dataset, *, local: bool, rate: float = RATE) -> tuple[Step, nn.ModuleList]:
    """TyXe's estimators, and their layers."""
    draw = batches(dataset)
    layers = nn.ModuleList([_Written(a, b, local=local) for a, b in itertools.pairwise(SIZES)])

    def loss() -> Tensor:
        x, y = draw()
        for layer in layers[:-1]:
            x = layer(x).relu()
        kl = sum(layer.kl() for layer in layers)
        return F.cross_entropy(layers[-1](x), y) + kl / POINTS

    return trained(loss, layers.parameters(), rate), layers


def bayesian_torch(
    dataset: Dataset, kind: str, rate: float = RATE, *, summed: bool = False
) -> tuple[Step, nn.ModuleList]:
    """bayesian-torch's layers, whose KL is a mean over weights, unless it is to be `summed`."""
    from bayesian_torch import layers as theirs

    layer = getattr(theirs, kind)
    net = nn.ModuleList([layer(a, b) for a, b in itertools.pairwise(SIZES)])
    draw = batches(dataset)

    def loss() -> Tensor:
        x, y = draw()
        kl: Any = 0.0
        for number, own in enumerate(net):
            x, more = own(x)
            # With as many means as there are tensors, the sum needs each of them again.
            kl = kl + (_summed_kl(own) if summed else more)
            x = x.relu() if number < len(net) - 1 else x
        return F.cross_entropy(x, y) + kl / POINTS

    return trained(loss, net.parameters(), rate), net


def _summed_kl(layer: Any) -> Tensor:
    """The KL of a layer of bayesian-torch in nats."""
    total: Any = 0.0
    for name in ("weight", "bias"):
        loc, scale = getattr(layer, f"mu_{name}"), F.softplus(getattr(layer, f"rho_{name}"))
        total = total + 0.5 * (scale.square() + loc.square() - 1).sum() - scale.log().sum()
    return total


def blitz(dataset: Dataset) -> Step:
    """BLiTZ's layers; its KL is that of the sample."""
    from blitz.modules import BayesianLinear

    net = nn.ModuleList([BayesianLinear(a, b) for a, b in itertools.pairwise(SIZES)])
    draw = batches(dataset)

    def loss() -> Tensor:
        x, y = draw()
        for number, own in enumerate(net):
            x = own(x).relu() if number < len(net) - 1 else own(x)
        kl = sum(own.log_variational_posterior - own.log_prior for own in net)
        return F.cross_entropy(x, y) + kl / POINTS

    return trained(loss, net.parameters())


def auto_normal(
    model: BayesianModel, dataset: Dataset, *, rate: float = RATE, **keywords: Any
) -> tuple[Step, AutoNormal]:
    """Pyro's SVI over the same model, and its guide."""
    x, y = dataset.train.x, dataset.train.y
    guide = AutoNormal(model, **keywords)
    svi = SVI(model, guide, pyro.optim.Adam({"lr": rate}), TraceMeanField_ELBO())

    def step() -> None:
        index = torch.randint(len(x), (BATCH,))
        svi.step(x[index], y[index], data_size=POINTS)

    return step, guide


class Ours:
    """Seconds of a step of `MeanFieldVI.fit`, which is timed as a whole."""

    def __init__(self, model: BayesianModel, dataset: Dataset, estimator: str):
        self._model, self._dataset, self._estimator = model, dataset, estimator
        self.seconds: list[float] = []

    def __call__(self) -> None:
        """One round."""
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
    """Rows of the table: both estimators against the deterministic step, and each peer with the
    same estimator."""
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
        "TyXe's weight-space estimator": written(dataset, local=False)[0],
        "TyXe's local reparameterization": written(dataset, local=True)[0],
        "bayesian-torch, flipout": bayesian_torch(dataset, "LinearFlipout")[0],
    }
    inner = {**dict.fromkeys(steps, 15), **dict.fromkeys(ours, 1)}
    found = interleaved({**ours, **steps}, repeats=3 if quick else 12, inner=inner)
    timings = {**found, **{name: timing_of(own.seconds[1:]) for name, own in ours.items()}}
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
            note="another estimator of low variance; it has no local one"
            if "flipout" in peer
            else "",
        )
        for name, peers in compared.items()
        for peer, target in peers.items()
    ]


if __name__ == "__main__":
    print_rows(measure, __doc__)
