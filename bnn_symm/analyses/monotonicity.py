"""Evaluate the loss along straight lines, from initial values to fits and between fits."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from bnn_symm.advice import advise
from bnn_symm.data import Dataset
from bnn_symm.diagnostics.barriers.barriers import POINTS
from bnn_symm.diagnostics.barriers.monotonicity import LineShape, loss_along_line
from bnn_symm.errors import ConfigError
from bnn_symm.models import BayesianModel
from bnn_symm.posteriors import Posterior
from bnn_symm.runs.run import Run
from bnn_symm.threads import use_threads


def lines_from_initial(runs: Sequence[Run]) -> list[tuple[str, dict[str, LineShape]]]:
    """Evaluate the loss from the initial value of each network to the mean of its posterior.

    The line starts at the initial value of the network, wherever its fit started.

    Args:
        runs: runs with one chain.

    Returns:
        The path of each run, and the shapes of its line by split.
    """
    check_means(runs)
    lines = []
    for run in runs:
        posterior = run.posterior
        with use_threads(run.threads):
            shapes = line_shapes(posterior, run.model.initial(), posterior.mean(), run.dataset())
        lines.append((str(run.path), shapes))
    return lines


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
                f"a line ends at the mean of a posterior, and {run.path} has {chains} chains, "
                f"whose mean is not a network; use {advise('--path geodesic', 'the geodesic')}, or "
                "fit one chain"
            )


def line_shapes(
    posterior: Posterior,
    start: Float[Tensor, " parameter"],
    end: Float[Tensor, " parameter"],
    dataset: Dataset,
    models: tuple[BayesianModel, ...] = (),
) -> dict[str, LineShape]:
    """Return the shape of the loss between two flat vectors, by part.

    Args:
        posterior: a posterior of the model.
        start: the first vector.
        end: the second vector.
        dataset: the data.
        models: the models of both ends, if statistics of frozen batch norm differ.
    """
    return {
        name: loss_along_line(posterior, start, end, part.take(slice(0, POINTS)), models=models)
        for name, part in (("test", dataset.test), ("train", dataset.train))
    }
