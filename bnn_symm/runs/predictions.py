"""Predict for the raw inputs of a file, and write the predictions to a file."""

from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

import numpy as np
import pandas

from bnn_symm.advice import advise
from bnn_symm.data import read_inputs_and_exposure
from bnn_symm.diagnostics.calibration.conformal import Conformal
from bnn_symm.errors import ConfigError, InvalidRun
from bnn_symm.io.atomic import write_atomically
from bnn_symm.runs.directory.output_directory import disk_errors
from bnn_symm.runs.run import Run

_SUFFIXES = (".csv", ".parquet", ".npz")
# A spreadsheet interprets a cell that starts with one of these characters as a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


def check_output(path: Path, *, excel_safe: bool = False) -> None:
    """Check that predictions can be written to a path, before any work is done.

    Args:
        path: the output file.
        excel_safe: whether texts are protected from spreadsheets, as in `predict_file`.

    Raises:
        ConfigError: if the suffix is not supported.
        InvalidRun: if the file exists or its directory does not.
    """
    if excel_safe and path.suffix.lower() != ".csv":
        option = advise("--excel-safe", "excel_safe")
        raise ConfigError(f"{option} is for .csv, got the output {path}; leave it out")
    if path.suffix.lower() not in _SUFFIXES:
        raise ConfigError(f"output {path}: expected a name that ends in {', '.join(_SUFFIXES)}")
    if path.exists():
        output = advise("-o", "output")
        raise InvalidRun(f"{path} exists and is never overwritten; choose another {output}")
    if not path.parent.is_dir():
        raise InvalidRun(f"{path.parent} is not a directory; create it first, or choose another -o")


def predict_file(
    run: Run,
    source: Path,
    output: Path | TextIO,
    levels: list[float],
    *,
    conformal: Conformal | None = None,
    times: Sequence[float] = (),
    excel_safe: bool = False,
) -> tuple[int, list[str]]:
    """Write one row of predictions for each row of an input file.

    Columns for numbers: mean, sd, epistemic_sd, aleatoric_sd, quantile_<level>. For times: median,
    quantile_<level>, survival_<time>. For classes: prediction, probability_<label>, entropy,
    expected_entropy, mutual_information. With calibrated regions also conformal_low and
    conformal_high, or in_set_<label> and set_size. An NPZ file has arrays of the same names.

    Args:
        run: the run whose posterior predicts.
        source: a file with the raw inputs.
        output: a file that does not exist, checked by `check_output`; or a stream, for CSV.
        levels: the levels of the quantiles.
        conformal: calibrated regions.
        times: times at which probabilities of a later event are predicted.
        excel_safe: whether texts that a spreadsheet would run as formulas get an apostrophe in
            front (CSV only).

    Returns:
        The number of rows, and notes.
    """
    x, exposure = read_inputs_and_exposure(str(source), run.preprocessing, run.model.dtype)
    column, notes = run.preprocessing.exposure_column, []
    if column is not None and exposure is None:
        notes = [
            f"{source.name} has no {column.what}: predictions are for an exposure of 1 in each row"
        ]
    joined = run.prediction_columns(x, levels, conformal, times=times, exposure=exposure)
    if not isinstance(output, Path):
        _write(joined, ".csv", output, excel_safe)
        return len(x), notes
    with disk_errors(output, "make room, or choose another -o"):
        write_atomically(
            output, lambda temporary: _write(joined, output.suffix.lower(), temporary, excel_safe)
        )
    return len(x), notes


def _write(
    columns: dict[str, np.ndarray], suffix: str, path: Path | TextIO, excel_safe: bool
) -> None:
    if suffix == ".npz" and isinstance(path, Path):
        # NumPy would pickle labels of mixed or text type as objects, but not fixed-width text.
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
    elif isinstance(path, Path):
        frame.to_parquet(path, index=False)


def _inert(text: str) -> str:
    """Return the text, with an apostrophe in front if a spreadsheet would take it for a formula."""
    return f"'{text}" if text.lstrip(" ").startswith(_FORMULA) else text


def _inert_values(values: np.ndarray) -> np.ndarray:
    """Apply `_inert` to all texts of an array."""
    if values.dtype.kind not in "OU":
        return values
    return np.array(
        [_inert(value) if isinstance(value, str) else value for value in values.tolist()],
        dtype=object,
    )


def _storable(values: np.ndarray) -> np.ndarray:
    """Convert labels that a Parquet column cannot hold to texts.

    A column has one type, and its integers at most 64 bits.
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
