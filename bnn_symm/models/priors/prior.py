"""Define priors over the parameters of a network: independent, with one scale per parameter tensor.

Priors have mean zero, or are centered on weights from an earlier fit (`informed_mean`), optionally
with scales in proportion to them. A `Prior` is the setting; `Prior.bind(fan_in, sizes)` returns the
`ParameterPrior`, the density of the flat vector. The families of densities are in `families`.
"""

import fnmatch
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Annotated, Any, Literal, get_args

import torch
from jaxtyping import Float
from pydantic import Field, PlainValidator, WithJsonSchema
from torch import Tensor

from bnn_symm.errors import ConfigError
from bnn_symm.models.imported import Imported
from bnn_symm.models.priors.families import FAMILIES, Centered, FamilyName, build_family
from bnn_symm.models.priors.family import PriorFamily
from bnn_symm.models.priors.informed_mean import PriorMean
from bnn_symm.models.pyro_distribution import PyroDistribution
from bnn_symm.settings import Positive, settings

Scale = Positive | Literal["fan_in", "moped"]

CLASS_SCHEMA = {"type": "string", "pattern": ":", "format": "class"}
"""JSON Schema of `package.module:Class`."""


def _family(value: Any) -> Any:
    """Validate the name of a family."""
    if isinstance(value, Mapping):
        return Imported(**value)
    if isinstance(value, PriorFamily | Imported) or value in get_args(FamilyName):
        return value
    raise ValueError(
        f"expected {', '.join(FAMILIES)}, or an instance of a class derived from PriorFamily"
    )


OwnFamilyName = Annotated[
    FamilyName | Imported | PriorFamily,
    PlainValidator(_family),
    WithJsonSchema({"anyOf": [{"enum": list(FAMILIES), "type": "string"}, CLASS_SCHEMA]}),
]

# The scale of `evidence` before a fit has chosen one.
_FIRST_SCALE = 1.0


@settings
class PriorOverride:
    """Override settings of a prior for the parameters that a pattern matches.

    Attributes:
        name: the family; null for that of the prior.
        scale: the family's scale; null for that of the prior.
    """

    name: FamilyName | None = None
    scale: Scale | None = None


@settings
class Prior:
    """Define an independent prior for every parameter of a network (config section `prior`).

    Its mean is zero unless `mean` is set.

    Attributes:
        name: the family: normal, laplace, student_t or scale_mixture. A family of your own: in a
            config `package.module:Class`, whose settings are further keys of the section; in Python
            an instance of a class derived from `PriorFamily`.
        scale: the family's own scale (a normal's standard deviation, a Laplace's b), or `fan_in`:
            the scale at which the *variance* is 2 / fan_in (He et al. 2015), whatever the family. A
            bias takes its layer's fan_in; a parameter of a norm layer has none and gets variance 1.
            `moped`, for a prior with a mean: delta times the size of the mean, entry by entry
            (after Krishnan et al. 2020, arXiv:1906.05323). `evidence`, for inference.name=laplace:
            one scale, chosen by the marginal likelihood of the Laplace approximation.
        mean: center of the prior, where fits also start: in a config a run of one chain, or
            a file of weights (a state dict as .safetensors); in Python a `PriorMean`. Fixed entries
            of weights have none. null for zero.
        delta: of scale `moped`, the scale as a fraction of the mean.
        smallest_scale: of scale `moped`, for entries whose mean is near zero.
        degrees_of_freedom: of student_t; above 2, so that the variance exists.
        narrow_weight: of scale_mixture, the weight of the narrow component (Blundell et al. 2015,
            arXiv:1505.05424, with pi = 1 - narrow_weight).
        narrow_ratio: of scale_mixture, the narrow component's scale as a fraction of `scale`.
        overrides: by parameter-name pattern (`*.bias`, `layers.0.*`); the last matching pattern
            wins.

    Example:
        >>> from bnn_symm import Prior
        >>> Prior(name="laplace", scale="fan_in").name
        'laplace'
    """

    name: OwnFamilyName = "normal"
    scale: Scale | Literal["evidence"] = 1.0
    mean: str | PriorMean | None = None
    delta: Positive = 0.1
    smallest_scale: Positive = 1e-3
    degrees_of_freedom: Annotated[float, Field(gt=2)] = 4.0
    narrow_weight: Annotated[float, Field(gt=0, lt=1)] = 0.5
    narrow_ratio: Annotated[float, Field(gt=0, lt=1)] = 0.1
    overrides: dict[str, PriorOverride] = Field(default_factory=dict)

    @property
    def family_name(self) -> str:
        """Return the name of the family, or of the class of the user's own code."""
        if isinstance(self.name, PriorFamily):
            return f"{type(self.name).__module__}:{type(self.name).__qualname__}"
        return self.name.name if isinstance(self.name, Imported) else self.name

    def bind(
        self,
        fan_in: Mapping[str, int | None],
        sizes: Mapping[str, int],
        mean: Mapping[str, Tensor] | None = None,
    ) -> "ParameterPrior":
        """Return the density over the concatenation of the named parameters.

        Args:
            fan_in: per parameter name, its fan-in, or None where it has none; constant parameters
                are included, so that patterns may match them.
            sizes: per stochastic parameter, its number of entries, in the order of the flat vector.
            mean: per parameter name, its mean, of any shape; None for zero.

        Returns:
            The density of the flat vector.

        Raises:
            ConfigError: if a pattern of `overrides` matches no parameter, or a scale needs a mean
                and there is none.
        """
        for pattern in self.overrides:
            if not any(fnmatch.fnmatchcase(name, pattern) for name in fan_in):
                raise ConfigError(
                    f"prior.overrides: pattern {pattern!r} matches no parameter; parameters are "
                    f"{', '.join(fan_in)}"
                )
        if self.scale == "evidence" and self.overrides:
            raise ConfigError(
                "prior.scale=evidence chooses one scale for all parameters, got prior.overrides "
                f"for {', '.join(self.overrides)}; remove them, or set prior.scale to a number"
            )
        blocks: list[Block] = []
        for name, size in sizes.items():
            family, scale = self._resolve(name, fan_in[name], None if mean is None else mean[name])
            if blocks and blocks[-1].family == family:
                blocks[-1] = Block(family, (*blocks[-1].runs, (scale, size)))
            else:
                blocks.append(Block(family, ((scale, size),)))
        center = None if mean is None else torch.cat([mean[name].flatten() for name in sizes])
        return ParameterPrior(tuple(blocks), center)

    def _resolve(
        self, parameter: str, fan_in: int | None, mean: Tensor | None
    ) -> tuple[PriorFamily, float | Tensor]:
        name, scale = self.name, self.scale
        for pattern, override in self.overrides.items():
            if fnmatch.fnmatchcase(parameter, pattern):
                name = override.name or name
                scale = override.scale or scale
        family = build_family(name, self)
        if scale == "evidence":
            scale = _FIRST_SCALE
        if scale == "fan_in":
            variance = 2.0 / fan_in if fan_in else 1.0
            scale = math.sqrt(variance / family.unit_variance)
        if scale == "moped":
            if mean is None:
                raise ConfigError(
                    "prior.scale=moped is a fraction of prior.mean, which is not set; set "
                    "prior.mean=RUN, or prior.scale=fan_in"
                )
            return family, (self.delta * mean.flatten().abs()).clamp(min=self.smallest_scale)
        return family, float(scale)


def check_scale_is_known(prior: Prior) -> None:
    """Refuse a prior whose scale a fit has yet to choose, where its density or draws are needed.

    Args:
        prior: of the model.

    Raises:
        ConfigError: if the scale is `evidence`.
    """
    if prior.scale == "evidence":
        raise ConfigError(
            "prior.scale=evidence is chosen by a fit with inference.name=laplace, and has no value "
            "here; set prior.scale to a number or to fan_in, or inference.name=laplace for a fit"
        )


def check_prior(prior: Any) -> None:
    """Refuse an object that is not a `Prior`.

    Args:
        prior: the object.

    Raises:
        ConfigError: if it is not a `Prior`; the message names its type.
    """
    if isinstance(prior, Prior):
        return
    if prior is Prior:
        raise ConfigError("prior: got the class Prior, expected an instance; write Prior()")
    raise ConfigError(
        f"prior: got an object of type {type(prior).__name__}, expected a bnn_symm.Prior; choose a "
        "family with Prior(name=...), and single parameters with Prior(overrides=...)"
    )


@dataclass(frozen=True)
class Block:
    """Describe a contiguous part of the flat vector with one family.

    Attributes:
        family: its density.
        runs: (scale of all entries or of each, number of entries), in order.
    """

    family: PriorFamily
    runs: tuple[tuple[float | Tensor, int], ...]

    @property
    def size(self) -> int:
        """Return the number of entries."""
        return sum(size for _, size in self.runs)

    def scales(self, like: Tensor) -> Tensor:
        """Return the scale of every entry, (entry,).

        Args:
            like: a tensor with the device and dtype of the result.
        """
        return torch.cat(
            [
                scale.to(like.device, like.dtype)
                if isinstance(scale, Tensor)
                else like.new_full((size,), scale)
                for scale, size in self.runs
            ]
        )


class ParameterPrior:
    """Evaluate the prior density of the flat parameter vector, block by block.

    Args:
        blocks: in the order of the flat vector.
        mean: (parameter,), or None for zero.
    """

    def __init__(self, blocks: tuple[Block, ...], mean: Float[Tensor, " parameter"] | None = None):
        self.blocks = blocks
        self.mean = mean
        self._scales: dict[tuple[torch.dtype, torch.device], list[Tensor]] = {}

    def means(self, like: Tensor) -> Float[Tensor, " parameter"]:
        """Return the mean of every entry.

        Args:
            like: a tensor with the device and dtype of the result.
        """
        if self.mean is None:
            return like.new_zeros(sum(block.size for block in self.blocks))
        return self.mean.to(like.device, like.dtype)

    def standard_deviations(self, like: Tensor) -> Float[Tensor, " parameter"]:
        """Return the standard deviation of every entry.

        Args:
            like: a tensor with the device and dtype of the result.
        """
        return torch.cat(
            [block.scales(like) * block.family.unit_variance**0.5 for block in self.blocks]
        )

    def log_prob(self, flat: Float[Tensor, " parameter"]) -> Float[Tensor, ""]:
        """Return the log prior density in nats, summed in float64.

        Args:
            flat: the network's part of the flat vector.
        """
        total = flat.new_zeros((), dtype=torch.float64)
        for block, scale, value in self._split(self._centered(flat)):
            total = total + block.family.log_prob(value, scale).sum(dtype=torch.float64)
        return total

    def cross_entropy(
        self, loc: Float[Tensor, " parameter"], sd: Float[Tensor, " parameter"]
    ) -> Float[Tensor, " parameter"]:
        """Return -E[log p(w)] under w ~ Normal(loc, sd), per coordinate, in nats.

        Args:
            loc: means.
            sd: standard deviations.

        Returns:
            One value per coordinate, in closed form or by quadrature.
        """
        parts = []
        start = 0
        for block, scale, value in self._split(self._centered(loc)):
            parts.append(block.family.cross_entropy(value, sd[start : start + block.size], scale))
            start += block.size
        return torch.cat(parts)

    def pieces(self, limit: int) -> Iterator[tuple[slice, PriorFamily | Centered, float]]:
        """Yield contiguous parts of the flat vector with one family and one scale, in order.

        With a mean, the family is `Centered` and holds its own scales; the scale beside it is 1.

        Args:
            limit: largest number of entries of a part.

        Yields:
            The slice of the flat vector, its family and its scale.
        """
        start = 0
        for block in self.blocks:
            for scale, size in _joined(block.runs):
                for begin in range(start, start + size, limit):
                    where = slice(begin, min(begin + limit, start + size))
                    if self.mean is None:
                        assert not isinstance(scale, Tensor), (
                            "scales of single entries come with a mean"
                        )
                        yield where, block.family, scale
                    else:
                        scales = (
                            scale[begin - start : where.stop - start]
                            if isinstance(scale, Tensor)
                            else scale
                        )
                        yield where, Centered(block.family, self.mean[where], scales), 1.0
                start += size

    def distribution(self, start: int, shape: torch.Size, like: Tensor) -> PyroDistribution:
        """Return the Pyro distribution of one parameter.

        Args:
            start: its first entry in the flat vector.
            shape: its event shape.
            like: a tensor with the device and dtype of the result.

        Returns:
            The distribution with event shape `shape`.

        Raises:
            IndexError: if no parameter begins at `start`.
        """
        offset = 0
        for block, scale in zip(self.blocks, self._bound(like), strict=True):
            if offset <= start < offset + block.size:
                begin, number = start - offset, shape.numel()
                scale = scale[begin : begin + number].reshape(shape)
                loc = torch.zeros_like(scale)
                if self.mean is not None:
                    loc = self.means(like)[start : start + number].reshape(shape)
                return block.family.distribution(loc, scale).to_event(len(shape))
            offset += block.size
        raise IndexError(f"no parameter begins at entry {start}")

    def _centered(self, flat: Tensor) -> Tensor:
        return flat if self.mean is None else flat - self.means(flat)

    def _split(self, flat: Tensor) -> list[tuple[Block, Tensor, Tensor]]:
        values = flat.split([block.size for block in self.blocks])
        return list(zip(self.blocks, self._bound(flat), values, strict=True))

    def keep_scales(self, like: Tensor) -> None:
        """Cache the scales for flat vectors like this one; others compute them at every call.

        The cache is not filled at first use: that may happen under a transform of `torch.func`,
        whose tensors do not outlive it.

        Args:
            like: a tensor with the device and dtype of later flat vectors.
        """
        with torch.inference_mode(False):  # gradients cannot pass through tensors of that mode
            empty = torch.empty(0, dtype=like.dtype, device=like.device)
            self._scales[like.dtype, like.device] = [block.scales(empty) for block in self.blocks]

    def _bound(self, like: Tensor) -> list[Tensor]:
        kept = self._scales.get((like.dtype, like.device))
        return kept if kept is not None else [block.scales(like) for block in self.blocks]


def _joined(runs: Sequence[tuple[float | Tensor, int]]) -> Iterator[tuple[float | Tensor, int]]:
    """Yield neighboring runs of one scale as one run."""
    for _, same in groupby(
        runs, key=lambda run: id(run[0]) if isinstance(run[0], Tensor) else run[0]
    ):
        together = list(same)
        yield together[0][0], sum(size for _, size in together)
