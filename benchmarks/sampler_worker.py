"""Start a sampler of `sampler_peers` in a separate process and send it commands."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

THREADS = {
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
    "JAX_PLATFORMS": "cpu",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "NPROC": "1",
}
# Largest relative difference of log densities and gradients: a hundred roundings of float32.
_AGREES = 1e-5
# Engines with a density that is not this toolkit's, which is checked.
PEERS = ("numpyro", "blackjax", "blackjax_mclmc", "pyro")

Answer = dict[str, Any]


class Worker:
    """Run a sampler in a separate process, pinned to one core.

    Args:
        engine: one of `ENGINES`.
        problem: npz file of the problem.
        core: the core; by default the last one that this process may use.
        python: interpreter in which the peer is installed.
    """

    def __init__(
        self, engine: str, problem: Path, *, core: int | None = None, python: str = sys.executable
    ):
        core = max(os.sched_getaffinity(0)) if core is None else core
        reading, writing = os.pipe()
        self._process = subprocess.Popen(
            [
                python,
                "-m",
                "benchmarks.sampler_peers",
                engine,
                str(problem),
                str(core),
                str(writing),
            ],
            cwd=Path(__file__).parents[1],
            stdin=subprocess.PIPE,
            text=True,
            pass_fds=[writing],
            env=os.environ | THREADS,
        )
        os.close(writing)
        self._answers = os.fdopen(reading)

    def __call__(self, do: str, **settings: Any) -> Answer:
        """Send a command and wait for its answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": do, **settings}) + "\n")
        self._process.stdin.flush()
        line = self._answers.readline()
        if not line:
            raise RuntimeError(
                f"{self._process.args[2]} ended with code {self._process.wait()}; its error is "
                "above"
            )
        return json.loads(line)

    def sample(self, draws: int) -> tuple[Answer, np.ndarray]:
        """Return the next draws of the chains, (chain, draw, parameter)."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "draws.npy"
            answer = self("sample", draws=draws, out=str(path))
            return answer, np.load(path)

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
        self._answers.close()

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def checked_worker(engine: str, problem: Path) -> Worker:
    """Return a worker whose log density and gradient agree with this toolkit's.

    Raises:
        RuntimeError: if they differ by more than rounding in float32.
    """
    worker = Worker(engine, problem)
    if engine in PEERS:
        found = worker("check")
        if max(found["value"], found["gradient"]) > _AGREES:
            worker.close()
            raise RuntimeError(
                f"{engine} has another density: relative differences {found}, wanted below "
                f"{_AGREES}"
            )
    return worker
