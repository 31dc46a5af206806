"""The UCI regression suite of the BNN literature, with its fixed splits, from a user's folder.

A data set is a folder `uci/<name>/` with `data.txt`, `index_features.txt`, `index_target.txt` and,
for each split, `index_train_<i>.txt` and `index_test_<i>.txt`. The files are whitespace-separated
text, in which indices may be written as floats.

References:
    Hernández-Lobato and Adams (2015), Probabilistic Backpropagation, arXiv:1502.05336.
    Gal and Ghahramani (2016), Dropout as a Bayesian Approximation, arXiv:1506.02142.
"""

import warnings
from pathlib import Path
from typing import Literal

import numpy as np

from bnn_symm.data.loaders.data_folders import user_folder
from bnn_symm.data.raw import RawData
from bnn_symm.errors import ConfigError, DatasetNotFound, InvalidData, nearest


def uci_names() -> tuple[str, ...]:
    """Return the data sets in $BNN_SYMM_DATA/uci, as `uci/<name>`."""
    root = user_folder()
    folders = sorted((root / "uci").glob("*/data.txt")) if root else []
    return tuple(f"uci/{file.parent.name}" for file in folders)


def num_splits(name: str) -> int:
    """Return the number of fixed splits of a data set; 0 if it has none or does not exist.

    Args:
        name: `uci/<name>`.
    """
    root = user_folder()
    folder = root / name if root else None
    return 0 if folder is None else len(list(folder.glob("index_test_*.txt")))


def uci(name: str, fold: int | None = None, num_folds: int | None = None) -> RawData:
    """Load a data set of the suite.

    Args:
        name: `uci/<name>` for a random split by key, or `uci/<name>/<split>` for the fixed split of
            that number.
        fold: number of the fixed split, if the data set has some; None for the one of the name.
        num_folds: number of folds that is asked for, which fixed splits do not allow.

    Raises:
        DatasetNotFound: if there is no such folder.
        ConfigError: if the data set has no such split, or the split is named twice.
        InvalidData: if a file is damaged.
    """
    _, set_name, *rest = [*name.split("/"), ""][: max(2, name.count("/") + 1)]
    if not set_name or len(rest) > 1 or (rest and not rest[0].isdigit()):
        raise ConfigError(
            f"got data.name={name!r}, expected uci/<name> or uci/<name>/<split number>"
        )
    root = user_folder()
    if root is None:
        raise DatasetNotFound(
            f"data set {name!r} is read from $BNN_SYMM_DATA/uci/{set_name}/, but BNN_SYMM_DATA is "
            "not set; run: export BNN_SYMM_DATA=FOLDER"
        )
    folder = root / "uci" / set_name
    if not (folder / "data.txt").is_file():
        known = uci_names()
        hint = nearest(f"uci/{set_name}", known) if known else "that folder is empty"
        raise DatasetNotFound(
            f"{folder / 'data.txt'} of {name!r} does not exist; copy the files of the data set "
            f"there; {hint}"
        )
    data = _numbers(folder / "data.txt", 2)
    features = _indices(folder / "index_features.txt", data.shape[1])
    target = _indices(folder / "index_target.txt", data.shape[1])
    if len(target) != 1 or target[0] in features:
        raise InvalidData(
            f"{folder}: got target columns {target.tolist()}, expected one that is not a feature"
        )
    count = num_splits(f"uci/{set_name}")
    split = _chosen_split(name, rest, fold, num_folds, count)
    train = test = None
    if split is not None:
        train, test = (_split_rows(folder, part, split, len(data)) for part in ("train", "test"))
        if np.intersect1d(train, test).size:
            raise InvalidData(
                f"{folder}: split {split} has points in both train and test; download the files "
                "again"
            )
    return RawData(
        x=data[:, features],
        y=data[:, target[0]],
        target="y",
        source=f"UCI suite of Hernández-Lobato and Adams (2015): {set_name}",
        licence="that of the UCI set",
        task="regression",
        feature_names=tuple(f"x{index}" for index in features),
        train=train,
        test=test,
        split_name="" if split is None else f"split {split} of {count} (0 to {count - 1})",
    )


def _chosen_split(
    name: str, rest: list[str], fold: int | None, num_folds: int | None, count: int
) -> str | None:
    """Return the number of the fixed split as it is written in the names of its files."""
    if fold is None:
        return rest[0] if rest else None
    if rest:
        raise ConfigError(
            f"data.name={name} and data.fold={fold} both name a split, expected one of them; "
            "remove the number from data.name"
        )
    if not count:
        return None
    if num_folds is not None:
        raise ConfigError(
            f"data.num_folds={num_folds}: {name} has {count} splits of its own; remove it"
        )
    return str(fold)


def _split_rows(folder: Path, part: str, split: str, num_rows: int) -> np.ndarray:
    path = folder / f"index_{part}_{split}.txt"
    if not path.is_file():
        count = len(list(folder.glob(f"index_{part}_*.txt")))
        raise ConfigError(f"{folder.name} has no split {split}; it has {count}, numbered from 0")
    return _indices(path, num_rows)


def _indices(path: Path, end: int) -> np.ndarray:
    values = _numbers(path, 1)
    indices = values.astype(np.int64)
    if (values != indices).any() or (indices < 0).any() or (indices >= end).any():
        raise InvalidData(
            f"{path}: got {values.min():g} to {values.max():g}, expected whole indices 0 to "
            f"{end - 1}"
        )
    return indices


def _numbers(path: Path, ndim: Literal[1, 2]) -> np.ndarray:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # an empty file is reported below
            values = np.loadtxt(path, ndmin=ndim)
    except FileNotFoundError as error:
        raise DatasetNotFound(
            f"{path} is missing; copy the files of the data set to {path.parent}"
        ) from error
    except ValueError as error:
        raise InvalidData(
            f"{path} is not whitespace-separated numbers ({error}); download the file again"
        ) from error
    if values.size == 0:
        raise InvalidData(f"{path} is empty; download the file again")
    return values
