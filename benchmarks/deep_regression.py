"""Measure test scores against CPU seconds of deep networks: MCLMC ensembles, bde's and ours.

    python -m venv .venv/bde && .venv/bde/bin/pip install sklearn-contrib-bde==1.0.2
    python -m benchmarks.deep_regression --peer .venv/bde/bin/python [--data bike] [--seeds 3]

`sklearn-contrib-bde` pins an old BlackJAX, so it has an environment of its own. Its package has
both data sets: airfoil (1,503 rows) and bike sharing (17,379 rows, of which `--rows` limits the
number). Both sides get the same arrays: the same random 20 % of the rows for testing, inputs and
target standardized by the others. The network is an MLP 16-16-16-16 with relu units, a mean and a
noise for each point, and a standard normal prior. Each side has 10 members, one thread and one
core, and one run after the other; seconds are those of the processor, compilation included.

NLL is that of the mixture of all draws, in nats per point, for the standardized target.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from scipy.special import logsumexp

MEMBERS = 10
# Name -> (epochs or steps of the members, draws of warm-up, draws), 10 steps from draw to draw.
BUDGETS = {
    "very short": (300, 100, 30),
    "short": (1000, 650, 150),
    "medium": (1000, 750, 350),
    "equal steps": (1000, 1000, 500),
    "long": (1000, 4000, 1000),
}
# The same for minibatches: (steps of the members, steps of warm-up, draws), 40 steps from draw to
# draw.
MINIBATCH_BUDGETS = {
    "minibatches": (4000, 4000, 100),
    "minibatches, long": (4000, 12000, 200),
    "minibatches, longest": (4000, 24000, 500),
}
_BATCH_SIZE = 1024
_BIKE = [
    *("season", "yr", "mnth", "hr", "holiday", "weekday", "workingday", "weathersit"),
    *("temp", "atemp", "hum", "windspeed"),
]


def arrays(name: str, folder: Path, seed: int, rows: int | None) -> dict[str, np.ndarray]:
    """Return standardized training and test arrays of a data set in the folder of bde."""
    if name == "airfoil":
        table = np.genfromtxt(folder / "airfoil.csv", delimiter=",", skip_header=1)
        x, y = table[:, :-1], table[:, -1]
    else:
        table = np.genfromtxt(
            folder / "bike_sharing_dataset" / "hour.csv",
            delimiter=",",
            names=True,
            usecols=(*_BIKE, "cnt"),
        )
        x, y = np.stack([table[column] for column in _BIKE], 1), table["cnt"]
    order = np.random.default_rng(seed).permutation(len(x))[:rows]
    test, train = order[: len(order) // 5], order[len(order) // 5 :]
    x = (x - x[train].mean(0)) / x[train].std(0)
    y = (y - y[train].mean()) / y[train].std()
    parts = {"x_train": x[train], "y_train": y[train], "x_test": x[test], "y_test": y[test]}
    return {key: value.astype(np.float32) for key, value in parts.items()}


def scores(means: np.ndarray, sds: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """Return NLL and RMSE of mixtures of normals, (draw, point)."""
    log_density = -0.5 * ((y - means) / sds) ** 2 - np.log(sds) - 0.5 * np.log(2 * np.pi)
    nll = -(logsumexp(log_density.astype(np.float64), 0) - np.log(len(means))).mean()
    return {"nll": float(nll), "rmse": float(np.sqrt(((means.mean(0) - y) ** 2).mean()))}


def fit_peer(parts: dict[str, np.ndarray], seed: int, warmup: int, draws: int) -> dict[str, float]:
    """Fit bde and return its scores; runs in its environment."""
    from bde import BdeRegressor  # pyright: ignore[reportMissingImports]

    model = BdeRegressor(
        n_members=MEMBERS,
        hidden_layers=[16] * 4,
        seed=seed,
        epochs=1000,
        patience=20,
        warmup_steps=10 * warmup,
        n_samples=10 * draws,
        n_thinning=10,
    )
    started = time.process_time()
    model.fit(parts["x_train"], parts["y_train"])
    seconds = time.process_time() - started
    outputs = np.asarray(model.predict(parts["x_test"], raw=True))
    outputs = outputs.reshape(-1, *outputs.shape[2:])
    sds = np.log1p(np.exp(outputs[..., 1])) + 1e-6
    return {"seconds": seconds, **scores(outputs[..., 0], sds, parts["y_test"])}


def fit_ours(
    parts: dict[str, np.ndarray], seed: int, steps: int, warmup: int, draws: int, minibatches: int
) -> dict[str, float]:
    """Fit an ensemble and MCLMC or SGMCLMC from each member, and return the scores of the draws."""
    import torch

    from bnn_symm import (
        MCLMC,
        SGMCLMC,
        BayesianModel,
        DeepEnsemble,
        MLPConfig,
        Prior,
        build_network,
    )
    from bnn_symm.data import DataConfig
    from bnn_symm.estimators.training_data import training_data
    from bnn_symm.likelihoods import HeteroscedasticGaussian

    torch.set_num_threads(1)
    data = training_data(
        parts["x_train"],
        parts["y_train"],
        DataConfig(validation_fraction=0.0, standardize=False),
        task="regression",
        class_labels=(),
        target_names=("target",),
        feature_names=None,
        dtype=torch.float32,
        seed=0,
    )
    net = build_network(
        MLPConfig(widths=(16,) * 4, activation="relu"), input_shape=data.input_shape, num_outputs=2
    )
    model = BayesianModel(net, Prior(scale=1.0), HeteroscedasticGaussian())
    started = time.process_time()
    ensemble = DeepEnsemble(
        num_members=MEMBERS,
        num_steps=steps,
        learning_rate=0.01,
        chain_method="sequential",
        compile=True,
    ).fit(model, data, seed=seed)
    members = time.process_time() - started
    lengths = {"num_chains": MEMBERS, "num_warmup": warmup, "num_draws": draws}
    method = (
        SGMCLMC(batch_size=_BATCH_SIZE, thinning=40, chain_method="sequential", **lengths)
        if minibatches
        else MCLMC(energy_variance=0.01, **lengths)
    )
    posterior = method.fit(model, data, seed=seed, initial=ensemble)
    seconds = time.process_time() - started
    # A chain is frozen if from draw to draw it moves a hundred times less than the others do.
    moves = posterior.draws().unflatten(0, posterior.shape[:2]).diff(dim=1).norm(dim=-1).median(1)
    frozen = int((moves.values < 0.01 * moves.values.median()).sum())
    with torch.no_grad():
        outputs = torch.func.vmap(model.outputs, in_dims=(0, None), chunk_size=200)(
            posterior.draws(), torch.from_numpy(parts["x_test"])
        ).numpy()
    found = scores(outputs[..., 0], np.exp(outputs[..., 1].clip(-10, 10)), parts["y_test"])
    return {"seconds": seconds, "ensemble_seconds": members, "frozen": frozen, **found}


def run(python: str, path: Path, side: str, *settings: int) -> dict[str, float]:
    """Return the scores of one side, fitted by a separate process on one core."""
    core = max(os.sched_getaffinity(0))
    threads = {
        "OMP_NUM_THREADS": "1",
        "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
    }
    done = subprocess.run(
        [python, "-W", "ignore", __file__, "--worker", side, str(path), *map(str, settings)],
        capture_output=True,
        text=True,
        env={**os.environ, **threads},
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),
        check=False,
    )
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    return json.loads(done.stdout.strip().splitlines()[-1])


def measure(options: argparse.Namespace) -> None:
    """Print one row per seed, side and budget, and their means."""
    where = subprocess.run(
        [options.peer, "-c", "import bde.data; print(bde.data.__path__[0])"],
        capture_output=True,
        text=True,
        check=True,
    )
    folder = Path(where.stdout.strip().splitlines()[-1])
    rows: dict[str, list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        for seed in range(options.seeds):
            path = Path(temporary) / "arrays.npz"
            np.savez(path, **arrays(options.data, folder, seed, options.rows))
            for name in options.budgets:
                steps, warmup, draws = (BUDGETS | MINIBATCH_BUDGETS)[name]
                if name == "equal steps":
                    row = run(options.peer, path, "peer", seed, warmup, draws)
                    show(rows, "bde", seed, row)
                minibatches = int(name in MINIBATCH_BUDGETS)
                row = run(sys.executable, path, "ours", seed, steps, warmup, draws, minibatches)
                show(rows, f"bnn_symm, {name}", seed, row)
    print(f"| {options.data} | NLL | RMSE | CPU seconds |\n| --- | --- | --- | --- |")
    for name, found in rows.items():
        cells = [
            f"{np.mean(values):.3f} +- {np.std(values, ddof=len(values) > 1):.3f}"
            for values in ([row[key] for row in found] for key in ("nll", "rmse", "seconds"))
        ]
        print(f"| {name} | {' | '.join(cells)} |")
    frozen = sum(int(row.get("frozen", 0)) for found in rows.values() for row in found)
    print(f"frozen chains: {frozen}")


def show(rows: dict[str, list[dict[str, float]]], name: str, seed: int, row: dict) -> None:
    """Store and print one row."""
    rows.setdefault(name, []).append(row)
    print(name, "seed", seed, {key: round(value, 3) for key, value in row.items()}, flush=True)


def main() -> None:
    """Parse the command line; `--worker` is one fit in its own process."""
    if sys.argv[1:2] == ["--worker"]:
        side, path, *settings = sys.argv[2:]
        parts = dict(np.load(path))
        fit = fit_peer if side == "peer" else fit_ours
        print(json.dumps(fit(parts, *map(int, settings))))
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer", required=True, help="interpreter that has sklearn-contrib-bde")
    parser.add_argument("--data", choices=("airfoil", "bike"), default="airfoil")
    parser.add_argument("--rows", type=int, help="use this many random rows")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--budgets", nargs="+", choices=(*BUDGETS, *MINIBATCH_BUDGETS), default=list(BUDGETS)[1:]
    )
    measure(parser.parse_args())


if __name__ == "__main__":
    main()
