#!/usr/bin/env bash
# Build the wheel, install it alone into a fresh environment, and use it from an empty folder, first
# without and then with the optional extras: `make wheel-check PYTHON=python3.12`.
# Versions are those of constraints.txt; TORCH names another torch, such as TORCH=torch==2.14.1.
set -euo pipefail
python=${1:-python3}
root=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
unset PYTHONPATH

step() { printf '\n== %s\n' "$*"; }

# Run the rest of the arguments, which must end with one line that names the first argument.
names_extra() {
  local extra=$1 output
  shift
  output=$("$@" 2>&1 || true)
  tail -n 1 <<<"$output"
  grep -qF "pip install \"bnn_symm[$extra]\"" <<<"$(tail -n 1 <<<"$output")"
}

step "environment of $("$python" --version)"
"$python" -m venv "$work/env"
bin=$work/env/bin
grep -v '^torch==' "$root/constraints.txt" >"$work/constraints.txt"
install() { "$bin/python" -m pip install --quiet --constraint "$work/constraints.txt" "$@"; }
install --upgrade pip
install "${TORCH:-$(grep '^torch==' "$root/constraints.txt")}"

step "wheel"
cp -r "$root/bnn_symm" "$root/pyproject.toml" "$root/README.md" "$root/LICENSE" "$work"
"$bin/python" -m pip wheel --quiet --no-deps --wheel-dir "$work/dist" "$work"
install "$work"/dist/*.whl
"$bin/python" -m pip check
mkdir "$work/empty"
cd "$work/empty"
"$bin/python" - "$work/env" <<'PYTHON'
import sys
import bnn_symm
assert bnn_symm.__file__.startswith(sys.argv[1]), bnn_symm.__file__
PYTHON

step "a table of one's own"
"$bin/python" - <<'PYTHON'
import numpy as np, pandas as pd
random = np.random.default_rng(0)
frame = pd.DataFrame({"area": random.normal(80, 20, 300), "town": random.choice(["a", "b"], 300)})
frame["price"] = 2 * frame.area + 30 * (frame.town == "a") + random.normal(0, 5, 300)
frame.to_csv("homes.csv", index=False)
frame.drop(columns="price").head(3).to_csv("new_homes.csv", index=False)
PYTHON
"$bin/bnn-symm" fit --dry-run --set data.name=homes.csv data.target=price
"$bin/bnn-symm" fit --quiet --set data.name=homes.csv data.target=price --out runs/homes
"$bin/bnn-symm" evaluate runs/homes
"$bin/bnn-symm" diagnose runs/homes
"$bin/bnn-symm" predict runs/homes new_homes.csv -o -
"$bin/bnn-symm" report runs/homes
grep -q 'data:image/svg' runs/homes/report.html

step "help and examples"
"$bin/bnn-symm" config inference
"$bin/bnn-symm" config --schema >schema.json
"$bin/bnn-symm" examples
"$bin/bnn-symm" --print-completion bash >completion.bash

step "a study"
"$bin/bnn-symm" compare quickstart --quiet --out runs/quickstart
grep -q 'data:image/svg' runs/quickstart/report.html

step "optional extras, before they are installed"
names_extra dask "$bin/bnn-symm" compare quickstart --out runs/cluster --dask tcp://127.0.0.1:1
download='from bnn_symm.data.loaders import data_folders, fetch
data_folders._SYSTEM = data_folders.Path("nowhere"); fetch.fetch("fashion_mnist")'
names_extra fetch env XDG_CACHE_HOME="$work/cache" "$bin/python" -c "$download"
to_arviz='from bnn_symm import load_run, to_arviz; to_arviz(load_run("runs/homes").posterior)'
names_extra arviz "$bin/python" -c "$to_arviz"

step "optional extras"
install "bnn_symm[all]"
"$bin/python" -m pip check
"$bin/python" -W ignore -c "$to_arviz"
"$bin/bnn-symm" diagnose runs/homes | grep "PSIS-LOO"
"$bin/python" -c "import distributed, pooch"

step "passed: $("$python" --version), $("$bin/bnn-symm" --version)"
