"""The one result type: what every inference method returns and every later layer takes.

A posterior is a distribution over the flat vector of one `BayesianModel`. A `GaussianPosterior` has a closed form, a
`SamplePosterior` holds draws; nobody above asks which one it is. Draws are walked in chunks, chain by chain, so that
memory stays bounded whatever their number. Axes are always (chain, draw, point, output).
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from bnn_symm.data import Scaling
from bnn_symm.errors import ConfigError, IncompatiblePosteriors
from bnn_symm.models import BayesianModel
from bnn_symm.posteriors.predictive import Predictive
from bnn_symm.randomness import numpy_generator, torch_generator

# How many draws `iter_draws` holds at once: at most this many numbers (64 MB in float32).
_NUMBERS_PER_CHUNK = 2**24
# Numbers of outputs a `Predictive` of `iter_predict` may hold (128 MB in float32).
_OUTPUTS_PER_PREDICTIVE = 2**25
# Inputs to one forward pass: hidden layers of convolutions are some 16 times as large as their input.
_INPUTS_PER_FORWARD = 2**18


@runtime_checkable
class Positions(Protocol):
    """Where the draws of a `SamplePosterior` lie: in memory or in a file."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(chain, draw, parameter)."""
        ...

    def read(self, chain: int, start: int, stop: int) -> Float[Tensor, "draw parameter"]:
        """Draws [start, stop) of one chain."""
        ...


class ArrayPositions:
    """Draws in memory, (chain, draw, parameter)."""

    def __init__(self, draws: Float[Tensor, "chain draw parameter"]):
        self._draws = draws

    @property
    def shape(self) -> tuple[int, int, int]:
        """(chain, draw, parameter)."""
        chains, draws, parameters = self._draws.shape
        return chains, draws, parameters

    def read(self, chain: int, start: int, stop: int) -> Float[Tensor, "draw parameter"]:
        """A view."""
        return self._draws[chain, start:stop]


class Posterior(ABC):
    """A distribution over the flat vector of a model.

    Attributes:
        model: the model whose flat vector it is about.
        scaling: how targets were standardised; predictions are in the target's own units.
        info: how it was made: method, settings, seed, seconds, gradient_evaluations, status, versions.
        history: one row a logged step.
    """

    kind: str

    def __init__(
        self,
        model: BayesianModel,
        scaling: Scaling,
        *,
        info: Mapping[str, Any] | None = None,
        history: Sequence[Mapping[str, Any]] = (),
    ):
        self.model = model
        self.scaling = scaling
        self.info = dict(info or {})
        self.history = list(history)

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int, int]:
        """(chain, draw, parameter) of what `iter_draws` walks."""

    @abstractmethod
    def _read(self, chain: int, start: int, stop: int) -> Float[Tensor, "draw parameter"]:
        """Draws [start, stop) of one chain, on any device."""

    @abstractmethod
    def mean(self) -> Float[Tensor, " parameter"]:
        """The posterior mean of the flat vector."""

    @abstractmethod
    def standard_deviation(self) -> Float[Tensor, " parameter"]:
        """The marginal posterior standard deviations of the flat vector."""

    @abstractmethod
    def draws(self, num_samples: int | None = None, *, seed: int = 0) -> Float[Tensor, "draw parameter"]:
        """`num_samples` draws (all of them for None), the same for the same seed.

        Raises:
            ConfigError: if a `SamplePosterior` holds fewer.
        """

    def iter_draws(self, chunk: int | None = None) -> Iterator[Float[Tensor, "draw parameter"]]:
        """All draws, chain by chain, at most `chunk` of them at a time."""
        chains, draws, parameters = self.shape
        chunk = chunk or max(1, _NUMBERS_PER_CHUNK // parameters)
        for chain in range(chains):
            for start in range(0, draws, chunk):
                yield self._read(chain, start, min(draws, start + chunk)).to(self.model.device)

    def predict(self, x: Float[Tensor, "point *feature"]) -> Predictive:
        """The predictive distribution at standardised inputs, holding (chain, draw, point, output).

        For many points use `iter_predict`, which bounds the memory.
        """
        chains, draws, _ = self.shape
        x = x.to(device=self.model.device, dtype=self.model.dtype)
        outputs, latents = [], []
        step = max(1, _INPUTS_PER_FORWARD // max(1, x[:1].numel()))
        with torch.inference_mode():
            for chunk in self.iter_draws():
                for flat in chunk:
                    parts = [self.model.outputs(flat, part) for part in x.split(step)]
                    outputs.append(torch.cat(parts).cpu())
                latents.append(chunk[:, self.model.num_net_parameters :].cpu())
            stacked = torch.stack(outputs)
            del outputs
            names = self.model.likelihood.latents
            latent = torch.cat(latents).unflatten(0, (chains, draws))
        return Predictive(
            outputs=stacked.unflatten(0, (chains, draws)),
            latents={name: latent[..., i] for i, name in enumerate(names)},
            likelihood=self.model.likelihood,
            location=self.scaling.y_mean,
            scale=self.scaling.y_scale,
        )

    def iter_predict(self, x: Float[Tensor, "point *feature"]) -> Iterator[Predictive]:
        """`predict` for consecutive slices of the points, small enough that memory stays bounded."""
        chains, draws, _ = self.shape
        with torch.inference_mode():
            width = self.model.outputs(
                self._read(0, 0, 1)[0].to(self.model.device), x[:1].to(self.model.device, self.model.dtype)
            ).shape[-1]
        for part in x.split(max(1, _OUTPUTS_PER_PREDICTIVE // (chains * draws * width))):
            yield self.predict(part)

    def save(self, path: str | Path, *, max_megabytes: float = 200.0) -> None:
        """Writes a NetCDF file that `arviz.from_netcdf` opens; see `bnn_symm.posteriors.storage`."""
        from bnn_symm.posteriors.storage import save_posterior

        save_posterior(self, Path(path), max_megabytes=max_megabytes)

    def to_arviz(self) -> Any:
        """An ArviZ InferenceData (ArviZ 0.x) or DataTree (1.x) with `posterior` and `sample_stats`."""
        from bnn_symm.posteriors.arviz import to_arviz

        return to_arviz(self)


class GaussianPosterior(Posterior):
    """Independent normals over the flat vector: the result of mean-field variational inference.

    Args:
        model: the model.
        scaling: of the targets.
        loc: means, (parameter,).
        scale: standard deviations, (parameter,).
        num_draws: how many draws stand for it in predictions, as one chain. They are regenerated from `seed`.
        seed: of these draws.
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
        info: Mapping[str, Any] | None = None,
        history: Sequence[Mapping[str, Any]] = (),
    ):
        super().__init__(model, scaling, info=info, history=history)
        _check_length(model, loc.shape[-1])
        if not bool((scale > 0).all()):
            raise IncompatiblePosteriors("the scales of a Gaussian posterior must be positive")
        self.loc = loc
        self.scale = scale
        self.num_draws = num_draws
        self.seed = seed

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
        return self.loc + self.scale * noise.to(self.loc.device)

    def mean(self) -> Float[Tensor, " parameter"]:
        """`loc`."""
        return self.loc

    def standard_deviation(self) -> Float[Tensor, " parameter"]:
        """`scale`."""
        return self.scale

    def draws(self, num_samples: int | None = None, *, seed: int = 0) -> Float[Tensor, "draw parameter"]:
        """Fresh draws, each from its own key (seed, index): more samples begin with the same ones."""
        return self._keyed(seed, 0, num_samples or self.num_draws)

    def entropy(self) -> float:
        """In nats."""
        return float((self.scale.double().log() + 0.5 * math.log(2 * math.pi * math.e)).sum())


class SamplePosterior(Posterior):
    """Draws of the flat vector, (chain, draw, parameter): HMC, NUTS, ensembles, a MAP point, or chains of others.

    Args:
        model: the model.
        scaling: of the targets.
        positions: where the draws lie.
        sample_stats: name -> (chain, draw), what the sampler says of each draw.
        info: how it was made.
        history: one row a logged step.
    """

    kind = "samples"

    def __init__(
        self,
        model: BayesianModel,
        scaling: Scaling,
        *,
        positions: Positions,
        sample_stats: Mapping[str, np.ndarray] | None = None,
        info: Mapping[str, Any] | None = None,
        history: Sequence[Mapping[str, Any]] = (),
    ):
        super().__init__(model, scaling, info=info, history=history)
        _check_length(model, positions.shape[-1])
        if 0 in positions.shape[:2]:
            raise IncompatiblePosteriors(f"no draws: chains x draws is {positions.shape[:2]}")
        self._positions = positions
        self.sample_stats = dict(sample_stats or {})

    @classmethod
    def from_draws(
        cls,
        model: BayesianModel,
        draws: Float[Tensor, "chain draw parameter"] | Mapping[str, Tensor],
        scaling: Scaling | None = None,
        *,
        sample_stats: Mapping[str, np.ndarray] | None = None,
        info: Mapping[str, Any] | None = None,
        history: Sequence[Mapping[str, Any]] = (),
    ) -> "SamplePosterior":
        """A posterior from draws made elsewhere: a flat tensor, or name -> (chain, draw, *shape).

        Raises:
            IncompatiblePosteriors: if a name is missing or unknown, or a shape does not fit the model.
        """
        if isinstance(draws, Mapping):
            check_shapes({name: tuple(value.shape[2:]) for name, value in draws.items()}, model)
            leading = {name: tuple(value.shape[:2]) for name, value in draws.items()}
            if len(set(leading.values())) > 1:
                raise IncompatiblePosteriors(f"(chain, draw) differ from name to name: {leading}")
            draws = model.flatten(draws)
        draws = draws.to(model.dtype)
        return cls(
            model,
            scaling or Scaling.identity((1,)),
            positions=ArrayPositions(draws),
            sample_stats=sample_stats,
            info=info,
            history=history,
        )

    @classmethod
    def from_state_dicts(
        cls,
        model: BayesianModel,
        states: Sequence[Mapping[str, Tensor] | nn.Module],
        scaling: Scaling | None = None,
    ) -> "SamplePosterior":
        """An ensemble from ordinary checkpoints, one chain of one draw each.

        Raises:
            IncompatiblePosteriors: if names or shapes do not fit the model's network, or the likelihood has
                latent variables, which no checkpoint of a network holds.
        """
        maps = [dict(state.named_parameters()) if isinstance(state, nn.Module) else state for state in states]
        for values in maps:
            check_shapes({name: tuple(value.shape) for name, value in values.items()}, model)
        stacked = {name: torch.stack([m[name].detach() for m in maps])[:, None] for name in maps[0]}
        return cls.from_draws(model, stacked, scaling)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(chain, draw, parameter)."""
        return self._positions.shape

    def _read(self, chain: int, start: int, stop: int) -> Float[Tensor, "draw parameter"]:
        return self._positions.read(chain, start, stop)

    def mean(self) -> Float[Tensor, " parameter"]:
        """Mean over chains and draws, accumulated in float64."""
        return self._moments()[0].to(self.model.dtype)

    def standard_deviation(self) -> Float[Tensor, " parameter"]:
        """Over chains and draws pooled; zero for a single draw."""
        return self._moments()[1].to(self.model.dtype)

    def _moments(self) -> tuple[Tensor, Tensor]:
        chains, draws, parameters = self.shape
        mean = torch.zeros(parameters, dtype=torch.float64)
        for chunk in self.iter_draws():
            mean += chunk.double().sum(0).cpu() / (chains * draws)
        square = torch.zeros_like(mean)
        for chunk in self.iter_draws():
            square += (chunk.double().cpu() - mean).square().sum(0)
        return mean, (square / max(1, chains * draws - 1)).sqrt()

    def draws(self, num_samples: int | None = None, *, seed: int = 0) -> Float[Tensor, "draw parameter"]:
        """A random subset without replacement, in random order; all draws in their order for None."""
        chains, draws, _ = self.shape
        if num_samples is None:
            return torch.cat(list(self.iter_draws()))
        if num_samples > chains * draws:
            raise ConfigError(
                f"{num_samples} draws were asked for, the posterior holds {chains * draws}; ask for at most that"
            )
        chosen = numpy_generator(seed, "subset of draws").choice(chains * draws, num_samples, replace=False)
        return torch.cat([self._read(int(i) // draws, int(i) % draws, int(i) % draws + 1) for i in chosen]).to(
            self.model.device
        )


def check_shapes(got: Mapping[str, tuple[int, ...]], model: BayesianModel) -> None:
    """Raises IncompatiblePosteriors, naming what does not fit, unless names and shapes are the model's."""
    wanted = {name: tuple(shape) for name, shape in model.shapes.items()}
    problems = [f"{name} is missing" for name in wanted if name not in got]
    problems += [f"{name} is unknown" for name in got if name not in wanted]
    problems += [
        f"{name} has shape {got[name]}, wanted {wanted[name]}"
        for name in wanted
        if name in got and got[name] != wanted[name]
    ]
    if problems:
        raise IncompatiblePosteriors("the draws do not fit the network: " + "; ".join(problems[:5]))


def _check_length(model: BayesianModel, length: int) -> None:
    if length != model.num_parameters:
        raise IncompatiblePosteriors(f"the posterior has {length} parameters, the model has {model.num_parameters}")
