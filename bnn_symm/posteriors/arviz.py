"""The bridge to ArviZ, 0.x and 1.x, from plain arrays."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from bnn_symm.posteriors.posterior import Posterior
from bnn_symm.posteriors.samples import SamplePosterior


def to_arviz(posterior: Posterior) -> Any:
    """Every parameter as a variable (chain, draw, *shape), and the sampler's statistics.

    Returns:
        An `arviz.InferenceData` under ArviZ 0.x, an `xarray.DataTree` under 1.x.
    """
    chains, draws, _ = posterior.shape
    flat = posterior.draws(None) if isinstance(posterior, SamplePosterior) else next(posterior.iter_draws(draws))
    values = posterior.model.unflatten(flat.cpu().unflatten(0, (chains, draws)))
    groups: dict[str, Mapping[str, np.ndarray]] = {"posterior": {name: value.numpy() for name, value in values.items()}}
    if isinstance(posterior, SamplePosterior) and posterior.sample_stats:
        groups["sample_stats"] = posterior.sample_stats
    return from_groups(groups)


def from_groups(groups: Mapping[str, Mapping[str, np.ndarray]]) -> Any:
    """Group name -> variable name -> (chain, draw, ...), as ArviZ's own container of the installed version."""
    import arviz

    if int(arviz.__version__.split(".")[0]) >= 1:
        return arviz.from_dict({name: dict(variables) for name, variables in groups.items()})
    keywords: dict[str, Any] = {name: dict(variables) for name, variables in groups.items()}
    return arviz.from_dict(**keywords)
