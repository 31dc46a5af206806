"""Predict scores of networks from their weights.

    hyperparameters        gradient boosting on the hyper-parameters: not from weights, a reference
    statistics_ridge       ridge regression on statistics of each tensor (Unterthiner et al. 2020)
    statistics_boosting    gradient boosting on the same statistics
    flat_mlp               an MLP on the flat vector of weights, which has to learn symmetries
    invariant              `InvariantNetwork`, which has them by construction

Each is fitted to training networks. The last two, which are fitted by gradients, keep the state of
the best epoch on validation networks, and predict all scores together.
"""

import copy
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from bnn_symm.models import BayesianModel
from bnn_symm.randomness import global_seed, key_seed, torch_generator
from bnn_symm.zoo.invariant_network import InvariantNetwork
from bnn_symm.zoo.weight_blocks import WeightLayout

_QUANTILES = (0.0, 0.25, 0.5, 0.75, 1.0)
_PENALTIES = np.logspace(-3, 4, 15)
# Training of the predictors that are fitted by gradients.
_EPOCHS, _BATCH, _WIDTH = 80, 32, 128


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What predictors read of the networks of a zoo.

    Attributes:
        hyperparameters: of the training of each network.
        statistics: of each tensor, as `weight_statistics` returns them.
        flat: the flat vectors.
        blocks: of the weights, each (network, *unit, channel).
        layout: of the blocks.
    """

    hyperparameters: Float[np.ndarray, "network value"]
    statistics: Float[np.ndarray, "network value"]
    flat: Float[Tensor, "network parameter"]
    blocks: Sequence[Float[Tensor, "network ..."]]
    layout: WeightLayout

    @classmethod
    def of(
        cls,
        model: BayesianModel,
        layout: WeightLayout,
        weights: Float[Tensor, "network parameter"],
        hyperparameters: Float[np.ndarray, "network value"],
    ) -> "Inputs":
        """Return the inputs of networks.

        Args:
            model: the model.
            layout: of its architecture.
            weights: flat vectors.
            hyperparameters: of the training of each network.
        """
        return cls(
            hyperparameters=hyperparameters,
            statistics=weight_statistics(model, weights),
            flat=weights,
            blocks=layout.arrays(model, weights),
            layout=layout,
        )


@dataclass(frozen=True, kw_only=True)
class Parts:
    """Numbers of the networks that predictors are fitted to, selected by, and scored on."""

    train: Int[np.ndarray, " network"]
    validation: Int[np.ndarray, " network"]
    held_out: Int[np.ndarray, " network"]


Targets = Float[np.ndarray, "network target"]
Predictor = Callable[[Inputs, Targets, Parts, int], Targets]
"""(inputs, targets of all networks, parts, seed) -> predictions for the held-out networks."""


def weight_statistics(
    model: BayesianModel, weights: Float[Tensor, "network parameter"]
) -> Float[np.ndarray, "network value"]:
    """Return mean, variance and quantiles (0, 25, 50, 75, 100 %) of every tensor.

    Args:
        model: the model.
        weights: flat vectors. Fixed entries, which do not differ between networks, are left out.
    """
    columns = []
    levels = torch.tensor(_QUANTILES, dtype=torch.float64)
    for value in model.unflatten(weights.double().cpu()).values():
        own = value.reshape(len(value), -1)
        columns += [own.mean(1), own.var(1, correction=0), *own.quantile(levels, dim=1)]
    return torch.stack(columns, 1).numpy()


def _boosting(features: np.ndarray, targets: Targets, parts: Parts, seed: int) -> Targets:
    known = np.concatenate([parts.train, parts.validation])
    columns = []
    for number, target in enumerate(targets.T):
        trees = HistGradientBoostingRegressor(
            random_state=key_seed(seed, "zoo boosting", number) % 2**32, min_samples_leaf=10
        )
        trees.fit(features[known], target[known])
        columns.append(trees.predict(features[parts.held_out]))
    return np.stack(columns, 1)


def _hyperparameters(inputs: Inputs, targets: Targets, parts: Parts, seed: int) -> Targets:
    return _boosting(inputs.hyperparameters, targets, parts, seed)


def _statistics_boosting(inputs: Inputs, targets: Targets, parts: Parts, seed: int) -> Targets:
    return _boosting(inputs.statistics, targets, parts, seed)


def _statistics_ridge(inputs: Inputs, targets: Targets, parts: Parts, seed: int) -> Targets:
    known = np.concatenate([parts.train, parts.validation])
    ridge = make_pipeline(StandardScaler(), RidgeCV(_PENALTIES, alpha_per_target=True))
    ridge.fit(inputs.statistics[known], targets[known])
    return ridge.predict(inputs.statistics[parts.held_out]).reshape(-1, targets.shape[1])


def _flat_mlp(inputs: Inputs, targets: Targets, parts: Parts, seed: int) -> Targets:
    def build() -> nn.Module:
        sizes = inputs.flat.shape[1], _WIDTH, _WIDTH, targets.shape[1]
        layers = [nn.Linear(a, b) for a, b in itertools.pairwise(sizes)]
        return nn.Sequential(layers[0], nn.GELU(), layers[1], nn.GELU(), layers[2])

    flat = _standardized(inputs.flat, parts.train, (0,), is_centered=True)
    return _fit_by_gradients(build, [flat], targets, parts, seed, rate=3e-3)


def _invariant(inputs: Inputs, targets: Targets, parts: Parts, seed: int) -> Targets:
    blocks = [
        _standardized(
            block, parts.train, tuple(range(block.dim() - 1)), is_centered=not any(own.is_odd)
        )
        for block, own in zip(inputs.blocks, inputs.layout.blocks, strict=True)
    ]

    def build() -> nn.Module:
        return InvariantNetwork(inputs.layout, targets.shape[1])

    return _fit_by_gradients(build, blocks, targets, parts, seed, rate=1e-2)


PREDICTORS: dict[str, Predictor] = {
    "hyperparameters": _hyperparameters,
    "statistics_ridge": _statistics_ridge,
    "statistics_boosting": _statistics_boosting,
    "flat_mlp": _flat_mlp,
    "invariant": _invariant,
}
"""Name -> predictor, in the order of tables."""


def _standardized(
    values: Tensor, train: np.ndarray, dims: tuple[int, ...], *, is_centered: bool
) -> Tensor:
    """Scale values by their root mean square over some axes, of training networks only."""
    values = values.float()
    if is_centered:
        values = values - values[train].mean(dims, keepdim=True)
    scale = values[train].square().mean(dims, keepdim=True).sqrt()
    return values / torch.where(scale > 1e-6, scale, 1.0)  # constants stay


def _fit_by_gradients(
    build: Callable[[], nn.Module],
    inputs: Sequence[Tensor],
    targets: Targets,
    parts: Parts,
    seed: int,
    *,
    rate: float,
) -> Targets:
    """Fit a module to all targets together, and predict the held-out networks."""
    mean, scale = targets[parts.train].mean(0), targets[parts.train].std(0)
    scale = np.where(scale > 0, scale, 1.0)
    wanted = torch.from_numpy((targets - mean) / scale).float().to(inputs[0].device)
    with global_seed(seed, "zoo predictor"):
        module = build().to(inputs[0].device)
    steps = _EPOCHS * -(-len(parts.train) // _BATCH)
    optimizer = torch.optim.AdamW(module.parameters(), lr=rate, weight_decay=0.01, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
    best, state = np.inf, copy.deepcopy(module.state_dict())
    for epoch in range(_EPOCHS):
        module.train()
        order = torch.randperm(len(parts.train), generator=torch_generator(seed, "epoch", epoch))
        for rows in torch.from_numpy(parts.train)[order].split(_BATCH):
            optimizer.zero_grad()
            loss = nn.functional.smooth_l1_loss(module(*(x[rows] for x in inputs)), wanted[rows])
            loss.backward()
            nn.utils.clip_grad_norm_(module.parameters(), 1.0)
            optimizer.step()
            schedule.step()
        error = _error(module, inputs, wanted, parts.validation)
        if error < best:
            best, state = error, copy.deepcopy(module.state_dict())
    module.load_state_dict(state)
    with torch.no_grad():
        predicted = module(*(x[parts.held_out] for x in inputs)).double().cpu().numpy()
    return mean + scale * predicted


def _error(module: nn.Module, inputs: Sequence[Tensor], wanted: Tensor, rows: np.ndarray) -> float:
    with torch.no_grad():
        predicted = module(*(x[rows] for x in inputs))
        return float(nn.functional.smooth_l1_loss(predicted, wanted[rows]))
