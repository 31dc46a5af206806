"""Plan a study: list its fits and pairs, each under a key of everything its result depends on.

Results are found by their keys (`studies.keys`). A study with additional seeds or settings
therefore repeats no task, whereas a change of the data or of their split repeats every task.
"""

import dataclasses
import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from bnn_symm.architectures import fingerprint, fingerprint_of
from bnn_symm.data import load_dataset
from bnn_symm.runs.configuration.config import Config, plain_config
from bnn_symm.runs.configuration.prepare import Prepared, prepare
from bnn_symm.studies.config import PairsConfig
from bnn_symm.studies.keys import data_identity, fit_key, pair_key
from bnn_symm.studies.study import Setting, Study

Relation = Literal["across_seeds", "within_seed"]


@dataclass(frozen=True, kw_only=True)
class StudyFit:
    """One fit of a study.

    Attributes:
        key: hash of everything that the fit depends on.
        setting: index of its setting.
        seed: of the fit.
        fold: of the data, or the seed of its split, in a study of folds; else None.
        config: the resolved configuration, with one thread unless a number is given, so that
            results do not depend on the number of cores.
    """

    key: str
    setting: int
    seed: int
    fold: int | None = None
    config: Config

    @property
    def replicate(self) -> str:
        """Return the fold, if there are several, and the seed."""
        fold = "" if self.fold is None else f"fold {self.fold}, "
        return f"{fold}seed {self.seed}"


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A pair of fits between which a barrier is measured.

    Attributes:
        key: hash of everything that the barrier depends on.
        relation: whether the fits share their setting or their seed.
        first: key of the first fit.
        second: key of the second fit.
    """

    key: str
    relation: Relation
    first: str
    second: str


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All fits and pairs of a study.

    Attributes:
        settings: as `Study.settings`.
        fits: ordered by setting, then by fold, then by seed.
        pairs: in the same order.
        options: of all pairs.
    """

    settings: tuple[Setting, ...]
    fits: tuple[StudyFit, ...]
    pairs: tuple[Pair, ...]
    options: PairsConfig

    def to_json(self) -> dict[str, Any]:
        """Return the content of `plan.json`: what each task needs, by key."""
        return {
            "cells": {fit.key: _plain(fit.config) for fit in self.fits},
            "pairs": {
                pair.key: {"first": pair.first, "second": pair.second} for pair in self.pairs
            },
            "options": dataclasses.asdict(self.options),
        }


def plan_study(study: Study) -> Plan:
    """Read the data, build every network, and return the fits and pairs of a study.

    Args:
        study: the configuration.

    Returns:
        The plan.

    Raises:
        BnnSymmError: for data that cannot be read, or a network that does not fit them.
    """
    load = functools.cache(load_dataset)
    settings, fits = study.settings(), []
    spaces: dict[str, tuple[Any, ...]] = {}
    for number, setting in enumerate(settings):
        for config in setting.configs:
            prepared = prepare(_with_threads(config), load)
            key = fit_key(prepared)
            fits.append(
                StudyFit(
                    key=key,
                    setting=number,
                    seed=config.seed,
                    fold=study.fold(config),
                    config=prepared.config,
                )
            )
            spaces[key] = _parameter_space(prepared)
    pairs = [
        Pair(
            key=_pair_key(first, second, study.config.pairs),
            relation=relation,
            first=first.key,
            second=second.key,
        )
        for relation, first, second in _pairs(fits, spaces, study.config.pairs)
    ]
    return Plan(
        settings=tuple(settings), fits=tuple(fits), pairs=tuple(pairs), options=study.config.pairs
    )


def _pairs(
    fits: Sequence[StudyFit], spaces: dict[str, tuple[Any, ...]], options: PairsConfig
) -> list[tuple[Relation, StudyFit, StudyFit]]:
    pairs: list[tuple[Relation, StudyFit, StudyFit]] = []
    if options.across_seeds != "none":
        for _, group in itertools.groupby(fits, key=lambda fit: (fit.setting, fit.fold)):
            members = list(group)
            every = itertools.combinations(members, 2)
            disjoint = zip(members[0::2], members[1::2], strict=False)
            for first, second in every if options.across_seeds == "all" else disjoint:
                pairs.append(("across_seeds", first, second))
    if options.within_seed:
        for first, second in itertools.combinations(fits, 2):
            same = first.key == second.key  # the same data under two names
            if first.seed == second.seed and not same and spaces[first.key] == spaces[second.key]:
                pairs.append(("within_seed", first, second))
    return pairs


def _with_threads(config: Config) -> Config:
    return dataclasses.replace(config, threads=1) if config.threads == "auto" else config


def _parameter_space(prepared: Prepared) -> tuple[Any, ...]:
    """Return a value that is equal for fits whose weights have the same meaning."""
    config = prepared.config
    architecture = dataclasses.asdict(config.architecture)
    symmetry = architecture.pop("symmetry")
    architecture.pop("dropout", None)  # it does not change the function of the weights
    return (
        repr(architecture),
        symmetry["kind"] if fingerprint(prepared.model.net) is not None else None,
        repr(list(prepared.model.shapes.items())),
        repr(config.likelihood),
        fingerprint(prepared.model.net),
        fingerprint_of(prepared.model.fixed_values()),
        data_identity(prepared),
        config.data.standardize,
    )


def _pair_key(first: StudyFit, second: StudyFit, options: PairsConfig) -> str:
    return pair_key(
        first.key, second.key, {"num_draws": options.num_draws, "matching": options.matching}
    )


def _plain(config: Config) -> dict[str, Any]:
    return plain_config(config)
