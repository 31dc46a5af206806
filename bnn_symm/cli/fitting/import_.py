"""Provide `bnn-symm import`: convert draws of other tools, or checkpoints, to a run."""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bnn_symm.cli.command import add_command, answer, file_line, warn
from bnn_symm.cli.fitting.fit import config_of
from bnn_symm.errors import one_line

if TYPE_CHECKING:
    from bnn_symm.runs import Run


def add(commands: Any) -> None:
    """Add the command to the parser.

    Args:
        commands: the subparsers of the program.
    """
    parser = add_command(
        commands,
        "import",
        _import,
        "import draws of another sampler, or checkpoints, as a run",
        details="FILE: NetCDF files of ArviZ (NumPyro, PyMC, Stan, BlackJAX), whose chains become "
        "the chains of one run; or checkpoints (.safetensors; .pt with tensors only), which become "
        "an ensemble. Specify data, network, likelihood and prior as for fit, with CONFIG (a .yaml "
        "file) and --set. Inputs and targets are standardized; if the imported model used raw "
        "values, type --set data.standardize=false. Prints the matched names and the transposed "
        "arrays. align, barrier, diagnose, evaluate, merge and predict accept the run.",
        example="bnn-symm import numpyro.nc -o runs/theirs --module networks:build --names "
        "names.yaml --set data.name=houses.csv data.target=price data.standardize=false",
        module=True,
    )
    parser.add_argument(
        "files", nargs="*", metavar="FILE", help="NetCDF files or checkpoints; and CONFIG"
    )
    parser.add_argument(
        "-o",
        "--out",
        nargs="+",
        required=True,
        metavar=("DIR", "CONFIG"),
        help="the run directory, which must not exist",
    )
    parser.add_argument(
        "--names",
        metavar="MAP.yaml",
        help="a name mapping from parameters to arrays of the file, where names differ: lines "
        "`layers.0.weight: w1`, or `layers.0.weight: {name: w1, transpose: true}`, "
        "`likelihood.log_noise: {name: sigma, transform: log}`",
    )
    parser.add_argument(
        "--set",
        action="extend",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="override keys of the configuration",
    )


def _import(options: argparse.Namespace) -> int:
    from bnn_symm.runs.external_runs import import_run

    files = _sort_words(options)
    run = import_run(
        files,
        options.out,
        config=config_of(options, choose=False),
        names=options.names,
    )
    derived = run.record["derived"]
    warn(_notes(run, derived))
    content = {"run": str(run.path), **derived, "metrics": run.metrics}
    answer(options, content, _text(run, derived))
    return 0


def _sort_words(options: argparse.Namespace) -> list[str]:
    """Return the files, and assign CONFIG and the directory, which may come in any order."""
    from bnn_symm.errors import ConfigError

    out, *words = options.out
    words = [*options.files, *words, *(word for word in options.set if "=" not in word)]
    options.set = [word for word in options.set if "=" in word]
    configs = [word for word in words if Path(word).suffix in (".yaml", ".yml")]
    if len(configs) > 1:
        raise ConfigError(
            f"got two configurations, {configs[0]} and {configs[1]}; pass a name mapping to --names"
        )
    options.out, options.config = out, configs[0] if configs else None
    return [word for word in words if word not in configs]


def _notes(run: "Run", derived: Mapping[str, Any]) -> list[str]:
    notes = [*derived["copies"]]
    if derived["left_out"]:
        notes.append(
            f"left out, since no parameter has these names: {', '.join(derived['left_out'])}"
        )
    if derived["method_assumed"]:
        method = run.config.inference
        target = getattr(method, "target_accept_prob", None)
        aim = (
            f", target_accept_prob {target:g}"
            if target is not None and derived["sample_stats"]
            else ""
        )
        notes.append(f"assumed method {method.name}{aim}; change it with --set inference.name=...")
    if derived["kind"] == "draws" and not derived["sample_stats"]:
        notes.append(
            "the file has no sampler statistics: divergences and energies cannot be checked"
        )
    return notes


def _text(run: "Run", derived: Mapping[str, Any]) -> str:
    from bnn_symm.report.text.tables import scores_table, table

    rows = [
        [
            row["parameter"],
            row["name"],
            "x".join(map(str, row["shape"])) or "scalar",
            "; ".join([row["rule"], *row["changes"]]),
        ]
        for row in derived["matched"]
    ]
    metrics = run.metrics
    assert metrics is not None
    changed = [row["parameter"] for row in derived["matched"] if row["changes"]]
    standardized = "not standardized"
    if run.config.data.standardize:
        standardized = "standardized (for raw values: --set data.standardize=false)"
    lines = [
        table(["parameter", "imported array", "shape", "matched by"], rows),
        f"changed by the import: {one_line(', '.join(changed) or 'nothing')}",
        scores_table({part: metrics[part] for part in ("train", "validation", "test")}),
        f"{derived['chains']} chains x {derived['draws']} draws of {derived['library']}, on "
        f"{one_line(run.record['dataset']['name'], 100)}, {standardized}",
        file_line("run", run.path),
    ]
    return "\n".join(lines)
