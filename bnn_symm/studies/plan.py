"""What there is to do in a study: its fits and pairs, each under a key made of everything that its
result depends on.

So a study that grows by seeds, or a configuration that gains a key, does nothing again that was
done, and a change of the data, or of how they are split, does everything anew (`study_keys`).
"""

import dataclasses
import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import TypeAdapter

from bnn_symm.architectures import fingerprint
from bnn_symm.data import load_dataset
from bnn_symm.runs.configuration.config import Config
from bnn_symm.runs.configuration.prepare import Prepared, prepare
from bnn_symm.studies.keys import data_identity, fit_key, pair_key
from bnn_symm.studies.study import PairsConfig, Setting, Study

Relation = Literal["across_seeds", "within_seed"]


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One fit.

    Attributes:
        key: of everything that it depends on.
        setting: position of its setting.
        seed: of the fit.
        config: resolved, with one thread unless a number is asked for: results then do not depend
            on the machine's.
    """

    key: str
    setting: int
    seed: int
    config: Config


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two fits that a barrier is measured between.

    Attributes:
        key: of everything that it depends on.
        relation: fits of one setting, or of one seed.
        first: key of a cell.
        second: key of a cell.
    """

    key: str
    relation: Relation
    first: str
    second: str


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All of a study.

    Attributes:
        settings: as `Study.settings`.
        cells: setting by setting, seed by seed.
        pairs: likewise.
        options: of all pairs.
    """

    settings: tuple[Setting, ...]
    cells: tuple[Cell, ...]
    pairs: tuple[Pair, ...]
    options: PairsConfig

    def to_json(self) -> dict[str, Any]:
        """What a task needs to know, by key."""
        return {
            "cells": {cell.key: _plain(cell.config) for cell in self.cells},
            "pairs": {
                pair.key: {"first": pair.first, "second": pair.second} for pair in self.pairs
            },
            "options": dataclasses.asdict(self.options),
        }


def plan_study(study: Study) -> Plan:
    """Reads the data, builds every network, and names what is to be done.

    Raises:
        BnnSymmError: for data that cannot be read, or a network that does not fit them.
    """
    load = functools.cache(load_dataset)
    settings, cells = study.settings(), []
    spaces: dict[str, tuple[Any, ...]] = {}
    for number, setting in enumerate(settings):
        for config in setting.configs:
            prepared = prepare(_with_threads(config), load)
            key = fit_key(prepared)
            cells.append(Cell(key=key, setting=number, seed=config.seed, config=prepared.config))
            spaces[key] = _space(prepared)
    pairs = [
        Pair(
            key=_pair_key(first, second, study.config.pairs),
            relation=relation,
            first=first.key,
            second=second.key,
        )
        for relation, first, second in _pairs(cells, spaces, study.config.pairs)
    ]
    return Plan(
        settings=tuple(settings), cells=tuple(cells), pairs=tuple(pairs), options=study.config.pairs
    )


def _pairs(
    cells: Sequence[Cell], spaces: dict[str, tuple[Any, ...]], options: PairsConfig
) -> list[tuple[Relation, Cell, Cell]]:
    found: list[tuple[Relation, Cell, Cell]] = []
    if options.across_seeds != "none":
        for _, group in itertools.groupby(cells, key=lambda cell: cell.setting):
            own = list(group)
            every = itertools.combinations(own, 2)
            disjoint = zip(own[0::2], own[1::2], strict=False)
            for first, second in every if options.across_seeds == "all" else disjoint:
                found.append(("across_seeds", first, second))
    if options.within_seed:
        for first, second in itertools.combinations(cells, 2):
            same = first.key == second.key  # one fit under two names of its data
            if first.seed == second.seed and not same and spaces[first.key] == spaces[second.key]:
                found.append(("within_seed", first, second))
    return found


def _with_threads(config: Config) -> Config:
    return dataclasses.replace(config, threads=1) if config.threads == "auto" else config


def _space(prepared: Prepared) -> tuple[Any, ...]:
    """Equal where weights mean the same."""
    config = prepared.config
    architecture = dataclasses.asdict(config.architecture)
    symmetry = architecture.pop("symmetry")
    architecture.pop("dropout", None)  # no network computes with it
    return (
        repr(architecture),
        symmetry["kind"] if fingerprint(prepared.model.net) is not None else None,
        repr(list(prepared.model.shapes.items())),
        repr(config.likelihood),
        fingerprint(prepared.model.net),
        data_identity(prepared),
        config.data.standardize,
    )


def _pair_key(first: Cell, second: Cell, options: PairsConfig) -> str:
    return pair_key(
        first.key, second.key, {"num_draws": options.num_draws, "matching": options.matching}
    )


def _plain(config: Config) -> dict[str, Any]:
    return TypeAdapter(Config).dump_python(config, mode="json")
