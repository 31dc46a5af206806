"""Train the networks of a zoo in batches, each network with its own hyper-parameters and data.

All networks of a batch take their steps together: one `torch.func.vmap` of the gradient of the
model's log density. They are sorted by their number of steps, and the batch shrinks as networks
end. Points, replaced targets and initial values of a network depend on the seed and its number.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bnn_symm.data import Dataset
from bnn_symm.errors import ConfigError
from bnn_symm.io.boundary import reason_of
from bnn_symm.models import BayesianModel
from bnn_symm.randomness import key_seed, torch_generator
from bnn_symm.torch_internals import batchable_kernels
from bnn_symm.zoo.config import ZooConfig

# Those of torch.optim.Adam.
_DECAY, _DECAY_OF_SQUARES, _EPSILON = 0.9, 0.999, 1e-8


def train_networks(
    model: BayesianModel, dataset: Dataset, config: ZooConfig, seed: int, numbers: Sequence[int]
) -> Float[Tensor, "network parameter"]:
    """Train some networks of a zoo as one batch.

    Each minimizes -log_likelihood - prior_weight log_prior of its own training points with Adam. A
    gradient that is not finite is replaced by zero.

    Args:
        model: the model.
        dataset: its training split is used.
        config: the ranges of the hyper-parameters.
        seed: of the zoo.
        numbers: of the networks.

    Returns:
        Flat vectors, in the order of the numbers.

    Example:
        >>> from bnn_symm import Prior, load_dataset
        >>> from bnn_symm.likelihoods import Categorical
        >>> model = BayesianModel(torch.nn.Linear(4, 3), Prior(), Categorical())
        >>> config = ZooConfig(num_steps=[3, 9])
        >>> train_networks(model, load_dataset("iris"), config, 0, range(5)).shape
        torch.Size([5, 15])
    """
    own = [config.hyperparameters(seed, number) for number in numbers]
    order = sorted(range(len(own)), key=lambda i: -own[i]["num_steps"])
    plans = [
        _NetworkPlan.of(dataset, config, own[i], key_seed(seed, "zoo network", numbers[i]))
        for i in order
    ]
    start = torch.stack([model.initial(plan.seed) for plan in plans])
    trained = _optimize(model, dataset, plans, start)
    result = torch.empty_like(trained)
    result[order] = trained
    return result


def check_batch(model: BayesianModel, dataset: Dataset) -> None:
    """Check that networks of a model can take their steps together.

    Args:
        model: the model.
        dataset: its training split is used.

    Raises:
        ConfigError: if `torch.func.vmap` cannot transform the network.
    """
    gradient = torch.func.vmap(torch.func.grad(_objective(model)), in_dims=(0, None, None, 0))
    flat, train = model.initial().expand(2, -1), dataset.train
    try:
        with torch.no_grad(), batchable_kernels(model.net):
            gradient(flat, train.x[:2], train.targets[:2], flat.new_ones(2))
    except RuntimeError as error:
        raise ConfigError(
            "the networks of a zoo are trained together, and torch.func.vmap cannot transform this "
            f"one ({reason_of(error)}); choose another architecture"
        ) from None


@dataclass(frozen=True, kw_only=True)
class _NetworkPlan:
    """What distinguishes the training of one network.

    Attributes:
        seed: of the network.
        learning_rate: maximum learning rate.
        prior_weight: factor of the log prior.
        num_steps: number of steps.
        num_points: number of points of the training split that it sees.
        batches: (step, point), rows of the training split.
        targets: (point, *column), targets of all rows, some of them replaced.
    """

    seed: int
    learning_rate: float
    prior_weight: float
    num_steps: int
    num_points: int
    batches: Int[Tensor, "step point"]
    targets: Tensor

    @classmethod
    def of(
        cls, dataset: Dataset, config: ZooConfig, own: dict[str, float], seed: int
    ) -> "_NetworkPlan":
        """Draw the points and the replaced targets of a network."""
        train, steps = dataset.train, int(own["num_steps"])
        generator = torch_generator(seed, "zoo points")
        order = torch.randperm(len(train), generator=generator)
        number = max(1, round(own["train_fraction"] * len(train)))
        drawn = torch.randint(number, (steps, config.batch_size), generator=generator)
        source = torch.arange(len(train))
        is_replaced = torch.rand(len(train), generator=generator) < own["label_noise"]
        other = torch.randint(len(train), (len(train),), generator=generator)
        source = torch.where(is_replaced, other, source).to(train.x.device)
        return cls(
            seed=seed,
            learning_rate=own["learning_rate"],
            prior_weight=own["prior_weight"],
            num_steps=steps,
            num_points=number,
            batches=order[drawn].to(train.x.device),
            targets=train.targets[source],
        )


def _optimize(
    model: BayesianModel, dataset: Dataset, plans: Sequence[_NetworkPlan], start: Tensor
) -> Tensor:
    """Take all steps of networks that are sorted by their number of steps, longest first."""
    gradient = torch.func.vmap(torch.func.grad(_objective(model)))
    column = start.new_tensor
    position, first, second = start.clone(), torch.zeros_like(start), torch.zeros_like(start)
    rates = column([plan.learning_rate for plan in plans])[:, None]
    lengths = column([plan.num_steps for plan in plans])[:, None]
    prior = column([plan.prior_weight / plan.num_points for plan in plans])
    for step in range(plans[0].num_steps):
        active = sum(plan.num_steps > step for plan in plans)
        now = slice(0, active)
        rows = torch.stack([plan.batches[step] for plan in plans[:active]])
        y = torch.stack([plan.targets[own] for plan, own in zip(plans[:active], rows, strict=True)])
        with torch.no_grad(), batchable_kernels(model.net):
            slope = gradient(position[now], dataset.train.x[rows], y, prior[now])
            slope = torch.where(torch.isfinite(slope).all(1, keepdim=True), slope, 0.0)
            first[now] = _DECAY * first[now] + (1 - _DECAY) * slope
            second[now] = _DECAY_OF_SQUARES * second[now] + (1 - _DECAY_OF_SQUARES) * slope**2
            rate = rates[now] * 0.5 * (1 + torch.cos(math.pi * step / lengths[now]))
            scale = (second[now] / (1 - _DECAY_OF_SQUARES ** (step + 1))).sqrt() + _EPSILON
            position[now] -= rate * first[now] / (1 - _DECAY ** (step + 1)) / scale
    return position


def _objective(model: BayesianModel) -> Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]:
    """Return the objective per point: (parameter,), points, targets, weight of the log prior."""

    def objective(flat: Tensor, x: Tensor, y: Tensor, prior_weight: Tensor) -> Tensor:
        log_likelihood = model.log_likelihood(flat, x, y).mean()
        return -log_likelihood - prior_weight * model.log_prior(flat).to(log_likelihood.dtype)

    return objective
