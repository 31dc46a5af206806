"""The tempered log density of a model and its gradient, for a batch of flat vectors.

    U(w) = -log p(y | x, w) / T - prior_weight log p(w)

Values are summed in float64; gradients have the dtype of the vectors. A batch is one call:
`BatchedMLP` for fully connected networks, and `torch.func.vmap` of the gradient for others, which
turns the products of all vectors into batched ones. `torch.compile` fuses the rest, so that little
more than the products remains. A network that `vmap` cannot transform is evaluated vector by
vector.

The memory that a pass over the data keeps for its gradient is measured. On a CPU, vectors are
evaluated in groups for which it stays within `_GROUP_BYTES`, close to the size of the caches. A
training split whose points would exceed `_PASS_BYTES` is processed in equal pieces, so that memory
does not grow with the data.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from bnn_symm.data import Split
from bnn_symm.inference.density.batched_mlp import BatchedMLP
from bnn_symm.inference.density.compiled import Compiled
from bnn_symm.models import BayesianModel
from bnn_symm.torch_internals import batchable_kernels

# 16 networks 64-50-50-10 on 1,500 points took 12 ms in groups of 4 and of 8 (7 and 13 MB), and
# 16 ms in one group.
_GROUP_BYTES = 8_000_000
# Maximum memory that one pass keeps for its gradient.
_PASS_BYTES = 512_000_000


class TemperedDensity:
    """The potential U and its gradient as a function of a batch of flat vectors.

    Args:
        model: the model.
        part: the data.
        temperature: T, which divides the log likelihood.
        prior_weight: the factor of the log prior.
        like: (chain, parameter), finite. It has the shape of all later batches, and is used to
            determine which transformations the network supports.
        compile: whether to compile, if all modules of the network can be compiled.

    Attributes:
        evaluate: the uncompiled function, for use inside a larger compiled one if `can_be_inlined`.
        passes: passes over the data, each over a piece of it.
        group_size: vectors that are evaluated together.
        is_compiled: whether the density is compiled.
    """

    def __init__(
        self,
        model: BayesianModel,
        part: Split,
        *,
        temperature: float,
        prior_weight: float,
        like: Float[Tensor, "chain parameter"],
        compile: bool,
    ):
        self._model, self._temperature, self._prior_weight = model, temperature, prior_weight
        self.is_compiled = compile and is_compilable(model)
        fixed, per_point = bytes_kept(model, like[0], part)
        per_vector = fixed + per_point * len(part)
        self._number = len(like)
        self.group_size = (
            _group_size(self._number, per_vector) if like.device.type == "cpu" else self._number
        )
        self.passes = max(1, math.ceil(self.group_size * per_point * len(part) / _PASS_BYTES))
        size = math.ceil(len(part) / self.passes)
        self._pieces = [
            (part.x[start : start + size], part.targets[start : start + size])
            for start in range(0, len(part), size)
        ]
        self.passes = len(self._pieces)
        self._batched_mlp = BatchedMLP.of(model)
        if self._batched_mlp is not None:
            # With points as the last axis in memory, as in all arrays of `BatchedMLP`.
            self._pieces = [(x.flatten(1).mT.contiguous().mT, y) for x, y in self._pieces]
        self._prior = torch.func.vmap(torch.func.grad_and_value(model.log_prior))
        self._batched: Callable[..., Any] = self._with_batched_mlp
        if self._batched_mlp is None:
            self._batched = self._vectorized
            try:
                with torch.no_grad():
                    self._batched(like[:2], *(piece[:2] for piece in self._pieces[0]), True)
            except RuntimeError:
                self._batched = self._sequential
                self.is_compiled = False
        self._calls: list[Callable[..., Any]] = [self._batched] * self.passes
        if self.is_compiled:
            # The first piece includes the prior and the last may be shorter, so these are compiled
            # separately.
            first, between, last = (Compiled(self._batched, "the log density") for _ in range(3))
            self._calls = [first, *[between] * (self.passes - 2), last][: self.passes]

    @property
    def can_be_inlined(self) -> bool:
        """Return whether a larger compiled function may contain `evaluate`."""
        return self.passes == 1 and self.is_compiled and self.group_size == self._number

    def evaluate(
        self, positions: Float[Tensor, "chain parameter"]
    ) -> tuple[Float[Tensor, " chain"], Float[Tensor, "chain parameter"]]:
        """Return U in float64, and its gradient, in one pass over all of the data.

        Args:
            positions: flat vectors.
        """
        gradients, energies = self._batched(positions, *self._pieces[0], True)
        return energies, gradients

    def __call__(
        self, positions: Float[Tensor, "chain parameter"]
    ) -> tuple[Float[Tensor, " chain"], Float[Tensor, "chain parameter"]]:
        """Return U in float64, and its gradient.

        Args:
            positions: flat vectors.
        """
        size, number = self.group_size, len(positions)
        if size >= number:
            return self._evaluate_group(positions)
        # Compiled functions have one shape, so all groups have one size. The last group may overlap
        # with the one before.
        starts = [*range(0, number - size, size), number - size]
        energies = positions.new_empty(number, dtype=torch.float64)
        gradients = torch.empty_like(positions)
        for start in starts:
            group = slice(start, start + size)
            energies[group], gradients[group] = self._evaluate_group(positions[group])
        return energies, gradients

    def _evaluate_group(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            gradients, energies = self._calls[0](positions, *self._pieces[0], True)
            for call, piece in zip(self._calls[1:], self._pieces[1:], strict=True):
                more_gradients, more_energies = call(positions, *piece, False)
                gradients, energies = gradients + more_gradients, energies + more_energies
        return energies, gradients

    def _energy(self, flat: Tensor, x: Tensor, y: Tensor, with_prior: bool) -> Tensor:
        energy = (
            -self._model.log_likelihood(flat, x, y).sum(dtype=torch.float64) / self._temperature
        )
        return energy - self._prior_weight * self._model.log_prior(flat) if with_prior else energy

    def _with_batched_mlp(
        self, positions: Tensor, x: Tensor, y: Tensor, with_prior: bool
    ) -> tuple[Tensor, Tensor]:
        assert self._batched_mlp is not None
        log_likelihoods, gradients = self._batched_mlp.log_likelihood_and_gradient(positions, x, y)
        energies, gradients = -log_likelihoods / self._temperature, -gradients / self._temperature
        if with_prior:
            prior_gradients, log_priors = self._prior(positions)
            energies = energies - self._prior_weight * log_priors
            gradients = gradients - self._prior_weight * prior_gradients
        return gradients, energies

    def _vectorized(
        self, positions: Tensor, x: Tensor, y: Tensor, with_prior: bool
    ) -> tuple[Tensor, Tensor]:
        gradient = torch.func.grad_and_value(self._energy)
        with batchable_kernels(self._model.net):
            return torch.func.vmap(gradient, in_dims=(0, None, None, None))(
                positions, x, y, with_prior
            )

    def _sequential(
        self, positions: Tensor, x: Tensor, y: Tensor, with_prior: bool
    ) -> tuple[Tensor, Tensor]:
        gradients, energies = [], []
        for position in positions:
            with torch.enable_grad():
                leaf = position.detach().requires_grad_()
                energy = self._energy(leaf, x, y, with_prior)
                (gradient,) = torch.autograd.grad(energy, leaf)
            gradients.append(gradient)
            energies.append(energy.detach())
        return torch.stack(gradients), torch.stack(energies)


def is_compilable(model: BayesianModel) -> bool:
    """Return whether all modules of a network can be compiled.

    Args:
        model: the model.
    """
    return all(getattr(module, "is_compilable", True) for module in model.net.modules())


def vectors_per_group(model: BayesianModel, part: Split, number: int) -> int:
    """Return the number of flat vectors that are evaluated together.

    On a CPU, the memory of a group fits into the caches. On other devices, all vectors are one
    group.

    Args:
        model: the model.
        part: the data.
        number: number of vectors.
    """
    flat = model.initial()
    if number == 1 or flat.device.type != "cpu":
        return number
    fixed, per_point = bytes_kept(model, flat, part)
    return _group_size(number, fixed + per_point * len(part))


def _group_size(number: int, bytes_per_vector: float) -> int:
    if not bytes_per_vector:
        return number
    groups = math.ceil(number / max(1, _GROUP_BYTES // bytes_per_vector))
    return math.ceil(number / groups)


def bytes_kept(model: BayesianModel, flat: Tensor, part: Split) -> tuple[float, float]:
    """Return the memory that a likelihood keeps for the gradient: for any points, and for each.

    That for any points is small, except for a graph network, which computes all nodes.

    Args:
        model: the model.
        flat: (parameter,), finite.
        part: the data.
    """
    most = min(len(part), 4)
    kept = []
    for points in (1, most):
        total = 0

        def count(tensor: Tensor) -> Tensor:
            nonlocal total
            total += tensor.numel() * tensor.element_size()
            return tensor

        with (
            torch.enable_grad(),
            torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor),
        ):
            leaf = flat.detach().requires_grad_()
            model.log_likelihood(leaf, part.x[:points], part.targets[:points]).sum()
        kept.append(total)
    per_point = (kept[1] - kept[0]) / max(1, most - 1)
    return kept[0] - per_point, per_point
