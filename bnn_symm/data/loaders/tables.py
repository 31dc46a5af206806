"""Tables as raw data: their target, features, groups and times."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
import yaml

from bnn_symm.advice import advise, advise_setting
from bnn_symm.data.config import DataConfig
from bnn_symm.data.loaders.split_columns import splitting_values
from bnn_symm.data.preprocessing.column_types.inference import InferredColumn, infer_column
from bnn_symm.data.preprocessing.column_types.target import InferredTarget, infer_target
from bnn_symm.data.preprocessing.column_values import table_column
from bnn_symm.data.preprocessing.columns import Column
from bnn_symm.data.preprocessing.point_columns import (
    PointColumn,
    infer_point_column,
    point_column_names,
    point_values,
    target_values,
)
from bnn_symm.data.preprocessing.quoting import quoted, short_list
from bnn_symm.data.raw import RawData
from bnn_symm.errors import ConfigError, InvalidData, nearest, one_line, shell_words
from bnn_symm.io.boundary import shown

if TYPE_CHECKING:
    import pandas

# A last column with one of these names is the default target.
_TARGET_NAMES = ("target", "label", "class", "y")
_LICENCE = "not known (a file of the user's)"


def raw_table(
    frame: "pandas.DataFrame", config: DataConfig, *, source: str, is_text: bool = False
) -> RawData:
    """Return a table with its target separated, and the types of its columns inferred.

    Args:
        frame: table with distinct column names and at least one row.
        config: target, columns, their types, and the policy for missing values.
        source: name of its origin.
        is_text: whether all values are texts of a text file.

    Raises:
        ConfigError: if no target is given and none can be inferred.
        InvalidData: if there is no such target, no feature, or a column is ambiguous.
    """
    splitting = _splitting_columns(frame, config, source, is_text=is_text)
    frame = chosen_columns(frame, config, source)
    targets = _target_names(frame, config.target, source)
    for target in targets:
        if any(find_column(frame, name) == target for name in config.types):
            raise ConfigError(
                f"data.types declares the target {quoted(target)}; declare it with data.task "
                "instead"
            )
    point_columns = _point_columns(frame, targets, config, source, is_text=is_text)
    features = frame.drop(columns=[*targets, *(column.name for column in point_columns)])
    if features.shape[1] == 0:
        raise InvalidData(
            f"{shown(source)} has only the target column {quoted(targets[0])}, expected at least "
            "one feature column"
        )
    target_columns, found = _targets(frame, targets, config, is_text=is_text)
    features, columns, notes = infer_features(features, config, source=source, is_text=is_text)
    return RawData(
        x=features,
        y=found.values,
        target=", ".join(targets),
        source=source,
        licence=_LICENCE,
        columns=columns,
        target_notation=found.notation,
        target_columns=target_columns,
        point_columns=point_columns,
        point_values=point_values(point_columns, frame),
        notes=[*found.notes, *notes, *_time_notes(config, columns)],
        groups=splitting.get("groups"),
        times=splitting.get("times"),
    )


def infer_features(
    features: "pandas.DataFrame", config: DataConfig, *, source: str, is_text: bool = False
) -> tuple["pandas.DataFrame", tuple[Column, ...], list[str]]:
    """Infer the types of the columns of a table without its target.

    Args:
        features: table with distinct column names, at least one row and one column.
        config: declared types, and the policy for missing values.
        source: name of its origin.
        is_text: whether all values are texts of a text file.

    Returns:
        The columns that are features with their values, their types, and sentences about what was
        decided.

    Raises:
        InvalidData: if there is no feature, or a column is ambiguous.
    """
    import pandas as pd

    inferred = {
        name: _feature_column(features, name, config, is_text=is_text) for name in features.columns
    }
    columns = tuple(each.column for each in inferred.values() if each.column is not None)
    notes = [note for each in inferred.values() for note in each.notes]
    if not columns:
        raise InvalidData(
            f"{shown(source)} has no column that is a feature ({one_line(notes[-1], 150)}); "
            "declare one with data.types"
        )
    if is_text:
        kept = {name: _series(each.values) for name, each in inferred.items() if each.column}
        return pd.DataFrame(kept), columns, notes
    left_out = [name for name in inferred if not inferred[name].column]
    return features.drop(columns=left_out), columns, notes


def find_column(frame: "pandas.DataFrame", name: str) -> str | None:
    """Return the name of a column, or None if there is none.

    Args:
        frame: table.
        name: name to find; spaces around it are removed if there is no exact match.
    """
    return next((known for known in (name, name.strip()) if known in frame.columns), None)


def chosen_columns(
    frame: "pandas.DataFrame", config: DataConfig, source: str
) -> "pandas.DataFrame":
    """Return a table without the columns to leave out.

    Args:
        frame: table with distinct column names.
        config: target, columns, and their types.
        source: name of its origin.

    Raises:
        ConfigError: if the target is left out.
        InvalidData: if a column does not exist.
    """
    for setting in ("drop", "features", "types"):
        for name in getattr(config, setting) or ():
            _required_column(frame, name, setting, source)
    dropped = [find_column(frame, name) for name in config.drop]
    for target in _given_targets(config.target):
        if find_column(frame, target) in dropped and find_column(frame, target) is not None:
            raise ConfigError(f"data.drop leaves out the target {quoted(target)}; remove it there")
    for role, name in point_column_names(config).items():
        if find_column(frame, name) in dropped:
            raise ConfigError(
                f"data.drop leaves out {quoted(name)}, the column of data.{role}, which is no "
                "feature anyway; remove it there"
            )
    if config.features is not None:
        kept = {find_column(frame, name) for name in config.features}
        kept |= {find_column(frame, name) for name in point_column_names(config).values()}
        kept.update(_target_names(frame, config.target, source))
        dropped += [name for name in frame.columns if name not in kept]
    elif config.group is not None:
        dropped.append(find_column(frame, config.group))
    return frame.drop(columns=list(dict.fromkeys(dropped)))


def _point_columns(
    frame: "pandas.DataFrame",
    targets: Sequence[str],
    config: DataConfig,
    source: str,
    *,
    is_text: bool,
) -> tuple[PointColumn, ...]:
    """Return the columns that describe points, with the notation of their numbers."""
    columns: dict[str, PointColumn] = {}
    for role, given in point_column_names(config).items():
        name = _required_column(frame, given, role, source)
        if name in targets or name in columns:
            other = "target" if name in targets else columns[name].role
            raise ConfigError(
                f"data.{role} and data.{other} name one column, {quoted(name)}; change one of them"
            )
        if any(find_column(frame, declared) == name for declared in config.types):
            raise ConfigError(
                f"data.types declares {quoted(name)}, the column of data.{role}, which has numbers "
                "always; remove it there"
            )
        columns[name] = infer_point_column(
            role, name, table_column(frame, name), config, is_text=is_text
        )
    return tuple(columns.values())


def _required_column(frame: "pandas.DataFrame", name: str, setting: str, source: str) -> str:
    """Return the name of a column that a setting names."""
    column = find_column(frame, name)
    if column is None:
        raise InvalidData(
            f"data.{setting}: {shown(source)} has no column {quoted(name)}; "
            f"{nearest(name, _shown_names(list(frame.columns)))}"
        )
    return column


def _splitting_columns(
    frame: "pandas.DataFrame", config: DataConfig, source: str, *, is_text: bool
) -> dict[Literal["groups", "times"], np.ndarray]:
    """Return the groups and the times that columns define."""
    given = {}
    for setting in ("group", "time"):
        name = getattr(config, setting)
        if name is not None:
            column = _required_column(frame, name, setting, source)
            if column in [find_column(frame, own) for own in _given_targets(config.target)]:
                raise ConfigError(
                    f"data.{setting} names the target {quoted(name)}, expected another column"
                )
            given[setting] = table_column(frame, column)
    return splitting_values(given, config, len(frame), is_text=is_text)


def _time_notes(config: DataConfig, columns: Sequence[Column]) -> list[str]:
    """Return a note if the column by which points are split is a feature too."""
    names = [column.name.strip() for column in columns]
    if config.time is None or config.time.strip() not in names:
        return []
    left_out = advise_setting(f"data.drop=[{', '.join([*config.drop, config.time])}]")
    return [
        f"column {quoted(config.time)} orders the splits and is a feature too: test points are "
        f"later than all training points; {left_out} leaves the feature out"
    ]


def _feature_column(
    frame: "pandas.DataFrame", name: str, config: DataConfig, *, is_text: bool
) -> InferredColumn:
    """Infer the type of a feature column; an error names the setting that leaves it out."""
    try:
        return infer_column(table_column(frame, name), config, is_text=is_text)
    except InvalidData as error:
        names = [*config.drop, name]
        value = yaml.safe_dump(names, default_flow_style=True, allow_unicode=True, width=math.inf)
        listed = value.strip() if config.drop else value.strip()[1:-1]
        advice = advise(f"--set {shell_words(f'data.drop={listed}')}", f"drop={names!r}")
        raise InvalidData(f"{error}; {one_line(advice, 150)} leaves the column out") from None


def _targets(
    frame: "pandas.DataFrame", names: Sequence[str], config: DataConfig, *, is_text: bool
) -> tuple[tuple[PointColumn, ...], InferredTarget]:
    """Return the columns of several targets, none for one, and their values."""
    if len(names) == 1:
        return (), infer_target(table_column(frame, names[0]), config, is_text=is_text)
    try:
        columns = tuple(
            infer_point_column("target", name, table_column(frame, name), config, is_text=is_text)
            for name in names
        )
        return columns, InferredTarget(values=target_values(columns, frame))
    except InvalidData as error:
        raise InvalidData(
            f"{error} (several targets are numbers; fit classes in one run for each column, such "
            f"as {advise_setting(f'data.target={names[0]}')})"
        ) from None


def _given_targets(target: str | tuple[str, ...] | None) -> tuple[str, ...]:
    return (target,) if isinstance(target, str) else target or ()


def _target_names(
    frame: "pandas.DataFrame", target: str | tuple[str, ...] | None, source: str
) -> list[str]:
    """Return the names of the target columns, all of which exist."""
    names = list(frame.columns)
    if target is not None:
        found = []
        for given in _given_targets(target):
            name = find_column(frame, given)
            if name is None:
                raise InvalidData(
                    f"{shown(source)} has no column {quoted(given)}; "
                    f"{nearest(given, _shown_names(names))}"
                )
            found.append(name)
        return found
    if names[-1].lower() in _TARGET_NAMES:
        return [names[-1]]
    raise ConfigError(
        f"no target column of {shown(source)} is given; use "
        f"{advise_setting('data.target=COLUMN')} with one of: {short_list(names, 30)}"
    )


def _shown_names(names: Sequence[str]) -> list[str]:
    """Return names of columns for a hint, shortened to fit on one line."""
    return [one_line(name, 30) for name in names[:200]]


def _series(values: np.ndarray) -> "pandas.Series":
    import pandas as pd

    return pd.Series(values, dtype=object) if values.dtype == object else pd.Series(values)
