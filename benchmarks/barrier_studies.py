"""Measure barriers between independent fits, with their spread over pairs: tables of the README.

    python benchmarks/barrier_studies.py posteriors
    python benchmarks/barrier_studies.py connectivity
    python benchmarks/barrier_studies.py triples
    python benchmarks/barrier_studies.py fashion

`posteriors` varies width and temperature, naive and aligned (Rossi et al. 2023). `connectivity`
compares standard and asymmetric networks and the controls (Lim et al. 2024). `triples` takes three
networks at once, by width (Sharma et al. 2024). `fashion` uses width 512 on Fashion-MNIST.

Fits are stored in runs/studies and not repeated. A row is the mean and the standard deviation over
pairs (or triples) of independent fits, each pair with different seeds.
"""

import argparse
import concurrent.futures
import json
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
RUNS = ROOT / "runs" / "studies"

ASYMMETRIC = "architecture.symmetry.kind=weight_asymmetric"
BLOCKS = "architecture.symmetry.kind=block_fixed"
STUDIES: dict[str, tuple[str, int, dict[str, list[str]]]] = {
    "posteriors": (
        "digits_posterior_barrier",
        2,
        {
            "T=0.1, width 16": ["architecture.widths=[16,16]"],
            "T=0.1, width 64": [],
            "T=0.1, width 256": ["architecture.widths=[256,256]"],
            "T=1, width 64": ["inference.temperature=1.0"],
            "T=0.01, width 64": ["inference.temperature=0.01"],
        },
    ),
    "connectivity": (
        "digits_connectivity",
        2,
        {
            "standard": [],
            "W-asymmetric": [ASYMMETRIC],
            "W-asymmetric, kappa x 0.1": [
                ASYMMETRIC,
                "architecture.symmetry.kappa=[0.1,0.1,0.05,0.025]",
            ],
            "W-asymmetric, kappa = 0": [ASYMMETRIC, "architecture.symmetry.kappa=0"],
            "sigma-asymmetric": ["architecture.symmetry.kind=sigma_asymmetric"],
            "init_matched": ["architecture.symmetry.kind=init_matched"],
            "parameter_matched": ["architecture.symmetry.kind=parameter_matched"],
            "block_fixed, k = 2": [BLOCKS, "architecture.symmetry.block=2"],
            "block_fixed, k = 4": [BLOCKS, "architecture.symmetry.block=4"],
            "block_fixed, k = 8": [BLOCKS, "architecture.symmetry.block=8"],
        },
    ),
    "triples": (
        "digits_connectivity",
        3,
        {
            f"width {width}": [
                f"architecture.widths=[{width},{width},{width}]",
                "architecture.activation=relu",
            ]
            for width in (16, 32, 64, 128, 256)
        },
    ),
    "fashion": ("fashion_mnist_posterior_barrier", 2, {"T=0.1, width 512": ["threads=1"]}),
}


def call(*arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bnn_symm.cli", *arguments], capture_output=True, text=True, cwd=ROOT
    )
    if done.returncode:
        raise SystemExit(f"bnn-symm {' '.join(arguments)}\n{done.stderr}")


def fit(config: str, keys: list[str], out: Path) -> None:
    if not (out / "metrics.json").exists():
        call("fit", f"configs/{config}.yaml", "--set", *keys, "--quiet", "--out", str(out))


def measure(runs: list[Path], out: Path) -> dict:
    if not (out / "barrier.json").exists():
        call("barrier", *map(str, runs), "--quiet", "-o", str(out))
    return json.loads((out / "barrier.json").read_text())


def scores(content: dict, runs: list[Path]) -> dict[str, float]:
    """Return the values that a row shows of one pair or triple."""
    tests = [json.loads((run / "metrics.json").read_text())["test"] for run in runs]
    found = {"accuracy": statistics.mean(test["accuracy"] for test in tests)}
    if "simplex" in content:
        for name, own in (("naive", content["naive"]), ("aligned", content)):
            found[f"{name}, worst pair"] = max(pair["height"] for pair in own["pairs"])
            found[f"{name}, centroid"] = own["simplex"]["centroid"]
        return found
    naive, aligned = content["naive"]["test"], content["test"]
    found |= {"naive": naive["height"], "aligned": aligned["height"]}
    found |= {"naive, midpoint": naive["midpoint"], "error, naive": naive["error_height"]}
    found |= {"movable": content["alignment"]["num_movable"]}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("study", choices=sorted(STUDIES))
    parser.add_argument(
        "--pairs", type=int, default=5, help="pairs, or triples, of independent fits a row"
    )
    parser.add_argument("--jobs", type=int, default=2, help="fits at a time")
    options = parser.parse_args()
    config, together, rows = STUDIES[options.study]
    RUNS.mkdir(parents=True, exist_ok=True)

    def folder(row: str) -> str:
        return f"{options.study}-{''.join(c if c.isalnum() or c == '.' else '-' for c in row)}"

    fits = {
        (row, seed): RUNS / f"{folder(row)}-{seed}"
        for row in rows
        for seed in range(options.pairs * together)
    }
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        made = [
            pool.submit(fit, config, [*rows[row], f"seed={seed}"], out)
            for (row, seed), out in fits.items()
        ]
        for done in made:
            done.result()
        groups = {
            (row, i): [fits[row, i * together + j] for j in range(together)]
            for row in rows
            for i in range(options.pairs)
        }
        measured = {
            key: pool.submit(measure, runs, RUNS / f"{folder(key[0])}-barrier-{key[1]}")
            for key, runs in groups.items()
        }
        found = {key: scores(done.result(), groups[key]) for key, done in measured.items()}
    columns = list(next(iter(found.values())))
    print(f"| {options.study} | {' | '.join(columns)} |\n|{' --- |' * (len(columns) + 1)}")
    for row in rows:
        cells = []
        for column in columns:
            values = [found[row, i][column] for i in range(options.pairs)]
            spread = statistics.stdev(values) if len(values) > 1 else float("nan")
            cells.append(
                f"{values[0]:.0f}"
                if column == "movable"
                else f"{statistics.mean(values):.3f} +- {spread:.3f}"
            )
        print(f"| {row} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
