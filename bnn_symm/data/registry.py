"""Loading of data sets by name and of files by path."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from bnn_symm.arguments import checked
from bnn_symm.data.assemble import SPLIT_NAMES, assemble, build_preprocessing, split_raw_data
from bnn_symm.data.config import DataConfig, data_config, kind_of
from bnn_symm.data.dataset import Dataset, Preprocessing, Split
from bnn_symm.data.layouts import check_no_layout
from bnn_symm.data.loaders import bundled, graphs, idx, images
from bnn_symm.data.loaders.data_folders import find
from bnn_symm.data.loaders.fetch import fetchable_names, files_of
from bnn_symm.data.loaders.files import is_file_name, load_file, not_its_graph, read_points
from bnn_symm.data.loaders.split_files import with_split_files
from bnn_symm.data.loaders.uci import num_splits, uci, uci_names
from bnn_symm.data.preprocessing.quoting import quoted
from bnn_symm.data.raw import RawData
from bnn_symm.data.splits.settings import num_folds
from bnn_symm.errors import ConfigError, DatasetNotFound, InvalidData, nearest, one_line
from bnn_symm.io.boundary import shown

if TYPE_CHECKING:
    pass

_LOADERS: dict[str, Callable[[], RawData]] = {
    "digits": bundled.digits,
    "breast_cancer": bundled.breast_cancer,
    "wine": bundled.wine,
    "iris": bundled.iris,
    "diabetes": bundled.diabetes,
    "gap": bundled.gap,
    "digits_0_4": bundled.digits_0_4,
    "digits_5_9": bundled.digits_5_9,
    "digits_graph": graphs.digits_graph,
    "fashion_mnist": idx.fashion_mnist,
    "mnist10k": images.mnist10k,
    "cifar10": images.cifar10,
}

# Settings of files, which named data sets do not have.
_FILE_SETTINGS = (
    *("drop", "features", "types", "delimiter", "weight", "event", "exposure"),
    *("group", "time", "test_file", "validation_file"),
)


@dataclass(frozen=True, kw_only=True)
class DatasetInfo:
    """One line of `bnn-symm data list`.

    Args:
        name: value of `data.name`.
        description: one sentence.
        available: whether the data set can be loaded now.
        fetchable: whether `bnn-symm data fetch` can download it.
        num_splits: number of splits of its own that `data.fold` chooses from; 0 for none.
    """

    name: str
    description: str
    available: bool
    fetchable: bool
    num_splits: int = 0


def dataset_names() -> tuple[str, ...]:
    """Return the names of all data sets, including the UCI sets on this machine."""
    return (*_LOADERS, *uci_names())


def list_datasets() -> tuple[DatasetInfo, ...]:
    """Return all data sets and whether each is available on this machine.

    Nothing is read or downloaded.
    """
    infos = []
    for name in dataset_names():
        fetchable = name in fetchable_names()
        count = 0 if name in _LOADERS else num_splits(name)
        text = (
            (_LOADERS[name].__doc__ or "")
            if name in _LOADERS
            else f"a regression data set of the UCI suite with {count} splits (data.fold)."
        )
        available = find(name, files_of(name)) is not None if fetchable else True
        infos.append(
            DatasetInfo(
                name=name,
                description=text.strip().splitlines()[0].removeprefix("Load "),
                available=available,
                fetchable=fetchable,
                num_splits=count,
            )
        )
    return tuple(infos)


def fold_numbers(config: DataConfig) -> range:
    """Return the numbers of all folds of data: K folds, or the splits of a UCI set.

    Args:
        config: the data; `fold` is ignored.
    """
    own = num_splits(config.name) if config.name.startswith("uci/") else 0
    if own and config.num_folds is not None:
        raise ConfigError(
            f"data.num_folds={config.num_folds}: {config.name} has {own} splits of its own; "
            "remove it"
        )
    return range(own or num_folds(config))


@checked
def load_dataset(
    name_or_config: str | Path | DataConfig = "digits",
    *,
    dtype: torch.dtype = torch.float32,
    **keys: Any,
) -> Dataset:
    """Load a data set, split it, and standardize it by its training split.

    Args:
        name_or_config: name (see `dataset_names`), path of a CSV, Parquet or NPZ file, or a
            complete config.
        dtype: floating-point type of the features and of a numeric target.
        **keys: further keys of `DataConfig`, such as `target="species"`.

    Returns:
        The train, validation and test splits with their preprocessing.

    Raises:
        DatasetNotFound: if the name is unknown, or the data are not on this machine.
        ConfigError: if a key or a value is not valid.
        InvalidData: if the data have missing values, a single class, or other defects.

    Example:
        >>> data = load_dataset("iris", test_fraction=0.2)
        >>> data.train.x.shape, data.class_labels
        (torch.Size([108, 4]), ('setosa', 'versicolor', 'virginica'))
    """
    config = data_config(name_or_config, keys)
    return assemble(Dataset, _read(config), config, dtype)


def load_points(
    name_or_file: str | Path | DataConfig,
    preprocessing: Preprocessing,
    *,
    part: Literal["train", "validation", "test"] = "test",
    dtype: torch.dtype = torch.float32,
) -> Split:
    """Load points of another origin, encoded by the given preprocessing.

    Args:
        name_or_file: a file for all its rows; a name for one split of that data set with default
            keys; a config for one split with its keys.
        preprocessing: preprocessing of the data that a network was fitted to.
        part: split of a named data set.
        dtype: floating-point type of the features and of a numeric target.

    Raises:
        DatasetNotFound: if the name is unknown, or the data are not on this machine.
        ConfigError: if a key or a value is not valid.
        InvalidData: if the inputs do not fit the preprocessing, or the target is missing or has
            unknown classes.
    """
    x, y, points = _read_raw_points(name_or_file, preprocessing, part, need_target=True)
    weight = points.get("weight")
    return Split(
        x=preprocessing.encode(x, dtype),
        y=preprocessing.encode_targets(y, points, dtype),
        weight=None if weight is None else torch.from_numpy(weight).to(dtype),
    )


def read_inputs(
    name_or_file: str | Path | DataConfig,
    preprocessing: Preprocessing,
    dtype: torch.dtype = torch.float32,
) -> Float[Tensor, "point *feature"]:
    """Return inputs without a target, encoded by the given preprocessing.

    Args:
        name_or_file: a file for all its rows, or a name for the test split of that data set; see
            `load_points`.
        preprocessing: preprocessing of the data that a network was fitted to.
        dtype: floating-point type of the result.

    Raises:
        DatasetNotFound: if the name is unknown, or the data are not on this machine.
        InvalidData: if the inputs do not fit the preprocessing.
    """
    return read_inputs_and_exposure(name_or_file, preprocessing, dtype)[0]


def read_inputs_and_exposure(
    name_or_file: str | Path | DataConfig,
    preprocessing: Preprocessing,
    dtype: torch.dtype = torch.float32,
) -> tuple[Float[Tensor, "point *feature"], Float[np.ndarray, " point"] | None]:
    """Return the inputs as `read_inputs` does, and the exposures of the points.

    Args:
        name_or_file: as for `read_inputs`.
        preprocessing: preprocessing of the data that a network was fitted to.
        dtype: floating-point type of the inputs.

    Returns:
        Inputs, and exposures in their own units; None if the data have none.
    """
    x, _, points = _read_raw_points(name_or_file, preprocessing, "test", need_target=False)
    return preprocessing.encode(x, dtype), points.get("exposure")


def _read_raw_points(
    source: str | Path | DataConfig, preprocessing: Preprocessing, part: str, *, need_target: bool
) -> tuple[Any, Any, dict[str, np.ndarray]]:
    _check_preprocessing(preprocessing)
    config = data_config(source, {})
    if (
        config.name not in _LOADERS
        and not config.name.startswith("uci/")
        and is_file_name(config.name)
    ):
        target: Any = config.target or preprocessing.target
        if preprocessing.target_columns or isinstance(target, tuple):
            if config.target is not None:
                raise ConfigError(
                    "columns that are predicted together are those of the run; leave data.target "
                    "out"
                )
            target = preprocessing.target_columns
        delimiter = config.delimiter or preprocessing.delimiter
        # Weights and events are of no use without targets.
        columns = tuple(
            column
            for column in preprocessing.point_columns
            if need_target or column.role == "exposure"
        )
        are_nodes = preprocessing.kind == "nodes"
        x, y, points = read_points(
            config.name, target, columns, delimiter=delimiter, are_nodes=are_nodes
        )
        if need_target and y is None:
            known = [] if isinstance(x, np.ndarray) else [one_line(name, 30) for name in x.columns]
            name = target if isinstance(target, str) else preprocessing.target
            hint = one_line(nearest(name, known), 120) if known else "save it as array y"
            raise InvalidData(
                f"{shown(config.name)} has no target {quoted(name)}, which is required here; {hint}"
            )
        for column in columns:
            # Weights may be absent; without targets, exposures may be, too.
            if need_target and column.role != "weight" and column.role not in points:
                raise InvalidData(
                    f"{shown(config.name)} has no {column.what}, which is required here; add it"
                )
        return x, y, points
    raw = _read(config)
    if raw.graph is not None and preprocessing.kind == "nodes":
        raise InvalidData(not_its_graph(config.name))
    if part not in SPLIT_NAMES:
        raise ConfigError(
            f"got the split {part!r}, which does not exist; {nearest(part, SPLIT_NAMES)}"
        )
    rows = getattr(_split_indices(raw, config), part)
    x = raw.x[rows] if isinstance(raw.x, np.ndarray) else raw.x.iloc[rows].reset_index(drop=True)
    return x, raw.y[rows], {role: values[rows] for role, values in raw.point_values.items()}


def _split_indices(raw: RawData, config: DataConfig) -> Any:
    preprocessing = build_preprocessing(raw, config)
    features = preprocessing.features(raw.x)
    target = preprocessing.encode_target(raw.y, torch.float64).numpy()
    return split_raw_data(raw, config, preprocessing, features, target)


def _read(config: DataConfig) -> RawData:
    name = config.name
    if config.num_neighbors is not None and name != "digits_graph":
        raise ConfigError(
            f"data.num_neighbors is for data.name=digits_graph, got data.name={quoted(name, 80)}; "
            "remove it"
        )
    if name == "digits_graph":
        raw = graphs.digits_graph(config.num_neighbors)
    elif name in _LOADERS:
        raw = _LOADERS[name]()
    elif name == "uci" or name.startswith("uci/"):
        raw = uci(name, config.fold, config.num_folds)
    elif is_file_name(name):
        return with_split_files(load_file(config), config)
    else:
        raise DatasetNotFound(
            f"got {quoted(name, 80)}, which is no data set; give a name, or a path that ends in "
            f".csv, .parquet or .npz; {nearest(name, dataset_names())}"
        )
    for setting in _FILE_SETTINGS:
        if not getattr(config, setting):
            continue
        raise ConfigError(
            f"data.{setting} is for tables in files, but {name!r} is a named data set; remove it"
        )
    check_no_layout(config, name)
    if config.fold is not None and raw.test is not None and not raw.split_name:
        raise ConfigError(
            f"data set {name!r} has a test split of its own, got data.fold={config.fold}; remove "
            "data.fold"
        )
    if config.target not in (None, raw.target):
        raise ConfigError(
            f"data set {name!r} predicts {raw.target!r}, got data.target={quoted(config.target)}; "
            "remove data.target"
        )
    return raw


def _check_preprocessing(preprocessing: Any) -> None:
    if not isinstance(preprocessing, Preprocessing):
        raise ConfigError(
            f"got {kind_of(preprocessing)} as preprocessing, expected a Preprocessing; pass "
            "dataset.preprocessing of the data set that the network was fitted to"
        )
