"""Posteriors in closed form: independent normals."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bnn_symm.data import Scaling
from bnn_symm.errors import IncompatiblePosteriors
from bnn_symm.models import BayesianModel
from bnn_symm.posteriors.posterior import Posterior, check_length
from bnn_symm.randomness import torch_generator
from bnn_symm.symmetry import Permutation


class GaussianPosterior(Posterior):
    """Independent normals over the flat vector: the result of mean-field variational inference.

    Args:
        model: the model.
        scaling: of the targets.
        loc: means, (parameter,).
        scale: standard deviations, (parameter,).
        num_draws: how many draws stand for it in predictions, as one chain. They are regenerated from `seed`.
        seed: of these draws.
        noise_order: (parameter,), which coordinate of the keyed noise, and with which sign, each coordinate takes:
            what a permutation did to it, so that a permuted posterior has the permuted draws. Coordinate i counts as
            i + 1, so that it can have a sign. None for each its own.
        info: how it was made.
        history: one row a logged step.
    """

    kind = "gaussian"

    def __init__(
        self,
        model: BayesianModel,
        scaling: Scaling,
        *,
        loc: Float[Tensor, " parameter"],
        scale: Float[Tensor, " parameter"],
        num_draws: int = 200,
        seed: int = 0,
        noise_order: Int[Tensor, " parameter"] | None = None,
        info: Mapping[str, Any] | None = None,
        history: Sequence[Mapping[str, Any]] = (),
    ):
        super().__init__(model, scaling, info=info, history=history)
        check_length(model, loc.shape[-1])
        if not bool((scale > 0).all()):
            raise IncompatiblePosteriors("the scales of a Gaussian posterior must be positive")
        self.loc = loc
        self.scale = scale
        self.num_draws = num_draws
        self.seed = seed
        self.noise_order = noise_order

    @property
    def shape(self) -> tuple[int, int, int]:
        """One chain of `num_draws` draws."""
        return 1, self.num_draws, self.model.num_parameters

    def _read(self, chain: int, start: int, stop: int) -> Float[Tensor, "draw parameter"]:
        return self._keyed(self.seed, start, stop)

    def _keyed(self, seed: int, start: int, stop: int) -> Tensor:
        noise = torch.stack(
            [
                torch.randn(self.loc.shape, generator=torch_generator(seed, "draw", i), dtype=self.loc.dtype)
                for i in range(start, stop)
            ]
        )
        return self.at_noise(noise.to(self.loc.device))

    def at_noise(self, noise: Float[Tensor, "*draw parameter"]) -> Float[Tensor, "*draw parameter"]:
        """The draws of standard normal noise; of a permuted posterior the permuted draws of the same noise."""
        if self.noise_order is not None:
            order = self.noise_order.to(noise.device)
            noise = noise[..., order.abs() - 1] * order.sign()
        return self.loc + self.scale * noise

    def mean(self) -> Float[Tensor, " parameter"]:
        """`loc`."""
        return self.loc

    def standard_deviation(self) -> Float[Tensor, " parameter"]:
        """`scale`."""
        return self.scale

    def draws(self, num_samples: int | None = None, *, seed: int = 0) -> Float[Tensor, "draw parameter"]:
        """Fresh draws, each from its own key (seed, index): more samples begin with the same ones."""
        return self._keyed(seed, 0, num_samples or self.num_draws)

    def permute(self, permutation: Permutation) -> "GaussianPosterior":
        """The posterior of the permuted network: the same function, draw by draw.

        Raises:
            NotRepresentable: if the permutation moves what is fixed of the network.
        """
        order = self.noise_order
        if order is None:
            order = torch.arange(1, len(self.loc) + 1)
        return GaussianPosterior(
            self.model,
            self.scaling,
            loc=self.model.permute(self.loc, permutation),
            scale=self.model.permute(self.scale, permutation).abs(),
            num_draws=self.num_draws,
            seed=self.seed,
            # Exact in float64 up to 2^53 coordinates.
            noise_order=self.model.permute(order.double(), permutation).round().long(),
            info=self.info,
            history=self.history,
        )

    def entropy(self) -> float:
        """In nats."""
        return float((self.scale.double().log() + 0.5 * math.log(2 * math.pi * math.e)).sum())
