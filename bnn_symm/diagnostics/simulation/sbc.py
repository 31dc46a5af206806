r"""Run simulation-based calibration: check an inference method on data with known parameters.

One simulation draws parameters from the prior, data from the likelihood, fits them, and ranks the
true parameters among draws of the posterior (`sbc_simulation`). If the inference is correct, the
ranks of each quantity over many simulations are uniform:

| the randomized ranks are | the posteriors are |
| --- | --- |
| uniform | calibrated |
| U-shaped | too narrow (overconfident) |
| humped | too wide |
| mostly large, or mostly small | biased: too low, or too high |

A sampler should be exact and is tested for uniformity (SBC, Talts et al.). A variational posterior
is an approximation whose spread is often known to be wrong; it is also tested for symmetry of the
ranks about 1/2, which shows whether its location is unbiased (VSBC, Yao et al.). The level of the
test of each quantity is divided by the number of quantities (Bonferroni, valid for the dependent
quantities of one fit), so a correct inference is rejected with probability at most `level`, over
all quantities.

References:
    Talts et al. 2018, arXiv:1804.06788; Yao et al. 2018, arXiv:1802.02538; Modrák et al. 2023,
    arXiv:2211.02383; Säilynoja et al. 2022, arXiv:2103.10522.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import scipy
from jaxtyping import Float, Int

from bnn_symm.arguments import check_at_least, checked
from bnn_symm.data import Dataset
from bnn_symm.diagnostics.simulation.sbc_simulation import (
    FitSimulation,
    Quantities,
    SimulatedFit,
    SupportsFit,
    simulate,
)
from bnn_symm.diagnostics.statistics.ecdf_bands import (
    EcdfBand,
    ecdf_band,
    symmetry_p_value,
    uniformity_p_value,
)
from bnn_symm.errors import ConfigError
from bnn_symm.inference.parallel.worker_pool import map_unordered
from bnn_symm.models import BayesianModel
from bnn_symm.posteriors import Posterior
from bnn_symm.summaries import Result, Summarized

__all__ = [
    "Calibration",
    "SbcResult",
    "Shape",
    "simulate",
    "simulation_based_calibration",
    "summarize_simulations",
]

# With fewer simulations, posteriors of half the correct width stay within the bands.
_MIN_SIMULATIONS = 20
Shape = Literal["calibrated", "too narrow", "too wide", "too low", "too high", "wrong shape"]

# A chi-square test needs about five expected values per bin (Cochran's rule), and has at most 20
# bins.
_EXPECTED, _MOST_BINS = 5, 20
# Number of standard errors of the mean, or of the spread, of ranks that names a rejected shape.
_NOTABLE = 3.0


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """The calibration of one quantity, from its ranks.

    Attributes:
        name: Name of the quantity.
        shape: Error of the posteriors if the ECDF leaves its band: the larger of bias and spread.
        p_value: Of the ECDF under uniformity; compared with the level over the number of
            quantities.
        symmetry_p_value: Of its symmetry about 1/2.
        symmetric: Whether that exceeds the level over the number of quantities.
        chi_square_p_value: Of a histogram of the ranks under uniformity; None below 10 simulations.
        bias: Mean randomized rank minus 1/2, in standard errors; below 0, posteriors are too high.
        spread: Mean squared distance of the ranks to 1/2, minus 1/12, in standard errors; above 0,
            posteriors are too narrow.
        num_draws: Draws per rank: minimum, median and maximum.
    """

    name: str
    shape: Shape
    p_value: float
    symmetry_p_value: float
    symmetric: bool
    chi_square_p_value: float | None
    bias: float
    spread: float
    num_draws: tuple[int, int, int]


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class SbcResult(Summarized, Result):
    """Ranks of all simulations, and the conclusion.

    Attributes:
        kind: `vsbc` if the posteriors have a closed form, else `sbc`.
        names: Names of the quantities.
        simulations: Indices of the ranked simulations.
        ranks: Ranks of the true values among the draws.
        num_draws: L of every rank, which is from 0 to L.
        values: Randomized ranks, (rank + U) / (L + 1).
        failures: Index of a simulation -> why its fit, or the simulation itself, failed.
        diverging: Index of a simulation -> number of divergent draws, if any; their ranks count.
        level: Level of all quantities together.
        band: Band of the ECDF of each quantity, at the level divided by their number; None below
            two simulations.
        quantities: Calibration of each quantity, in the order of the names; empty below two
            simulations.
        calibrated: Whether every ECDF is within its band; None if inconclusive because fits failed
            or there are too few simulations.
        conclusion: Description.
    """

    kind: Literal["sbc", "vsbc"]
    names: tuple[str, ...]
    simulations: tuple[int, ...]
    ranks: Int[np.ndarray, "simulation quantity"]
    num_draws: Int[np.ndarray, "simulation quantity"]
    values: Float[np.ndarray, "simulation quantity"]
    failures: dict[int, str]
    diverging: dict[int, int]
    level: float
    band: EcdfBand | None
    quantities: tuple[Calibration, ...]
    calibrated: bool | None
    conclusion: str

    def _facts(self) -> dict[str, Any]:
        """Return what its representation shows."""
        return {
            "kind": self.kind,
            "simulations": len(self.simulations),
            "failures": len(self.failures),
            "calibrated": self.calibrated,
        }

    @property
    def worst_first(self) -> tuple[Calibration, ...]:
        """Return the quantities by ascending p-value."""
        return tuple(sorted(self.quantities, key=lambda own: own.p_value))


@checked
def simulation_based_calibration(
    method: SupportsFit,
    model: BayesianModel,
    dataset: Dataset,
    *,
    num_simulations: int,
    seed: int,
    quantities: Quantities | None = None,
    num_draws: int = 99,
    level: float = 0.05,
    jobs: int = 1,
    initial: Posterior | None = None,
    done: Sequence[SimulatedFit] = (),
    on_simulation: Callable[[SimulatedFit], None] = lambda simulation: None,
) -> SbcResult:
    """Check an inference method on data simulated from the model.

    Args:
        method: An inference method, or any object with its `fit`. Chains run sequentially within a
            simulation.
        model: Prior, likelihood and network; small, because every simulation is a fit.
        dataset: Its inputs are used; its targets are replaced by simulated ones.
        num_simulations: Total number of simulations, including those in `done`.
        seed: Seed of everything random, together with the index of the simulation; the result does
            not depend on `jobs`.
        quantities: Quantities to rank; default `Quantities.choose`.
        num_draws: Maximum number of draws among which the truth is ranked; fewer for a sampler with
            a smaller ESS.
        level: Probability that a correct inference is rejected.
        jobs: Number of simulations in parallel, each in a separate process with one thread.
        initial: Posterior from which every fit starts.
        done: Simulations of an earlier call with the same arguments, which are not repeated.
        on_simulation: Called with every completed simulation.

    Returns:
        Ranks, tests and the conclusion.

    Raises:
        ConfigError: If the method cannot be checked, or a number is not valid.

    Example:
        >>> from bnn_symm import BayesianModel, Categorical, MeanFieldVI, Prior, load_dataset
        >>> import torch
        >>> model = BayesianModel(torch.nn.Linear(4, 3), Prior(), Categorical())
        >>> method, data = MeanFieldVI(num_steps=5), load_dataset("iris")
        >>> result = simulation_based_calibration(method, model, data, num_simulations=2, seed=0)
        >>> result.kind
        'vsbc'
    """
    for name, value in (
        ("num_simulations", num_simulations),
        ("num_draws", num_draws),
        ("jobs", jobs),
    ):
        check_at_least(name, value, 1)
    if dataset.train.weight is not None:
        raise ConfigError(
            "the training points have weights, and targets of a point that stands for several "
            "observations cannot be simulated; remove data.weight and data.class_weights"
        )
    if not 0 < level < 1:
        raise ConfigError(
            f"level: got {level:g}, expected a probability between 0 and 1, such as 0.05"
        )
    if dataclasses.is_dataclass(method) and hasattr(method, "chain_method"):
        # Sequential chains give the same draws without nested processes.
        method = dataclasses.replace(method, chain_method="sequential")  # type: ignore[type-var]
    model_data = dataset.to(model.device, model.dtype)
    quantities = quantities or Quantities.choose(model, model_data)
    work = FitSimulation(
        method=method,  # type: ignore[arg-type]
        model=model,
        dataset=model_data,
        quantities=quantities,
        num_draws=num_draws,
        seed=seed,
        initial=initial,
    )
    results = {simulation.index: simulation for simulation in done}
    for simulation in map_unordered(
        work, [i for i in range(num_simulations) if i not in results], jobs=jobs
    ):
        results[simulation.index] = simulation
        on_simulation(simulation)
    return summarize_simulations(list(results.values()), quantities.names(model), level=level)


def summarize_simulations(
    simulations: Sequence[SimulatedFit], names: tuple[str, ...], *, level: float = 0.05
) -> SbcResult:
    """Return the calibration from simulations in any order.

    Args:
        simulations: One or more simulations.
        names: Names of their quantities.
        level: Probability that a correct inference is rejected.

    Returns:
        Ranks, tests and the conclusion.

    Raises:
        ConfigError: If simulations have other quantities.
    """
    ordered = sorted(simulations, key=lambda simulation: simulation.index)
    ranked = [simulation for simulation in ordered if simulation.failure is None]
    if any(len(simulation.ranks) != len(names) for simulation in ranked):
        raise ConfigError(
            f"the simulations have other quantities than {', '.join(names)}; run them again"
        )
    shape = (len(ranked), len(names))
    values = np.array([simulation.values for simulation in ranked], dtype=float).reshape(shape)
    numbers = np.array([simulation.num_draws for simulation in ranked], dtype=int).reshape(shape)
    band, quantities = None, ()
    if len(ranked) >= 2:
        share = level / len(names)
        band = ecdf_band(len(ranked), level=share)
        quantities = tuple(
            _calibration(*columns, share=share)
            for columns in zip(names, values.T, numbers.T, strict=True)
        )
    failures = {
        simulation.index: simulation.failure
        for simulation in ordered
        if simulation.failure is not None
    }
    diverging = {
        simulation.index: simulation.diverging for simulation in ranked if simulation.diverging
    }
    kind = "vsbc" if ranked and all(simulation.closed_form for simulation in ranked) else "sbc"
    calibrated, conclusion = _conclusion(kind, quantities, len(ranked), failures, diverging)
    return SbcResult(
        kind=kind,
        names=names,
        simulations=tuple(simulation.index for simulation in ranked),
        ranks=np.array([simulation.ranks for simulation in ranked], dtype=int).reshape(shape),
        num_draws=numbers,
        values=values,
        failures=failures,
        diverging=diverging,
        level=level,
        band=band,
        quantities=quantities,
        calibrated=calibrated,
        conclusion=conclusion,
    )


def _calibration(
    name: str,
    values: Float[np.ndarray, " simulation"],
    numbers: Int[np.ndarray, " simulation"],
    *,
    share: float,
) -> Calibration:
    size = len(values)
    p_value, symmetry = uniformity_p_value(values), symmetry_p_value(values)
    # For a uniform variable, (u - 1/2) has variance 1/12, and (u - 1/2)^2 has mean 1/12 and
    # variance 1/180.
    bias = float((values.mean() - 0.5) * math.sqrt(12 * size))
    spread = float((((values - 0.5) ** 2).mean() - 1 / 12) * math.sqrt(180 * size))
    shape: Shape = "calibrated"
    if p_value <= share:
        if max(abs(bias), abs(spread)) < _NOTABLE:
            shape = "wrong shape"
        elif abs(bias) > abs(spread):
            shape = "too low" if bias > 0 else "too high"
        else:
            shape = "too narrow" if spread > 0 else "too wide"
    bins = min(_MOST_BINS, size // _EXPECTED)
    chi_square = None
    if bins >= 2:
        counts, _ = np.histogram(values, np.linspace(0, 1, bins + 1))
        chi_square = float(scipy.stats.chisquare(counts).pvalue)
    return Calibration(
        name=name,
        shape=shape,
        p_value=p_value,
        symmetry_p_value=symmetry,
        symmetric=symmetry > share,
        chi_square_p_value=chi_square,
        bias=bias,
        spread=spread,
        num_draws=(int(numbers.min()), int(np.median(numbers)), int(numbers.max())),
    )


def _conclusion(
    kind: str,
    quantities: Sequence[Calibration],
    number: int,
    failures: dict[int, str],
    diverging: dict[int, int],
) -> tuple[bool | None, str]:
    besides = ""
    if diverging:
        total_draws = sum(diverging.values())
        besides += f". {total_draws} draws diverged, in {len(diverging)} of {number} fits"
    if failures:
        first, reason = next(iter(failures.items()))
        besides += (
            f". {len(failures)} of {number + len(failures)} simulations failed and are excluded "
            f"(simulation {first}: {reason})"
        )
    if not quantities:
        return (
            None,
            f"inconclusive: {number} simulations were ranked, two or more are needed{besides}",
        )
    wrong = [quantity for quantity in quantities if quantity.shape != "calibrated"]
    total = len(quantities)
    if kind == "vsbc":
        skewed = [quantity.name for quantity in quantities if not quantity.symmetric]
        location = (
            f"biased in {_join_names(skewed)}"
            if skewed
            else "no bias detected (ranks are symmetric about 1/2)"
        )
        besides = f". Location: {location}{besides}"
    if wrong:
        shapes: dict[str, list[str]] = {}
        for quantity in sorted(wrong, key=lambda quantity: quantity.p_value):
            shapes.setdefault(quantity.shape, []).append(quantity.name)
        named = "; ".join(f"{shape}: {_join_names(names)}" for shape, names in shapes.items())
        return (
            False,
            f"not calibrated: {len(wrong)} of {total} quantities deviate. Posteriors are "
            f"{named}{besides}",
        )
    agreement = f"ranks of all {total} quantities are consistent with uniformity"
    if failures:
        return (
            None,
            f"inconclusive, because fits failed; in {number} others, {agreement}{besides}",
        )
    if number < _MIN_SIMULATIONS:
        return (
            None,
            f"inconclusive: {agreement}, but {number} simulations are too few; "
            f"{_MIN_SIMULATIONS} are needed{besides}",
        )
    return True, f"calibrated: in {number} simulations {agreement}{besides}"


def _join_names(names: Sequence[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
