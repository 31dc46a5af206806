"""`bnn-symm sbc`: simulation-based calibration, a check of the inference itself."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bnn_symm.cli.command import add_command, answer, file_line, warn
from bnn_symm.cli.fitting.fit import add_config, config_of

if TYPE_CHECKING:
    from bnn_symm.analyses.sbc_runner import SbcRun

_SIMULATIONS = 100


def add(commands: Any) -> None:
    """Adds the command."""
    parser = add_command(
        commands,
        "sbc",
        _sbc,
        "check the inference itself, on data simulated from the model",
        details="Draws parameters from the prior and targets from the likelihood, fits them, and "
        "ranks the truth among the draws, many times (simulation-based calibration; of variational "
        "inference, VSBC). Ranks are uniform if the inference is right. Takes the same CONFIG as "
        "fit, best of a small model; with none: NUTS on a line through the inputs of gap, a minute "
        "or two on two cores. Writes sbc.json and a picture into the output directory. The exit "
        "status is 0 whatever the verdict: it is an answer.",
        example="bnn-symm sbc --set inference.name=mean_field_vi --simulations 200 -o checks/vi",
        module=True,
    )
    add_config(parser)
    parser.add_argument(
        "--simulations",
        type=int,
        metavar="N",
        help=f"how many, each one fit (default: {_SIMULATIONS})",
    )
    parser.add_argument(
        "--jobs", type=int, metavar="N", help="simulations at once (default: one a core)"
    )
    parser.add_argument(
        "-o", "--out", metavar="DIR", help="a new directory (default: runs/sbc-1, -2, ...)"
    )
    parser.add_argument(
        "--resume",
        metavar="DIR",
        help="go on with a check, or, with a larger --simulations, add to one",
    )


def _sbc(options: argparse.Namespace) -> int:
    from bnn_symm.errors import ConfigError
    from bnn_symm.report.text.sbc import SimulationBar, draw_sbc, sbc_text
    from bnn_symm.runs.directory.output_directory import disk_errors
    from bnn_symm.threads import available_cores

    for name in ("simulations", "jobs"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise ConfigError(f"--{name} {value}: wanted 1 or more")
    check = _check(options)
    warn(check.warnings)
    bar = SimulationBar(check.num_simulations, len(check.done), quiet=options.quiet)
    with bar:
        content = check.run(jobs=options.jobs or available_cores(), on_simulation=bar)
    with disk_errors(check.path, "make room, and go on with --resume"):
        pictures = draw_sbc(content, check.path / "figures")
    lines = [
        sbc_text(content),
        *(file_line("picture", path) for path in pictures),
        file_line("written", check.path / "sbc.json"),
    ]
    answer(options, content, "\n".join(lines))
    return 0


def _check(options: argparse.Namespace) -> "SbcRun":
    """The check that the options ask for, new or resumed."""
    from bnn_symm.analyses.sbc_runner import create_sbc_run, default_overrides, resume_sbc_run
    from bnn_symm.errors import ConfigError
    from bnn_symm.runs.directory.output_directory import check_free

    if options.resume:
        if options.config or options.set or options.out:
            raise ConfigError(
                "--resume goes on with a check as it was; it takes no CONFIG, --set or --out"
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
