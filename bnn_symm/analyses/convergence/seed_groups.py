"""Group runs that differ only in their seeds, label the groups, and pair their members by seed.

`seed` and `architecture.symmetry.seed` are seeds; `data.split_seed` is not, because another split
is another problem. Settings of checkpoints and saving are ignored too.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bnn_symm.runs.configuration.config import Config

_SEEDS = ("seed", "architecture.symmetry.seed")
_IGNORED = ("checkpoint.", "save.")


@dataclass(frozen=True, kw_only=True)
class SeedGroup:
    """Hold configurations that differ only in their seeds.

    Attributes:
        label: a short label, unique among the groups.
        differences: dotted key -> value, of the keys in which groups differ.
        members: positions of the configurations in the order given.
        seeds: (seed, architecture.symmetry.seed) of each member.
    """

    label: str
    differences: dict[str, Any]
    members: tuple[int, ...]
    seeds: tuple[tuple[Any, Any], ...]


def group_by_seed(configs: Sequence[Config]) -> list[SeedGroup]:
    """Group configurations that differ only in their seeds, in order of first appearance.

    Args:
        configs: the configurations.
    """
    settings = [_flat(dataclasses.asdict(config)) for config in configs]
    members_by_key: dict[tuple[tuple[str, str], ...], list[int]] = {}
    for i, setting in enumerate(settings):
        key = tuple(
            (name, repr(value)) for name, value in sorted(setting.items()) if _matters(name)
        )
        members_by_key.setdefault(key, []).append(i)
    firsts = [settings[members[0]] for members in members_by_key.values()]
    names = [
        name
        for name in dict.fromkeys(name for setting in firsts for name in setting)
        if _matters(name)
    ]
    different = [
        name for name in names if len({_values(setting, [name]) for setting in firsts}) > 1
    ]
    labels = _labels(firsts, different)
    return [
        SeedGroup(
            label=label,
            differences={name: listed(setting[name]) for name in different if name in setting},
            members=tuple(members),
            seeds=tuple((settings[i]["seed"], settings[i].get(_SEEDS[1])) for i in members),
        )
        for label, setting, members in zip(labels, firsts, members_by_key.values(), strict=True)
    ]


def pair_by_seed(first: SeedGroup, second: SeedGroup) -> list[tuple[int, int]]:
    """Pair the members of two groups that have the same seed.

    `seed` makes the pair; if a group has a seed twice, with masks of different seeds, both seeds
    do.

    Args:
        first: the first group.
        second: the second group.

    Returns:
        Pairs of members; none if the groups share no seed, or a seed stands for several runs.
    """
    for length in (1, 2):
        keys = [[seeds[:length] for seeds in group.seeds] for group in (first, second)]
        if all(len(set(seeds_of_group)) == len(seeds_of_group) for seeds_of_group in keys):
            where = dict(zip(keys[1], second.members, strict=True))
            return [
                (i, where[key])
                for key, i in zip(keys[0], first.members, strict=True)
                if key in where
            ]
    return []


_ABSENT = object()


def _matters(name: str) -> bool:
    """Return whether a setting distinguishes groups."""
    return name not in _SEEDS and not name.startswith(_IGNORED)


def _flat(section: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested sections as dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in section.items():
        flat |= (
            _flat(value, f"{prefix}{key}.")
            if isinstance(value, Mapping)
            else {f"{prefix}{key}": value}
        )
    return flat


def listed(value: Any) -> Any:
    """Return a value with tuples converted to lists, as in JSON.

    Args:
        value: the value.
    """
    return [listed(item) for item in value] if isinstance(value, tuple | list) else value


def _labels(groups: Sequence[Mapping[str, Any]], different: Sequence[str]) -> list[str]:
    """Label every group with the keys that distinguish it.

    A key within a section that has a name, or a kind, is compared only with groups of the same
    name: different default learning rates of two methods are not mentioned.
    """
    if not different:
        return ["all runs"]
    labels = []
    for group in groups:
        distinctive = [
            key
            for key in different
            if key in group
            and len({_values(other, [key]) for other in _rivals(group, groups, key)}) > 1
        ]
        labels.append(", ".join(_key_text(key, group[key], different) for key in distinctive))
    return labels


def _rivals(
    group: Mapping[str, Any], groups: Sequence[Mapping[str, Any]], key: str
) -> list[Mapping[str, Any]]:
    """Return the groups with the same names in the sections of a key."""
    names = [
        name
        for name in group
        if _is_name(name) and name != key and key.startswith(name.rpartition(".")[0] + ".")
    ]
    return [other for other in groups if _values(other, names) == _values(group, names)]


def _values(settings: Mapping[str, Any], names: Sequence[str]) -> tuple[str, ...]:
    """Return the values of keys in a comparable form."""
    return tuple(repr(settings.get(name, _ABSENT)) for name in names)


def _is_name(key: str) -> bool:
    """Return whether a key is the name or kind of a section."""
    return key.rpartition(".")[2] in ("name", "kind")


def _key_text(name: str, value: Any, names: Sequence[str]) -> str:
    """Return a key and its value for a label, with the last part of the key where it is unique."""
    last = name.rpartition(".")[2]
    if _is_name(name):
        return str(value)
    short = last if sum(other.rpartition(".")[2] == last for other in names) == 1 else name
    return f"{short}={value_text(value)}"


def value_text(value: Any) -> str:
    """Format a value for a label.

    Args:
        value: the value.
    """
    if isinstance(value, tuple | list):
        if len(value) > 3 and len(set(map(repr, value))) == 1:  # A deep network.
            return f"{len(value)} x {value_text(value[0])}"
        return "[" + ", ".join(value_text(item) for item in value) + "]"
    return f"{value:g}" if isinstance(value, float) else "null" if value is None else str(value)
