"""What is measured of a fit of a study beside its own metrics, and of a pair."""

from typing import Any

import numpy as np

from bnn_symm.analyses.alignment import pair_runs
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

# Draws of each posterior behind the R-hat of a pair.
_DRAWS = 100


def measure_cell(run: Run) -> dict[str, Any]:
    """What tables say of a fit beside its metrics: its symmetry group, and of a sampler how its
    chains mix.
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
    """The barrier, naive and aligned, and how far the two posteriors agree when they are taken for
    chains.

    Raises:
        IncompatiblePosteriors: if their weights mean other things.
        InvalidRun: if one of them diverged.
    """
    for run in (first, second):
        if run.status != "complete":
            raise InvalidRun(
                f"{run.path} is {run.status}, and has no posterior to measure a barrier to"
            )
    check_comparable([first, second])
    keys = ("matching", "num_draws")
    content, aligned = pair_runs(first, second, **{key: options[key] for key in keys})
    dataset = first.dataset()
    with use_threads(first.threads):
        weights, functions = agreement([first.posterior, second.posterior], dataset)
        content["rhat"] = {"raw": weights, "aligned": agreement(aligned)[0], "function": functions}
    return content


def agreement(
    posteriors: list[Posterior], dataset: Dataset | None = None
) -> tuple[float | None, float | None]:
    """Median split R-hat of weights, and of functions at held-out points, with each posterior for a
    chain.

    None where there are too few draws, or where no data set says at which points to look.
    """
    together = concatenate_chains(posteriors)
    chains, draws, _ = together.shape
    if draws < MIN_DRAWS:
        return None, None
    positions = np.stack(
        [together.read(chain, 0, min(draws, _DRAWS)).cpu().numpy() for chain in range(chains)]
    )
    found = [_median(chain_statistics(positions).rhat)]
    if dataset is not None:
        found.append(
            _median(
                chain_statistics(function_values(together, held_out_part(dataset)[1]).columns).rhat
            )
        )
    return found[0], found[-1] if dataset is not None else None


def _median(values: np.ndarray) -> float | None:
    defined = values[~np.isnan(values)]
    return float(np.median(defined)) if defined.size else None
