"""Data sets by name, and files by path."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from bnn_symm.arguments import checked
from bnn_symm.data.assemble import PARTS, assemble, split_raw, unscaled
from bnn_symm.data.config import DataConfig
from bnn_symm.data.dataset import Dataset, Preprocessing, Split
from bnn_symm.data.loaders import bundled, idx, images
from bnn_symm.data.loaders.data_folders import find
from bnn_symm.data.loaders.fetch import fetchable_names, files_of
from bnn_symm.data.loaders.files import is_file_name, load_file, read_points
from bnn_symm.data.loaders.uci import uci, uci_names
from bnn_symm.data.preprocessing.quoting import quoted
from bnn_symm.data.raw import RawData
from bnn_symm.errors import ConfigError, DatasetNotFound, InvalidData, nearest, one_line
from bnn_symm.io.boundary import shown

if TYPE_CHECKING:
    import pandas

_LOADERS: dict[str, Callable[[], RawData]] = {
    "digits": bundled.digits,
    "breast_cancer": bundled.breast_cancer,
    "wine": bundled.wine,
    "iris": bundled.iris,
    "diabetes": bundled.diabetes,
    "gap": bundled.gap,
    "digits_0_4": bundled.digits_0_4,
    "digits_5_9": bundled.digits_5_9,
    "fashion_mnist": idx.fashion_mnist,
    "mnist10k": images.mnist10k,
    "cifar10": images.cifar10,
}


@dataclass(frozen=True, kw_only=True)
class DatasetInfo:
    """One line of `bnn-symm data list`.

    Args:
        name: what to write for `data.name`.
        description: one sentence.
        available: whether it can be loaded now.
        fetchable: whether `bnn-symm data fetch` gets it.
    """

    name: str
    description: str
    available: bool
    fetchable: bool


def dataset_names() -> tuple[str, ...]:
    """Every data set with a name, and those of the UCI suite that are on this machine."""
    return (*_LOADERS, *uci_names())


def list_datasets() -> tuple[DatasetInfo, ...]:
    """What there is to load, and what of it is on this machine; nothing is read or downloaded."""
    infos = []
    for name in dataset_names():
        fetchable = name in fetchable_names()
        text = (
            (_LOADERS[name].__doc__ or "")
            if name in _LOADERS
            else "a regression set of the UCI suite."
        )
        available = find(name, files_of(name)) is not None if fetchable else True
        infos.append(
            DatasetInfo(
                name=name,
                description=text.strip().splitlines()[0],
                available=available,
                fetchable=fetchable,
            )
        )
    return tuple(infos)


@checked
def load_dataset(
    name_or_config: str | Path | DataConfig = "digits",
    *,
    dtype: torch.dtype = torch.float32,
    **keys: Any,
) -> Dataset:
    """A data set, cut into train, validation and test and standardized on the training part.

    Args:
        name_or_config: a name (`dataset_names()`), the path of a CSV, Parquet or NPZ file, or a
            whole config.
        dtype: floating type of the features and of a numeric target.
        **keys: further keys of `DataConfig`, such as `target="species"`.

    Raises:
        DatasetNotFound: if the name is unknown, or the data are not on this machine.
        ConfigError: for a key or a value that is not valid.
        InvalidData: if the data cannot be used as they are.
    """
    config = _config(name_or_config, keys)
    return assemble(_read(config), config, dtype)


def load_points(
    name_or_file: str | Path | DataConfig,
    preprocessing: Preprocessing,
    *,
    part: Literal["train", "validation", "test"] = "test",
    dtype: torch.dtype = torch.float32,
) -> Split:
    """Points of another origin, treated as the data of `preprocessing` were.

    Args:
        name_or_file: a file gives all its rows; a name gives one part of that set, split with the
            default keys; a config gives one part of its set, split with its keys.
        preprocessing: of the data that a network was fitted to.
        part: which part of a set with a name.
        dtype: floating type of the features and of a numeric target.

    Raises:
        DatasetNotFound, ConfigError: as `load_dataset` does.
        InvalidData: if the inputs do not fit the preprocessing, the target is missing or has
            unknown classes.
    """
    x, y = _read_raw_points(name_or_file, preprocessing, part, need_target=True)
    return Split(x=preprocessing.encode(x, dtype), y=preprocessing.encode_target(y, dtype))


def read_inputs(
    name_or_file: str | Path | DataConfig,
    preprocessing: Preprocessing,
    dtype: torch.dtype = torch.float32,
) -> Float[Tensor, "point *feature"]:
    """Inputs without a target: all rows of a file, or the test part of a named set; see
    `load_points`.
    """
    return read_inputs_and_table(name_or_file, preprocessing, dtype)[0]


def read_inputs_and_table(
    name_or_file: str | Path | DataConfig,
    preprocessing: Preprocessing,
    dtype: torch.dtype = torch.float32,
) -> tuple[Float[Tensor, "point *feature"], "pandas.DataFrame | None"]:
    """As `read_inputs`, and the raw table with all its columns, or None where the data are an
    array.
    """
    x, _ = _read_raw_points(name_or_file, preprocessing, "test", need_target=False)
    return preprocessing.encode(x, dtype), None if isinstance(x, np.ndarray) else x


def _read_raw_points(
    source: str | Path | DataConfig, preprocessing: Preprocessing, part: str, *, need_target: bool
) -> tuple[Any, Any]:
    _check_preprocessing(preprocessing)
    config = _config(source, {})
    if (
        config.name not in _LOADERS
        and not config.name.startswith("uci/")
        and is_file_name(config.name)
    ):
        target = config.target or preprocessing.target
        x, y = read_points(config.name, target)
        if need_target and y is None:
            known = [] if isinstance(x, np.ndarray) else [one_line(name, 30) for name in x.columns]
            hint = one_line(nearest(target, known), 120) if known else "save it as the array y"
            raise InvalidData(
                f"{shown(config.name)} has no target {quoted(target)}, which is needed here; {hint}"
            )
        return x, y
    raw = _read(config)
    if part not in PARTS:
        raise ConfigError(f"there is no part {part!r}; {nearest(part, PARTS)}")
    rows = getattr(_own_split(raw, config), part)
    x = raw.x[rows] if isinstance(raw.x, np.ndarray) else raw.x.iloc[rows].reset_index(drop=True)
    return x, raw.y[rows]


def _own_split(raw: RawData, config: DataConfig) -> Any:
    own = unscaled(raw, config)
    features = own.features(raw.x)
    return split_raw(raw, config, own, features, own.encode_target(raw.y, torch.float64).numpy())


def _read(config: DataConfig) -> RawData:
    name = config.name
    if name in _LOADERS:
        raw = _LOADERS[name]()
    elif name == "uci" or name.startswith("uci/"):
        raw = uci(name)
    elif is_file_name(name):
        return load_file(config)
    else:
        raise DatasetNotFound(
            f"there is no data set {quoted(name, 80)}; {nearest(name, dataset_names())} For a file "
            "of your own, give a path that ends in .csv, .parquet or .npz"
        )
    if config.target not in (None, raw.target):
        raise ConfigError(
            f"data set {name!r} predicts {raw.target!r}, got data.target={quoted(config.target)}; "
            "remove data.target"
        )
    return raw


def _config(source: Any, keys: dict[str, Any]) -> DataConfig:
    """The configuration that a name, a path or a configuration means; anything else is refused with
    advice.
    """
    if not isinstance(source, str | Path | DataConfig):
        raise ConfigError(
            f"got {_kind(source)}, expected the name of a data set, the path of a file, or a "
            "DataConfig; save data in memory as a file (DataFrame.to_csv, numpy.savez(FILE, "
            "x=..., y=...)), or use bnn_symm.estimators"
        )
    known = [field.name for field in fields(DataConfig)]
    for key in keys:
        if key not in known:
            raise ConfigError(f"data has no key {quoted(key)}; {nearest(key, known)}")
    try:
        if isinstance(source, DataConfig):
            return replace(source, **keys)
        return DataConfig(**{"name": str(source), **keys})
    except ConfigError as error:
        raise ConfigError(f"data.{str(error).removeprefix('DataConfig: ')}") from None


def _check_preprocessing(preprocessing: Any) -> None:
    if not isinstance(preprocessing, Preprocessing):
        raise ConfigError(
            f"got {_kind(preprocessing)} as preprocessing, expected a Preprocessing; give "
            "DATASET.preprocessing of the data set that the network was fitted to"
        )


def _kind(value: Any) -> str:
    """A value by its type, as a message names it."""
    return f"an object of type {type(value).__module__.partition('.')[0]}.{type(value).__name__}"
