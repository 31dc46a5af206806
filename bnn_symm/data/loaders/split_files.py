"""Files of which each is the test or the validation split of another file."""

import os
from dataclasses import replace
from typing import Literal

import numpy as np

from bnn_symm.data.config import DataConfig
from bnn_symm.data.loaders.files import read_points
from bnn_symm.data.preprocessing.quoting import quoted
from bnn_symm.data.raw import RawData, SplitFile
from bnn_symm.errors import ConfigError, InvalidData, nearest, one_line
from bnn_symm.io.boundary import shown

_PARTS: tuple[Literal["validation", "test"], ...] = ("validation", "test")


def with_split_files(raw: RawData, config: DataConfig) -> RawData:
    """Return raw data with the files of their other splits, which are read.

    Args:
        raw: data for training.
        config: names of the files.

    Raises:
        DatasetNotFound: if a file does not exist.
        ConfigError: if a file is that of the training data.
        InvalidData: if a file is damaged, or lacks the target.
    """
    files = []
    for part in _PARTS:
        name = getattr(config, f"{part}_file")
        if name is not None:
            files.append(_read(part, name, raw, config))
    return replace(raw, files=files) if files else raw


def _read(
    part: Literal["validation", "test"], name: str, raw: RawData, config: DataConfig
) -> SplitFile:
    if all(map(os.path.isfile, (name, config.name))) and os.path.samefile(name, config.name):
        raise ConfigError(
            f"data.{part}_file: {shown(name)} is the file for training too; name another file"
        )
    target = raw.target_columns or raw.target
    x, y, points = read_points(name, target, raw.point_columns, delimiter=config.delimiter)
    if y is None:
        names = [] if isinstance(x, np.ndarray) else [one_line(each, 30) for each in x.columns]
        hint = one_line(nearest(raw.target, names), 120) if names else "save it as array y"
        raise InvalidData(
            f"data.{part}_file: {shown(name)} has no target {quoted(raw.target)}; {hint}"
        )
    for column in raw.point_columns:
        if column.role not in points:
            raise InvalidData(
                f"data.{part}_file: {shown(name)} has no {column.what}, which the file for "
                "training has; add it"
            )
    return SplitFile(part=part, name=name, x=x, y=y, point_values=points)
