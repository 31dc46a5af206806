"""Measure seconds to a target ELBO on Fashion-MNIST: mean-field VI of this package and of peers.

    python -m benchmarks.vi_target [--quick]

The network is MLP 784-400-400-10. All candidates have the same initial means and scales, prior,
batch size, number of samples (one), learning rate of Adam and number of steps. At regular intervals
the clock is stopped, and the ELBO of the present means and scales is computed by the same code for
all, with the KL in closed form. The target of a seed is the lowest final ELBO of all candidates, so
that all reach it. Seconds are interpolated between two evaluations. Candidates differ in the
estimator, the parametrization of scales, and the cost of a step.
"""

import math
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pyro
import torch
from torch import Tensor, nn

from benchmarks.timing import print_rows, ratio, row, timing_of
from benchmarks.vi_step import BATCH, SIZES, Step, auto_normal, bayesian_torch, data, tyxe_layers
from bnn_symm import BayesianModel, Categorical, MeanFieldVI, MLPConfig, Prior, build_network
from bnn_symm.data import Dataset
from bnn_symm.inference import Callback, State

RATE, SCALE = 1e-2, 0.05
STEPS, EVERY = 120, 15
# Draws and points of an ELBO, the same for all. It is accurate to hundreds of nats, while curves
# rise by hundreds of thousands.
_DRAWS, _POINTS = 4, 1024

Curve = list[tuple[float, float]]
Scales = Callable[[], tuple[Tensor, Tensor]]


class _Clock:
    """Measure seconds of training without evaluations, and the ELBO at each of them."""

    def __init__(self, model: BayesianModel, dataset: Dataset):
        self._model, self._dataset = model, dataset
        self.curve: Curve = []
        self._stopped = 0.0
        self._started = time.perf_counter()

    def note(self, loc: Tensor, scale: Tensor) -> None:
        """Record the ELBO of these means and scales."""
        now = time.perf_counter()
        loc, scale = loc.detach(), scale.detach()
        generator = torch.Generator().manual_seed(0)
        noise = torch.randn(_DRAWS, len(loc), generator=generator)
        x, y = self._dataset.train.x[:_POINTS], self._dataset.train.y[:_POINTS]
        with torch.no_grad():
            sums = [
                float(self._model.log_likelihood(loc + scale * one, x, y).double().sum())
                for one in noise
            ]
            cross_entropy = float(self._model.cross_entropy(loc, scale).double().sum())
            entropy = float((scale.log() + 0.5 * math.log(2 * math.pi * math.e)).double().sum())
        expected = sum(sums) / _DRAWS * len(self._dataset.train) / len(x)
        self.curve.append((now - self._started - self._stopped, expected - cross_entropy + entropy))
        self._stopped += time.perf_counter() - now


class _ValidationMonitor(Callback):
    """Record the ELBO of our fit at regular intervals."""

    def __init__(self, clock: _Clock):
        self._clock = clock

    def on_state(self, chain: int, state: Callable[[], State], *, essential: bool = False) -> None:
        """Record the ELBO every `EVERY` steps."""
        now = {
            name: torch.from_numpy(value)
            for name, value in state().items()
            if name in ("loc", "log_scale")
        }
        self._clock.note(now["loc"], now["log_scale"].exp())


def ours(model: BayesianModel, dataset: Dataset, estimator: str, seed: int, steps: int) -> Curve:
    """Return the curve of `MeanFieldVI`."""
    method = MeanFieldVI(
        estimator=estimator,  # type: ignore[arg-type]
        num_steps=steps + 1,
        batch_size=BATCH,
        learning_rate=RATE,
        schedule="constant",
        num_samples=1,
        initial_scale=SCALE,
        log_every=EVERY,
        num_draws=1,
    )
    clock = _Clock(model, dataset)
    method.fit(model, dataset, seed=seed, callbacks=[_ValidationMonitor(clock)])
    return clock.curve


def theirs(model: BayesianModel, dataset: Dataset, step: Step, scales: Scales, steps: int) -> Curve:
    """Return the curve of a peer, by its step."""
    clock = _Clock(model, dataset)
    for number in range(steps + 1):
        if number % EVERY == 0:
            clock.note(*scales())
        step()
    return clock.curve


def _flat(pairs: list[tuple[Tensor, Tensor]]) -> Tensor:
    """Return weights and biases of the layers in the order of the flat vector."""
    return torch.cat([value.detach().reshape(-1) for pair in pairs for value in pair])


def _set_initial_values(net: nn.Module, model: BayesianModel, kind: str) -> Scales:
    """Give the layers of a peer our initial values; return a reader of the present ones."""
    values = list(model.unflatten(model.initial()).values())
    pairs = list(zip(values[::2], values[1::2], strict=True))
    layers: list[Any] = list(net.children())
    with torch.no_grad():
        for layer, (weight, bias) in zip(layers, pairs, strict=True):
            if kind == "written":
                layer.loc.copy_(torch.cat([weight, bias[:, None]], 1))
                layer.log_scale.fill_(math.log(SCALE))
            else:
                layer.mu_weight.copy_(weight)
                layer.mu_bias.copy_(bias)
                for rho in (layer.rho_weight, layer.rho_bias):
                    rho.fill_(math.log(math.expm1(SCALE)))
    if kind == "written":
        return lambda: (
            _flat([(layer.loc[:, :-1], layer.loc[:, -1]) for layer in layers]),
            _flat(
                [(layer.log_scale.exp()[:, :-1], layer.log_scale.exp()[:, -1]) for layer in layers]
            ),
        )
    softplus = nn.functional.softplus
    return lambda: (
        _flat([(layer.mu_weight, layer.mu_bias) for layer in layers]),
        _flat([(softplus(layer.rho_weight), softplus(layer.rho_bias)) for layer in layers]),
    )


def _pyro(model: BayesianModel, dataset: Dataset) -> tuple[Step, Scales]:
    pyro.clear_param_store()
    start = model.unflatten(model.initial())
    step, _ = auto_normal(
        model,
        dataset,
        rate=RATE,
        init_scale=SCALE,
        init_loc_fn=pyro.infer.autoguide.initialization.init_to_value(values=start),
    )
    step()  # creates its parameters

    def scales() -> tuple[Tensor, Tensor]:
        loc = {name: pyro.param(f"AutoNormal.locs.{name}") for name in model.shapes}
        scale = {name: pyro.param(f"AutoNormal.scales.{name}") for name in model.shapes}
        return model.flatten(loc).detach(), model.flatten(scale).detach()

    return step, scales


def curves(model: BayesianModel, dataset: Dataset, seed: int, steps: int) -> dict[str, Curve]:
    """Return the curves of all candidates."""
    torch.manual_seed(seed)
    pyro.set_rng_seed(seed)
    found = {
        f"ours, {name}": ours(model, dataset, name, seed, steps) for name in ("weight", "local")
    }
    for name, local in (
        ("TyXe's weight-space estimator", False),
        ("TyXe's local reparameterization", True),
    ):
        step, net = tyxe_layers(dataset, local=local, rate=RATE)
        found[name] = theirs(
            model, dataset, step, _set_initial_values(net, model, "written"), steps
        )
    step, net = bayesian_torch(dataset, "LinearReparameterization", rate=RATE, summed=True)
    found["bayesian-torch, reparameterization"] = theirs(
        model, dataset, step, _set_initial_values(net, model, "bayesian-torch"), steps
    )
    step, scales = _pyro(model, dataset)
    found["Pyro AutoNormal"] = theirs(model, dataset, step, scales, steps)
    return found


def seconds_to(curve: Curve, target: float) -> float:
    """Return when a curve first reaches a value, linearly between evaluations."""
    seconds, values = np.array(curve).T
    (above,) = np.nonzero(values >= target)
    if above[0] == 0:
        return float(seconds[0])
    last = above[0]
    share = (target - values[last - 1]) / (values[last] - values[last - 1])
    return float(seconds[last - 1] + share * (seconds[last] - seconds[last - 1]))


def measure(*, quick: bool = False) -> list[dict[str, Any]]:
    """Return the rows: our local estimator against each peer and our weight-space one."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    dataset = data()
    net = build_network(
        MLPConfig(widths=SIZES[1:-1]), input_shape=dataset.input_shape, num_outputs=SIZES[-1]
    )
    model = BayesianModel(net, Prior(), Categorical())
    ours(model, dataset, "local", 0, EVERY)  # imports and caches
    seconds: dict[str, list[float]] = {}
    targets = []
    for seed in range(1 if quick else 3):
        found = curves(model, dataset, seed, 50 if quick else STEPS)
        targets.append(min(max(value for _, value in curve) for curve in found.values()))
        for name, curve in found.items():
            seconds.setdefault(name, []).append(seconds_to(curve, targets[-1]))
    timings = {name: timing_of(values) for name, values in seconds.items()}
    mine = timings["ours, local"]
    nats = ", ".join(f"{target:,.0f}" for target in targets)
    return [
        row(
            f"seconds to an ELBO on Fashion-MNIST, local; MLP {'-'.join(map(str, SIZES))}, batch "
            f"{BATCH}",
            ours=mine.median,
            peer=name,
            theirs=timing.median,
            unit="s",
            ratio=ratio(mine, timing),
            target=None if name.startswith("ours") else 1.0,
            note=f"targets by seed {nats} nats",
            details={"targets": targets, "seconds": seconds},
        )
        for name, timing in timings.items()
        if name != "ours, local"
    ]


if __name__ == "__main__":
    print_rows(measure, __doc__)
