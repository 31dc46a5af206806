"""Evaluate the loss along straight lines, from initial values to fits and between fits."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor

from bnn_symm.data import Dataset
from bnn_symm.diagnostics.barriers.barriers import POINTS
from bnn_symm.diagnostics.barriers.monotonicity import loss_along_line
from bnn_symm.errors import ConfigError
from bnn_symm.posteriors import Posterior
from bnn_symm.runs.run import Run
from bnn_symm.threads import use_threads


def lines_from_initial(runs: Sequence[Run]) -> dict[str, Any]:
    """Evaluate the loss from the initial value of each network to the mean of its posterior.

    The line starts at the initial value of the network, wherever its fit started.

    Args:
        runs: runs with one chain.

    Returns:
        `from_initial`, one row for each run with the shapes on both parts; `percent_monotone` of
        the runs, by split; `height` above the chord on the test split, the largest of all runs.
    """
    rows = []
    check_means(runs)
    for run in runs:
        posterior = run.posterior
        with use_threads(run.threads):
            shapes = line_shapes(posterior, run.model.initial(), posterior.mean(), run.dataset())
        rows.append({"run": str(run.path), **shapes})
    monotone = {part: sum(row[part]["is_monotone"] for row in rows) for part in ("test", "train")}
    return {
        "height": max(row["test"]["height"] for row in rows),
        "standard_error": None,
        "runs": [str(run.path) for run in runs],
        "aligned": False,
        "path": "straight line",
        "from_initial": rows,
        "percent_monotone": {part: 100 * number / len(rows) for part, number in monotone.items()},
    }


def check_means(runs: Sequence[Run]) -> None:
    """Check that the posterior mean of each run is a network.

    Args:
        runs: the runs.

    Raises:
        ConfigError: for a run with several chains, which permute their units differently.
    """
    for run in runs:
        chains = run.posterior.shape[0]
        if chains > 1:
            raise ConfigError(
                f"--path line ends at the mean of a posterior, and {run.path} has {chains} chains, "
                "whose mean is not a network; use --path geodesic, or fit one chain"
            )


def line_shapes(
    posterior: Posterior,
    start: Float[Tensor, " parameter"],
    end: Float[Tensor, " parameter"],
    dataset: Dataset,
) -> dict[str, dict[str, Any]]:
    """Return the shape of the loss between two flat vectors, by part.

    Args:
        posterior: a posterior of the model.
        start: the first vector.
        end: the second vector.
        dataset: the data.
    """
    return {
        name: dataclasses.asdict(
            loss_along_line(posterior, start, end, part.take(slice(0, POINTS)))
        )
        for name, part in (("test", dataset.test), ("train", dataset.train))
    }
