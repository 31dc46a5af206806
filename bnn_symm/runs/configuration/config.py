"""Define the configuration of a run: YAML, dotted overrides, and one validated settings object.

Every section is a settings class of the layer that it configures, so that each key is documented
where it is used. An empty configuration is valid: every key has a default.
"""

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BeforeValidator, Field, TypeAdapter, ValidationError, WithJsonSchema

from bnn_symm.advice import advise
from bnn_symm.architectures import ArchitectureConfig
from bnn_symm.architectures.config import MLPConfig
from bnn_symm.arguments import checked
from bnn_symm.data import DataConfig
from bnn_symm.errors import ConfigError, nearest, one_line
from bnn_symm.inference import AnyMethod, Automatic, MeanFieldVI
from bnn_symm.io.documents import dump_yaml, read_yaml
from bnn_symm.models import AnyLikelihood, Imported, Prior
from bnn_symm.models.imported import is_class_name
from bnn_symm.models.priors.families import FAMILIES, own_settings
from bnn_symm.models.priors.prior import CLASS_SCHEMA
from bnn_symm.runs.configuration.automatic import OpenPrior, open_prior, with_automatic_method
from bnn_symm.runs.configuration.examples import config_path
from bnn_symm.runs.configuration.overrides import apply_override
from bnn_symm.settings import NonNegativeInt, NumThreads, Positive, settings


def _interval(value: Any) -> Any:
    """Validate the interval between checkpoints."""
    if isinstance(value, str) and re.fullmatch(r"[1-9]\d* steps", value):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf:
        return float(value)
    raise ValueError("expected seconds, such as 5, or steps, such as '500 steps'")


_MAX_VALUE = 60  # characters of a value in a message
_MAX_EXPECTED = 120  # characters of a description of the expected value
_MAX_HINT = 200  # characters of the list of known keys
_MAX_PROBLEMS = 2  # problems in a message


@settings
class CheckpointConfig:
    """Control when a running fit is written to disk.

    Attributes:
        every: seconds between checkpoints, or steps (`500 steps`) as counted by the history (logged
            steps, in each chain); a killed process loses at most this much work.
        keep: epochs whose state is preserved, at the first logged step from each on; loaded by
            `Run.checkpoints` as posteriors. For methods that optimize; with full batches a step is
            an epoch.
    """

    every: Annotated[float | str, BeforeValidator(_interval)] = 5.0
    keep: tuple[Positive, ...] = ()


@settings
class SaveConfig:
    """Control what is saved of a finished fit.

    Attributes:
        max_megabytes: limit on stored draws of a closed-form posterior, which their seed can
            regenerate. Draws of a sampler are always saved.
    """

    max_megabytes: Positive = 200.0


OwnLikelihood = Annotated[
    Imported,
    WithJsonSchema({"type": "object", "properties": {"name": CLASS_SCHEMA}, "required": ["name"]}),
]
"""A likelihood of the user's own code; the other keys of its section are its settings."""


@settings
class Config:
    """Hold all settings that a run depends on.

    Attributes:
        config_schema: version of these keys.
        seed: seed of initial values, data order, noise and draws.
        initial_seed: seed of the initial values of the network; null for `seed`. Fits with one
            `initial_seed` and different seeds start at one point. Chains and members of ensembles
            have initial values of their own, so methods that have any refuse it.
        device: `cpu`, or a torch device such as `cuda`.
        dtype: dtype of parameters, data and draws.
        threads: intra-op threads of torch; `auto` chooses by problem size.
        data: the data set and its split.
        architecture: the network.
        prior: the prior over its parameters.
        likelihood: the distribution of targets given outputs; null chooses by task: categorical,
            gaussian (learned noise), or poisson. The name of a class of your own is
            `package.module:Class`; further keys are its settings.
        inference: the method.
        warm_start: methods that run before it in the same run, each from the posterior of the
            previous one.
        initial: a run directory whose posterior the fit starts from; null for none.
        checkpoint: when a running fit is written to disk.
        save: what is saved of a finished fit.
    """

    config_schema: Literal[1] = 1
    seed: NonNegativeInt = 0
    initial_seed: NonNegativeInt | None = None
    device: str = "cpu"
    dtype: Literal["float32", "float64"] = "float32"
    threads: NumThreads | Literal["auto"] = "auto"
    data: DataConfig = Field(default_factory=DataConfig)
    architecture: ArchitectureConfig = Field(default_factory=MLPConfig)
    prior: Prior = Field(default_factory=Prior)
    likelihood: AnyLikelihood | OwnLikelihood | None = None
    inference: AnyMethod = Field(default_factory=MeanFieldVI)
    warm_start: tuple[AnyMethod, ...] = ()
    initial: str | None = None
    checkpoint: CheckpointConfig = Field(default_factory=CheckpointConfig)
    save: SaveConfig = Field(default_factory=SaveConfig)

    @property
    def seed_of_initial_values(self) -> int:
        """Return the seed of the initial values of the network."""
        return self.seed if self.initial_seed is None else self.initial_seed


@checked
def load_config(
    path: str | Path | None = None, overrides: Sequence[str] = (), *, choose: bool = False
) -> Config:
    """Read a configuration from a YAML file, or from the defaults, and apply overrides.

    With the method `auto` (see `Automatic`), a prior that is left out is chosen by the task, when
    the data are read (`automatic_prior`).

    Args:
        path: a YAML file, or the name of an example; None for all defaults.
        overrides: dotted overrides, such as `inference.num_steps=500`.
        choose: whether a section `inference` that is left out is `{name: auto}` for a table in a
            file, as on the command line; otherwise it has the default of all other data.

    Returns:
        The validated configuration.

    Raises:
        ConfigError: for a missing or malformed file, an unknown key or name, with the nearest known
            one, or an invalid value.

    Example:
        >>> from bnn_symm import load_config
        >>> load_config(None, ["inference.name=map", "inference.num_steps=500"]).inference.num_steps
        500
    """
    raw = read_raw(path, overrides)
    return parse_config(with_automatic_method(raw) if choose else raw)


def read_raw(path: str | Path | None, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Read a YAML file and apply overrides, without validating the keys.

    Args:
        path: a YAML file, or the name of an example; None for an empty configuration.
        overrides: dotted overrides.

    Returns:
        Nested mappings.

    Raises:
        ConfigError: for a missing or malformed file or override.
    """
    raw = {} if path is None else _read_yaml(config_path(Path(path)))
    for override in overrides:
        apply_override(raw, override, Config)
    return raw


@checked
def parse_config(raw: Mapping[str, Any]) -> Config:
    """Validate nested mappings and fill in defaults.

    Args:
        raw: sections with their keys.

    Returns:
        The validated configuration.

    Raises:
        ConfigError: as `load_config`.

    Example:
        >>> from bnn_symm.runs import parse_config
        >>> parse_config({"architecture": {"widths": [8]}}).architecture.widths
        (8,)
    """
    raw = {key: dict(value) if isinstance(value, Mapping) else value for key, value in raw.items()}
    if "study" in raw:
        raise ConfigError(
            "this configuration describes a study; "
            + advise("type: bnn-symm compare CONFIG", "use load_study and run_study")
        )
    if "zoo" in raw:
        raise ConfigError(
            "this configuration describes a zoo of networks; "
            + advise("type: bnn-symm zoo train CONFIG", "use load_zoo_plan and create_zoo")
        )
    _check_keys(raw, Config, "")
    for section in (*_ANNOTATED, *_SECTIONS):
        if raw.get(section) is None:
            raw.pop(section, None)
        elif not isinstance(raw[section], dict):
            raise ConfigError(
                f"{section}: got {quoted(raw[section])}, expected a section with "
                f"keys{_name_hint(section, raw)}"
            )
        elif section in ("likelihood", "prior") and is_class_name(raw[section].get("name")):
            raw[section] = _own_class(raw[section], section)
        elif section in _ANNOTATED:
            _check_variant(raw[section], section)
        else:
            _check_keys(raw[section], _SECTIONS[section], f"{section}.")
    raw["warm_start"] = _warm_start(raw.get("warm_start"))
    try:
        config = TypeAdapter(Config).validate_python(raw)
    except ValidationError as error:
        problems = [_describe(problem) for problem in _most_relevant(error)]
        if len(problems) > _MAX_PROBLEMS:
            problems[_MAX_PROBLEMS:] = [f"and {len(problems) - _MAX_PROBLEMS} more"]
        raise ConfigError("; ".join(problems)) from None
    return with_open_prior(config, raw)


def with_open_prior(config: Config, raw: Mapping[str, Any]) -> Config:
    """Return a configuration whose prior is left open, if its method is `auto` and it names none.

    Args:
        config: the configuration.
        raw: the sections that it was made of.
    """
    is_automatic = isinstance(config.inference, Automatic)
    if is_automatic and "prior" not in raw and isinstance(config.architecture, MLPConfig):
        return dataclasses.replace(config, prior=open_prior(config.architecture))
    return config


def dump_config(config: Config) -> str:
    """Return the resolved configuration as YAML.

    Args:
        config: the configuration.
    """
    return dump_yaml(plain_config(config))


def plain_config(config: Config) -> dict[str, Any]:
    """Return the nested mappings from which `parse_config` makes the same configuration.

    Args:
        config: the configuration.
    """
    raw = _plain(dataclasses.asdict(config))
    if isinstance(config.likelihood, Imported):
        raw["likelihood"] = {"name": config.likelihood.name, **raw["likelihood"]["settings"]}
    if isinstance(config.prior, OpenPrior):
        raw["prior"] = None
    elif isinstance(config.prior.name, Imported):
        raw["prior"] |= {"name": config.prior.name.name, **raw["prior"]["name"]["settings"]}
        for setting in _OF_FAMILIES:
            if setting not in config.prior.name.settings:
                raw["prior"].pop(setting)
    return raw


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        raw = read_yaml(path)
    except FileNotFoundError:
        raise ConfigError(
            f"no configuration file {path}"
            + advise("; `bnn-symm examples` lists those of this package", "")
        ) from None
    if raw is None:
        return {}
    if not isinstance(raw, dict):
        raise ConfigError(
            f"{path} contains a {type(raw).__name__}, expected sections such as `inference: "
            "{name: nuts}`"
        )
    return raw


def _variants(section: str) -> dict[str, type]:
    """Map each name of a section that comes in several kinds to its settings class."""
    return _kinds(_ANNOTATED[section])


def _kinds(annotation: Any) -> dict[str, type]:
    """Map the names of alternative settings classes to the classes; empty for other types."""
    classes = get_args(get_args(annotation)[0]) if get_origin(annotation) is Annotated else ()
    if not all(dataclasses.is_dataclass(cls) for cls in classes):
        return {}
    return {get_args(_fields(cls)["name"].type)[0]: cls for cls in classes}


_ANNOTATED: dict[str, Any] = {
    "architecture": ArchitectureConfig,
    "inference": AnyMethod,
    "likelihood": AnyLikelihood,
}


_SECTIONS: dict[str, Any] = {
    "data": DataConfig,
    "prior": Prior,
    "checkpoint": CheckpointConfig,
    "save": SaveConfig,
}


_OF_FAMILIES = frozenset(setting for family in FAMILIES for setting in own_settings(family))


def _own_class(raw: dict[str, Any], section: str) -> Imported | dict[str, Any]:
    """Separate the settings of a class of the user's own code from the other keys of a section."""
    common = set(_fields(Prior)) - _OF_FAMILIES if section == "prior" else {"name"}
    own = {str(key): value for key, value in raw.items() if key not in common}
    imported = Imported(name=raw["name"], settings=own)
    if section == "likelihood":
        return imported
    rest = {key: value for key, value in raw.items() if key in common}
    _check_keys(rest, Prior, "prior.")
    return {**rest, "name": imported}


def _name_hint(section: str, raw: Mapping[str, Any]) -> str:
    """Return a hint for a configuration such as `inference: nuts`."""
    cls = _SECTIONS.get(section) or next(iter(_variants(section).values()))
    return (
        f"; for its name, type {section}.name={one_line(raw[section], _MAX_VALUE)}"
        if "name" in _fields(cls)
        else ""
    )


def _fields(cls: Any) -> dict[str, Any]:
    return {field.name: field for field in dataclasses.fields(cls)}


def _check_keys(raw: Mapping[str, Any], cls: Any, prefix: str) -> None:
    """Check that all keys are fields of a settings class, recursively."""
    for key in raw:
        if key not in _fields(cls):
            raise ConfigError(
                f"unknown key {prefix}{one_line(key, _MAX_VALUE)}; "
                f"{one_line(nearest(str(key), _fields(cls)), _MAX_HINT)}"
            )
        kind = _fields(cls)[key].type
        for below in (kind, *get_args(kind)):
            is_settings = isinstance(below, type) and dataclasses.is_dataclass(below)
            if not (prefix and is_settings and isinstance(raw[key], Mapping)):
                continue
            # The keys of a `dict` of settings are chosen by the user, such as patterns.
            groups = raw[key] if get_origin(kind) is dict else {"": raw[key]}
            for name, group in groups.items():
                if isinstance(group, Mapping):
                    _check_keys(
                        group, below, f"{prefix}{key}.{name}." if name else f"{prefix}{key}."
                    )


UNNAMED = {
    "architecture": "mlp",
    "inference": "mean_field_vi",
    "inference.member": "swag",
    "likelihood": "gaussian",
}
"""The kind of a section that has keys but no name."""


def _warm_start(stages: Any) -> list[dict[str, Any]]:
    """Normalize the warm start to a list of methods with keys; a name stands for its defaults."""
    advice = "expected a list of methods, such as [{name: map, num_steps: 500}]"
    if stages is None:
        return []
    if not isinstance(stages, list | tuple):
        raise ConfigError(f"warm_start: got {quoted(stages)}, {advice}")
    methods = []
    for number, stage in enumerate(stages):
        if not isinstance(stage, str | Mapping):
            raise ConfigError(f"warm_start.{number}: got {quoted(stage)}, {advice}")
        method = {"name": stage} if isinstance(stage, str) else dict(stage)
        _check_variant(method, "inference", label=f"warm_start.{number}")
        methods.append(method)
    return methods


def _check_variant(
    raw: dict[str, Any],
    section: str,
    variants: Mapping[str, type] | None = None,
    label: str | None = None,
) -> None:
    """Check name and keys of a section that comes in several kinds, and of such sections in it.

    Args:
        raw: the section, which gets its name if it has none.
        section: its dotted key, without the number of a list.
        variants: its kinds by name; default those of a section of the configuration.
        label: names it in errors; default `section`.

    Raises:
        ConfigError: if a name or a key is unknown.
    """
    label = label or section
    variants = variants or _variants(section)
    name = raw["name"] = UNNAMED[section] if raw.get("name") is None else raw["name"]
    if not isinstance(name, str) or name not in variants:
        raise ConfigError(f"unknown {label}.name {quoted(name)}; {nearest(str(name), variants)}")
    chosen = variants[name]
    for key in raw:
        if key not in _fields(chosen):
            others = [name for name, cls in variants.items() if key in _fields(cls)]
            hint = (
                f"it belongs to {', '.join(others)}"
                if others
                else nearest(str(key), _fields(chosen))
            )
            raise ConfigError(
                f"unknown key {label}.{one_line(key, _MAX_VALUE)} for {label}.name={name}; {hint}"
            )
    for key, field in _fields(chosen).items():
        if (below := _kinds(field.type)) and raw.get(key) is not None:
            own = {"name": raw[key]} if isinstance(raw[key], str) else raw[key]
            if not isinstance(own, Mapping):
                raise ConfigError(
                    f"{label}.{key}: got {quoted(own)}, expected a section with keys; for its "
                    f"name, type {label}.{key}.name={next(iter(below))}"
                )
            raw[key] = dict(own)
            _check_variant(raw[key], f"{section}.{key}", below, f"{label}.{key}")
    _check_keys(raw, chosen, f"{label}.")
    if section == "architecture":
        _check_symmetry(raw)


def _check_symmetry(raw: dict[str, Any]) -> None:
    """Check that a symmetry section has a kind; the default kind ignores all other keys."""
    if raw.get("symmetry") is None:
        raw.pop("symmetry", None)
        return
    symmetry = raw["symmetry"]
    advice = advise(
        "type --set architecture.symmetry.kind=weight_asymmetric",
        "set its key 'kind' to 'weight_asymmetric'",
    )
    if not isinstance(symmetry, Mapping):
        raise ConfigError(
            f"architecture.symmetry: got {quoted(symmetry)}, expected a section with keys; {advice}"
        )
    if symmetry and symmetry.get("kind") is None:
        names = one_line(", ".join(map(str, symmetry)), _MAX_VALUE)
        raise ConfigError(
            f"architecture.symmetry has {names} but no kind, and would have no effect; {advice}"
        )


def _most_relevant(error: ValidationError) -> list[Any]:
    """Merge the problems of one key: each alternative of a union of types reports its own."""
    places: dict[tuple[Any, ...], Any] = {}
    for problem in error.errors(include_url=False):
        if Imported.__name__ in problem["loc"]:  # names of classes are found before
            continue
        place = tuple(part for part in problem["loc"] if _is_key(part))
        if place not in places:
            places[place] = {**problem, "loc": place, "msgs": [problem["msg"]]}
        else:
            places[place]["msgs"].append(problem["msg"])
    return list(places.values())


def _is_key(part: Any) -> bool:
    """Return whether a part of a location is a key, not a variant or a union member."""
    names = {name for section in _ANNOTATED for name in _variants(section)}
    known_types = (
        "tagged-union",
        "function",
        "literal",
        "constrained",
        "float",
        "int",
        "str",
        "tuple",
        "bool",
    )
    return not (isinstance(part, str) and (part in names or part.startswith(known_types)))


def _describe(problem: Mapping[str, Any]) -> str:
    """Format a problem for the message: key, value, expectation and remedy."""
    key = ".".join(str(part) for part in problem["loc"])
    wanted = ", or ".join(dict.fromkeys(msg[0].lower() + msg[1:] for msg in problem["msgs"]))
    got = problem["input"]
    remedy = ""
    if problem["type"] == "string_type" and got is None:
        remedy = f"; it has no value: write one, such as {_leaf(problem)}: NAME"
    elif problem["type"] == "string_type" and isinstance(got, bool | int | float):
        example = f"{_leaf(problem)}: '{got}'"
        remedy = f"; YAML reads this as another type: write it in quotes, such as {example}"
    expected = one_line(wanted, _MAX_EXPECTED)
    return f"{one_line(key, _MAX_VALUE)}: got {quoted(got)}; {expected}{remedy}"


def _leaf(problem: Mapping[str, Any]) -> str:
    return one_line(problem["loc"][-1] if problem["loc"] else "key", _MAX_VALUE)


def quoted(value: Any) -> str:
    """Return the representation of a value for a message, shortened.

    Args:
        value: the value.
    """
    return one_line(repr(value), _MAX_VALUE)


def _plain(value: Any) -> Any:
    """Convert tuples to lists and keys to strings, recursively."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return value
