"""Settings that a configuration has and its fit does not read: the rate of dropout, where no method
drops units.

The network itself computes the same at every rate, so that weights mean the same too.
"""

import dataclasses
from collections.abc import Sequence

from bnn_symm.runs.configuration.config import Config


def dropout_rate(config: Config) -> float:
    """At which units are dropped in the fit; 0 where none of its methods drops any."""
    drops = any(method.drops_units for method in (*config.warm_start, config.inference))
    return getattr(config.architecture, "dropout", 0.0) if drops else 0.0


def unused_settings(config: Config) -> dict[str, float]:
    """Dotted key -> value, of settings that say something and do nothing."""
    rate = getattr(config.architecture, "dropout", 0.0)
    return {"architecture.dropout": rate} if rate != dropout_rate(config) else {}


def notes_of_unused(config: Config) -> list[str]:
    """One line for each of them."""
    return [
        f"{key}={value:g} does nothing in this fit, for {config.inference.name} drops no units; "
        f"--set inference.name=mc_dropout does"
        for key, value in unused_settings(config).items()
    ]


def as_used(configs: Sequence[Config]) -> list[Config]:
    """The same, with rates of dropout at 0 where they are not read; as they are where all have one
    rate.
    """
    if len({getattr(config.architecture, "dropout", 0.0) for config in configs}) == 1:
        return list(configs)
    return [
        dataclasses.replace(
            config, architecture=dataclasses.replace(config.architecture, dropout=0.0)
        )
        if unused_settings(config)
        else config
        for config in configs
    ]
