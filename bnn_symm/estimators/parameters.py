"""From the parameters of an estimator to the configuration of a fit.

The settings that are changed most are parameters, each of them one key of a configuration; all
others are in `config`, nested sections as in a YAML file. A parameter left at its default says
nothing, so that `config` may say it. One that was changed, and a key of `config` that says the
same, are an error: one of the two would do nothing.
"""

import dataclasses
import inspect
from collections.abc import Mapping
from typing import Any, get_args

import numpy as np

from bnn_symm.errors import ConfigError, nearest
from bnn_symm.inference import AnyMethod, Method
from bnn_symm.runs.configuration.config import Config, parse_config
from bnn_symm.runs.configuration.overrides import set_nested

KEYS = {
    "widths": "architecture.widths",
    "activation": "architecture.activation",
    "norm": "architecture.norm",
    "symmetry": "architecture.symmetry.kind",
    "prior_scale": "prior.scale",
    "noise": "likelihood.noise",
    "method": "inference.name",
    "temperature": "inference.temperature",
    "num_steps": "inference.num_steps",
    "validation_fraction": "data.validation_fraction",
}
"""Parameter -> the key of a configuration that it is."""

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
_DATA_KEYS = ("standardize", "validation_fraction")
# What a configuration has and an estimator does not, and what takes its place.
_ELSEWHERE = {
    "seed": "use random_state",
    "initial": "an estimator starts at the network's own initial values",
    "warm_start": "an estimator runs one method; bnn-symm fit, and fit_run in Python, run several",
    "checkpoint": "an estimator writes no files",
    "save": "an estimator writes no files; pickle it, or use save_posterior(estimator.posterior_, PATH)",
}


def resolve(
    parameters: Mapping[str, Any], defaults: Mapping[str, Any], *, dtype: str, seed: int
) -> Config:
    """The configuration that the parameters of an estimator describe.

    Args:
        parameters: of the estimator, by name; what is not among `KEYS`, nor `config`, is ignored.
        defaults: of its constructor.
        dtype: of parameters and data, unless `config` says it.
        seed: of everything random.

    Raises:
        ConfigError: for an unknown key, a wrong value, or a setting that is given twice.
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
                f"{name}={value!r} and {key} of config say the same setting; give one of them"
            )
        # The whole data are fitted by default, a tenth is held out by that of a configuration file.
        if changed or (name == "validation_fraction" and not in_config):
            set_nested(raw, key, value, f"{name}={value!r}")
    config = dataclasses.replace(parse_config(raw), seed=seed)
    if isinstance(method, Method):
        config = dataclasses.replace(config, inference=method)
    return dataclasses.replace(config, inference=_one_after_another(config.inference))


def default_parameters(estimator: type) -> dict[str, Any]:
    """Name -> default of every parameter of a constructor."""
    return {
        name: parameter.default
        for name, parameter in inspect.signature(estimator).parameters.items()
    }


def plain(value: Any) -> Any:
    """A copy with numpy's numbers and arrays as Python's, which grids of hyper-parameters are often
    made of.
    """
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    return value


def _sections(config: Any) -> dict[str, Any]:
    if config is None:
        return {}
    if not isinstance(config, Mapping):
        raise ConfigError(
            f"config: got {config!r}, wanted sections as in a YAML configuration, such as "
            f'{{"inference": {{"learning_rate": 0.01}}}}'
        )
    raw = plain(config)
    for key in raw:
        if key in _ELSEWHERE:
            raise ConfigError(f"config: {key} is not for an estimator: {_ELSEWHERE[key]}")
        if key not in _SECTIONS:
            raise ConfigError(f"config: unknown key {key}; {nearest(str(key), _SECTIONS)}")
    data = raw.get("data")
    for key in data if isinstance(data, Mapping) else ():
        if key not in _DATA_KEYS:
            raise ConfigError(
                f"config: data.{key} is not for an estimator, whose data are X and y of `fit`; "
                "remove it (of this "
                f"section it takes {', '.join(_DATA_KEYS)})"
            )
    return raw


def _has(raw: Mapping[str, Any], key: str) -> bool:
    """Whether nested sections have a dotted key."""
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
    """A settings object is a whole section, so nothing else may set a part of it."""
    known = get_args(get_args(AnyMethod)[0])
    if not isinstance(method, known):
        names = ", ".join(cls.__name__ for cls in known)
        raise ConfigError(
            f"method: got {type(method).__name__}, wanted the settings of a method: {names}"
        )
    said = [
        name
        for name in ("temperature", "num_steps")
        if plain(parameters[name]) != plain(defaults[name])
    ]
    said += ["the section inference of config"] if raw.get("inference") is not None else []
    if said:
        raise ConfigError(
            f"method is {type(method).__name__}(...), the settings of all of inference, and "
            f"{said[0]} is given beside it; give it to {type(method).__name__}(...)"
        )


def _one_after_another(method: Any) -> Any:
    """`chain_method: auto` of an estimator is sequential.

    scikit-learn's way to several processes is `n_jobs` of what calls the estimator; processes of
    its own beneath them would fight for the same cores, and need the `__main__` guard of a script
    that its users would not think of.
    """
    if getattr(method, "chain_method", None) == "auto":
        return dataclasses.replace(method, chain_method="sequential")
    return method
