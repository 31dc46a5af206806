"""Configure studies: grids of fits under matched conditions, with controls and seeds.

    study:
      vary:
        architecture.symmetry.kind: [standard, weight_asymmetric]
        architecture.widths: [[64, 64], [128, 128]]
      seeds: 5
      controls:
        - init_matched
        - parameter_matched
        - {kind: block_fixed, block: 4}
        - {kind: weight_asymmetric, kappa: 0}
      pairs: {across_seeds: all}

`vary: {data.fold: all}` fits every fold of the data (`data.num_folds`, or the splits of a UCI set).
Folds are replicates, as seeds are, and no settings: results are means over folds. Repeated random
splits, `vary: {data.split_seed: [0, 1, 2]}`, are treated as folds with these numbers.

All fits share the other sections of the configuration. Equal seeds therefore mean equal data order,
initial values and noise, under equal budgets. The grid is the product of the varied keys. The
controls are added to the kinds of symmetry at every point of the rest of the grid. Settings that
define the same network, such as a standard network at several values of kappa, are merged.
"""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import TypeAdapter, ValidationError

from bnn_symm.analyses.convergence.seed_groups import group_by_seed, listed, value_text
from bnn_symm.architectures.config import SymmetryConfig, SymmetryKind
from bnn_symm.arguments import checked
from bnn_symm.data import fold_numbers
from bnn_symm.errors import ConfigError, nearest, one_line
from bnn_symm.io.documents import dump_yaml
from bnn_symm.runs.configuration.config import Config, parse_config, quoted, read_raw
from bnn_symm.runs.configuration.overrides import set_nested
from bnn_symm.studies.config import ALL, PairsConfig, StudyConfig

Role = Literal["baseline", "asymmetric", "keeps_symmetry", "breaks_symmetry"]
"""Role of a setting in the comparison.

The standard network; a network without the symmetry; a control that keeps the symmetry but shares
another property with the asymmetric network; a control that breaks the symmetry but lacks another
property of the asymmetric network.
"""

_FOLD, _SPLIT = "data.fold", "data.split_seed"
_SYMMETRY = "architecture.symmetry"
_KIND = f"{_SYMMETRY}.kind"
# Keys that each kind of symmetry uses. The others stay at their defaults, so that equal networks
# are one setting.
_USED_KEYS: dict[str, tuple[str, ...]] = {
    "standard": (),
    "weight_asymmetric": ("fixed_per_row", "kappa", "mask", "seed"),
    "sigma_asymmetric": ("gate_scale", "seed"),
    "bias_asymmetric": ("kappa", "seed"),
    "bias_ordered": ("kappa",),
    "init_matched": ("fixed_per_row", "kappa", "mask", "seed"),
    "parameter_matched": ("fixed_per_row", "kappa", "mask", "seed"),
    "block_fixed": ("fixed_per_row", "kappa", "mask", "block", "seed"),
}


@dataclass(frozen=True, kw_only=True)
class Setting:
    """The common configuration of fits that differ only in their fold and their seed.

    Attributes:
        label: a short, unique name.
        context: label of the group of settings that differ only in the symmetry; `all runs` if
            there is one group.
        kind: kind of symmetry.
        role: its role in the comparison.
        differences: dotted keys that differ between settings, with their values.
        context_differences: those keys that do not belong to the symmetry.
        configs: one configuration per fold and seed.
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
    """The configuration of a study.

    Attributes:
        base: the settings that all fits share, as nested mappings.
        config: the section `study`.
        name: stem of the name of its file.
    """

    base: dict[str, Any]
    config: StudyConfig
    name: str = "study"

    @property
    def replicates(self) -> str | None:
        """Return the varied key whose values are replicates: folds, or repeated splits."""
        return next((key for key in (_FOLD, _SPLIT) if key in self.config.vary), None)

    def fold(self, config: Config) -> int | None:
        """Return the number of the fold of a fit, or the seed of its split; None if it has none.

        Args:
            config: the configuration of the fit.
        """
        replicates = self.replicates
        return None if replicates is None else getattr(config.data, replicates.split(".")[1])

    def to_yaml(self) -> str:
        """Return the whole configuration as YAML, which `load_study` reads."""
        section = TypeAdapter(StudyConfig).dump_python(self.config, mode="json")
        if section["vary"].get(_FOLD) == [ALL]:
            section["vary"][_FOLD] = ALL
        return dump_yaml({**self.base, "study": section})

    def settings(self) -> list[Setting]:
        """Return all settings of the grid, in each context the controls last.

        Returns:
            The settings, without duplicates.

        Raises:
            ConfigError: for an unknown key or a wrong value, with its location.
        """
        names = list(
            dict.fromkeys(
                (repr(symmetry), is_control) for symmetry, is_control in self._symmetries()
            )
        )
        symmetries = {repr(symmetry): symmetry for symmetry, _ in self._symmetries()}
        rest = {
            key: values
            for key, values in self.config.vary.items()
            if not key.startswith(_SYMMETRY) and key != self.replicates
        }
        grid: dict[str, tuple[bool, list[Config]]] = {}
        for values in itertools.product(*rest.values()):
            changes = dict(zip(rest, values, strict=True))
            folds = self._folds(changes, symmetries[names[0][0]])
            for name, is_control in names:
                configs = [
                    self._fit_config(changes | fold, symmetries[name], seed)
                    for fold in folds
                    for seed in self.config.seed_numbers
                ]
                # A setting that is varied and also a control is not a control.
                grid.setdefault(repr(configs[0]), (is_control, configs))
        return _labeled_settings(list(grid.values()))

    def configs(self) -> list[Config]:
        """Return the configuration of every fit."""
        return [config for setting in self.settings() for config in setting.configs]

    def _folds(
        self, changes: Mapping[str, Any], symmetry: Mapping[str, Any]
    ) -> list[dict[str, Any]]:
        """Return the changes of each fold: one without a change if folds are not varied."""
        key = self.replicates
        if key is None:
            return [{}]
        folds = self.config.vary[key]
        if key == _FOLD and folds == [ALL]:
            base = self._fit_config({**changes, _FOLD: None}, symmetry, 0)
            folds = list(fold_numbers(base.data))
        elif ALL in folds:
            raise ConfigError(f"study.vary.{key}: got {quoted(folds)}, expected all, or numbers")
        return [{key: fold} for fold in dict.fromkeys(folds)]

    def _symmetries(self) -> list[tuple[dict[str, Any], bool]]:
        """Return the sections `architecture.symmetry` of the grid, and which of them are controls.

        Raises:
            ConfigError: for an unknown key or a wrong value.
        """
        base = dict(_section(_section(self.base, "architecture"), "symmetry"))
        axes = {
            key: values for key, values in self.config.vary.items() if key.startswith(_SYMMETRY)
        }
        symmetries = []
        for values in itertools.product(*axes.values()):
            keys = dict(base)
            for key, value in zip(axes, values, strict=True):
                if key != _SYMMETRY:
                    keys[key.removeprefix(f"{_SYMMETRY}.")] = value
                elif isinstance(value, Mapping):
                    keys |= value
                else:
                    raise ConfigError(
                        f"study.vary.{key}: got {quoted(value)}, expected keys such as "
                        "{kind: standard}"
                    )
            symmetries.append((_used_keys(keys, f"study.vary.{_SYMMETRY}"), False))
        for control in self.config.controls:
            keys = {"kind": control} if isinstance(control, str) else dict(control)
            if "kind" not in keys:
                raise ConfigError(
                    f"study.controls: {quoted(control)} has no kind; expected for example "
                    "{kind: block_fixed}"
                )
            symmetries.append((_used_keys({**base, **keys}, "study.controls"), True))
        return symmetries

    def _fit_config(
        self, changes: Mapping[str, Any], symmetry: Mapping[str, Any], seed: int
    ) -> Config:
        raw = _copy_mappings(self.base)
        for key, value in changes.items():
            set_nested(raw, key, _copy_mappings(value), f"study.vary.{key}")
        set_nested(raw, _SYMMETRY, dict(symmetry), _SYMMETRY)
        raw["seed"] = seed
        return parse_config(raw)


@checked
def load_study(path: str | Path | None, overrides: Sequence[str] = ()) -> Study:
    """Read the configuration of a study and check every fit of it.

    Args:
        path: of a YAML file; None for the defaults with overrides.
        overrides: changes such as `study.seeds=5`.

    Returns:
        The configuration of the study.

    Raises:
        ConfigError: for a missing or malformed file, an unknown key or name, or a wrong value in
            the study or in any of its fits.

    Example:
        >>> study = load_study(None, ["study.vary={prior.scale: [0.5, 1.0]}", "study.seeds=3"])
        >>> [setting.label for setting in study.settings()]
        ['scale=0.5, standard', 'scale=1, standard']
    """
    raw = read_raw(path, overrides)
    section = raw.pop("study", None)
    if not isinstance(section, Mapping):
        where = path or "the configuration"
        got = "no section `study`" if section is None else f"study: {quoted(section)}"
        raise ConfigError(
            f"{where}: got {got}, expected the varied keys, such as `study: {{vary: {{{_KIND}: "
            "[standard, weight_asymmetric]}, seeds: 5}`"
        )
    if "seed" in raw:
        raise ConfigError("seed: a study takes its seeds from study.seeds")
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
        location = ".".join(
            str(part)
            for part in problem["loc"]
            if not str(part).startswith(("constrained", "function"))
        )
        raise ConfigError(
            f"study.{one_line(location, 60)}: got {quoted(problem['input'])}; {problem['msg']}"
        ) from None
    for key in config.vary:
        if key != _FOLD and section["vary"][key] == ALL:
            raise ConfigError(
                f"study.vary.{key}: got all, expected the list of values; all is for {_FOLD}"
            )
        if key == "seed":
            raise ConfigError("study.vary.seed: seeds are not varied here; write study.seeds")
        if key == f"{_SYMMETRY}.seed":
            raise ConfigError(
                f"study.vary.{key}: weights under masks of different seeds cannot be compared; "
                f"set {_SYMMETRY}.seed once for all fits"
            )
    study = Study(base=raw, config=config, name=Path(path).stem if path else "study")
    study.settings()
    return study


def _labeled_settings(grid: Sequence[tuple[bool, list[Config]]]) -> list[Setting]:
    # Settings that differ in neither the symmetry nor the seed form a context.
    contexts = group_by_seed([_without_symmetry(configs[0]) for _, configs in grid])
    context_of = {member: context for context in contexts for member in context.members}
    settings = []
    for i, (is_control, configs) in enumerate(grid):
        symmetry = configs[0].architecture.symmetry
        shown = {
            key: value for key, value in _not_default(symmetry).items() if key in _differing(grid)
        }
        context = context_of[i]
        label = ", ".join(
            [symmetry.kind, *(f"{key}={value_text(value)}" for key, value in shown.items())]
        )
        differences = {
            _KIND: symmetry.kind,
            **{f"{_SYMMETRY}.{key}": listed(value) for key, value in shown.items()},
        }
        settings.append(
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
    return settings


def _not_default(symmetry: SymmetryConfig) -> dict[str, Any]:
    default = SymmetryConfig()
    return {
        field.name: getattr(symmetry, field.name)
        for field in dataclasses.fields(SymmetryConfig)
        if field.name not in ("kind", "seed")
        and getattr(symmetry, field.name) != getattr(default, field.name)
    }


def _differing(grid: Sequence[tuple[bool, list[Config]]]) -> set[str]:
    """Return the keys of the symmetry that distinguish settings of one kind, and `block`."""
    by_kind: dict[tuple[str, str], set[str]] = {}
    for _, configs in grid:
        symmetry = configs[0].architecture.symmetry
        for key in _USED_KEYS[symmetry.kind]:
            by_kind.setdefault((symmetry.kind, key), set()).add(repr(getattr(symmetry, key)))
    return {key for (_, key), values in by_kind.items() if len(values) > 1} | {"block"}


def _without_symmetry(config: Config) -> Config:
    return dataclasses.replace(
        config, architecture=dataclasses.replace(config.architecture, symmetry=SymmetryConfig())
    )


def _role(symmetry: SymmetryConfig, is_control: bool) -> Role:
    if symmetry.kind == "standard":
        return "baseline"
    broken = symmetry.kind.endswith(("_asymmetric", "_ordered"))
    if not is_control and broken:
        return "asymmetric"
    return (
        "breaks_symmetry"
        if broken or (symmetry.kind, symmetry.block) == ("block_fixed", 1)
        else "keeps_symmetry"
    )


def _used_keys(keys: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return the keys that their kind of symmetry uses."""
    kind = keys.get("kind") or "standard"
    if not isinstance(kind, str) or kind not in _USED_KEYS:
        raise ConfigError(
            f"{where}: unknown kind {quoted(kind)}; {nearest(str(kind), get_args(SymmetryKind))}"
        )
    known = [field.name for field in dataclasses.fields(SymmetryConfig)]
    for key in keys:
        if key not in known:
            raise ConfigError(
                f"{where}: unknown key {one_line(key, 60)}; {nearest(str(key), known)}"
            )
    return {"kind": kind, **{key: value for key, value in keys.items() if key in _USED_KEYS[kind]}}


def _section(raw: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    section = raw.get(name) or {}
    if not isinstance(section, Mapping):
        raise ConfigError(f"{name}: got {quoted(section)}, expected a section with keys")
    return section


def _copy_mappings(value: Any) -> Any:
    """Return a copy with new mappings; other values are never changed in place."""
    return (
        {key: _copy_mappings(item) for key, item in value.items()}
        if isinstance(value, Mapping)
        else value
    )
