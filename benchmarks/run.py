"""All rows of the table of `benchmarks/README.md`: each measured in a process of its own, kept in
`results.json`.

    python -m benchmarks.run [--quick] [--only ROW ...]

Rows that are not measured now stay as they are, with the date and machine they were measured on. A
row that fails says so in one line, and the rest goes on. The table in README.md stands between two
markers and is written anew.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.timing import machine
from bnn_symm.io.atomic import write_json

ROWS = (
    "gradient",
    "leapfrog",
    "effective_samples",
    "vi_step",
    "vi_target",
    "predictive",
    "alignment",
    "start_up",
)
_HERE = Path(__file__).parent
_RESULTS, _README = _HERE / "results.json", _HERE / "README.md"
_BEGIN, _END = "<!-- table: begin -->", "<!-- table: end -->"


def measured(name: str, *, quick: bool) -> list[dict[str, Any]] | str:
    """The rows of a module, or in one line why there are none."""
    code = (
        f"import json; from benchmarks.{name} import measure; "
        f"print(json.dumps(measure(quick={quick})))"
    )
    threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **threads},
        cwd=_HERE.parent,
    )
    if done.returncode:
        return (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
    return json.loads(done.stdout.strip().splitlines()[-1])


def table(results: dict[str, Any]) -> str:
    """The Markdown table of all rows."""
    lines = [
        "| what | this package | measured against | ratio (quartiles) | to reach | reached | "
        "physical limit, notes |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name in ROWS:
        for one in results.get(name, {}).get("rows", []):
            lines.append(_line(one))
    return "\n".join(lines)


def _line(one: dict[str, Any]) -> str:
    ours, theirs = (_value(one[key], one["unit"]) for key in ("ours", "theirs"))
    ratio, target = one["ratio"], one["target"]
    compared = f"{ratio['median']:.2f} ({ratio['low']:.2f} - {ratio['high']:.2f})" if ratio else "-"
    wanted = "-" if target is None else f"{'<=' if one['sense'] == 'at most' else '>='} {target:g}"
    reached = {True: "yes", False: "**no**", None: "-"}[one["met"]]
    notes = "; ".join(part for part in (one["limit"], one["note"]) if part)
    peer = f"{one['peer']}: {theirs}"
    return f"| {one['quantity']} | {ours} | {peer} | {compared} | {wanted} | {reached} | {notes} |"


def _value(value: float | None, unit: str) -> str:
    return "-" if value is None else f"{value:.4g} {unit}"


def keep(name: str, rows: list[dict[str, Any]]) -> None:
    """Puts the rows of a module into `results.json` and into the table, read anew: another run may
    have written."""
    results = json.loads(_RESULTS.read_text(encoding="utf-8")) if _RESULTS.exists() else {}
    results[name] = {"machine": machine(), "rows": rows}
    write_json(_RESULTS, results)
    text = _README.read_text(encoding="utf-8")
    before, after = text.split(_BEGIN)[0], text.split(_END)[1]
    _README.write_text(f"{before}{_BEGIN}\n{table(results)}\n{_END}{after}", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--quick", action="store_true", help="a smoke test: few repeats; its rows are not kept"
    )
    parser.add_argument(
        "--only", nargs="+", choices=ROWS, default=ROWS, metavar="ROW", help=", ".join(ROWS)
    )
    options = parser.parse_args()
    for name in options.only:
        print(f"{name} ...", flush=True)
        found = measured(name, quick=options.quick)
        if isinstance(found, str):
            print(f"  not measured: {found}", flush=True)
            continue
        for one in found:
            print(_line(one), flush=True)
        if not options.quick:
            keep(name, found)


if __name__ == "__main__":
    main()
