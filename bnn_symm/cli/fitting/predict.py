"""Provide `bnn-symm predict`: predict from raw inputs in a file."""

import argparse
import sys
from pathlib import Path
from typing import Any

from bnn_symm.cli.command import add_command, answer, file_line, open_run


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
        "quantiles, in units of the target. Classification: the predicted label, the probability "
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
        default="0.05,0.5,0.95",
        help="levels for regression, separated by commas (default: %(default)s)",
    )
    parser.add_argument(
        "--excel-safe",
        action="store_true",
        help="in a .csv, write an apostrophe before labels and column names that begin with = + - "
        "@, a tab or a line break, which spreadsheets would evaluate as formulas",
    )


def _predict(options: argparse.Namespace) -> int:
    from bnn_symm.errors import ConfigError
    from bnn_symm.runs.predictions import check_output, predict_file

    levels = _levels(options.quantiles)
    if options.output == "-":
        if options.json:
            raise ConfigError("-o - prints the predictions as CSV; leave out --json")
        run = open_run(options)
        predict_file(run, Path(options.input), sys.stdout, levels, excel_safe=options.excel_safe)
        return 0
    output = Path(options.output)
    check_output(output, excel_safe=options.excel_safe)
    run = open_run(options)
    rows = predict_file(run, Path(options.input), output, levels, excel_safe=options.excel_safe)
    answer(
        options,
        {"run": str(run.path), "output": str(output), "points": rows},
        file_line(f"{rows} predictions", output),
    )
    return 0


def _levels(text: str) -> list[float]:
    from bnn_symm.errors import ConfigError

    try:
        levels = [float(part) for part in text.split(",")]
    except ValueError:
        levels = []
    if not levels or not all(0 < level < 1 for level in levels):
        raise ConfigError(
            f"--quantiles {text!r}: expected numbers between 0 and 1, such as 0.05,0.5,0.95"
        )
    return levels
