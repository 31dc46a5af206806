"""Provide `bnn-symm symmetry`: find the weight permutations that leave a network unchanged."""

import argparse
from pathlib import Path
from typing import Any

from bnn_symm.cli.command import add_command, answer, open_run
from bnn_symm.cli.fitting.fit import add_config, config_of


def add(commands: Any) -> None:
    """Add the command to the parser.

    Args:
        commands: the subparsers of the program.
    """
    parser = add_command(
        commands,
        "symmetry",
        _symmetry,
        "find and count the weight permutations that leave a network unchanged, or prove that "
        "there are none",
        details="For a CONFIG: the network at its initial values. For a RUN: the fitted network at "
        "its posterior mean. The groups and their order are derived from the operations of the "
        "network, and certified by permuting its units.",
        example="bnn-symm symmetry --set architecture.symmetry.kind=weight_asymmetric",
        module=True,
    )
    parser.add_argument(
        "--hold",
        action="store_true",
        help="keep the units that operations without a rule read in place, and count them, instead "
        "of an error; nothing is proved of them",
    )
    add_config(
        parser, "CONFIG|RUN", "a YAML file, of which every key has a default, or a run directory"
    )


def _symmetry(options: argparse.Namespace) -> int:
    from bnn_symm.analyses.symmetry import describe_symmetry
    from bnn_symm.errors import ConfigError
    from bnn_symm.report.text.symmetry import symmetry_text
    from bnn_symm.threads import use_threads

    if (
        options.config is None
        and options.set
        and "=" not in options.set[-1]
        and Path(options.set[-1]).is_dir()
    ):
        options.config = options.set.pop()  # --set KEY=VALUE RUN, which is refused below
    if options.config and not Path(options.config).exists() and not Path(options.config).suffix:
        raise ConfigError(
            f"there is no configuration or run at {options.config}; name a YAML file or a run "
            "directory"
        )
    if options.config and Path(options.config).is_dir():
        if options.set:
            raise ConfigError(
                f"--set changes a configuration; {options.config} is a run, whose configuration "
                "is fixed"
            )
        run = open_run(options, options.config)
        model, part, position, where = (
            run.model,
            run.dataset().train,
            run.posterior.mean(),
            "the posterior mean",
        )
        symmetry, threads = run.config.architecture.symmetry, run.threads
    else:
        from bnn_symm.runs.configuration.prepare import prepare

        prepared = prepare(config_of(options))
        model, part, position, where = (
            prepared.model,
            prepared.dataset.train,
            prepared.model.initial(),
            "initial values",
        )
        symmetry, threads = prepared.config.architecture.symmetry, prepared.threads
    with use_threads(threads):
        content = describe_symmetry(
            model, part, position, where=where, kind=symmetry.kind, hold=options.hold
        )
    answer(options, content, symmetry_text(content))
    return 0
