"""Record what the program computes, to the bit, and check later that it computes the same.

    python benchmarks/reference_bits.py record benchmarks/reference_bits.json    # before a change
    python benchmarks/reference_bits.py check benchmarks/reference_bits.json     # after it

This is for changes that must not change results: new names, moved modules, reworded messages.
`check` prints what differs, and then ends with status 1. Small fits by every method, a small study
and every command are run by the command line alone, so that modules may be renamed in between.

Every item of the file maps keys to values: numbers of JSON as they are, and the SHA-256 (its first
16 digits) of arrays, of columns of tables and of lists of more than four values. Texts are marked
"(text)", and all below a key that contains `seconds`, or beside a clock in seconds, "(seconds)".

The bits depend on the type of machine and on versions. Where these are not those of the item
`machine`, record again at the commit before. A round takes five minutes on two idle cores.
"""

import argparse
import hashlib
import json
import os
import resource
import shlex
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import torch

IRIS = "threads=1 data.name=iris architecture.widths=[8]"
DIGITS = "threads=1 data.name=digits data.limit=200 architecture.widths=[8,8]"
CNN = "threads=1 data.name=digits data.limit=60 architecture.name=cnn architecture.widths=[4,8]"
HOUSES = "threads=1 data.name=houses.csv data.target=price architecture.widths=[8]"
TOWNS = "threads=1 data.target=town data.standardize=false architecture.widths=[8]"
GAP = (
    "threads=1 data.name=gap data.limit=60 architecture.widths=[8] architecture.activation=tanh "
    "likelihood.name=gaussian likelihood.noise=0.2"
)
POINTS = "inference.num_steps=60"
VI = f"{POINTS} inference.num_draws=20"
CHAINS = "inference.num_chains=2 inference.num_warmup=30 inference.num_draws=30"
NUTS = f"{GAP} {CHAINS} inference.name=nuts inference.max_tree_depth=5"
HMC = f"{CHAINS} inference.name=hmc inference.max_num_steps=20"
MINIBATCHES = f"{CHAINS} inference.chain_method=sequential"

# Run -> the keys that `fit` sets.
FITS = {
    "vi_0": f"{DIGITS} {VI}",
    "vi_1": f"{DIGITS} {VI} seed=1",
    "vi_2": f"{DIGITS} {VI} seed=2",
    "vi_weight": f"{DIGITS} {VI} inference.estimator=weight "
    "architecture.symmetry.kind=weight_asymmetric",
    "vi_cold": f"{HOUSES} {VI} inference.temperature=0.5 likelihood.name=heteroscedastic_gaussian",
    "north": f"{TOWNS} {VI} data.name=north.csv inference.estimator=flipout",
    "south": f"{TOWNS} {VI} data.name=south.csv inference.estimator=flipout",
    "ivon": f"{IRIS} {VI} inference.name=ivon prior.name=laplace",
    "symmetrized_vi": f"{IRIS} {VI} inference.name=symmetrized_vi",
    "low_rank_vi": f"{GAP} {VI} inference.name=low_rank_vi dtype=float64",
    "hmc": f"{GAP} {HMC} likelihood.noise=learned",
    "warm_start": f"{IRIS} {HMC} warm_start='[{{name: map, num_steps: 40}}]'",
    "nuts": NUTS,
    "nuts_compiled": f"{NUTS} seed=1 inference.compile=true",
    "nuts_pyro": f"{IRIS} {CHAINS} inference.name=nuts inference.max_tree_depth=3 "
    "inference.engine=pyro inference.chain_method=sequential",
    "chees_hmc": f"{IRIS} {CHAINS} inference.name=chees_hmc inference.num_chains=4 "
    "inference.max_num_steps=20",
    "map": f"{CNN} {POINTS} inference.name=map prior.scale=fan_in architecture.norm=frn",
    "deep_ensemble": f"{IRIS} {POINTS} inference.name=deep_ensemble inference.num_members=2 "
    "inference.chain_method=sequential prior.name=laplace",
    "laplace": f"{IRIS} {VI} inference.name=laplace",
    "laplace_last_layer": f"{DIGITS} {VI} inference.name=laplace inference.structure=last_layer "
    "inference.predictive=sampled "
    "architecture.symmetry.kind=sigma_asymmetric",
    "swag": f"{IRIS} {VI} inference.name=swag inference.rank=3",
    "mc_dropout": f"{HOUSES} {VI} inference.name=mc_dropout architecture.dropout=0.1 "
    "architecture.norm=layer",
    "sgld": f"{IRIS} {MINIBATCHES} inference.name=sgld",
    "sghmc": f"{GAP} {MINIBATCHES} inference.name=sghmc prior.name=student_t "
    "inference.learning_rate=0.005",
    "cyclical_sghmc": f"{IRIS} inference.name=cyclical_sghmc inference.num_chains=2 "
    "inference.num_cycles=2 inference.cycle_steps=40 inference.draws_per_cycle=5 "
    "inference.chain_method=sequential",
}

# Item -> the command, which reads runs of FITS and writes a place of its own.
COMMANDS = {
    "evaluate": "evaluate runs/vi_0",
    "evaluate file": "evaluate runs/mc_dropout --data houses.csv",
    "evaluate shift": "evaluate runs/vi_1 --shift rotation",
    "evaluate ood": "evaluate runs/vi_2 --ood photo_patches",
    "evaluate temperature": "evaluate runs/laplace_last_layer --temperature-scaling",
    "predict numbers": "predict runs/vi_cold houses.csv -o numbers.parquet",
    "predict classes": "predict runs/north houses.csv -o classes.parquet",
    "diagnose": "diagnose runs/vi_0 runs/vi_1 -o diagnose",
    "diagnose chains": "diagnose runs/nuts -o diagnose_chains",
    "diagnose draws": f"diagnose --draws runs/nuts_compiled/posterior.nc --set {GAP} "
    "--no-per-draw -o diagnose_draws",
    "fidelity": "fidelity runs/nuts runs/nuts_compiled -o fidelity",
    "prior numbers": f"prior --set {GAP} --draws 50 -o prior_numbers",
    "prior classes": f"prior --set {IRIS} --draws 50 -o prior_classes",
    "symmetry": f"symmetry --set {DIGITS}",
    "symmetry run": "symmetry runs/vi_weight",
    "symmetry cnn": f"symmetry --set {CNN} architecture.symmetry.kind=block_fixed",
    "symmetry resnet": "symmetry --set threads=1 data.name=digits architecture.name=resnet",
    "align": "align runs/vi_0 runs/vi_1 runs/vi_2 -o align",
    "align chains": "align runs/nuts runs/nuts_compiled -o align_chains",
    "align activations": "align runs/vi_0 runs/vi_1 --matching activations -o align_activations",
    "align midpoint": "align runs/vi_0 runs/vi_1 --solver straight_through -o align_midpoint",
    "barrier pair": "barrier runs/vi_0 runs/vi_1 --draws 10 -o barrier_pair",
    "barrier three": "barrier runs/vi_0 runs/vi_1 runs/vi_2 --draws 5 -o barrier_three",
    "barrier chains": "barrier runs/nuts runs/nuts_compiled --coupling assignment --draws 10 "
    "-o barrier_chains",
    "barrier line": "barrier runs/vi_0 --path line -o barrier_line",
    "barrier bezier": "barrier runs/vi_0 runs/vi_2 --path bezier --curve-steps 20 --draws 5 "
    "-o barrier_bezier",
    "merge": "merge runs/vi_0 runs/vi_1 runs/vi_2 -o merge",
    "merge product": "merge runs/north runs/south --rule product --no-align -o merge_product",
    "compare": f"compare --set {DIGITS} {VI} study.seeds=2 "
    "study.vary='{architecture.symmetry.kind: [standard, weight_asymmetric]}' --jobs 1 --out study",
    "sbc": "sbc --set threads=1 inference.num_warmup=50 inference.num_draws=50 --simulations 8 "
    "--jobs 1 -o sbc",
    "import": f"import runs/nuts/posterior.nc -o import --set {GAP}",
    "report": "report runs/map",
    "sign": "sign runs/sgld",
    "data list": "data list",  # also tells which sets this machine has
}

# Item -> the files that are recorded beside the JSON; of every fit, RUN_FILES are.
RUN_FILES = ("posterior.nc", "history.parquet", "metrics.json")
FILES = {
    "predict numbers": ["numbers.parquet"],
    "predict classes": ["classes.parquet"],
    "align": ["align/vi_1/posterior.nc", "align/vi_2/posterior.nc"],
    "align chains": ["align_chains/nuts_compiled/posterior.nc"],
    "merge": ["merge/posterior.nc"],
    "compare": ["study/cells.parquet", "study/pairs.parquet", "study/summary.json"],
    "import": ["import/posterior.nc"],
}


def compute(folder: Path) -> dict[str, dict[str, Any]]:
    """Run everything in an empty folder and return item -> key -> value."""
    rows = [(50 + 7 * i % 90, 1 + i % 5, "abc"[i % 3], 100 + 37 * i % 211) for i in range(60)]
    houses = pd.DataFrame(rows, columns=["area", "rooms", "town", "price"])
    for name, part in {"houses": houses, "north": houses[:30], "south": houses[30:]}.items():
        part.to_csv(folder / f"{name}.csv", index=False)
    fits = {f"fit {name}": f"fit --set {keys} --out runs/{name}" for name, keys in FITS.items()}
    files = {f"fit {name}": [f"runs/{name}/{file}" for file in RUN_FILES] for name in FITS} | FILES
    versions = {"torch": torch.__version__, "numpy": np.__version__}
    results = {"machine": {"processor": torch.backends.cpu.get_cpu_capability(), **versions}}
    with ThreadPoolExecutor(2) as pool:
        for commands in (fits, COMMANDS):  # commands read what fits write
            run = partial(run_command, folder, files)
            results |= zip(commands, pool.map(run, commands, commands.values()), strict=True)
    return results


def run_command(folder: Path, files: dict, item: str, command: str) -> dict[str, Any]:
    """Run one command and return the values of its JSON and of the files that it wrote."""
    root = Path(__file__).resolve().parent.parent
    variables = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)}
    words = [sys.executable, "-m", "bnn_symm.cli", *shlex.split(command), "--json"]
    done = subprocess.run(words, cwd=folder, env=variables, capture_output=True, text=True)
    print(f"{item}: exit status {done.returncode}", flush=True)
    if done.returncode:
        print(done.stderr, flush=True)
        return {"exit status": done.returncode}
    values = {f"json {key}": value for key, value in flatten(json.loads(done.stdout)).items()}
    for name in files.get(item, []):
        values |= {
            f"{name} {key}".rstrip(): value for key, value in file_values(folder / name).items()
        }
    return values


def file_values(path: Path) -> dict[str, Any]:
    """Return digests: of all numbers of a JSON file, or of each array or column of another one."""
    if path.suffix == ".json":  # the numbers themselves are in what the command prints
        return {"": digest(flatten(json.loads(path.read_text(encoding="utf-8"))))}
    if path.suffix == ".parquet":
        frame = pd.read_parquet(path)
        return {name: array_digest(name, column.to_numpy()) for name, column in frame.items()}
    names: list[str] = []
    with h5py.File(path) as file:
        file.visit(names.append)
        arrays = {name: file[name] for name in names if isinstance(file[name], h5py.Dataset)}
        return {name: array_digest(name, np.asarray(node)) for name, node in arrays.items()}


def array_digest(name: str, array: np.ndarray) -> str:
    if "seconds" in name:
        return "(seconds)"
    if array.dtype.kind not in "biufc":
        return "(text)"
    return digest(f"{array.shape} {array.dtype.str} ".encode() + array.tobytes())


def flatten(value: Any, key: str = "") -> dict[str, Any]:
    """Return nested JSON as key -> value, without texts and seconds, long lists as digests."""
    is_clock = isinstance(value, dict) and value.get("clock") == "seconds"
    if is_clock or "seconds" in key.rpartition(".")[2]:
        return {key: "(seconds)"}
    if isinstance(value, dict):
        parts = [flatten(part, f"{key}.{name}".lstrip(".")) for name, part in value.items()]
        return {name: leaf for part in parts for name, leaf in part.items()} or {key: "{}"}
    if isinstance(value, list):
        parts = [flatten(part, f"{key}[{number}]") for number, part in enumerate(value)]
        leaves = {name: leaf for part in parts for name, leaf in part.items()} or {key: "[]"}
        return {key: digest(leaves)} if len(value) > 4 else leaves
    return {key: "(text)" if isinstance(value, str) else value}


def digest(data: bytes | dict[str, Any]) -> str:
    data = json.dumps(data, sort_keys=True).encode() if isinstance(data, dict) else data
    return hashlib.sha256(data).hexdigest()[:16]


def main() -> int | str:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("action", choices=["record", "check"])
    parser.add_argument("file", type=Path)
    options = parser.parse_args()
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        results = compute(Path(folder))
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(f"{time.monotonic() - start:.0f} s, {used.ru_utime + used.ru_stime:.0f} s of processors")
    if options.action == "record":
        options.file.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        failed = [item for item, values in results.items() if "exit status" in values]
        return f"these commands failed, mend them: {failed}" if failed else 0
    before, status = json.loads(options.file.read_text(encoding="utf-8")), 0
    for item in before | results:
        both = [values.get(item, {}) for values in (before, results)]
        for key in both[0] | both[1]:  # compared as JSON: 0.0 is neither -0.0 nor 0
            old, new = (json.dumps(one[key]) if key in one else "missing" for one in both)
            if old != new:
                print(f"{item}: {key}: {old} before, {new} now")
                status = 1
    print("something differs" if status else "everything is the same, to the bit")
    return status


if __name__ == "__main__":
    sys.exit(main())
