"""Split points by the rule that a configuration asks for."""

import hashlib
from dataclasses import dataclass

import numpy as np

from bnn_symm.advice import advise_setting
from bnn_symm.data.config import DataConfig
from bnn_symm.data.preprocessing.quoting import quoted
from bnn_symm.data.splits.gap import gap_mask
from bnn_symm.data.splits.group_rule import GroupRule
from bnn_symm.data.splits.random_rule import RandomRule
from bnn_symm.data.splits.rule import SplitRule
from bnn_symm.data.splits.settings import check_fold, num_folds
from bnn_symm.data.splits.time_rule import TimeRule
from bnn_symm.errors import InvalidData


@dataclass(frozen=True, kw_only=True, eq=False)
class SplitIndices:
    """Row indices of the three splits.

    The splits are disjoint; train and validation are in the order of the rule.

    Attributes:
        train: rows of the training split.
        validation: rows of the validation split.
        test: rows of the test split.
        rule: a phrase on the rule by which they were chosen.
    """

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    rule: str = ""

    def sha256(self) -> str:
        """Return the SHA-256 of the rows of train, validation and test, in this order."""
        digest = hashlib.sha256()
        for rows in (self.train, self.validation, self.test):
            digest.update(f"{len(rows)};".encode())
            digest.update(np.ascontiguousarray(rows, dtype="<i8").data)
        return digest.hexdigest()


@dataclass(frozen=True, kw_only=True, eq=False)
class OwnSplit:
    """Rows of the splits that a data set, or files of their own, define.

    Attributes:
        train: rows for training, and for validation unless it has rows of its own; None for all
            other rows.
        test: rows of the test split; None if it is taken from the others.
        validation: rows of the validation split; None if it is taken from the others.
        test_name: a phrase on the test split.
        validation_name: a phrase on the validation split.
    """

    train: np.ndarray | None = None
    test: np.ndarray | None = None
    validation: np.ndarray | None = None
    test_name: str = ""
    validation_name: str = ""


def split_points(
    num_points: int,
    config: DataConfig,
    *,
    classes: np.ndarray | None = None,
    own: OwnSplit | None = None,
    gap_values: np.ndarray | None = None,
    groups: np.ndarray | None = None,
    times: np.ndarray | None = None,
) -> SplitIndices:
    """Split `num_points` rows into train, validation and test.

    Args:
        num_points: number of rows.
        config: fractions, fold, seed and limit.
        classes: class indices (point,) for a stratified split, in which the training split has at
            least one point of each class.
        own: splits of the data themselves, used instead of fractions.
        gap_values: feature (point,) whose middle third becomes the test split (`gap_mask`).
        groups: group indices (point,) for a split by group.
        times: times (point,) for a split by time.

    Raises:
        ConfigError: if there is no such fold.
        InvalidData: if there are too few rows for a split.
    """
    own, fold = own or OwnSplit(), ""
    rule = _rule(num_points, config, classes, groups, times)
    rows = rule.order
    if own.validation is not None:
        rows = rows[~np.isin(rows, own.validation)]
    if gap_values is not None:
        inside = gap_mask(gap_values)
        test, rest = np.flatnonzero(inside), rows[~inside[rows]]
        test_name = f"the middle third of {quoted(config.gap_feature)}"
    elif own.test is not None:
        test, test_name = own.test, own.test_name
        rest = rows[~np.isin(rows, test)] if own.train is None else rows[np.isin(rows, own.train)]
    elif config.fold is not None:
        count = num_folds(config)
        check_fold(config.fold, count)
        test, rest = rule.fold(config.fold, count)
        test_name, fold = "", f"fold {config.fold} of {count} (0 to {count - 1}), "
    else:
        (test, rest), test_name = rule.take(rows, config.test_fraction, "test"), ""
    rest = rule.limit(rest, config.limit)
    if own.validation is None:
        validation, train = rule.take(rest, config.validation_fraction, "validation")
    else:
        validation, train = own.validation, rest
    if len(train) < 2:
        raise InvalidData(
            f"{num_points} rows leave {len(train)} for training, expected at least 2; use more "
            f"data, or {advise_setting('data.test_fraction=0', 'data.validation_fraction=0')}"
        )
    phrases = [f"test: {test_name}"] if test_name else []
    phrases += [f"validation: {own.validation_name}"] if own.validation_name else []
    if len(phrases) < 2:
        others = fold + rule.describe(train, validation, test)
        phrases.append(f"others: {others}" if phrases else others)
    return SplitIndices(train=train, validation=validation, test=test, rule="; ".join(phrases))


def _rule(
    num_points: int,
    config: DataConfig,
    classes: np.ndarray | None,
    groups: np.ndarray | None,
    times: np.ndarray | None,
) -> SplitRule:
    """Return the rule by which rows are taken that the data do not assign themselves."""
    if groups is not None:
        name = quoted(config.group)
        return GroupRule(groups=groups, name=name, seed=config.split_seed, classes=classes)
    if times is not None:
        return TimeRule(times=times, name=quoted(config.time))
    return RandomRule(num_points=num_points, seed=config.split_seed, classes=classes)
