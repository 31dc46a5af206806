"""Runs that differ in nothing but seeds, as groups with a label, and pairs of them that share a
seed.

`seed` and `architecture.symmetry.seed` are seeds; `data.split_seed` is not: another split is
another problem. When a fit is written to disk and what is kept of it makes no difference either.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bnn_symm.runs.configuration.config import Config

_SEEDS = ("seed", "architecture.symmetry.seed")
_NO_DIFFERENCE = ("checkpoint.", "save.")


@dataclass(frozen=True, kw_only=True)
class SeedGroup:
    """Configurations that differ in nothing but seeds.

    Attributes:
        label: short, unlike those of the other groups.
        differences: dotted key -> value, of the keys in which groups differ.
        members: positions of the configurations in the order given.
        seeds: of each member, (seed, architecture.symmetry.seed).
    """

    label: str
    differences: dict[str, Any]
    members: tuple[int, ...]
    seeds: tuple[tuple[Any, Any], ...]


def group_by_seed(configs: Sequence[Config]) -> list[SeedGroup]:
    """Groups in the order in which they first appear."""
    settings = [_flat(dataclasses.asdict(config)) for config in configs]
    found: dict[tuple[tuple[str, str], ...], list[int]] = {}
    for i, own in enumerate(settings):
        key = tuple((name, repr(value)) for name, value in sorted(own.items()) if _matters(name))
        found.setdefault(key, []).append(i)
    firsts = [settings[members[0]] for members in found.values()]
    names = [
        name for name in dict.fromkeys(name for own in firsts for name in own) if _matters(name)
    ]
    different = [name for name in names if len({_values(own, [name]) for own in firsts}) > 1]
    labels = _labels(firsts, different)
    return [
        SeedGroup(
            label=label,
            differences={name: listed(own[name]) for name in different if name in own},
            members=tuple(members),
            seeds=tuple((settings[i]["seed"], settings[i].get(_SEEDS[1])) for i in members),
        )
        for label, own, members in zip(labels, firsts, found.values(), strict=True)
    ]


def pair_by_seed(first: SeedGroup, second: SeedGroup) -> list[tuple[int, int]]:
    """Members of two groups that share a seed; empty where they share none, or a seed stands for
    several runs.

    `seed` makes the pair; where a group has a seed twice, with masks of different seeds, both seeds
    do.
    """
    for length in (1, 2):
        keys = [[seeds[:length] for seeds in group.seeds] for group in (first, second)]
        if all(len(set(own)) == len(own) for own in keys):
            where = dict(zip(keys[1], second.members, strict=True))
            return [
                (i, where[key])
                for key, i in zip(keys[0], first.members, strict=True)
                if key in where
            ]
    return []


_ABSENT = object()


def _matters(name: str) -> bool:
    return name not in _SEEDS and not name.startswith(_NO_DIFFERENCE)


def _flat(section: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in section.items():
        flat |= (
            _flat(value, f"{prefix}{key}.")
            if isinstance(value, Mapping)
            else {f"{prefix}{key}": value}
        )
    return flat


def listed(value: Any) -> Any:
    """A value whose tuples are lists, as in JSON."""
    return [listed(item) for item in value] if isinstance(value, tuple | list) else value


def _labels(groups: Sequence[Mapping[str, Any]], different: Sequence[str]) -> list[str]:
    """Of every group the keys that tell it from others.

    A key within a section that has a name, or a kind, is held against groups of this name alone:
        that methods have
    different rates of learning by default need not be said.
    """
    if not different:
        return ["all runs"]
    labels = []
    for own in groups:
        telling = [
            key
            for key in different
            if key in own
            and len({_values(rival, [key]) for rival in _rivals(own, groups, key)}) > 1
        ]
        labels.append(", ".join(_say(key, own[key], different) for key in telling))
    return labels


def _rivals(
    own: Mapping[str, Any], groups: Sequence[Mapping[str, Any]], key: str
) -> list[Mapping[str, Any]]:
    names = [
        name
        for name in own
        if _is_name(name) and name != key and key.startswith(name.rpartition(".")[0] + ".")
    ]
    return [other for other in groups if _values(other, names) == _values(own, names)]


def _values(own: Mapping[str, Any], names: Sequence[str]) -> tuple[str, ...]:
    return tuple(repr(own.get(name, _ABSENT)) for name in names)


def _is_name(key: str) -> bool:
    return key.rpartition(".")[2] in ("name", "kind")


def _say(name: str, value: Any, names: Sequence[str]) -> str:
    """A name stands for itself; another key by its last word where no other ends in it."""
    last = name.rpartition(".")[2]
    if _is_name(name):
        return str(value)
    short = last if sum(other.rpartition(".")[2] == last for other in names) == 1 else name
    return f"{short}={value_text(value)}"


def value_text(value: Any) -> str:
    """A value as labels say it."""
    if isinstance(value, tuple | list):
        if len(value) > 3 and len(set(map(repr, value))) == 1:  # a deep network
            return f"{len(value)} x {value_text(value[0])}"
        return "[" + ", ".join(value_text(item) for item in value) + "]"
    return f"{value:g}" if isinstance(value, float) else "null" if value is None else str(value)
