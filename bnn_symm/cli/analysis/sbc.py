"""Provide `bnn-symm sbc`: simulation-based calibration, a check of the inference itself."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bnn_symm.cli.command import add_command, answer, file_line, warn
from bnn_symm.cli.fitting.fit import add_config, config_of

if TYPE_CHECKING:
    from bnn_symm.analyses.sbc_runner import SbcRun

_SIMULATIONS = 100


def add(commands: Any) -> None:
    """Add the command to the parser.

    Args:
        commands: the subparsers of the program.
    """
    parser = add_command(
        commands,
        "sbc",
        _sbc,
        "check the inference itself on data simulated from the model",
        details="Simulation-based calibration (for variational inference, VSBC): repeatedly draws "
        "parameters from the prior and targets from the likelihood, fits the model, and ranks the "
        "true parameters among the draws. The ranks are uniform if the inference is correct. Takes "
        "the same CONFIG as fit, preferably of a small model; without CONFIG: NUTS on a linear "
        "model with the inputs of gap, one or two minutes on two cores. Writes sbc.json and a "
        "figure into the output directory. The exit status is 0 for every verdict.",
        example="bnn-symm sbc --set inference.name=mean_field_vi --simulations 200 -o checks/vi",
        module=True,
    )
    add_config(parser)
    parser.add_argument(
        "--simulations",
        type=int,
        metavar="N",
        help=f"number of simulations, each with one fit (default: {_SIMULATIONS})",
    )
    parser.add_argument(
        "--jobs", type=int, metavar="N", help="simulations at once (default: one per core)"
    )
    parser.add_argument(
        "-o", "--out", metavar="DIR", help="a new directory (default: runs/sbc-1, -2, ...)"
    )
    parser.add_argument(
        "--resume",
        metavar="DIR",
        help="resume a check; with a larger --simulations, add simulations to it",
    )


def _sbc(options: argparse.Namespace) -> int:
    from bnn_symm.errors import ConfigError
    from bnn_symm.report.text.sbc import SimulationBar, draw_sbc, sbc_text
    from bnn_symm.runs.directory.output_directory import disk_errors
    from bnn_symm.threads import available_cores

    for name in ("simulations", "jobs"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise ConfigError(f"--{name} {value}: expected 1 or more")
    check = _sbc_run(options)
    warn(check.warnings)
    bar = SimulationBar(check.num_simulations, len(check.done), quiet=options.quiet)
    with bar:
        completed = check.run(jobs=options.jobs or available_cores(), on_simulation=bar)
    with disk_errors(check.path, "free some space, then continue with --resume"):
        pictures = draw_sbc(completed, check.path / "figures")
    lines = [
        sbc_text(completed.result),
        *(file_line("figure", path) for path in pictures),
        file_line("written", check.path / "sbc.json"),
    ]
    answer(options, completed.to_dict(), "\n".join(lines))
    return 0


def _sbc_run(options: argparse.Namespace) -> "SbcRun":
    """Create or resume the check that the options describe."""
    from bnn_symm.analyses.sbc_runner import create_sbc_run, default_overrides, resume_sbc_run
    from bnn_symm.errors import ConfigError
    from bnn_symm.runs.directory.output_directory import check_free

    if options.resume:
        if options.config or options.set or options.out:
            raise ConfigError(
                "--resume uses the configuration of the check; it takes no CONFIG, --set or --out"
            )
        return resume_sbc_run(
            Path(options.resume), num_simulations=options.simulations, module=options.module
        )
    out = Path(options.out) if options.out else None
    if out is not None:
        check_free(out)
    has_config = options.config is not None or (
        options.set and "=" not in options.set[-1]
    )  # --set KEY=VALUE CONFIG
    if not has_config:
        named = ["architecture.name=module"] if options.module else []
        options.set = [*default_overrides([*options.set, *named]), *options.set]
    return create_sbc_run(
        config_of(options), out, num_simulations=options.simulations or _SIMULATIONS
    )
