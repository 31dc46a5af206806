"""Run samplers in separate processes, on one core and thread: NumPyro, BlackJAX, Pyro, and ours.

    python -m benchmarks.sampler_peers ENGINE PROBLEM.npz CORE PIPE

is the worker. It reads one JSON command per line and answers each with one line of JSON on a
separate pipe, so that the output of libraries does not interfere. `sampler_worker` is the other
end. Commands:

- `{"do": "check"}`: largest differences of log density and gradient from this toolkit's;
- `{"do": "warmup", "seed": 1, "chains": 16, "iterations": 300, ...}`: new chains and adaptation;
- `{"do": "sample", "draws": 500, "out": "draws.npy"}`: draws that continue the chains.

`depth` is the maximum depth of trees, and the steps per draw of this toolkit's MCLMC, whose other
settings may follow.

The methods of this toolkit warm up and draw in one `fit`: `warmup` runs it, its history has the
seconds of each phase, and `sample` returns the draws.

Seconds of compilation are measured separately. JAX reports when it traces, lowers and compiles. In
this toolkit the first call of each compiled function counts as compilation (every fit traces
anew). All samplers use one flat vector (Pyro, whose `jit_compile` requires a model, one site per
layer). NUTS and HMC have a diagonal mass matrix and a step size adapted by dual averaging, as is
their default. Pyro runs chains one after another.
"""

import argparse
import itertools
import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.sampler_jax import (
    Answer,
    BlackJaxMCLMC,
    BlackJaxNUTS,
    NumPyroNUTS,
    sampled,
)
from bnn_symm.inference.callbacks import Callback


class PyroNUTS:
    """Run pyro.infer.NUTS(model, jit_compile=True), chain after chain."""

    def __init__(self, problem: dict[str, np.ndarray]):
        import torch

        torch.set_num_threads(1)
        self._problem = {name: torch.as_tensor(problem[name]) for name in ("x", "y", "scales")}
        self._starts = dict(
            zip(problem["seeds"].tolist(), torch.as_tensor(problem["starts"]), strict=True)
        )
        self._kind, self._noise = str(problem["kind"]), float(problem["noise"])
        sizes = problem["sizes"].tolist()
        shapes = [shape for a, b in itertools.pairwise(sizes) for shape in ((b, a), (b,))]
        self._shapes = {f"p{i}": shape for i, shape in enumerate(shapes)}

    def _split(self, flat: Any) -> dict[str, Any]:
        parts = flat.split([int(np.prod(shape)) for shape in self._shapes.values()])
        return {
            n: part.reshape(shape)
            for (n, shape), part in zip(self._shapes.items(), parts, strict=True)
        }

    def _model(self) -> None:
        import pyro
        import pyro.distributions as dist
        import torch

        scales = self._split(self._problem["scales"])
        values = [
            pyro.sample(name, dist.Normal(torch.zeros(()), scale).to_event(scale.dim()))
            for name, scale in scales.items()
        ]
        out = self._problem["x"]
        for i in range(0, len(values), 2):
            out = torch.nn.functional.linear(out, values[i], values[i + 1])
            out = out.tanh() if i + 2 < len(values) else out
        y = self._problem["y"]
        with pyro.plate("data", len(y)):
            if self._kind == "gaussian":
                pyro.sample("y", dist.Normal(out[:, 0], self._noise), obs=y)
            elif self._kind == "bernoulli":
                pyro.sample("y", dist.Bernoulli(logits=out[:, 0]), obs=y.to(out.dtype))
            else:
                pyro.sample("y", dist.Categorical(logits=out), obs=y)

    def check(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        import torch
        from pyro import poutine

        values, gradients = [], []
        for position in torch.as_tensor(positions):
            flat = position.clone().requires_grad_()
            trace = poutine.trace(
                poutine.condition(self._model, data=self._split(flat))
            ).get_trace()
            value = trace.log_prob_sum()
            values.append(float(value.detach()))
            gradients.append(torch.autograd.grad(value, flat)[0].numpy())
        return np.array(values), np.stack(gradients)

    def warmup(
        self, *, seed: int, chains: int, iterations: int, draws: int, depth: int, accept: float
    ) -> Answer:
        import torch
        from pyro.infer import NUTS

        torch.manual_seed(seed)
        self._chains, self._steps, compiling, seconds, busy_seconds, total = [], 0, 0.0, 0.0, 0.0, 0
        for start in self._starts[seed][:chains]:
            started = time.perf_counter()
            kernel = NUTS(
                self._model,
                jit_compile=True,
                ignore_jit_warnings=True,
                max_tree_depth=depth,
                target_accept_prob=accept,
                step_size=0.1,
            )
            kernel.initial_params = self._split(start.clone())
            kernel.setup(iterations)
            inner = kernel.potential_fn

            def counting(values: Any, inner: Any = inner) -> Any:
                self._steps += 1
                return inner(values)

            kernel.potential_fn = counting
            values = kernel.initial_params
            compiling += time.perf_counter() - started
            started, before, busy = time.perf_counter(), self._steps, time.process_time()
            for _ in range(iterations):
                values = kernel.sample(values)
            seconds += time.perf_counter() - started
            busy_seconds += time.process_time() - busy
            total += self._steps - before
            self._chains.append([kernel, values])
        sizes = [float(kernel.step_size) for kernel, _ in self._chains]
        return {
            "seconds": seconds,
            "busy_seconds": busy_seconds,
            "compile_seconds": compiling,
            "steps": total,
            "lane_steps": total,
            "step_size": sizes,
        }

    def sample(self, draws: int) -> tuple[Answer, np.ndarray]:
        import torch

        started, busy, diverging = time.perf_counter(), time.process_time(), 0
        positions, steps = [], []
        for chain in self._chains:
            kernel, values = chain
            known = len(kernel._divergences)
            for _ in range(draws):
                before = self._steps
                values = kernel.sample(values)
                steps.append(self._steps - before)
                positions.append(
                    torch.cat([values[name].reshape(-1) for name in self._shapes]).numpy()
                )
            diverging += len(kernel._divergences) - known
            chain[1] = values
        answer = {
            "seconds": time.perf_counter() - started,
            "busy_seconds": time.process_time() - busy,
            "compile_seconds": 0.0,
            "steps": sum(steps),
            "lane_steps": sum(steps),
            "steps_per_draw": float(np.mean(steps)),
            "divergences": diverging,
            "acceptance": float(np.mean([kernel._mean_accept_prob for kernel, _ in self._chains])),
        }
        return answer, np.stack(positions).reshape(len(self._chains), draws, -1)


class _BusyClock(Callback):
    """Record the processor seconds at the last row of history of each phase."""

    def __init__(self, noted: dict[str, float]):
        self._noted = noted

    def on_history(self, row: Mapping[str, Any]) -> None:
        self._noted["warmup" if row["phase"] == "warmup" else "draws"] = time.process_time()


class _CompileClock:
    """Sum up the wall and processor seconds of first calls, which compile, while active."""

    def __enter__(self) -> "_CompileClock":
        from bnn_symm.inference.density.compiled import Compiled

        self.seconds, self.busy_seconds, self._call = 0.0, 0.0, Compiled.__call__

        def timed(compiled: Compiled, *arguments: Any) -> Any:
            if compiled._works:
                return self._call(compiled, *arguments)
            started, busy = time.perf_counter(), time.process_time()
            try:
                return self._call(compiled, *arguments)
            finally:
                self.seconds += time.perf_counter() - started
                self.busy_seconds += time.process_time() - busy

        Compiled.__call__ = timed  # type: ignore[method-assign]
        return self

    def __exit__(self, *_: object) -> None:
        from bnn_symm.inference.density.compiled import Compiled

        Compiled.__call__ = self._call  # type: ignore[method-assign]


class _Ours:
    """Run this toolkit's batched engine; `check` applies to peers only."""

    method = "nuts"

    def __init__(self, problem: dict[str, np.ndarray]):
        import torch

        from benchmarks.sampler_problems import problem as by_name

        torch.set_num_threads(1)
        self._own = by_name(str(problem["name"]))
        self._compiled: set[int] = set()

    def _fit(
        self,
        *,
        seed: int,
        chains: int,
        iterations: int,
        draws: int,
        depth: int,
        accept: float,
        **own: Any,
    ) -> Any:
        from bnn_symm.inference import HMC, MCLMC, NUTS, ChEESHMC

        keywords: dict[str, Any] = {
            "num_chains": chains,
            "num_warmup": iterations,
            "num_draws": draws,
            "compile": True,
        }
        match self.method:
            case "nuts":
                method = NUTS(max_tree_depth=depth, target_accept_prob=accept, **keywords)
            case "hmc":
                method = HMC(target_accept_prob=accept, **keywords)
            case "mclmc":
                method = MCLMC(steps_per_draw=depth, **own, **keywords)
            case "chees_hmc":
                method = ChEESHMC(**keywords)
            case other:
                raise SystemExit(f"no method {other!r}")
        self._busy: dict[str, float] = {"start": time.process_time()}
        with _CompileClock() as self._compiling:
            return method.fit(
                self._own.model, self._own.dataset, seed=seed, callbacks=[_BusyClock(self._busy)]
            )

    def warmup(self, **settings: Any) -> Answer:
        """Fit with the settings of `_fit`."""
        started = time.perf_counter()
        chains = settings["chains"]
        if chains not in self._compiled:
            # Shallow trees are enough to compile; the steps per draw of MCLMC are compiled.
            depth = settings["depth"] if self.method == "mclmc" else 2
            self._fit(**settings | {"iterations": 2, "draws": 2, "depth": depth})
            self._compiled.add(chains)
        before = time.perf_counter() - started
        self._posterior = self._fit(**settings)
        rows = self._posterior.history
        self._warm = max(row["seconds"] for row in rows if row["phase"] == "warmup")
        self._end = max(row["seconds"] for row in rows)
        last = {
            row["chain"]: row["gradient_evaluations"] for row in rows if row["phase"] == "warmup"
        }
        sizes = np.asarray(self._posterior.sample_stats["step_size"])
        return {
            "seconds": self._warm - self._compiling.seconds,
            "busy_seconds": self._busy["warmup"]
            - self._busy["start"]
            - self._compiling.busy_seconds,
            "compile_seconds": before + self._compiling.seconds,
            "steps": int(sum(last.values())),
            "lane_steps": None,
            "step_size": sizes[:, 0].tolist(),
        }

    def sample(self, draws: int) -> tuple[Answer, np.ndarray]:
        stats = {name: np.asarray(value) for name, value in self._posterior.sample_stats.items()}
        chains = range(self._posterior.shape[0])
        positions = np.stack(
            [np.asarray(self._posterior.read(chain, 0, draws)) for chain in chains]
        )
        steps, diverging, accepted = stats["n_steps"], stats["diverging"], stats["acceptance_rate"]
        busy = self._busy["draws"] - self._busy["warmup"]
        return sampled(self._end - self._warm, busy, 0.0, steps, diverging, accepted), positions


class OurHMC(_Ours):
    method = "hmc"


class OurChEESHMC(_Ours):
    method = "chees_hmc"


class OurMCLMC(_Ours):
    method = "mclmc"


ENGINES = {
    "numpyro": NumPyroNUTS,
    "blackjax": BlackJaxNUTS,
    "blackjax_mclmc": BlackJaxMCLMC,
    "pyro": PyroNUTS,
    "nuts": _Ours,
    "hmc": OurHMC,
    "chees_hmc": OurChEESHMC,
    "mclmc": OurMCLMC,
}


def _check(engine: Any, problem: dict[str, np.ndarray]) -> Answer:
    """Return the largest differences from this toolkit's density and gradient.

    They are relative to the largest value, and to the largest entry of each gradient.
    """
    own_values, own_gradients = problem["values"], problem["gradients"]
    values, gradients = engine.check(problem["starts"][0, : len(own_values)])
    largest = np.abs(own_gradients).max(axis=1, keepdims=True)
    return {
        "value": float(np.max(np.abs(values - own_values) / np.abs(own_values))),
        "gradient": float(np.max(np.abs(gradients - own_gradients) / largest)),
    }


def serve(engine: Any, problem: dict[str, np.ndarray], answers: Any) -> None:
    """Answer the commands of standard input until it ends."""
    for line in sys.stdin:
        command = json.loads(line)
        match command.pop("do"):
            case "check":
                answer = _check(engine, problem)
            case "warmup":
                answer = engine.warmup(**command)
            case "sample":
                answer, positions = engine.sample(command["draws"])
                np.save(command["out"], positions)
            case other:
                raise SystemExit(f"no command {other!r}")
        print(json.dumps(answer), file=answers, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("engine", choices=sorted(ENGINES))
    parser.add_argument("problem", type=Path)
    parser.add_argument("core", type=int)
    parser.add_argument("pipe", type=int, help="file descriptor that answers are written to")
    options = parser.parse_args()
    os.sched_setaffinity(0, {options.core})
    with np.load(options.problem) as arrays:
        problem = dict(arrays)
    with os.fdopen(options.pipe, "w") as answers:
        serve(ENGINES[options.engine](problem), problem, answers)


if __name__ == "__main__":
    main()
