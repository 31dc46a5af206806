"""Read class probabilities and labels of a reference from files.

Probabilities are one row per test point and one column per class; labels are class indices.

- `.npy`: an array (point, class), or (draw, point, class) with the predictions of every draw.
- `.npz`: such an array `probabilities`, and labels in `labels`; or arrays `probability_<label>`, as
  `bnn-symm predict` writes them.
- `.csv`, `.txt`: a row of numbers for each point, separated by commas, semicolons or spaces, with
  or without a header; or the columns `probability_<label>` of a file of `bnn-symm predict`.

The predictions of HMC on CIFAR-10 (Izmailov et al. 2021), as published for the competition of
Wilson et al. (2022), are a `.csv` without a header, 10,000 rows of 10 columns. Its rows are in the
order of the competition's `cifar10_test_x.csv`, not in that of the test set of CIFAR-10.
"""

import re
from pathlib import Path

import numpy as np

from bnn_symm.data.loaders.npz import read_npz_arrays
from bnn_symm.diagnostics import ReferenceProbabilities
from bnn_symm.errors import InvalidData, one_line
from bnn_symm.io.arrays import read_npy_layout
from bnn_symm.io.boundary import parser_errors, shown
from bnn_symm.io.memory import check_memory
from bnn_symm.io.paths import check_regular_file, expand_user

_COLUMN = "probability_"
_TEXT = (".csv", ".txt")
_ADVICE = "save it with numpy.save, numpy.savez or numpy.savetxt(FILE, array, delimiter=',')"
# Bytes of memory per byte of a text file, whose numbers have at least two characters.
_EXPANSION = 8


def read_probabilities(probabilities: str, labels: str | None) -> ReferenceProbabilities:
    """Read the class probabilities of a reference.

    Args:
        probabilities: path of the file of probabilities.
        labels: path of the file of labels; None if the first is an `.npz` with `labels`.

    Returns:
        The probabilities and labels.

    Raises:
        InvalidData: if a file is missing or damaged, or its numbers are no probabilities or labels.
    """
    path = expand_user(probabilities)
    arrays = _read(path, _COLUMN)
    if labels is not None:
        y = next(iter(_read(expand_user(labels), "label").values()))
    elif "labels" in arrays:
        y = arrays["labels"]
    else:
        raise InvalidData(
            f"{shown(path)} has no labels; name a file of class indices with --labels FILE"
        )
    name = shown(path)
    return ReferenceProbabilities(
        probabilities=_probabilities(path, arrays), y=_class_indices(y, name), name=name
    )


def _probabilities(path: Path, arrays: dict[str, np.ndarray]) -> np.ndarray:
    columns = [value for key, value in arrays.items() if key.startswith(_COLUMN)]
    if columns:
        if any(value.shape != columns[0].shape or value.ndim != 1 for value in columns):
            raise InvalidData(f"{shown(path)}: its arrays {_COLUMN}* differ in shape; {_ADVICE}")
        return np.stack(columns, axis=1)
    if "probabilities" not in arrays:
        names = one_line(", ".join(arrays) or "nothing", 80)
        raise InvalidData(
            f"{shown(path)} has no array `probabilities` or `{_COLUMN}<label>`, it has: {names}; "
            f"{_ADVICE}"
        )
    return arrays["probabilities"]


def _class_indices(labels: np.ndarray, name: str) -> np.ndarray:
    y = labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels
    with np.errstate(invalid="ignore"):
        is_integer = y.dtype.kind in "iu" or (y.dtype.kind == "f" and bool((y == y // 1).all()))
    if not is_integer:
        raise InvalidData(
            f"{name}: got labels of type {y.dtype} with values that are no integers, expected "
            "class indices 0, 1, ..., in the order of the classes of the probabilities"
        )
    return y.astype(np.int64)


def _read(path: Path, columns: str) -> dict[str, np.ndarray]:
    """Return the arrays of a file; that of a file with a single array has the usual name."""
    try:
        with parser_errors(path, _ADVICE, InvalidData):
            suffix = path.suffix.lower()
            if suffix == ".npz":
                arrays = read_npz_arrays(path)
                return (
                    arrays
                    if len(arrays) > 1
                    else dict.fromkeys(["probabilities"], *arrays.values())
                )
            if suffix == ".npy":
                return {"probabilities": _read_npy(path)}
            if suffix in _TEXT:
                return {"probabilities": _read_text(path, columns)}
    except FileNotFoundError:
        raise InvalidData(f"no file {shown(path)}; check the path") from None
    raise InvalidData(f"{shown(path)}: expected a name that ends in .npy, .npz, .csv or .txt")


def _read_npy(path: Path) -> np.ndarray:
    layout = read_npy_layout(path, InvalidData)
    if layout.dtype.kind not in "buif":
        raise InvalidData(f"{shown(path)} has values of type {layout.dtype}, expected numbers")
    advice = "use fewer points, or the mean over draws"
    check_memory(2 * check_regular_file(path), f"the array in {shown(path)}", advice)
    return np.load(path, allow_pickle=False)


def _read_text(path: Path, columns: str) -> np.ndarray:
    """Return the numbers of a text file, of the columns with a prefix if the header has such."""
    what, advice = f"the table {shown(path)}", "use fewer points"
    check_memory(_EXPANSION * check_regular_file(path), what, advice)
    with path.open(encoding="utf-8-sig") as file:
        first = file.readline()
    separator = next((own for own in ",;\t" if own in first), None)
    names = [
        name.strip(' "\n') for name in (first.split(separator) if separator else first.split())
    ]
    if all(re.fullmatch(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?|[-+]?(nan|inf)", n) for n in names):
        return np.loadtxt(path, delimiter=separator, ndmin=2, encoding="utf-8-sig")
    chosen = [i for i, name in enumerate(names) if name.startswith(columns)]
    return np.loadtxt(
        path,
        delimiter=separator,
        ndmin=2,
        skiprows=1,
        usecols=chosen or None,
        quotechar='"',
        encoding="utf-8-sig",
    )
