"""Find settings that have no effect: the dropout rate, if no method of the run drops units.

The network itself computes the same at every rate, so its weights have the same meaning.
"""

import dataclasses
from collections.abc import Sequence

from bnn_symm.runs.configuration.config import Config


def dropout_rate(config: Config) -> float:
    """Return the rate at which units are dropped in the fit; 0 if none of its methods drops units.

    Args:
        config: the configuration.
    """
    drops = any(method.drops_units for method in (*config.warm_start, config.inference))
    return getattr(config.architecture, "dropout", 0.0) if drops else 0.0


def unused_settings(config: Config) -> dict[str, float]:
    """Return the settings that have no effect, by dotted key.

    Args:
        config: the configuration.
    """
    rate = getattr(config.architecture, "dropout", 0.0)
    return {"architecture.dropout": rate} if rate != dropout_rate(config) else {}


def unused_setting_notes(config: Config) -> list[str]:
    """Return one note for each setting that has no effect.

    Args:
        config: the configuration.
    """
    return [
        f"{key}={value:g} has no effect: {config.inference.name} does not drop units; "
        f"use inference.name=mc_dropout"
        for key, value in unused_settings(config).items()
    ]


def without_unused_settings(configs: Sequence[Config]) -> list[Config]:
    """Return configurations with unused dropout rates set to 0, unless all have the same rate.

    Args:
        configs: the configurations.
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
