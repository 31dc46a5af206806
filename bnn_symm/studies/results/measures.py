"""Measure a fit of a study beyond its metrics, and the barrier of a pair of fits."""

from typing import Any

import numpy as np

from bnn_symm.analyses.barriers import BarrierOptions, pair_runs
from bnn_symm.analyses.mixing import concatenate_chains, describe_mixing, held_out_part
from bnn_symm.data import Dataset
from bnn_symm.diagnostics.mixing.chain_statistics import MIN_DRAWS, chain_statistics
from bnn_symm.diagnostics.mixing.function_values import function_values
from bnn_symm.errors import InvalidRun, SymmetryError
from bnn_symm.posteriors import Posterior
from bnn_symm.runs.compatibility import check_comparable
from bnn_symm.runs.directory.run_directory import MEASURES as MEASURES
from bnn_symm.runs.run import Run
from bnn_symm.symmetry import symmetry_group
from bnn_symm.threads import use_threads

# Draws of each posterior that enter the R-hat of a pair.
_DRAWS = 100


def measure_fit(run: Run) -> dict[str, Any]:
    """Return the symmetry group of a fit and, for a sampler, the mixing of its chains.

    Args:
        run: the fit.

    Returns:
        The content of `measures.json`.
    """
    content: dict[str, Any] = {"error": None}
    try:
        group = symmetry_group(run.model.net, input_shape=run.preprocessing.input_shape)
        content |= {"log10_order": group.log10_order, "certificate": group.certificate}
    except SymmetryError as error:
        content |= {"log10_order": None, "certificate": f"not derived: {error}"}
    method = run.config.inference
    if method.is_sampler:
        with use_threads(run.threads):
            content["mixing"] = describe_mixing(
                run.posterior, run.dataset(), method=method, per_draw=False
            )[0]
    return content


def measure_pair(first: Run, second: Run, options: dict[str, Any]) -> dict[str, Any]:
    """Return the barrier without and with alignment, and the agreement of the two posteriors.

    Args:
        first: the first fit.
        second: the second fit.
        options: `matching` and `num_draws`.

    Returns:
        The content of the file of the pair.

    Raises:
        IncompatiblePosteriors: if the weights of the fits have different meanings.
        InvalidRun: if a fit diverged.
    """
    for run in (first, second):
        if run.status != "complete":
            raise InvalidRun(f"{run.path} is {run.status}: it has no posterior to compare")
    check_comparable([first, second])
    keys = ("matching", "num_draws")
    chosen = BarrierOptions(**{key: options[key] for key in keys})
    barrier, aligned = pair_runs(first, second, chosen)
    dataset = first.dataset()
    with use_threads(first.threads):
        weights, functions = agreement([first.posterior, second.posterior], dataset)
        rhat = {"raw": weights, "aligned": agreement(aligned)[0], "function": functions}
    return barrier.to_dict() | {"rhat": rhat}


def agreement(
    posteriors: list[Posterior], dataset: Dataset | None = None
) -> tuple[float | None, float | None]:
    """Return the median split R-hat of weights and of functions, with each posterior as a chain.

    Args:
        posteriors: to compare.
        dataset: whose held-out points the functions are evaluated at; None for weights only.

    Returns:
        The R-hat of weights and that of functions; None with too few draws, and None for functions
        without a data set.
    """
    together = concatenate_chains(posteriors)
    chains, draws, _ = together.shape
    if draws < MIN_DRAWS:
        return None, None
    positions = np.stack(
        [together.read(chain, 0, min(draws, _DRAWS)).cpu().numpy() for chain in range(chains)]
    )
    weights, functions = _median(chain_statistics(positions).rhat), None
    if dataset is not None:
        values = function_values(together, held_out_part(dataset)[1]).columns
        functions = _median(chain_statistics(values).rhat)
    return weights, functions


def _median(values: np.ndarray) -> float | None:
    defined = values[~np.isnan(values)]
    return float(np.median(defined)) if defined.size else None
