"""Provide `bnn-symm prior`: compare functions drawn from the prior with the data."""

import argparse
from pathlib import Path
from typing import Any

from bnn_symm.cli.command import add_command, answer, file_line
from bnn_symm.cli.fitting.fit import add_config, config_of


def add(commands: Any) -> None:
    """Add the command to the parser.

    Args:
        commands: the subparsers of the program.
    """
    parser = add_command(
        commands,
        "prior",
        _prior,
        "draw functions from the prior and compare them with the data, without a fit",
        details="Regression: the variation of functions over the points. Classification: the "
        "confidence in one class. The same is computed for other scales of the prior. Targets of "
        "the training split are used for comparison only.",
        example="bnn-symm prior --set data.name=gap prior.scale=fan_in -o runs/prior",
        module=True,
    )
    add_config(parser)
    parser.add_argument(
        "--draws",
        type=int,
        default=200,
        metavar="N",
        help="number of functions (default: %(default)s)",
    )
    parser.add_argument(
        "-o",
        "--out",
        metavar="DIR",
        help="a new directory for the numbers and the figure (default: runs/...)",
    )


def _prior(options: argparse.Namespace) -> int:
    from bnn_symm.analyses.prior import describe_prior
    from bnn_symm.errors import ConfigError
    from bnn_symm.io.atomic import write_json
    from bnn_symm.report.plots.prior_predictive import plot_prior_predictive
    from bnn_symm.report.text.prior import prior_text
    from bnn_symm.runs.configuration.prepare import prepare
    from bnn_symm.runs.directory.output_directory import check_free, disk_errors, new_directory
    from bnn_symm.threads import use_threads

    if options.draws < 2:
        raise ConfigError(
            f"--draws {options.draws}: expected two functions or more, such as --draws 200"
        )
    if options.out:
        check_free(Path(options.out))
    prepared = prepare(config_of(options))
    with use_threads(prepared.threads):
        content = describe_prior(prepared, num_draws=options.draws)
    out = new_directory(Path(options.out) if options.out else None, "prior")
    picture = out / "figures" / "prior_predictive.png"
    with disk_errors(out, "choose another directory with -o DIR"):
        write_json(out / "prior.json", content)
        picture.parent.mkdir()
        plot_prior_predictive(content, picture)
    answer(
        options,
        {**content, "directory": str(out)},
        f"{prior_text(content)}\n{file_line('figure', picture)}",
    )
    return 0
