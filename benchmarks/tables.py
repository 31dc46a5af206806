"""Compare settings of fits, and peers, on public tables by their scores on held-out rows.

    python -m benchmarks.tables tables --out tables.jsonl --seeds 5     (see `table_sets.py`)
    python -m benchmarks.tables tables --out tables.jsonl --report

Every row of the result is one fit of one table with one seed, which is that of the split (20 % for
testing, a tenth of the rest for validation) and of the fit. All sides get the same encoded and
standardized features and one core. NLL is in nats per row, in the units of the target; seconds
are those of the processor. A second call continues where the first ended.

The peers are those of scikit-learn with their defaults: linear models (`baselines.py`), gradient
boosting and an MLP of the same widths with early stopping. Their regressions predict a normal
distribution, whose standard deviation is that of the errors on the validation rows.
"""

import argparse
import json
import math
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from scipy.stats import norm

from bnn_symm import Config, Dataset, load_config, load_dataset
from bnn_symm.diagnostics.scores.baselines import baselines
from bnn_symm.diagnostics.scores.scores import score
from bnn_symm.runs.configuration.prepare import prepare
from bnn_symm.runs.stages import stage_seed

# Name -> overrides of the default configuration.
SETTINGS = {
    "default": [],
    "standard normal prior": ["prior.scale=1.0"],
    "fan_in for all layers": ["prior.scale=fan_in"],
    "one noise": ["likelihood.name=gaussian"],
    "Gaussian noise": ["likelihood.name=heteroscedastic_gaussian"],
    "heavy tails": ["likelihood.name=heteroscedastic_student_t"],
    "outputs of 4": ["prior={scale: fan_in, overrides: {head.*: {scale: 0.5}}}"],
    "outputs of 8": ["prior={scale: fan_in, overrides: {head.*: {scale: 1.0}}}"],
    "outputs of 16": ["prior={scale: fan_in, overrides: {head.*: {scale: 2.0}}}"],
    "energy variance 0.0005": ["inference={name: auto, energy_variance: 0.0005}"],
    "minibatches": ["inference={name: auto, max_size: 1}"],
    "former default": ["inference.name=mean_field_vi"],
}


def fit(config: Config, dataset: Dataset) -> tuple[str, dict[str, Any]]:
    """Fit one setting; return the name of its method and its scores."""
    prepared = prepare(config, load=lambda data, dtype: dataset)
    posterior = None
    for number, method in enumerate(prepared.config.warm_start, start=1):
        seed = stage_seed(prepared.config, number)
        posterior = method.fit(prepared.model, dataset, seed=seed, initial=posterior)
    method = prepared.config.inference
    posterior = method.fit(prepared.model, dataset, seed=config.seed, initial=posterior)
    scores = score(posterior, dataset.test)
    assert scores is not None
    return method.name, scores


def _parts(dataset: Dataset) -> list[np.ndarray]:
    """Return x and y of the training, validation and test splits."""
    parts = (dataset.train, dataset.validation, dataset.test)
    return [each for part in parts for each in (part.x.double().numpy(), part.y.numpy())]


def _peer_scores(dataset: Dataset, model: Any) -> dict[str, Any]:
    """Fit a model of scikit-learn, and return its scores."""
    x, y, x_valid, y_valid, x_test, y_test = _parts(dataset)
    model.fit(x, y)
    if dataset.task == "classification":
        probabilities = np.full((len(y_test), dataset.num_outputs), 1e-300)
        probabilities[:, model.classes_] = np.maximum(model.predict_proba(x_test), 1e-300)
        nll = -np.log(probabilities[np.arange(len(y_test)), y_test])
        accuracy = probabilities.argmax(1) == y_test
        return {"nll": float(nll.mean()), "accuracy": float(accuracy.mean())}
    scale = dataset.scaling.y_scale
    sd = float(np.sqrt(np.mean((model.predict(x_valid) - y_valid) ** 2)))
    z = (y_test - model.predict(x_test)) / sd
    nll = 0.5 * z**2 + np.log(sd * scale) + 0.5 * np.log(2 * np.pi)
    crps = sd * scale * (z * (2 * norm.cdf(z) - 1) + 2 * norm.pdf(z) - 1 / np.sqrt(np.pi))
    inside = np.abs(z) <= norm.ppf(0.95)
    return {
        "nll": float(nll.mean()),
        "rmse": float(sd * scale * np.sqrt(np.mean(z**2))),
        "crps": float(crps.mean()),
        "coverage_90": float(inside.mean()),
    }


def _linear(dataset: Dataset, seed: int) -> dict[str, Any]:
    log_prob = baselines(dataset, dataset.test).models[-1].predictions.log_prob
    return {"nll": float(-log_prob.mean())}


def _constant(dataset: Dataset, seed: int) -> dict[str, Any]:
    log_prob = baselines(dataset, dataset.test).models[0].predictions.log_prob
    return {"nll": float(-log_prob.mean())}


def _boosting(dataset: Dataset, seed: int) -> dict[str, Any]:
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    is_classes = dataset.task == "classification"
    model = HistGradientBoostingClassifier if is_classes else HistGradientBoostingRegressor
    return _peer_scores(dataset, model(random_state=seed))


def _network(dataset: Dataset, seed: int) -> dict[str, Any]:
    from sklearn.neural_network import MLPClassifier, MLPRegressor

    model = MLPClassifier if dataset.task == "classification" else MLPRegressor
    return _peer_scores(
        dataset, model(hidden_layer_sizes=(64, 64), early_stopping=True, random_state=seed)
    )


PEERS: dict[str, Callable[[Dataset, int], dict[str, Any]]] = {
    "constant": _constant,
    "linear model": _linear,
    "gradient boosting": _boosting,
    "MLP": _network,
}


def run(args: argparse.Namespace) -> None:
    """Fit everything that the file of results does not have yet."""
    # On one core, chains run one after another, in the process whose seconds are measured.
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    done = {(row["table"], row["seed"], row["name"]) for row in _read(args.out)}
    files = sorted(args.folder.glob("*.csv"), key=lambda path: path.stat().st_size)
    for seed in range(args.first_seed, args.seeds):
        for path in files:
            names = [
                name
                for name in [*PEERS, *SETTINGS]
                if (not args.only or name in args.only)
                and (path.stem, seed, name) not in done
                and (not args.tables or path.stem in args.tables)
            ]
            if names:
                _run_table(args.out, path, seed, names)


def _run_table(out: Path, path: Path, seed: int, names: list[str]) -> None:
    target = path.open().readline().strip().rpartition(",")[2]
    given = [f"data.name={path}", f"data.target={target}", f"data.split_seed={seed}"]
    dataset: Dataset = load_dataset(load_config(None, given).data)
    torch.set_num_threads(1)
    for name in names:
        start, method = _cpu_seconds(), name
        with warnings.catch_warnings(action="ignore"):
            if name in PEERS:
                scores = PEERS[name](dataset, seed)
            else:
                config = load_config(None, [*given, f"seed={seed}", *SETTINGS[name]], choose=True)
                method, scores = fit(config, dataset)
        row = {"table": path.stem, "rows": len(dataset.train), "task": dataset.task, "seed": seed}
        row |= {"name": name, "method": method, "features": math.prod(dataset.input_shape)}
        row |= {"seconds": round(_cpu_seconds() - start, 2), **scores}
        with out.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(path.stem, seed, name, f"{row['seconds']:.0f} s", f"{row['nll']:.4f}", flush=True)


def _cpu_seconds() -> float:
    """Return the processor seconds of this process and of the compilers that it has run."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def report(args: argparse.Namespace) -> None:
    """Print the tables of docs/results/tables.md: NLL, ranks, coverage and seconds."""
    import pandas as pd

    frame = pd.DataFrame(_read(args.out))
    names = [name for name in [*PEERS, *SETTINGS] if name in set(frame.name)]
    tables = frame.groupby("table").rows.first().sort_values().index

    def cell(table: str, name: str, value: str, digits: int) -> str:
        values = frame[(frame.table == table) & (frame.name == name)][value]
        mean, sd = values.mean(), values.std()
        return f"{mean:.{digits}f}" if np.isnan(sd) else f"{mean:.{digits}f} +- {sd:.{digits}f}"

    _print_row(["NLL", "rows", "features", *names, "method"])
    _print_row(["---"] * (len(names) + 4))
    for table in tables:
        of_default = frame[(frame.table == table) & (frame.name == "default")].iloc[0]
        size = [f"{of_default.rows:,}", str(of_default.features)]
        cells = [cell(table, name, "nll", 3) for name in names]
        _print_row([table, *size, *cells, of_default.method])
    nll = frame.pivot_table(index="table", columns="name", values="nll")[names]
    print("\nmedian and mean rank by NLL")
    for name, ranks in nll.rank(axis=1).items():
        print(f"{name}: {ranks.median():g}, {ranks.mean():.2f}")
    wide = frame.pivot_table(index=["table", "seed"], columns="name", values="nll")
    difference = (wide["default"] - wide["linear model"]).groupby("table").agg(["mean", "sem"])
    worse = difference[difference["mean"] > difference["sem"]]
    print("\nworse than the linear model by more than a standard error over seeds:")
    print(worse.to_string(float_format="%.4f") if len(worse) else "none")
    own = frame[frame.name == "default"]
    coverage = own.groupby("table").coverage_90.mean().dropna()
    print(f"\nmean coverage of 90 % intervals {coverage.mean():.3f}")
    print(coverage.to_string(float_format="%.3f"))
    print("\nprocessor seconds\n", own.groupby("table").seconds.mean().round(0).to_string())


def _print_row(cells: list[str]) -> None:
    print(f"| {' | '.join(cells)} |")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", choices=[*PEERS, *SETTINGS])
    parser.add_argument("--tables", nargs="*")
    parser.add_argument("--report", action="store_true")
    args = parser.parse_args()
    report(args) if args.report else run(args)


if __name__ == "__main__":
    main()
