"""Small fits, in this process or in one that can be killed."""

import multiprocessing
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from bnn_symm.runs import Run, fit_run, load_config
from bnn_symm.runs.directory.run_directory import RunDirectory

GAP = ["data.name=gap", "architecture.widths=[4]"]
IRIS = ["data.name=iris", "architecture.widths=[]"]
VI = ["inference.num_steps=20", "inference.num_draws=20"]
CHAINS = ["inference.num_warmup=20", "inference.num_draws=20", "inference.num_chains=2"]

METHODS = {
    "local": [*VI, "inference.estimator=local"],
    "weight": [*VI, "inference.estimator=weight"],
    "map": ["inference.name=map", "inference.num_steps=20"],
    "deep_ensemble": [
        "inference.name=deep_ensemble",
        "inference.num_steps=20",
        "inference.num_members=2",
    ],
    "hmc": ["inference.name=hmc", "inference.max_num_steps=10", *CHAINS],
    "nuts": ["inference.name=nuts", "inference.max_tree_depth=3", *CHAINS],
}
PARALLEL = ("deep_ensemble", "hmc", "nuts")


def overrides(method: str, how: str = "sequential") -> list[str]:
    """Run a small fit of the gap data."""
    chains = [f"inference.chain_method={how}"] if method in PARALLEL else []
    return [*GAP, *METHODS[method], *chains]


def fit(path: Path, keys: list[str]) -> Run:
    return fit_run(load_config(None, keys), path)


def sign(path: Path) -> None:
    """Sign files that a test has changed, to test their readers instead of the signature."""
    RunDirectory(path).sign_again()


def flags(keys: list[str]) -> list[str]:
    """Return the same overrides for the command line."""
    return [word for key in keys for word in ("--set", key)]


def same_bits(first: Run, second: Run) -> bool:
    one, other = first.posterior, second.posterior
    names = ("loc", "scale") if hasattr(one, "loc") else ()
    return torch.equal(one.draws(), other.draws()) and all(
        torch.equal(getattr(one, name), getattr(other, name)) for name in names
    )


def history(run: Run) -> list[dict[str, Any]]:
    """Return the history without the column that measures time."""
    rows = run.posterior.history
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


# -- a process that can be killed: forked from a server that has imported everything

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    ["bnn_symm.cli", "bnn_symm.runs", "bnn_symm.studies", "bnn_symm.report.progress"]
)


def start(arguments: list[str], log: Path) -> Any:
    """Run the command line in a process group of its own, with its output in `log`."""
    process = _CONTEXT.Process(target=_main, args=(arguments, str(log)))
    process.start()
    return process


def run_elsewhere(arguments: list[str], log: Path) -> None:
    """Run the command line in a process without type checks, which slow fits down tenfold."""
    process = start(arguments, log)
    process.join()
    assert process.exitcode == 0, log.read_text()


def _main(arguments: list[str], log: str) -> None:
    import bnn_symm.diagnostics  # noqa: F401
    from bnn_symm.cli import main

    sys.modules["bnn_symm.diagnostics.elbo.elbo"]._MAX_SAMPLES = 60  # type: ignore[attr-defined]
    os.setpgrp()
    handle = os.open(log, os.O_WRONLY | os.O_CREAT)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    sys.exit(main(arguments))


def wait_until(condition: Callable[[], bool], seconds: float = 300.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to that in time"
        time.sleep(0.01)


def lines(path: Path) -> int:
    """Count the rows of a history that a process is writing."""
    return path.read_text().count("\n") if path.exists() else 0
