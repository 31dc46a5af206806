"""Choose what a configuration leaves open for a table: method, prior and likelihood.

    data: {name: houses.csv, target: price}

Sections that a configuration has are never changed. The choices were measured on public tables
(`benchmarks/tables.py`), against linear models, gradient boosting and each other. The method itself
depends on the size of the data and is chosen when they are known (`Automatic`).
"""

import math
from collections.abc import Mapping
from typing import Any

from bnn_symm.architectures.config import ArchitectureConfig, MLPConfig
from bnn_symm.data.loaders.files import is_table_name
from bnn_symm.models import AnyLikelihood, HeteroscedasticStudentT, Prior, PriorOverride
from bnn_symm.settings import settings

_OUTPUT_SD, _CLASS_SD = 4.0, 8.0
"""Prior standard deviation of an output, about, and of one for classes: that of 64 units with
weights of scale 0.5 and 1."""


@settings
class OpenPrior(Prior):
    """The prior of a configuration with the method `auto`, left open until the task is known.

    It has the values for a regression, and `chosen_prior` replaces it.
    """


def with_automatic_method(raw: dict[str, Any]) -> dict[str, Any]:
    """Return nested mappings with the method `auto` for a table in a file, unless they have one.

    Args:
        raw: sections with their keys, which are not validated yet.

    Example:
        >>> with_automatic_method({"data": {"name": "houses.csv"}})["inference"]
        {'name': 'auto'}
    """
    data = raw.get("data")
    name = data.get("name") if isinstance(data, Mapping) else None
    if raw.get("inference") is None and isinstance(name, str) and is_table_name(name):
        return {**raw, "inference": {"name": "auto"}}
    return raw


def open_prior(architecture: MLPConfig) -> OpenPrior:
    """Return the prior that a configuration with the method `auto` leaves open.

    Args:
        architecture: the network, whose last layer is `head`.
    """
    prior = automatic_prior(architecture, "regression")
    return OpenPrior(scale=prior.scale, overrides=prior.overrides)


def automatic_prior(architecture: MLPConfig, task: str) -> Prior:
    """Return the prior of a network with the method `auto`.

    Hidden layers have variance 2 / fan-in. The last layer is wider: the prior standard deviation of
    an output is about 4, or 8 for classes, so that a large effect and a confident class are not
    unlikely. With a standard normal prior of all weights it would be dozens, and predictions were
    much worse.

    Args:
        architecture: the network, whose last layer is `head`.
        task: the task of the data set.
    """
    if not architecture.widths:
        return Prior()
    sd = _CLASS_SD if task == "classification" else _OUTPUT_SD
    scale = round(sd / math.sqrt(architecture.widths[-1]), 6)
    return Prior(scale="fan_in", overrides={"head.*": PriorOverride(scale=scale)})


def chosen_prior(prior: Prior, architecture: ArchitectureConfig, task: str) -> Prior:
    """Return the prior of a fit: by the task if it was left open, and otherwise unchanged.

    Args:
        prior: that of the configuration.
        architecture: the network.
        task: the task of the data set.
    """
    if not isinstance(prior, OpenPrior):
        return prior
    assert isinstance(architecture, MLPConfig)
    return automatic_prior(architecture, task)


def automatic_likelihood(task: str, num_outputs: int) -> AnyLikelihood | None:
    """Return the likelihood of a fit with the method `auto`; None for the default of the task.

    In regressions the scale of the noise is predicted for each point, and its tails are learned.
    With normal noise, targets far from all others had a large effect on fits of public tables.

    Args:
        task: the task of the data set.
        num_outputs: the number of classes, or of target columns.
    """
    return HeteroscedasticStudentT() if (task, num_outputs) == ("regression", 1) else None
