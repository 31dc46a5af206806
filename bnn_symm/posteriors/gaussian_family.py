"""What posteriors with a density in closed form share: normals, whose draws are functions of keyed
noise.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bnn_symm.arguments import checked
from bnn_symm.data import Scaling
from bnn_symm.errors import IncompatiblePosteriors
from bnn_symm.models import BayesianModel
from bnn_symm.posteriors.posterior import Posterior, check_length
from bnn_symm.randomness import torch_generator
from bnn_symm.symmetry import Permutation


class ClosedFormPosterior(Posterior):
    """A normal distribution over the flat vector, with means and standard deviations of independent
    noise.

    Args:
        model: the model.
        scaling: of the targets.
        loc: means, (parameter,).
        scale: standard deviations of what is independent in every coordinate, (parameter,).
        num_draws: how many draws stand for it in predictions, as one chain. They are regenerated
            from `seed`.
        seed: of these draws.
        noise_order: (parameter,), which coordinate of the keyed noise, and with which sign, each
            coordinate takes: what a permutation did to it, so that a permuted posterior has the
            permuted draws. Coordinate i counts as i + 1, so that it can have a sign. None for each
            its own.
        info: how it was made.
        history: one row a logged step.
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
                f"loc has shape {tuple(loc.shape)}, scale {tuple(scale.shape)}; give one shape"
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

        Raises:
            ValueError: for a missing or unknown name, another shape or type, or values that are not
                finite.
            IncompatiblePosteriors: as the constructor.
        """
        wanted = {name for name in cls.array_axes if name != "noise_order" or name in arrays}
        if set(arrays) != wanted:
            raise ValueError(f"it has the arrays {sorted(arrays)}, expected {sorted(wanted)}")
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
                raise ValueError("noise_order is no permutation with signs")
        return cls(model, scaling, **dict(arrays), **keywords)

    @property
    def num_noise(self) -> int:
        """How many numbers of standard normal noise make a draw; the first ones are those of the
        coordinates.
        """
        return len(self.loc)

    @abstractmethod
    def reparameterize(
        self, noise: Float[Tensor, "*draw noise"]
    ) -> Float[Tensor, "*draw parameter"]:
        """The draws of standard normal noise; of a permuted posterior the permuted draws of the
        same noise.
        """

    @abstractmethod
    def log_prob(self, flat: Float[Tensor, "*draw parameter"]) -> Float[Tensor, "*draw"]:
        """Log density in nats, in float64."""

    @abstractmethod
    def entropy_by_tensor(self) -> dict[str, float]:
        """Name -> what it adds to the entropy of those before it in the flat vector, in nats; they
        sum to `entropy`.
        """

    def arrays(self) -> dict[str, Tensor]:
        """What says it, by the names of the constructor's arguments; (*, parameter)."""
        arrays = {"loc": self.loc, "scale": self.scale}
        return arrays if self.noise_order is None else {**arrays, "noise_order": self.noise_order}

    def entropy(self) -> float:
        """In nats."""
        return sum(self.entropy_by_tensor().values())

    @property
    def shape(self) -> tuple[int, int, int]:
        """One chain of `num_draws` draws."""
        return 1, self.num_draws, self.model.num_parameters

    def read(self, chain: int, start: int, stop: int) -> Float[Tensor, "draw parameter"]:
        """Return draws [start, stop) of one chain."""
        return self._keyed(self.seed, start, stop)

    def _keyed(self, seed: int, start: int, stop: int) -> Tensor:
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
        """The draws of the noise of the coordinates alone."""
        if self.noise_order is not None:
            order = self.noise_order.to(noise.device)
            noise = noise[..., order.abs() - 1] * order.sign()
        return self.loc + self.scale * noise

    def mean(self) -> Float[Tensor, " parameter"]:
        """`loc`."""
        return self.loc

    def draws(
        self, num_samples: int | None = None, *, seed: int = 0
    ) -> Float[Tensor, "draw parameter"]:
        """Fresh draws, each from its own key (seed, index): more samples begin with the same
        ones.
        """
        return self._keyed(seed, 0, num_samples or self.num_draws)

    def _permuted(self, permutation: Permutation) -> dict[str, Any]:
        """The constructor's arguments of the permuted posterior, beside the model and the scaling.

        Raises:
            NotRepresentable: if the permutation moves what is fixed of the network.
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
