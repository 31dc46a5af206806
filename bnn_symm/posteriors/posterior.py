"""The one result type: what every inference method returns and every later layer takes.

A posterior is a distribution over the flat vector of one `BayesianModel`. A `GaussianPosterior` has a closed form, a
`SamplePosterior` holds draws; nobody above asks which one it is. Draws are walked in chunks, chain by chain, so that
memory stays bounded whatever their number. Axes are always (chain, draw, point, output).
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from bnn_symm.data import Dataset, Scaling
from bnn_symm.errors import IncompatiblePosteriors
from bnn_symm.models import BayesianModel
from bnn_symm.posteriors.predictive import Predictive
from bnn_symm.symmetry import Permutation

# How many draws `iter_draws` holds at once: at most this many numbers (64 MB in float32).
_NUMBERS_PER_CHUNK = 2**24
# Numbers of outputs a `Predictive` of `iter_predict` may hold (128 MB in float32).
_OUTPUTS_PER_PREDICTIVE = 2**25
# Inputs to one forward pass: hidden layers of convolutions are some 16 times as large as their input.
_INPUTS_PER_FORWARD = 2**18


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

    @abstractmethod
    def permute(self, permutation: Permutation) -> "Posterior":
        """The posterior of the network with its hidden units permuted: the same function, draw by draw.

        Raises:
            NotRepresentable: if the permutation moves what is fixed of the network.
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
                # A copy: a view of these few columns would keep every chunk of draws in memory.
                latents.append(chunk[:, self.model.num_net_parameters :].clone().cpu())
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

    def to_arviz(
        self,
        dataset: Dataset | None = None,
        *,
        part: Literal["train", "validation", "test"] = "test",
        thin: int = 1,
        max_gigabytes: float = 4.0,
        seed: int = 0,
    ) -> Any:
        """An ArviZ InferenceData (ArviZ 0.x) or DataTree (1.x).

        It has `posterior` and `sample_stats`, and with a data set `log_likelihood`, `posterior_predictive` and
        `observed_data` of one of its parts; see `bnn_symm.posteriors.arviz`.

        Raises:
            ConfigError: if the arrays would take more than `max_gigabytes`, or the part has no points.
        """
        from bnn_symm.posteriors.arviz import to_arviz

        return to_arviz(self, dataset, part=part, thin=thin, max_gigabytes=max_gigabytes, seed=seed)


def check_length(model: BayesianModel, length: int) -> None:
    """Raises IncompatiblePosteriors unless a flat vector of this length is the model's."""
    if length != model.num_parameters:
        raise IncompatiblePosteriors(f"the posterior has {length} parameters, the model has {model.num_parameters}")
