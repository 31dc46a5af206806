"""Convert the parameters of an estimator to the configuration of a fit.

The most common settings are parameters, each of them one key of a configuration; all others are in
`config`, nested sections as in a YAML file. A parameter at its default does not set its key, so
that `config` may set it. A changed parameter and a key of `config` for the same setting are an
error, because one of the two would be ignored.
"""

import dataclasses
import inspect
from collections.abc import Mapping
from typing import Any, get_args

import numpy as np

from bnn_symm.data import DataConfig
from bnn_symm.errors import ConfigError, nearest
from bnn_symm.inference import AnyMethod, Method
from bnn_symm.runs.configuration.config import Config, parse_config, with_open_prior
from bnn_symm.runs.configuration.overrides import set_nested

KEYS = {
    "widths": "architecture.widths",
    "activation": "architecture.activation",
    "norm": "architecture.norm",
    "symmetry": "architecture.symmetry.kind",
    "prior_scale": "prior.scale",
    "likelihood": "likelihood.name",
    "noise": "likelihood.noise",
    "method": "inference.name",
    "temperature": "inference.temperature",
    "num_steps": "inference.num_steps",
    "validation_fraction": "data.validation_fraction",
    "levels": "data.levels",
}
"""The key of a configuration that each parameter sets."""

_SECTIONS = (
    "architecture",
    "prior",
    "likelihood",
    "inference",
    "data",
    "device",
    "dtype",
    "threads",
)
_DATA_KEYS = (
    *("standardize", "validation_fraction"),
    *("drop", "types", "decimal", "missing", "unseen", "class_weights"),
)
# Sections of a configuration that an estimator does not have, and what to use instead.
_UNSUPPORTED = {
    "seed": "use random_state",
    "initial": "an estimator starts from the initial values of the network",
    "warm_start": "an estimator runs one method; fit_run runs several",
    "checkpoint": "an estimator writes no files",
    "save": "an estimator writes no files; pickle it, or use "
    "save_posterior(estimator.posterior_, PATH)",
}


def resolve(
    parameters: Mapping[str, Any], defaults: Mapping[str, Any], *, dtype: str, seed: int
) -> Config:
    """Return the configuration that the parameters of an estimator describe.

    Args:
        parameters: the parameters by name; those not among `KEYS`, except `config`, are ignored.
        defaults: the defaults of its constructor.
        dtype: dtype of parameters and data, unless `config` sets it.
        seed: the seed of all random numbers.

    Returns:
        The configuration.

    Raises:
        ConfigError: for an unknown key, an invalid value, or a setting that is given twice.
    """
    raw = _sections(parameters["config"])
    raw.setdefault("dtype", dtype)
    method = parameters["method"]
    if isinstance(method, Method):
        _check_method(method, parameters, defaults, raw)
    for name, key in KEYS.items():
        if name not in parameters or isinstance(parameters[name], Method):
            continue
        value, in_config = plain(parameters[name]), _has(raw, key)
        changed = value != plain(defaults[name])
        if changed and in_config:
            raise ConfigError(
                f"{name}={value!r} and {key} of config are the same setting; give one of them"
            )
        # By default an estimator fits all data; a configuration file holds out a tenth.
        if changed or (name == "validation_fraction" and not in_config):
            set_nested(raw, key, value, f"{name}={value!r}")
    config = dataclasses.replace(parse_config(raw), seed=seed)
    if isinstance(method, Method):
        config = with_open_prior(dataclasses.replace(config, inference=method), raw)
    return dataclasses.replace(config, inference=_sequential(config.inference))


def imputes(config: Any) -> bool:
    """Return whether missing values of X are replaced, as far as `config` is valid.

    Args:
        config: the parameter of an estimator.
    """
    data = config.get("data") if isinstance(config, Mapping) else None
    policy = data.get("missing") if isinstance(data, Mapping) else None
    return (DataConfig.missing if policy is None else policy) == "impute"


def default_parameters(estimator: type) -> dict[str, Any]:
    """Return the default of every parameter of a constructor, by name.

    Args:
        estimator: the class.
    """
    return {
        name: parameter.default
        for name, parameter in inspect.signature(estimator).parameters.items()
    }


def plain(value: Any) -> Any:
    """Return a copy with numbers and arrays of NumPy and pandas converted to those of Python.

    Parameter grids have such numbers, and an index of categories is an array.

    Args:
        value: the value.
    """
    if isinstance(value, np.ndarray | np.generic) or hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    return value


def _sections(config: Any) -> dict[str, Any]:
    """Return the sections of `config`, after checking their names."""
    if config is None:
        return {}
    if not isinstance(config, Mapping):
        raise ConfigError(
            f"config: got {config!r}, expected sections as in a YAML configuration, such as "
            f'{{"inference": {{"learning_rate": 0.01}}}}'
        )
    raw = plain(config)
    for key in raw:
        if key in _UNSUPPORTED:
            raise ConfigError(f"config: {key} does not apply to an estimator: {_UNSUPPORTED[key]}")
        if key not in _SECTIONS:
            raise ConfigError(f"config: unknown key {key}; {nearest(str(key), _SECTIONS)}")
    data = raw.get("data")
    for key in data if isinstance(data, Mapping) else ():
        if key not in _DATA_KEYS:
            raise ConfigError(
                f"config: data.{key} does not apply to an estimator, whose data are X and y of "
                f"`fit`; remove it (supported: {', '.join(_DATA_KEYS)})"
            )
    return raw


def _has(raw: Mapping[str, Any], key: str) -> bool:
    """Return whether nested sections have a dotted key."""
    *path, last = key.split(".")
    section: Any = raw
    for name in path:
        section = section.get(name) if isinstance(section, Mapping) else None
    return isinstance(section, Mapping) and last in section


def _check_method(
    method: Method,
    parameters: Mapping[str, Any],
    defaults: Mapping[str, Any],
    raw: Mapping[str, Any],
) -> None:
    """Check that nothing else sets a part of the section that a settings object replaces."""
    known = get_args(get_args(AnyMethod)[0])
    if not isinstance(method, known):
        names = ", ".join(cls.__name__ for cls in known)
        raise ConfigError(
            f"method: got {type(method).__name__}, expected the settings of a method: {names}"
        )
    conflicts = [
        name
        for name in ("temperature", "num_steps")
        if plain(parameters[name]) != plain(defaults[name])
    ]
    conflicts += ["the section inference of config"] if raw.get("inference") is not None else []
    if conflicts:
        raise ConfigError(
            f"method is {type(method).__name__}(...), which sets all of inference, but "
            f"{conflicts[0]} is given too; pass it to {type(method).__name__}(...)"
        )


def _sequential(method: Any) -> Any:
    """Return the method with `chain_method: auto` replaced by sequential.

    In scikit-learn, `n_jobs` of the caller starts processes. Processes started by the estimator
    would compete for the same cores, and would require a `__main__` guard in scripts.
    """
    if getattr(method, "chain_method", None) == "auto":
        return dataclasses.replace(method, chain_method="sequential")
    return method
