r"""Run one step of simulation-based calibration: simulate from the model, fit, and rank.

    theta* ~ prior,   y* ~ likelihood(theta*) at given inputs,   theta_1, ..., theta_L ~ fit(y*)
    rank of f(theta*, y*) among f(theta_1, y*), ..., f(theta_L, y*)

If the fit is the posterior, and its draws are independent, every rank from 0 to L has the same
probability, for every function f. Raw weights of a network with permutable hidden units are poor
choices of f. Their ranks are uniform for a sampler that visits all the copies of a mode equally,
but a sampler that stays in one copy fails, although its functions may be correct. The quantities
are therefore independent of the numbering of units: outputs of the network at a few inputs, the log
likelihood, the log prior, latent variables of the likelihood and the squared norm of every layer.
Raw weights are added only if nothing can be permuted, or on request. The log likelihood depends on
the data too; without it a fit that ignores the data, and returns the prior, would pass (Modrák et
al.).

Draws of a sampler are not independent: for each quantity the number of ranked draws is its bulk
ESS, evenly spaced, up to a given maximum. L therefore differs between ranks, and the randomized
rank (rank + U) / (L + 1) is used, with U uniform and keyed, which is uniform on (0, 1) for any L.
For a closed form it is P_q(theta < theta*) of Yao et al., from L independent draws of q.

References:
    Talts et al. 2018, arXiv:1804.06788; Modrák et al. 2023, arXiv:2211.02383; Yao et al. 2018,
    arXiv:1802.02538.
"""

import dataclasses
import warnings
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from bnn_symm.advice import advise
from bnn_symm.alignment.samples import prior_draws
from bnn_symm.data import Dataset, Split
from bnn_symm.diagnostics.mixing.chain_statistics import MIN_DRAWS, chain_statistics
from bnn_symm.diagnostics.mixing.function_values import to_float64
from bnn_symm.diagnostics.mixing.parameter_index import layer_name
from bnn_symm.errors import BnnSymmError, ConfigError, InvalidData, SymmetryError
from bnn_symm.inference.method import ConvergenceWarning
from bnn_symm.models import BayesianModel
from bnn_symm.models.likelihoods import (
    canonical_outputs,
    condition,
    has_events,
    is_count,
    target_distribution,
)
from bnn_symm.posteriors import Posterior, SamplePosterior
from bnn_symm.randomness import global_seed, key_seed, numpy_generator
from bnn_symm.summaries import Result
from bnn_symm.symmetry import symmetry_group

# Raw weights are ranked by default in models with at most this number of parameters: each is one
# more quantity to correct for.
_MOST_WEIGHTS = 30
# Number of inputs at which outputs are ranked by default.
_INPUTS = 3


@runtime_checkable
class SupportsFit(Protocol):
    """Anything that fits a posterior of a model to data: an inference method, or a custom sampler.

    Subclassing is not needed.
    """

    def fit(self, model: BayesianModel, dataset: Dataset, *, seed: int) -> Posterior:
        """Return the posterior given the training split."""
        ...


@dataclass(frozen=True, kw_only=True, eq=False)
class Quantities:
    """The quantities that are ranked.

    Attributes:
        inputs: Inputs of the ranked outputs of the network.
        weights: Whether raw weights are ranked.
    """

    inputs: Float[Tensor, "point *feature"]
    weights: bool

    @classmethod
    def choose(
        cls, model: BayesianModel, dataset: Dataset, *, weights: bool | None = None
    ) -> "Quantities":
        """Choose outputs at three training inputs, and raw weights without symmetries.

        Args:
            model: Model with the weights.
            dataset: Dataset with the inputs.
            weights: Whether to rank raw weights; None for small networks without symmetries.

        Returns:
            The quantities.
        """
        if weights is None:
            weights = model.num_net_parameters <= _MOST_WEIGHTS and _is_rigid(
                model, dataset.input_shape
            )
        return cls(inputs=dataset.train.x[:_INPUTS], weights=weights)

    def names(self, model: BayesianModel) -> tuple[str, ...]:
        """Return names of the quantities, in the order of the values."""
        with torch.inference_mode():
            one = model.inputs(self.inputs[:1])
            outputs = model.outputs(model.initial(), one).shape[-1]
        names = [
            f"output {output} at input {point}" if outputs > 1 else f"output at input {point}"
            for point in range(len(self.inputs))
            for output in range(outputs)
        ]
        names += ["log likelihood", "log prior", *model.likelihood.latents]
        names += [f"squared norm of {layer}" for layer in _layers(model)]
        if self.weights:
            for name in _net_slices(model):
                shape = model.shapes[name]
                names += [f"{name}{list(index)}" if shape else name for index in np.ndindex(*shape)]
        return tuple(names)

    def values(
        self, model: BayesianModel, draws: Float[Tensor, "draw parameter"], part: Split
    ) -> Float[np.ndarray, "draw quantity"]:
        """Return the quantities at every draw, in float64.

        Args:
            model: Model in float64.
            draws: Flat parameter vectors.
            part: Data of the log likelihood.

        Returns:
            One column per quantity.
        """
        inputs = model.inputs(self.inputs)
        rows = []
        with torch.inference_mode():
            for flat in draws.double():
                outputs = canonical_outputs(model.likelihood, model.outputs(flat, inputs))
                totals = [model.log_likelihood(flat, part.x, part.y).sum(), model.log_prior(flat)]
                squares = [
                    torch.cat([flat[where] for where in own]).square().sum()
                    for own in _layers(model).values()
                ]
                parts = [
                    outputs.flatten(),
                    torch.stack(totals),
                    flat[model.num_net_parameters :],
                    torch.stack(squares),
                ]
                if self.weights:
                    parts.append(flat[: model.num_net_parameters])
                rows.append(torch.cat(parts).cpu())
        return torch.stack(rows).numpy()


def _net_slices(model: BayesianModel) -> dict[str, slice]:
    """Return parameter of the network -> its slice of the flat vector."""
    return {
        name: where
        for name, where in model.slices().items()
        if where.start < model.num_net_parameters
    }


def _layers(model: BayesianModel) -> dict[str, list[slice]]:
    """Return layer -> slices of its parameters in the flat vector."""
    layers: dict[str, list[slice]] = {}
    for name, where in _net_slices(model).items():
        layers.setdefault(layer_name(name), []).append(where)
    return layers


def _is_rigid(model: BayesianModel, input_shape: tuple[int, ...]) -> bool:
    """Return whether it is proved that no hidden units can be permuted."""
    try:
        return symmetry_group(model.net, input_shape=input_shape).is_trivial
    except SymmetryError:
        return False


def simulate(
    model: BayesianModel, part: Split, seed: int
) -> tuple[Float[Tensor, " parameter"], Shaped[Tensor, " point"]]:
    """Draw parameters from the prior, and targets from the likelihood at the inputs of a part.

    Args:
        model: The model.
        part: Provides the inputs; its targets are not used.
        seed: Seed of parameters and targets.

    Returns:
        The flat vector, and targets in the units of training.

    Raises:
        InvalidData: If targets overflow, as counts do under a wide prior.
    """
    theta = prior_draws(model, 1, 1, seed=seed).draws()[0]
    return theta, simulate_targets(model, theta, part, key_seed(seed, "simulated targets"))


def simulate_targets(
    model: BayesianModel, theta: Float[Tensor, " parameter"], part: Split, seed: int
) -> Shaped[Tensor, " point"]:
    """Draw targets from the likelihood at the inputs of a part.

    Args:
        model: The model.
        theta: Flat parameter vector.
        part: Provides the inputs.
        seed: Seed of the targets.

    Returns:
        Targets in the units of training.

    Raises:
        InvalidData: If they overflow.
    """
    too_wide = "targets simulated from the model overflow: the prior is too wide; lower prior.scale"
    theta = theta.to(model.device)
    with torch.inference_mode(), global_seed(seed, "targets"):
        outputs = model.outputs(theta, model.inputs(part.x))
        try:
            y = _sampled(model, outputs, model.latents(theta), part)
            density = model.likelihood.log_prob(outputs, y, model.latents(theta))
        except (ValueError, RuntimeError):  # infinite rates, or probabilities that are NaN
            raise InvalidData(too_wide) from None
    # Counts of an enormous rate overflow to arbitrary values, including negative ones.
    if not (torch.isfinite(y).all() and torch.isfinite(density).all()) or _is_negative_count(
        model, y
    ):
        raise InvalidData(too_wide)
    return y.clone()  # outside of inference mode


def _sampled(model: BayesianModel, outputs: Tensor, latents: Any, part: Split) -> Tensor:
    """Return targets with the exposures of a part, or times of events, none of them censored."""
    likelihood, columns = model.likelihood, part.y.to(outputs.device)
    if has_events(likelihood):
        columns = torch.ones_like(columns)
    given = None if condition(likelihood) is None else columns
    distribution, _ = target_distribution(likelihood, outputs, latents, given)
    y = distribution.sample().to(part.y.dtype)
    return y if given is None else torch.stack([y, columns[:, 1]], dim=1)


def _is_negative_count(model: BayesianModel, y: Tensor) -> bool:
    return is_count(model.likelihood) and bool((y < 0).any())


@dataclass(frozen=True, kw_only=True)
class SimulatedFit(Result):
    """The ranks of one simulation, as plain data.

    Attributes:
        index: Index of the simulation.
        failure: Why there are no ranks; None if there are.
        ranks: Rank of each quantity, from 0 to its number of draws: the number of draws below the
            truth, ties at random.
        num_draws: L of each quantity.
        values: (rank + U) / (L + 1) of each quantity.
        truth: Each quantity at the parameters of the simulation.
        diverging: Number of divergent draws; None if the method does not record it.
        closed_form: Whether the posterior has a closed form, so that its draws are independent.
    """

    index: int
    failure: str | None = None
    ranks: tuple[int, ...] = ()
    num_draws: tuple[int, ...] = ()
    values: tuple[float, ...] = ()
    truth: tuple[float, ...] = ()
    diverging: int | None = None
    closed_form: bool = False

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> "SimulatedFit":
        """Return the simulation from the result of `to_dict`."""
        own: dict[str, Any] = {
            n: tuple(value) if isinstance(value, list) else value for n, value in content.items()
        }
        return cls(**own)


@dataclass(frozen=True, kw_only=True, eq=False)
class FitSimulation:
    """The task of one simulation, called by its index; (seed, index) determine everything random.

    Attributes:
        method: Method that is checked.
        model: Model with its prior and likelihood, from which the truth is drawn.
        dataset: Provides the inputs; the targets of training and validation split are replaced by
            simulated ones.
        quantities: Quantities that are ranked.
        num_draws: Maximum number of draws of a rank.
        seed: Seed of all simulations.
        initial: Posterior from which every fit starts, or None.
    """

    method: SupportsFit
    model: BayesianModel
    dataset: Dataset
    quantities: Quantities
    num_draws: int
    seed: int
    initial: Posterior | None = None

    def __call__(self, index: int) -> SimulatedFit:
        """Simulate, fit and rank; a failed fit is a result with its reason."""
        options = {} if self.initial is None else {"initial": self.initial}
        try:
            theta, dataset = self._data(index)
            seed = key_seed(self.seed, "fit of simulation", index)
            with warnings.catch_warnings():
                # One fit of hundreds; ranks show the effect of poor convergence.
                warnings.simplefilter("ignore", ConvergenceWarning)
                posterior = self.method.fit(self.model, dataset, seed=seed, **options)
            return self._ranks(index, theta, dataset.train, posterior)
        except ConfigError:
            raise  # identical in every simulation
        except BnnSymmError as error:
            return SimulatedFit(index=index, failure=" ".join(str(error).split()))

    def _data(self, index: int) -> tuple[Tensor, Dataset]:
        seed = key_seed(self.seed, "simulation", index)
        theta, y = simulate(self.model, self.dataset.train, seed)
        validation = self.dataset.validation
        if len(validation):
            y_val = simulate_targets(
                self.model, theta, validation, key_seed(seed, "validation part")
            )
            validation = dataclasses.replace(validation, y=y_val)
        train = dataclasses.replace(self.dataset.train, y=y)
        return theta, dataclasses.replace(self.dataset, train=train, validation=validation)

    def _ranks(self, index: int, theta: Tensor, train: Split, posterior: Posterior) -> SimulatedFit:
        closed = not isinstance(posterior, SamplePosterior)
        chains, draws, _ = posterior.shape
        if not closed and chains * draws == 1:
            raise ConfigError(
                "the method returns a single draw, so ranks are not defined; use a sampler or "
                f"variational inference: "
                f"{advise('--set inference.name=nuts', 'NUTS or MeanFieldVI')}"
            )
        double = to_float64(self.model)
        part = train.to(double.device, torch.float64)
        (truth,) = self.quantities.values(double, theta[None], part)
        selected = (
            posterior.draws(self.num_draws, seed=key_seed(self.seed, "ranked draws", index))
            if closed
            else None
        )
        draws_used = posterior.draws() if selected is None else selected
        evaluated = posterior.evaluation_model(double)
        values = self.quantities.values(evaluated, draws_used, part)
        if not np.isfinite(values).all():
            return SimulatedFit(
                index=index, failure="draws of the posterior, or functions of them, are not finite"
            )
        numbers = np.full(len(truth), len(values))
        # Draws of shorter chains, such as ensembles, are considered independent.
        if not closed and draws >= MIN_DRAWS:
            statistics = chain_statistics(values.reshape(chains, draws, -1))
            numbers = np.clip(np.floor(statistics.ess_bulk), 1, len(values)).astype(int)
        numbers = np.minimum(numbers, self.num_draws)
        generator = numpy_generator(self.seed, "ties and fractions of ranks", index)
        ranks = []
        for column, (number, true_value) in enumerate(zip(numbers, truth, strict=True)):
            # At the centers of `number` intervals of equal length.
            place = ((np.arange(number) + 0.5) * len(values) / number).astype(int)
            column_values = values[place, column]
            ties = int((column_values == true_value).sum())
            below = int((column_values < true_value).sum())
            ranks.append(below + int(generator.integers(ties + 1)))
        fractions = (np.array(ranks) + generator.random(len(ranks))) / (numbers + 1)
        stats = {} if closed else posterior.sample_stats  # type: ignore[union-attr]
        return SimulatedFit(
            index=index,
            ranks=tuple(ranks),
            num_draws=tuple(int(number) for number in numbers),
            values=tuple(float(value) for value in fractions),
            truth=tuple(float(value) for value in truth),
            diverging=int(stats["diverging"].sum()) if "diverging" in stats else None,
            closed_form=closed,
        )
