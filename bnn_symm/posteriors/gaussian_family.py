"""Define the base class of normal posteriors, whose draws are functions of keyed noise."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bnn_symm.arguments import check_at_least, checked
from bnn_symm.data import Scaling
from bnn_symm.errors import IncompatiblePosteriors
from bnn_symm.models import BayesianModel
from bnn_symm.posteriors.lazy_draws import LazyDraws
from bnn_symm.posteriors.posterior import Posterior, check_length
from bnn_symm.randomness import torch_generator
from bnn_symm.symmetry import Permutation


class ClosedFormPosterior(Posterior):
    """Represent a normal distribution over the flat vector with a density in closed form.

    Args:
        model: the model.
        scaling: of the targets.
        loc: means, (parameter,).
        scale: standard deviations of the independent part of every coordinate, (parameter,).
        num_draws: number of draws that represent it in predictions, as one chain. They are
            regenerated from `seed`.
        seed: of these draws.
        noise_order: (parameter,), the coordinate of the keyed noise, with its sign, that each
            coordinate uses: the record of earlier permutations, so that a permuted posterior has
            the permuted draws. Coordinate i is stored as i + 1, so that it can have a sign. None
            for the identity.
        info: provenance.
        history: one row per logged step.

    Raises:
        IncompatiblePosteriors: if lengths differ, or a scale is not positive.
    """

    array_axes: ClassVar[dict[str, int]] = {"loc": 1, "scale": 1, "noise_order": 1}
    """Name -> number of axes, of the arrays that describe the distribution; the last axis is that
    of parameters."""

    @checked
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
        check_length(model, loc.shape[-1] if loc.ndim else 1)
        if scale.shape != loc.shape:
            raise IncompatiblePosteriors(
                f"loc has shape {tuple(loc.shape)}, scale {tuple(scale.shape)}; use one shape"
            )
        if not bool((scale > 0).all()):
            raise IncompatiblePosteriors("the scales of a Gaussian posterior must be positive")
        self.loc = loc
        self.scale = scale
        self.num_draws = num_draws
        self.seed = seed
        self.noise_order = noise_order

    @classmethod
    def from_arrays(
        cls, model: BayesianModel, scaling: Scaling, arrays: Mapping[str, Tensor], **keywords: Any
    ) -> "ClosedFormPosterior":
        """Return the posterior that arrays describe, such as those of a file, after checking them.

        Args:
            model: the model.
            scaling: of the targets.
            arrays: as `arrays` returns them.
            keywords: the other arguments of the constructor.

        Returns:
            The posterior.

        Raises:
            ValueError: for a missing or unknown name, another shape or type, or values that are not
                finite.
            IncompatiblePosteriors: as the constructor.
        """
        expected = {name for name in cls.array_axes if name != "noise_order" or name in arrays}
        if set(arrays) != expected:
            raise ValueError(f"it has the arrays {sorted(arrays)}, expected {sorted(expected)}")
        for name, array in arrays.items():
            if array.ndim != cls.array_axes[name] or array.shape[-1] != model.num_parameters:
                raise ValueError(
                    f"{name} has shape {tuple(array.shape)}, the network has {model.num_parameters}"
                )
            if array.is_floating_point() == (name == "noise_order"):
                raise ValueError(f"{name} has type {array.dtype}")
            if not bool(torch.isfinite(array).all()):
                raise ValueError(f"{name} has values that are not finite")
        order = arrays.get("noise_order")
        if order is not None:
            everything = torch.arange(1, model.num_parameters + 1, device=order.device)
            if not torch.equal(order.abs().sort().values.to(everything), everything):
                raise ValueError("noise_order is not a signed permutation")
        return cls(model, scaling, **dict(arrays), **keywords)

    @property
    def num_noise(self) -> int:
        """Return the number of standard normal values per draw; those of coordinates come first."""
        return len(self.loc)

    @abstractmethod
    def reparameterize(
        self, noise: Float[Tensor, "*draw noise"]
    ) -> Float[Tensor, "*draw parameter"]:
        """Return the draws that standard normal noise gives.

        Args:
            noise: `num_noise` values per draw.

        Returns:
            The draws; a permuted posterior returns the permuted draws of the same noise.
        """

    @abstractmethod
    def log_prob(self, flat: Float[Tensor, "*draw parameter"]) -> Float[Tensor, "*draw"]:
        """Return the log density in nats, in float64.

        Args:
            flat: one flat vector, or a batch of them.

        Returns:
            One value per vector.
        """

    @abstractmethod
    def entropy_by_tensor(self) -> dict[str, float]:
        """Return name -> entropy of the tensor given those before it, in nats.

        The values sum to `entropy`.
        """

    def arrays(self) -> dict[str, Tensor]:
        """Return the arrays that describe the distribution, by the constructor's names.

        Returns:
            Name -> array, (*, parameter).
        """
        arrays = {"loc": self.loc, "scale": self.scale}
        return arrays if self.noise_order is None else {**arrays, "noise_order": self.noise_order}

    def entropy(self) -> float:
        """Return the entropy in nats."""
        return sum(self.entropy_by_tensor().values())

    @property
    def positions(self) -> LazyDraws:
        """Return one chain of `num_draws` draws."""
        shape = (1, self.num_draws, self.model.num_parameters)
        return LazyDraws(shape, partial(self._keyed, self.seed))

    def _keyed(self, seed: int, chain: int, start: int, stop: int) -> Tensor:
        noise = torch.stack(
            [
                torch.randn(
                    self.num_noise, generator=torch_generator(seed, "draw", i), dtype=self.loc.dtype
                )
                for i in range(start, stop)
            ]
        )
        return self.reparameterize(noise.to(self.loc.device))

    def _independent(
        self, noise: Float[Tensor, "*draw parameter"]
    ) -> Float[Tensor, "*draw parameter"]:
        """Return the draws of the noise of the coordinates alone."""
        if self.noise_order is not None:
            order = self.noise_order.to(noise.device)
            noise = noise[..., order.abs() - 1] * order.sign()
        return self.loc + self.scale * noise

    def mean(self) -> Float[Tensor, " parameter"]:
        """Return `loc`, the means."""
        return self.loc

    def draws(
        self, num_samples: int | None = None, *, seed: int = 0
    ) -> Float[Tensor, "draw parameter"]:
        """Return fresh draws, each from its own key (seed, index).

        Args:
            num_samples: number of draws; more of them begin with the same ones. None for
            `num_draws`.
            seed: of the draws.

        Returns:
            One row per draw.

        Raises:
            ConfigError: if less than one draw is requested.
        """
        if num_samples is None:
            num_samples = self.num_draws
        check_at_least("num_samples", num_samples, 1)
        return self._keyed(seed, 0, 0, num_samples)

    def _permuted(self, permutation: Permutation) -> dict[str, Any]:
        """Return the constructor's arguments of the permuted posterior, without model and scaling.

        Raises:
            NotRepresentable: if the permutation moves fixed entries of the network.
        """
        order = self.noise_order
        if order is None:
            order = torch.arange(1, len(self.loc) + 1)
        return {
            "loc": self.model.permute(self.loc, permutation),
            "scale": self.model.permute(self.scale, permutation).abs(),
            "num_draws": self.num_draws,
            "seed": self.seed,
            # Exact in float64 up to 2^53 coordinates.
            "noise_order": self.model.permute(order.double(), permutation).round().long(),
            "info": self.info,
            "history": self.history,
        }
