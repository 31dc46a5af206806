"""`bnn-symm prior`: which functions a prior means, before anything is fitted."""

import argparse
from pathlib import Path
from typing import Any

from bnn_symm.cli.command import add_command, answer, file_line
from bnn_symm.cli.fitting.fit import add_config, config_of


def add(commands: Any) -> None:
    """Adds the command."""
    parser = add_command(
        commands,
        "prior",
        _prior,
        "draw functions from the prior and set them beside the data, before anything is fitted",
        details="Of numbers: how much functions vary over the points, of classes: how sure they "
        "are of one; the same for other scales of the prior. Targets of the training part are "
        "looked at for comparison only.",
        example="bnn-symm prior --set data.name=gap prior.scale=fan_in -o runs/prior",
        module=True,
    )
    add_config(parser)
    parser.add_argument(
        "--draws", type=int, default=200, metavar="N", help="functions (default: %(default)s)"
    )
    parser.add_argument(
        "-o",
        "--out",
        metavar="DIR",
        help="a new directory for numbers and picture (default: runs/...)",
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
            f"--draws {options.draws}: wanted two functions or more, such as --draws 200"
        )
    if options.out:
        check_free(Path(options.out))
    prepared = prepare(config_of(options))
    with use_threads(prepared.threads):
        content = describe_prior(prepared, num_draws=options.draws)
    out = new_directory(Path(options.out) if options.out else None, "prior")
    picture = out / "figures" / "prior_predictive.png"
    with disk_errors(out, "choose another place with -o DIR"):
        write_json(out / "prior.json", content)
        picture.parent.mkdir()
        plot_prior_predictive(content, picture)
    answer(
        options,
        {**content, "directory": str(out)},
        f"{prior_text(content)}\n{file_line('picture', picture)}",
    )
    return 0
