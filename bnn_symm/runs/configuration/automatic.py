"""Choose what a configuration leaves open for a table: method, prior and likelihood.

    data: {name: houses.csv, target: price}

Sections that a configuration has are never changed. The choices were measured on public tables
(`benchmarks/tables.py`), against linear models, gradient boosting and each other. The method itself
depends on the size of the data and is chosen when they are known (`Automatic`).
"""

import math
from collections.abc import Mapping
from typing import Any

from bnn_symm.architectures.config import MLPConfig
from bnn_symm.data.loaders.files import is_table_name
from bnn_symm.models import AnyLikelihood, HeteroscedasticStudentT, Prior, PriorOverride

_OUTPUT_SD = 4.0
"""Prior standard deviation of an output, about: that of 64 units with weights of scale 0.5."""


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


def automatic_prior(architecture: MLPConfig) -> Prior:
    """Return the prior of a network with the method `auto`.

    Hidden layers have variance 2 / fan-in. The last layer is wider: the prior standard deviation of
    an output is about 4, so that a large effect and a confident class are not unlikely. With a
    standard normal prior of all weights it would be dozens, and predictions were much worse.

    Args:
        architecture: the network, whose last layer is `head`.
    """
    if not architecture.widths:
        return Prior()
    scale = round(_OUTPUT_SD / math.sqrt(architecture.widths[-1]), 6)
    return Prior(scale="fan_in", overrides={"head.*": PriorOverride(scale=scale)})


def automatic_likelihood(task: str, num_outputs: int) -> AnyLikelihood | None:
    """Return the likelihood of a fit with the method `auto`; None for the default of the task.

    In regressions the scale of the noise is predicted for each point, and its tails are learned.
    With normal noise, targets far from all others had a large effect on fits of public tables.

    Args:
        task: the task of the data set.
        num_outputs: the number of classes, or of target columns.
    """
    return HeteroscedasticStudentT() if (task, num_outputs) == ("regression", 1) else None
