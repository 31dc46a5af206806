"""Provide `bnn-symm predict`: predict from raw inputs in a file."""

import argparse
import sys
from pathlib import Path
from typing import Any

from bnn_symm.cli.command import add_command, answer, file_line, open_run, warn


def add(commands: Any) -> None:
    """Add the command to the parser.

    Args:
        commands: the subparsers of the program.
    """
    parser = add_command(
        commands,
        "predict",
        _predict,
        "predict from raw inputs in a file",
        details="Regression: mean, standard deviation with its epistemic and aleatoric parts, and "
        "quantiles, in units of the target; of counts with an exposure, at that of the row, or 1. "
        "Survival: median, quantiles, and probabilities of a later event. Classification: the "
        "predicted label, the probability "
        "of every class, and entropy and mutual information in nats.",
        example="bnn-symm predict runs/my-run inputs.csv -o predictions.csv",
        module=True,
    )
    parser.add_argument("run", metavar="RUN", help="a run directory")
    parser.add_argument(
        "input",
        metavar="INPUT",
        help=".csv, .parquet, .npz (or .tsv, .txt, .data), with the columns of the training data",
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="OUTPUT",
        required=True,
        help="a new .csv, .parquet or .npz file; - prints the predictions as CSV",
    )
    parser.add_argument(
        "--quantiles",
        metavar="LEVELS",
        help="levels, separated by commas, of quantiles of numbers, counts or times (default: "
        "0.05,0.5,0.95)",
    )
    parser.add_argument(
        "--times",
        metavar="TIMES",
        help="times, such as 30,365, at which the probability of a later event is predicted: "
        "survival_<time> (survival only)",
    )
    parser.add_argument(
        "--conformal",
        metavar="LEVEL",
        type=float,
        help="also intervals or sets of classes of this level, such as 0.9, which the validation "
        "split of the run calibrates: conformal_low and conformal_high, or in_set_<label>",
    )
    parser.add_argument(
        "--excel-safe",
        action="store_true",
        help="in a .csv, write an apostrophe before labels and column names that begin with = + - "
        "@, a tab or a line break, which spreadsheets would evaluate as formulas",
    )


def _predict(options: argparse.Namespace) -> int:
    from bnn_symm.errors import ConfigError
    from bnn_symm.runs.conformal import conformal_notes
    from bnn_symm.runs.predictions import check_output, predict_file

    levels, times = _levels(options.quantiles), _times(options.times)
    to_stdout = options.output == "-"
    if to_stdout and options.json:
        raise ConfigError("-o - prints the predictions as CSV; leave out --json")
    output = sys.stdout if to_stdout else Path(options.output)
    if isinstance(output, Path):
        check_output(output, excel_safe=options.excel_safe)
    run = open_run(options)
    if options.quantiles is not None and run.preprocessing.task == "classification":
        raise ConfigError("--quantiles is for numbers, counts and times; leave it out for classes")
    conformal = None if options.conformal is None else run.conformal(options.conformal)
    rows, remarks = predict_file(
        *(run, Path(options.input), output, levels),
        conformal=conformal,
        times=times,
        excel_safe=options.excel_safe,
    )
    content = {"run": str(run.path), "output": options.output, "points": rows}
    warn(remarks)
    lines = [] if to_stdout else [file_line(f"{rows} predictions", options.output)]
    if conformal is not None:
        content["conformal"] = conformal.to_dict()
        notes = conformal_notes(run.config)
        warn([conformal.conclusion, *notes] if to_stdout else notes)
        lines.insert(0, conformal.conclusion)
    if not to_stdout:
        answer(options, content, "\n".join(lines))
    return 0


def _times(text: str | None) -> list[float]:
    from bnn_symm.errors import ConfigError

    if text is None:
        return []
    try:
        times = [float(part) for part in text.split(",")]
    except ValueError:
        times = []
    if not times or not all(0 < time < float("inf") for time in times):
        raise ConfigError(f"--times {text!r}: expected positive times, such as 30,365")
    return times


def _levels(text: str | None) -> list[float]:
    from bnn_symm.errors import ConfigError

    if text is None:
        return [0.05, 0.5, 0.95]
    try:
        levels = [float(part) for part in text.split(",")]
    except ValueError:
        levels = []
    if not levels or not all(0 < level < 1 for level in levels):
        raise ConfigError(
            f"--quantiles {text!r}: expected numbers between 0 and 1, such as 0.05,0.5,0.95"
        )
    return levels
