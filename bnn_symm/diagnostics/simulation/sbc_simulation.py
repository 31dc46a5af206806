r"""One step of simulation-based calibration: draw parameters and targets from the model, fit, and
rank.

    theta* ~ prior,   y* ~ likelihood(theta*) at given inputs,   theta_1, ..., theta_L ~ fit(y*)
    rank of f(theta*, y*) among f(theta_1, y*), ..., f(theta_L, y*)

If the fit is the posterior, and its draws are independent, every rank from 0 to L has the same
probability, for every function f. Which functions: raw weights of a network whose hidden units can
be permuted are no good ones. Their ranks are uniform for a sampler that visits all the copies of a
mode alike, but one that stays in one of them fails, though its functions may be right. So the
quantities are what does not know how units are numbered: outputs of the network at a few inputs,
the log likelihood, the log prior, latent variables of the likelihood and the squared norm of every
layer; and raw weights only where nothing can be permuted, or when they are asked for. The log
likelihood depends on the data too, without which a fit that never looked at them, and returned the
prior, would pass (Modrák et al.).

Draws of a sampler are not independent: of each quantity as many are ranked as its bulk ESS says,
    evenly spaced, and at
most a given number. So L differs from rank to rank, and what is compared is the randomized rank
(rank + U) / (L + 1) with U uniform and keyed, which is uniform on (0, 1) whatever L is. For a
closed form it is P_q(theta < theta*) of Yao et al., from L independent draws of q.

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

from bnn_symm.alignment.samples import prior_draws
from bnn_symm.data import Dataset, Split
from bnn_symm.diagnostics.mixing.chain_statistics import MIN_DRAWS, chain_statistics
from bnn_symm.diagnostics.mixing.function_values import to_float64
from bnn_symm.diagnostics.mixing.parameter_index import layer_name
from bnn_symm.errors import BnnSymmError, ConfigError, InvalidData, SymmetryError
from bnn_symm.inference.method import ConvergenceWarning
from bnn_symm.models import BayesianModel, Categorical
from bnn_symm.posteriors import Posterior, SamplePosterior
from bnn_symm.randomness import global_seed, key_seed, numpy_generator
from bnn_symm.symmetry import symmetry_group

# Raw weights are ranked by default in models with at most so many parameters: each is one more
# quantity to correct for.
_MOST_WEIGHTS = 30
# Inputs at which outputs are ranked by default.
_INPUTS = 3


@runtime_checkable
class Fits(Protocol):
    """Whatever makes a posterior of a model and data: an inference method, or a sampler of your
    own.
    """

    def fit(self, model: BayesianModel, dataset: Dataset, *, seed: int) -> Posterior:
        """The posterior given the training part."""
        ...


@dataclass(frozen=True, kw_only=True, eq=False)
class Quantities:
    """Which numbers are ranked.

    Attributes:
        inputs: where outputs of the network are.
        weights: whether raw weights are among them.
    """

    inputs: Float[Tensor, "point *feature"]
    weights: bool

    @classmethod
    def choose(
        cls, model: BayesianModel, dataset: Dataset, *, weights: bool | None = None
    ) -> "Quantities":
        """Outputs at the first three training inputs; raw weights of a small network without
        symmetries.

        Args:
            model: whose weights.
            dataset: whose inputs.
            weights: whether to rank raw weights; None for the default.
        """
        if weights is None:
            weights = model.num_net_parameters <= _MOST_WEIGHTS and _is_rigid(
                model, dataset.input_shape
            )
        return cls(inputs=dataset.train.x[:_INPUTS], weights=weights)

    def names(self, model: BayesianModel) -> tuple[str, ...]:
        """In words, in the order of the values."""
        with torch.inference_mode():
            one = self.inputs[:1].to(model.device, model.dtype)
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
        """At every draw, in float64.

        Args:
            model: in float64.
            draws: of its flat vector.
            part: the data of the log likelihood.
        """
        inputs = self.inputs.to(model.device, torch.float64)
        rows = []
        with torch.inference_mode():
            for flat in draws.double():
                outputs = model.outputs(flat, inputs)
                if isinstance(model.likelihood, Categorical):
                    outputs = outputs - outputs.mean(
                        -1, keepdim=True
                    )  # all that the probabilities determine
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
    """Parameter of the network -> where it lies in the flat vector."""
    return {
        name: where
        for name, where in model.slices().items()
        if where.start < model.num_net_parameters
    }


def _layers(model: BayesianModel) -> dict[str, list[slice]]:
    """Layer -> where its parameters lie in the flat vector."""
    layers: dict[str, list[slice]] = {}
    for name, where in _net_slices(model).items():
        layers.setdefault(layer_name(name), []).append(where)
    return layers


def _is_rigid(model: BayesianModel, input_shape: tuple[int, ...]) -> bool:
    """Whether it is known that no hidden units can be permuted."""
    try:
        return symmetry_group(model.net, input_shape=input_shape).is_trivial
    except SymmetryError:
        return False


def simulate(
    model: BayesianModel, part: Split, seed: int
) -> tuple[Float[Tensor, " parameter"], Shaped[Tensor, " point"]]:
    """Parameters from the prior, and targets from the likelihood at the inputs of a part.

    Args:
        model: the model.
        part: whose inputs; its targets are not looked at.
        seed: the same for the same.

    Returns:
        The flat vector, and targets in the units of training.

    Raises:
        InvalidData: if targets overflow, as counts do under a wide prior.
    """
    theta = prior_draws(model, 1, 1, seed=seed).draws()[0]
    return theta, simulate_targets(model, theta, part, key_seed(seed, "simulated targets"))


def simulate_targets(
    model: BayesianModel, theta: Float[Tensor, " parameter"], part: Split, seed: int
) -> Shaped[Tensor, " point"]:
    """Targets from the likelihood at the inputs of a part.

    Raises:
        InvalidData: if they overflow.
    """
    too_wide = "targets simulated from the model overflow: the prior is too wide; lower prior.scale"
    theta = theta.to(model.device)
    with torch.inference_mode(), global_seed(seed, "targets"):
        outputs = model.outputs(theta, part.x.to(model.device, model.dtype))
        try:
            y = (
                model.likelihood.distribution(outputs, model.latents(theta))
                .sample()
                .to(part.y.dtype)
            )
            density = model.likelihood.log_prob(outputs, y, model.latents(theta))
        except (
            ValueError,
            RuntimeError,
        ):  # of infinite rates, or of probabilities that are not numbers
            raise InvalidData(too_wide) from None
    # Counts of an enormous rate come out as whatever they overflow to, also negative.
    if not (torch.isfinite(y).all() and torch.isfinite(density).all()) or _is_negative_count(
        model, y
    ):
        raise InvalidData(too_wide)
    return y.clone()  # out of inference mode


def _is_negative_count(model: BayesianModel, y: Tensor) -> bool:
    return model.likelihood.task == "count" and bool((y < 0).any())


@dataclass(frozen=True, kw_only=True)
class SimulatedFit:
    """The ranks of one simulation, as plain data.

    Attributes:
        index: which simulation.
        failure: why there are no ranks; None if there are.
        ranks: of each quantity, from 0 to its number of draws: how many of them are below the
            truth, ties at random.
        num_draws: L of each quantity.
        values: (rank + U) / (L + 1) of each quantity.
        truth: each quantity at the parameters that the data were simulated from.
        diverging: draws that diverged; None where the method does not say.
        closed_form: whether the posterior has one, so that its draws are independent.
    """

    index: int
    failure: str | None = None
    ranks: tuple[int, ...] = ()
    num_draws: tuple[int, ...] = ()
    values: tuple[float, ...] = ()
    truth: tuple[float, ...] = ()
    diverging: int | None = None
    closed_form: bool = False

    def to_dict(self) -> dict[str, Any]:
        """As JSON types."""
        own = dataclasses.asdict(self)
        return {
            name: list(value) if isinstance(value, tuple) else value for name, value in own.items()
        }

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> "SimulatedFit":
        """The inverse of `to_dict`."""
        own: dict[str, Any] = {
            n: tuple(value) if isinstance(value, list) else value for n, value in content.items()
        }
        return cls(**own)


@dataclass(frozen=True, kw_only=True, eq=False)
class FitSimulation:
    """The work of one simulation, by its number: everything random follows from (seed, number).

    Attributes:
        method: what is checked.
        model: with its prior and likelihood, from which the truth is drawn.
        dataset: whose inputs; the targets of training and validation part are replaced by simulated
            ones.
        quantities: which are ranked.
        num_draws: ranked, at most.
        seed: of all simulations.
        initial: posterior that every fit starts from, or None.
    """

    method: Fits
    model: BayesianModel
    dataset: Dataset
    quantities: Quantities
    num_draws: int
    seed: int
    initial: Posterior | None = None

    def __call__(self, index: int) -> SimulatedFit:
        """Simulates, fits and ranks; a fit that fails on purpose is a result too."""
        options = {} if self.initial is None else {"initial": self.initial}
        try:
            theta, dataset = self._data(index)
            seed = key_seed(self.seed, "fit of simulation", index)
            with (
                warnings.catch_warnings()
            ):  # one fit of hundreds; ranks show what they do to the check
                warnings.simplefilter("ignore", ConvergenceWarning)
                posterior = self.method.fit(self.model, dataset, seed=seed, **options)
            return self._ranks(index, theta, dataset.train, posterior)
        except ConfigError:
            raise  # the same in every simulation
        except BnnSymmError as error:
            return SimulatedFit(index=index, failure=" ".join(str(error).split()))

    def _data(self, index: int) -> tuple[Tensor, Dataset]:
        seed = key_seed(self.seed, "simulation", index)
        theta, y = simulate(self.model, self.dataset.train, seed)
        validation = self.dataset.validation
        if len(validation):
            own = simulate_targets(self.model, theta, validation, key_seed(seed, "validation part"))
            validation = dataclasses.replace(validation, y=own)
        train = dataclasses.replace(self.dataset.train, y=y)
        return theta, dataclasses.replace(self.dataset, train=train, validation=validation)

    def _ranks(self, index: int, theta: Tensor, train: Split, posterior: Posterior) -> SimulatedFit:
        closed = not isinstance(posterior, SamplePosterior)
        chains, draws, _ = posterior.shape
        if not closed and chains * draws == 1:
            raise ConfigError(
                "the method returns a single draw, among which nothing can be ranked; use a "
                "sampler or variational inference: --set inference.name=nuts"
            )
        double = to_float64(self.model)
        part = train.to(double.device, torch.float64)
        (truth,) = self.quantities.values(double, theta[None], part)
        taken = (
            posterior.draws(self.num_draws, seed=key_seed(self.seed, "ranked draws", index))
            if closed
            else None
        )
        values = self.quantities.values(double, posterior.draws() if taken is None else taken, part)
        if not np.isfinite(values).all():
            return SimulatedFit(
                index=index, failure="draws of the posterior, or functions of them, are not finite"
            )
        numbers = np.full(len(truth), len(values))
        if (
            not closed and draws >= MIN_DRAWS
        ):  # of shorter chains, as of ensembles, draws count as independent
            statistics = chain_statistics(values.reshape(chains, draws, -1))
            numbers = np.clip(np.floor(statistics.ess_bulk), 1, len(values)).astype(int)
        numbers = np.minimum(numbers, self.num_draws)
        generator = numpy_generator(self.seed, "ties and fractions of ranks", index)
        ranks = []
        for column, (number, own) in enumerate(zip(numbers, truth, strict=True)):
            # In the middle of `number` stretches of equal length.
            place = ((np.arange(number) + 0.5) * len(values) / number).astype(int)
            column_values = values[place, column]
            ties = int((column_values == own).sum())
            ranks.append(int((column_values < own).sum()) + int(generator.integers(ties + 1)))
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
