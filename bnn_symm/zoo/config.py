"""The section `zoo` of a configuration, and the hyper-parameters of each network.

    zoo:
      learning_rate: [0.001, 0.05]
      label_noise: 0             # a number is a range of one value

Every hyper-parameter is a range. Learning rate, prior weight and number of steps are log-uniform,
the other two uniform. The values of a network depend on the seed and on its number only, so that
networks of the same number in two zoos of one seed share them, and that a zoo can be extended.

References:
    Unterthiner et al. 2020, arXiv:2002.11448: zoos of networks with random hyper-parameters.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import AfterValidator, BeforeValidator, Field, TypeAdapter, ValidationError

from bnn_symm.arguments import checked
from bnn_symm.errors import ConfigError, nearest, one_line
from bnn_symm.inference import MAP
from bnn_symm.io.documents import dump_yaml
from bnn_symm.randomness import numpy_generator
from bnn_symm.runs.configuration.config import (
    Config,
    parse_config,
    plain_config,
    quoted,
    read_raw,
)
from bnn_symm.settings import Positive, PositiveInt, describe_errors, settings


def _pair(value: Any) -> Any:
    """Return a number as the range of one value."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return (value, value) if is_number else value


def _ascending(value: tuple[float, float]) -> tuple[float, float]:
    if value[0] > value[1]:
        raise ValueError("the lower end of the range first")
    return value


_Share = Annotated[float, Field(ge=0, le=1)]
_PositiveShare = Annotated[float, Field(gt=0, le=1)]


_ASCENDING = AfterValidator(_ascending)


def _numbers(kind: Any) -> BeforeValidator:
    """Return the validator that accepts a number of a type for a range of one value."""
    return BeforeValidator(_pair, json_schema_input_type=kind | list[kind])


@settings
class ZooConfig:
    """The section `zoo` of a configuration: the ranges of the hyper-parameters of its networks.

    Attributes:
        learning_rate: range of the maximum learning rate of Adam, log-uniform; it decreases to zero
            by a cosine.
        prior_weight: range of the factor of the log prior, log-uniform. With a normal prior this is
            weight decay: 1 is the mode of the posterior, and smaller values regularize less.
        num_steps: range of the number of steps, log-uniform.
        train_fraction: range of the fraction of the training split that a network sees, uniform.
        label_noise: range of the probability that the target of a point is replaced by that of a
            random point of the training split, uniform.
        batch_size: points per step, drawn with replacement.
    """

    learning_rate: Annotated[tuple[Positive, Positive], _numbers(Positive), _ASCENDING] = (
        0.001,
        0.05,
    )
    prior_weight: Annotated[tuple[Positive, Positive], _numbers(Positive), _ASCENDING] = (
        0.01,
        10.0,
    )
    num_steps: Annotated[tuple[PositiveInt, PositiveInt], _numbers(PositiveInt), _ASCENDING] = (
        50,
        500,
    )
    train_fraction: Annotated[
        tuple[_PositiveShare, _PositiveShare], _numbers(_PositiveShare), _ASCENDING
    ] = (
        0.1,
        1.0,
    )
    label_noise: Annotated[tuple[_Share, _Share], _numbers(_Share), _ASCENDING] = (0.0, 0.5)
    batch_size: PositiveInt = 32

    def hyperparameters(self, seed: int, number: int) -> dict[str, float]:
        """Return the hyper-parameters of a network.

        Args:
            seed: of the configuration.
            number: of the network, from 0.

        Returns:
            Name of a range -> its value.

        Example:
            >>> ZooConfig(num_steps=100).hyperparameters(0, 3)["num_steps"]
            100.0
        """
        uniform = numpy_generator(seed, "zoo hyper-parameters", number).random(len(HYPERPARAMETERS))
        values = {}
        for name, u in zip(HYPERPARAMETERS, uniform, strict=True):
            low, high = getattr(self, name)
            if name in _LOGARITHMIC:
                values[name] = math.exp(math.log(low) + u * (math.log(high) - math.log(low)))
            else:
                values[name] = low + u * (high - low)
        values["num_steps"] = float(np.clip(round(values["num_steps"]), *self.num_steps))
        return values


HYPERPARAMETERS = ("learning_rate", "prior_weight", "num_steps", "train_fraction", "label_noise")
"""Names of the hyper-parameters that differ between the networks of a zoo."""

_LOGARITHMIC = ("learning_rate", "prior_weight", "num_steps")
# Sections of a fit that a zoo does not have: each network is trained as `zoo` says.
_UNUSED = ("inference", "warm_start", "initial", "checkpoint", "save")


@dataclass(frozen=True, kw_only=True)
class ZooPlan:
    """The configuration of a zoo.

    Attributes:
        base: data, architecture, prior, likelihood and seed.
        config: the section `zoo`.
    """

    base: Config
    config: ZooConfig

    def to_yaml(self) -> str:
        """Return the YAML from which `load_zoo_plan` makes the same plan."""
        raw = {key: value for key, value in plain_config(self.base).items() if key not in _UNUSED}
        section = {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in dataclasses.asdict(self.config).items()
        }
        return dump_yaml({**raw, "zoo": section})


@checked
def load_zoo_plan(path: str | Path | None = None, overrides: Sequence[str] = ()) -> ZooPlan:
    """Read the configuration of a zoo.

    Args:
        path: a YAML file, or the name of an example; None for all defaults.
        overrides: dotted overrides, such as `zoo.label_noise=0`.

    Raises:
        ConfigError: for a missing or malformed file, an unknown key or an invalid value; or for a
            section that fits have and zoos do not.

    Example:
        >>> load_zoo_plan(None, ["zoo.num_steps=[10, 20]"]).config.num_steps
        (10, 20)
    """
    raw = read_raw(path, overrides)
    section = raw.pop("zoo", None)
    if section is not None and not isinstance(section, Mapping):
        raise ConfigError(
            f"zoo: got {quoted(section)}, expected a section with keys, such as "
            "zoo.learning_rate=[0.001, 0.01]"
        )
    for key in _UNUSED:
        if raw.get(key) is not None:
            raise ConfigError(
                f"{key}: the networks of a zoo are trained as the section `zoo` says, with Adam; "
                f"remove the section {key}"
            )
    zoo = _zoo_config(dict(section or {}))
    return ZooPlan(base=dataclasses.replace(parse_config(raw), inference=MAP()), config=zoo)


def _zoo_config(section: dict[str, Any]) -> ZooConfig:
    known = [field.name for field in dataclasses.fields(ZooConfig)]
    for key in section:
        if key not in known:
            raise ConfigError(f"unknown key zoo.{one_line(key, 60)}; {nearest(str(key), known)}")
    try:
        return TypeAdapter(ZooConfig).validate_python(section)
    except ValidationError as error:
        raise ConfigError(f"zoo.{describe_errors(error, known)}") from None
