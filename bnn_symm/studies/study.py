"""A study: a grid of fits under matched conditions, with controls and seeds, from one
configuration.

    study:
      vary: {architecture.symmetry.kind: [standard, weight_asymmetric], architecture.widths: [[64,
          64], [128, 128]]}
      seeds: 5
      controls: [init_matched, parameter_matched, {kind: block_fixed, block: 4}, {kind:
          weight_asymmetric, kappa: 0}]
      pairs: {across_seeds: all}

The other sections are what all fits share, so that equal seeds mean equal data order, initial
values and noise, and equal budgets. The grid is the product of what varies; the controls stand
beside the kinds of symmetry, at every place of the rest of the grid. Settings that mean the same
network, such as a standard one at several kappas, are one.
"""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, TypeAdapter, ValidationError

from bnn_symm.analyses.convergence.seed_groups import group_by_seed, listed, value_text
from bnn_symm.architectures.config import SymmetryConfig, SymmetryKind
from bnn_symm.arguments import checked
from bnn_symm.errors import ConfigError, nearest, one_line
from bnn_symm.io.documents import dump_yaml
from bnn_symm.runs.configuration.config import Config, parse_config, quoted, read_raw
from bnn_symm.runs.configuration.overrides import set_nested
from bnn_symm.settings import NonNegativeInt, PositiveInt, settings

Role = Literal["baseline", "asymmetric", "keeps_symmetry", "breaks_symmetry"]
"""What a setting is for: the standard network, a network without the symmetry, a control that
shares something else with that network but keeps the symmetry, a control without the symmetry that
lacks something else."""

_SYMMETRY = "architecture.symmetry"
_KIND = f"{_SYMMETRY}.kind"
# Keys of the symmetry that a kind reads; others are left at their defaults, so that equal networks
# are one setting.
_READ: dict[str, tuple[str, ...]] = {
    "standard": (),
    "weight_asymmetric": ("fixed_per_row", "kappa", "mask", "seed"),
    "sigma_asymmetric": ("gate_scale", "seed"),
    "init_matched": ("fixed_per_row", "kappa", "mask", "seed"),
    "parameter_matched": ("fixed_per_row", "kappa", "mask", "seed"),
    "block_fixed": ("fixed_per_row", "kappa", "mask", "block", "seed"),
}


@settings
class PairsConfig:
    """Between which fits barriers are measured, naive and aligned.

    Attributes:
        across_seeds: of one setting: `all` pairs of seeds; `disjoint` ones, (first, second),
            (third, fourth), ..., which are independent; `none`.
        within_seed: also between settings that share a seed, wherever their weights mean the same:
            of a standard network and its `init_matched` control, of methods, of temperatures.
        num_draws: of each posterior, at every place of the path.
        matching: what the alignment compares.
    """

    across_seeds: Literal["all", "disjoint", "none"] = "all"
    within_seed: bool = False
    num_draws: PositiveInt = 50
    matching: Literal["w2", "means", "precision", "activations"] = "w2"


@settings
class StudyConfig:
    """The section `study` of a configuration.

    Attributes:
        vary: dotted key, or section, -> its values.
        seeds: how many (0, 1, ...), or which.
        controls: kinds of symmetry, or keys of `architecture.symmetry`, to stand beside the kinds
            in `vary`.
        pairs: between which fits barriers are measured.
    """

    vary: dict[str, Annotated[list[Any], Field(min_length=1)]] = Field(default_factory=dict)
    seeds: PositiveInt | Annotated[tuple[NonNegativeInt, ...], Field(min_length=1)] = 3
    controls: list[SymmetryKind | dict[str, Any]] = Field(default_factory=list)
    pairs: PairsConfig = Field(default_factory=PairsConfig)

    @property
    def seed_numbers(self) -> tuple[int, ...]:
        """The seeds, in the order given, each once."""
        return (
            tuple(range(self.seeds))
            if isinstance(self.seeds, int)
            else tuple(dict.fromkeys(self.seeds))
        )


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What fits have in common that differ in nothing but their seed.

    Attributes:
        label: short, unlike those of the other settings.
        context: label of the settings that differ from it in nothing but the symmetry; `all runs`
            if it is the only.
        kind: of its symmetry.
        role: what it is for.
        differences: dotted key -> value, of what differs between settings.
        context_differences: those of them that are not of the symmetry.
        configs: one a seed.
    """

    label: str
    context: str
    kind: str
    role: Role
    differences: dict[str, Any]
    context_differences: dict[str, Any]
    configs: tuple[Config, ...]


@dataclass(frozen=True, kw_only=True)
class Study:
    """A study as it was configured.

    Attributes:
        base: what all fits share, as nested mappings.
        config: the section `study`.
        name: of the file that it was read from, without its ending.
    """

    base: dict[str, Any]
    config: StudyConfig
    name: str = "study"

    def to_yaml(self) -> str:
        """Everything, to be read by `load_study`."""
        own = TypeAdapter(StudyConfig).dump_python(self.config, mode="json")
        return dump_yaml({**self.base, "study": own})

    def settings(self) -> list[Setting]:
        """All settings of the grid, controls after what they control for.

        Raises:
            ConfigError: for a key or value that is not one, naming where it stands.
        """
        places = list(
            dict.fromkeys((repr(place), is_control) for place, is_control in self._symmetries())
        )
        symmetries = {repr(place): place for place, _ in self._symmetries()}
        rest = {
            key: values for key, values in self.config.vary.items() if not key.startswith(_SYMMETRY)
        }
        found: dict[str, tuple[bool, list[Config]]] = {}
        for values in itertools.product(*rest.values()):
            for name, is_control in places:
                own = [
                    self._cell(dict(zip(rest, values, strict=True)), symmetries[name], seed)
                    for seed in self.config.seed_numbers
                ]
                # What is varied and also a control is no control.
                found.setdefault(repr(own[0]), (is_control, own))
        return _described(list(found.values()))

    def configs(self) -> list[Config]:
        """Return the configuration of every fit."""
        return [config for setting in self.settings() for config in setting.configs]

    def _symmetries(self) -> list[tuple[dict[str, Any], bool]]:
        """Keys of `architecture.symmetry` of every place along that axis, and whether it is a
        control.
        """
        base = dict(_section(_section(self.base, "architecture"), "symmetry"))
        axes = {
            key: values for key, values in self.config.vary.items() if key.startswith(_SYMMETRY)
        }
        found = []
        for values in itertools.product(*axes.values()):
            own = dict(base)
            for key, value in zip(axes, values, strict=True):
                if key != _SYMMETRY:
                    own[key.removeprefix(f"{_SYMMETRY}.")] = value
                elif isinstance(value, Mapping):
                    own |= value
                else:
                    raise ConfigError(
                        f"study.vary.{key}: got {quoted(value)}, wanted keys, such as {{kind: "
                        f"standard}}"
                    )
            found.append((_meaningful(own, f"study.vary.{_SYMMETRY}"), False))
        for control in self.config.controls:
            keys = {"kind": control} if isinstance(control, str) else dict(control)
            if "kind" not in keys:
                raise ConfigError(
                    f"study.controls: {quoted(control)} has no kind; wanted such as {{kind: "
                    f"block_fixed}}"
                )
            found.append((_meaningful({**base, **keys}, "study.controls"), True))
        return found

    def _cell(self, changes: Mapping[str, Any], symmetry: Mapping[str, Any], seed: int) -> Config:
        raw = _copied(self.base)
        for key, value in changes.items():
            set_nested(raw, key, _copied(value), f"study.vary.{key}")
        set_nested(raw, _SYMMETRY, dict(symmetry), _SYMMETRY)
        raw["seed"] = seed
        return parse_config(raw)


@checked
def load_study(path: str | Path | None, overrides: Sequence[str] = ()) -> Study:
    """Reads a study and checks every fit of it.

    Args:
        path: of a YAML file; None for the defaults with overrides.
        overrides: such as `study.seeds=5`.

    Raises:
        ConfigError: for a missing or malformed file, an unknown key or name, a wrong value, in the
            study or in any of its fits.
    """
    raw = read_raw(path, overrides)
    section = raw.pop("study", None)
    if not isinstance(section, Mapping):
        where = path or "the configuration"
        got = "no section `study`" if section is None else f"study: {quoted(section)}"
        raise ConfigError(
            f"{where}: got {got}, wanted what varies, such as `study: {{vary: {{{_KIND}: "
            "[standard, "
            f"weight_asymmetric]}}, seeds: 5}}`"
        )
    if "seed" in raw:
        raise ConfigError("seed: a study has its seeds under study.seeds")
    known = [field.name for field in dataclasses.fields(StudyConfig)]
    for key in section:
        if key not in known:
            raise ConfigError(f"unknown key study.{one_line(key, 60)}; {nearest(str(key), known)}")
    pairs = section.get("pairs")
    for key in pairs if isinstance(pairs, Mapping) else ():
        options = [field.name for field in dataclasses.fields(PairsConfig)]
        if key not in options:
            raise ConfigError(
                f"unknown key study.pairs.{one_line(key, 60)}; {nearest(str(key), options)}"
            )
    try:
        config = TypeAdapter(StudyConfig).validate_python(dict(section))
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        place = ".".join(
            str(part)
            for part in problem["loc"]
            if not str(part).startswith(("constrained", "function"))
        )
        raise ConfigError(
            f"study.{one_line(place, 60)}: got {quoted(problem['input'])}; {problem['msg']}"
        ) from None
    for key in config.vary:
        if key == "seed":
            raise ConfigError("study.vary.seed: seeds have a key of their own; write study.seeds")
        if key == f"{_SYMMETRY}.seed":
            raise ConfigError(
                f"study.vary.{key}: masks of other seeds cannot be compared weight by weight; "
                "leave it to the base"
            )
    study = Study(base=raw, config=config, name=Path(path).stem if path else "study")
    study.settings()
    return study


def _described(found: Sequence[tuple[bool, list[Config]]]) -> list[Setting]:
    # Of what is no seed and no symmetry; the groups are the contexts.
    contexts = group_by_seed([_without_symmetry(configs[0]) for _, configs in found])
    context_of = {member: context for context in contexts for member in context.members}
    described = []
    for i, (is_control, configs) in enumerate(found):
        symmetry = configs[0].architecture.symmetry
        own = {
            key: value for key, value in _not_default(symmetry).items() if key in _differing(found)
        }
        context = context_of[i]
        label = ", ".join(
            [symmetry.kind, *(f"{key}={value_text(value)}" for key, value in own.items())]
        )
        differences = {
            _KIND: symmetry.kind,
            **{f"{_SYMMETRY}.{key}": listed(value) for key, value in own.items()},
        }
        described.append(
            Setting(
                label=label if len(contexts) == 1 else f"{context.label}, {label}",
                context=context.label,
                kind=symmetry.kind,
                role=_role(symmetry, is_control),
                differences={**context.differences, **differences},
                context_differences=context.differences,
                configs=tuple(configs),
            )
        )
    return described


def _not_default(symmetry: SymmetryConfig) -> dict[str, Any]:
    default = SymmetryConfig()
    return {
        field.name: getattr(symmetry, field.name)
        for field in dataclasses.fields(SymmetryConfig)
        if field.name not in ("kind", "seed")
        and getattr(symmetry, field.name) != getattr(default, field.name)
    }


def _differing(found: Sequence[tuple[bool, list[Config]]]) -> set[str]:
    """Keys of the symmetry that tell apart settings of one kind, or that only a control sets."""
    by_kind: dict[tuple[str, str], set[str]] = {}
    for _, configs in found:
        symmetry = configs[0].architecture.symmetry
        for key in _READ[symmetry.kind]:
            by_kind.setdefault((symmetry.kind, key), set()).add(repr(getattr(symmetry, key)))
    return {key for (_, key), values in by_kind.items() if len(values) > 1} | {"block"}


def _without_symmetry(config: Config) -> Config:
    return dataclasses.replace(
        config, architecture=dataclasses.replace(config.architecture, symmetry=SymmetryConfig())
    )


def _role(symmetry: SymmetryConfig, is_control: bool) -> Role:
    if symmetry.kind == "standard":
        return "baseline"
    broken = symmetry.kind in ("weight_asymmetric", "sigma_asymmetric")
    if not is_control and broken:
        return "asymmetric"
    return (
        "breaks_symmetry"
        if broken or (symmetry.kind, symmetry.block) == ("block_fixed", 1)
        else "keeps_symmetry"
    )


def _meaningful(keys: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Without the keys that its kind does not read."""
    kind = keys.get("kind") or "standard"
    if not isinstance(kind, str) or kind not in _READ:
        raise ConfigError(
            f"{where}: unknown kind {quoted(kind)}; {nearest(str(kind), get_args(SymmetryKind))}"
        )
    known = [field.name for field in dataclasses.fields(SymmetryConfig)]
    for key in keys:
        if key not in known:
            raise ConfigError(
                f"{where}: unknown key {one_line(key, 60)}; {nearest(str(key), known)}"
            )
    return {"kind": kind, **{key: value for key, value in keys.items() if key in _READ[kind]}}


def _section(raw: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    section = raw.get(name) or {}
    if not isinstance(section, Mapping):
        raise ConfigError(f"{name}: got {quoted(section)}, wanted a section with keys of its own")
    return section


def _copied(value: Any) -> Any:
    """Mappings anew; what is in them is never changed in place."""
    return (
        {key: _copied(item) for key, item in value.items()} if isinstance(value, Mapping) else value
    )
