"""Predictions for the raw inputs of a file, as a file."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas

from bnn_symm.data import read_inputs_and_table
from bnn_symm.errors import ConfigError, InvalidRun
from bnn_symm.io.atomic import write_atomically
from bnn_symm.posteriors import Predictive
from bnn_symm.runs.directory.output_directory import disk_errors
from bnn_symm.runs.run import Run
from bnn_symm.threads import use_threads

_SUFFIXES = (".csv", ".parquet", ".npz")
# First characters by which a spreadsheet takes the text of a cell for a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


def check_output(path: Path, *, excel_safe: bool = False) -> None:
    """Raises, before any work is done, if predictions could not be written there."""
    if excel_safe and path.suffix.lower() != ".csv":
        raise ConfigError(f"--excel-safe is for .csv, got the output {path}; leave it out")
    if path.suffix.lower() not in _SUFFIXES:
        raise ConfigError(f"output {path}: wanted a name that ends in {', '.join(_SUFFIXES)}")
    if path.exists():
        raise InvalidRun(f"{path} exists and is never overwritten; choose another -o")
    if not path.parent.is_dir():
        raise InvalidRun(f"{path.parent} is not a directory; make it first, or choose another -o")


def predict_file(
    run: Run, source: Path, output: Path, levels: list[float], *, excel_safe: bool = False
) -> int:
    """Writes one row of predictions a row of `source`; returns the number of rows.

    Columns for numbers: mean, sd, epistemic_sd, aleatoric_sd, quantile_<level>. For classes:
        prediction,
    probability_<label>, entropy, expected_entropy, mutual_information. An NPZ has the same names as
    arrays.

    Args:
        run: whose posterior predicts.
        source: a file with the raw inputs.
        output: a file that does not exist, checked by `check_output`.
        levels: of the quantiles.
        excel_safe: whether an apostrophe stands before texts that a spreadsheet would run as
            formulas (CSV).
    """
    x, _ = read_inputs_and_table(str(source), run.preprocessing, run.model.dtype)
    columns: dict[str, list[np.ndarray]] = {}
    with use_threads(run.threads):
        for predictive in run.posterior.iter_predict(x):
            part = (
                _classes(run, predictive)
                if predictive.is_classification
                else _numbers(predictive, levels)
            )
            for name, values in part.items():
                columns.setdefault(name, []).append(values)
    joined = {name: np.concatenate(values) for name, values in columns.items()}
    with disk_errors(output, "make room, or choose another -o"):
        write_atomically(
            output, lambda temporary: _write(joined, output.suffix.lower(), temporary, excel_safe)
        )
    return len(x)


def _numbers(predictive: Predictive, levels: list[float]) -> dict[str, np.ndarray]:
    quantiles = predictive.quantiles(levels)
    values: dict[str, Any] = {
        "mean": predictive.mean(),
        "sd": predictive.standard_deviation(),
        "epistemic_sd": predictive.epistemic_sd(),
        "aleatoric_sd": predictive.aleatoric_sd(),
        **{f"quantile_{level:g}": row for level, row in zip(levels, quantiles, strict=True)},
    }
    return {name: value.numpy() for name, value in values.items()}


def _classes(run: Run, predictive: Predictive) -> dict[str, np.ndarray]:
    probabilities = predictive.probabilities().numpy()
    labels = run.preprocessing.class_labels or ()
    return {
        "prediction": run.preprocessing.decode_labels(probabilities.argmax(-1)),
        **{f"probability_{label}": probabilities[:, i] for i, label in enumerate(labels)},
        "entropy": predictive.entropy().numpy(),
        "expected_entropy": predictive.expected_entropy().numpy(),
        "mutual_information": predictive.mutual_information().numpy(),
    }


def _write(columns: dict[str, np.ndarray], suffix: str, path: Path, excel_safe: bool) -> None:
    if suffix == ".npz":
        # Labels of mixed or text type would be pickled as objects; as fixed-width text they are
        # not.
        plain = {n: v.astype(str) if v.dtype == object else v for n, v in columns.items()}
        with path.open("wb") as file:
            np.savez(file, **plain)  # pyright: ignore[reportArgumentType]
        return
    if excel_safe:
        columns = {_inert(name): _inert_values(values) for name, values in columns.items()}
    elif suffix == ".parquet":
        columns = {name: _storable(values) for name, values in columns.items()}
    frame = pandas.DataFrame(columns)
    if suffix == ".csv":
        frame.to_csv(path, index=False)
    else:
        frame.to_parquet(path, index=False)


def _inert(text: str) -> str:
    """A text with an apostrophe before it if a spreadsheet would take it for a formula."""
    return f"'{text}" if text.lstrip(" ").startswith(_FORMULA) else text


def _inert_values(values: np.ndarray) -> np.ndarray:
    if values.dtype.kind not in "OU":
        return values
    return np.array(
        [_inert(value) if isinstance(value, str) else value for value in values.tolist()],
        dtype=object,
    )


def _storable(values: np.ndarray) -> np.ndarray:
    """Labels of several types, or integers longer than 64 bits, as texts: a column of Parquet has
    one type.
    """
    one_type = (
        len({type(value) for value in values.tolist()}) <= 1 if values.dtype == object else True
    )
    long = values.dtype == object and not all(
        -(2**63) <= value < 2**63 for value in values.tolist() if isinstance(value, int)
    )
    return (
        values
        if one_type and not long
        else np.array([str(value) for value in values.tolist()], dtype=object)
    )
