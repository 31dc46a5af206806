r"""Simulation-based calibration: is the inference right, on data whose truth is known?

One simulation draws a truth from the prior, data from the likelihood, fits them, and ranks the
truth among draws of the posterior (`simulated_fits`). If the inference is right, the ranks of each
quantity over many simulations are uniform:

| the randomized ranks are | the posteriors are |
| --- | --- |
| uniform | calibrated |
| U-shaped | too narrow (over-confident) |
| humped | too wide |
| mostly large, or mostly small | biased: too low, or too high |

Of a sampler, which is meant to be exact, uniformity is asked for (SBC, Talts et al.). A variational
posterior is an approximation, whose spread is often known to be wrong; of it, symmetry of the ranks
about 1/2 is looked at besides, which says whether its location is unbiased (VSBC, Yao et al.). A
test of each quantity has the level divided by their number (Bonferroni: quantities of one fit
depend on each other, which it allows), so that a right inference is called wrong with probability
`level` at most, all quantities together.

References:
    Talts et al. 2018, arXiv:1804.06788; Yao et al. 2018, arXiv:1802.02538; Modrák et al. 2023,
    arXiv:2211.02383; Säilynoja et al. 2022, arXiv:2103.10522.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int
from scipy import stats

from bnn_symm.arguments import checked
from bnn_symm.data import Dataset
from bnn_symm.diagnostics.simulation.sbc_simulation import (
    Fits,
    FitSimulation,
    Quantities,
    SimulatedFit,
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

__all__ = [
    "Calibration",
    "SbcResult",
    "Shape",
    "calibration_of",
    "simulate",
    "simulation_based_calibration",
]

# Of fewer simulations, bands are so wide that posteriors of half the right width stay within.
_TELLING = 20
Shape = Literal["calibrated", "too narrow", "too wide", "too low", "too high", "wrong shape"]

# A chi-square test wants about five expected values a bin (Cochran's rule), and has at most 20
# bins.
_EXPECTED, _MOST_BINS = 5, 20
# A mean, or a spread, of ranks so many standard errors off gives a rejected shape its name.
_NOTABLE = 3.0


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """What the ranks of one quantity say.

    Attributes:
        name: of the quantity.
        shape: what is wrong with the posteriors, if the ECDF leaves its band: the larger of bias
            and spread.
        p_value: of the ECDF under uniformity; compared with the level over the number of
            quantities.
        symmetry_p_value: of its symmetry about 1/2.
        symmetric: whether that is above the level over the number of quantities.
        chi_square_p_value: of a histogram of the ranks under uniformity; None below 10 simulations.
        bias: mean randomized rank less 1/2, in standard errors; below 0, posteriors are too high.
        spread: mean squared distance of the ranks to 1/2, less 1/12, in standard errors; above 0,
            they are too narrow.
        num_draws: draws behind a rank: the fewest, the median and the most.
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


@dataclass(frozen=True, kw_only=True, eq=False)
class SbcResult:
    """Ranks of all simulations, and what they say.

    Attributes:
        kind: `vsbc` if the posteriors have a closed form, else `sbc`.
        names: of the quantities.
        simulations: numbers of the simulations that were ranked.
        ranks: of the truth among the draws.
        num_draws: L of every rank, which is from 0 to L.
        values: the randomized ranks, (rank + U) / (L + 1).
        failures: number of the simulation -> why its fit, or the simulation itself, failed.
        diverging: number of the simulation -> draws that diverged, where there were any; their
            ranks count.
        level: of all quantities together.
        band: of the ECDF of each quantity, at the level divided by their number; None below two
            simulations.
        quantities: what each says, in the order of the names; empty below two simulations.
        calibrated: whether every ECDF is within; None where fits failed, or too few are there to
            tell.
        conclusion: in words.
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

    @property
    def worst_first(self) -> tuple[Calibration, ...]:
        """The quantities, the least likely first."""
        return tuple(sorted(self.quantities, key=lambda own: own.p_value))


@checked
def simulation_based_calibration(
    method: Fits,
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
    tell: Callable[[SimulatedFit], None] = lambda simulation: None,
) -> SbcResult:
    """Checks a method on data simulated from the model itself.

    Args:
        method: an inference method, or anything with its `fit`. Chains run one after another within
            a simulation.
        model: prior, likelihood and network; small, since every simulation is a fit.
        dataset: whose inputs are used; its targets are replaced by simulated ones.
        num_simulations: that are wanted, those already `done` included.
        seed: everything random follows from it and from the number of the simulation: not from
            `jobs`.
        quantities: what to rank; default `Quantities.choose`.
        num_draws: of a posterior to rank the truth among, at most; fewer of a sampler whose ESS is
            less.
        level: probability that a right inference is called wrong.
        jobs: simulations at once, each in a process of its own with one thread.
        initial: posterior that every fit starts from.
        done: simulations of an earlier call with the same arguments, which are not done again.
        tell: called with every simulation when it is there.

    Raises:
        ConfigError: if the method cannot be checked, or the numbers asked for are not valid.
    """
    for name, value in (
        ("num_simulations", num_simulations),
        ("num_draws", num_draws),
        ("jobs", jobs),
    ):
        if value < 1:
            raise ConfigError(f"{name}: got {value}, wanted 1 or more")
    if not 0 < level < 1:
        raise ConfigError(
            f"level: got {level:g}, wanted a probability between 0 and 1, such as 0.05"
        )
    if dataclasses.is_dataclass(method) and hasattr(method, "chain_method"):
        # The same draws, and no processes of processes.
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
    found = {simulation.index: simulation for simulation in done}
    for simulation in map_unordered(
        work, [i for i in range(num_simulations) if i not in found], jobs=jobs
    ):
        found[simulation.index] = simulation
        tell(simulation)
    return calibration_of(list(found.values()), quantities.names(model), level=level)


def calibration_of(
    simulations: Sequence[SimulatedFit], names: tuple[str, ...], *, level: float = 0.05
) -> SbcResult:
    """What simulations say, in whatever order they were done.

    Args:
        simulations: one or more.
        names: of their quantities.
        level: probability that a right inference is called wrong.

    Raises:
        ConfigError: if simulations are of other quantities.
    """
    ordered = sorted(simulations, key=lambda simulation: simulation.index)
    ranked = [simulation for simulation in ordered if simulation.failure is None]
    if any(len(simulation.ranks) != len(names) for simulation in ranked):
        raise ConfigError(
            f"the simulations are of other quantities than {', '.join(names)}; do them again"
        )
    shape = (len(ranked), len(names))
    values = np.array([simulation.values for simulation in ranked], dtype=float).reshape(shape)
    numbers = np.array([simulation.num_draws for simulation in ranked], dtype=int).reshape(shape)
    band, quantities = None, ()
    if len(ranked) >= 2:
        share = level / len(names)
        band = ecdf_band(len(ranked), level=share)
        quantities = tuple(
            _read(*own, share=share) for own in zip(names, values.T, numbers.T, strict=True)
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


def _read(
    name: str,
    values: Float[np.ndarray, " simulation"],
    numbers: Int[np.ndarray, " simulation"],
    *,
    share: float,
) -> Calibration:
    size = len(values)
    p_value, symmetry = uniformity_p_value(values), symmetry_p_value(values)
    # Of a uniform variable, (u - 1/2) has the variance 1/12 and (u - 1/2)^2 the mean 1/12 and the
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
        chi_square = float(stats.chisquare(counts).pvalue)
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
        besides += f". In {len(diverging)} of {number} fits draws diverged, {sum(diverging.values())} in all"
    if failures:
        first, reason = next(iter(failures.items()))
        besides += (
            f". {len(failures)} of {number + len(failures)} simulations failed, and are not among "
            "the ranks "
            f"(simulation {first}: {reason})"
        )
    if not quantities:
        return (
            None,
            f"nothing can be told: {number} simulations were ranked, wanted two or more{besides}",
        )
    wrong = [own for own in quantities if own.shape != "calibrated"]
    total = len(quantities)
    if kind == "vsbc":
        skewed = [own.name for own in quantities if not own.symmetric]
        location = (
            f"biased in {_listed(skewed)}"
            if skewed
            else "no bias was found (ranks are symmetric about 1/2)"
        )
        besides = f". Location: {location}{besides}"
    if wrong:
        shapes: dict[str, list[str]] = {}
        for own in sorted(wrong, key=lambda one: one.p_value):
            shapes.setdefault(own.shape, []).append(own.name)
        told = "; ".join(f"{shape}: {_listed(names)}" for shape, names in shapes.items())
        return (
            False,
            f"not calibrated: {len(wrong)} of {total} quantities are off. Posteriors are "
            f"{told}{besides}",
        )
    found = f"{total} quantities are uniform as far as {number} simulations can tell"
    if failures:
        return (
            None,
            f"cannot be told, since fits failed; of the others, ranks of all {found}{besides}",
        )
    if number < _TELLING:
        return (
            None,
            f"cannot be told: ranks of all {found}, and fewer than {_TELLING} tell little{besides}",
        )
    return True, f"calibrated: ranks of all {found}{besides}"


def _listed(names: Sequence[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
