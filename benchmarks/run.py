"""Measure all rows of the tables of `benchmarks/README.md`.

    python -m benchmarks.run [--quick] [--only ROW ...]

Each row is measured in a separate process and stored in `results.json`. Rows that are not measured
keep their values, with date and machine. A row that fails prints its error in one line, and the
others continue. The tables in README.md are between two markers and are written anew.
"""

import argparse
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

from benchmarks.timing import machine
from bnn_symm.io.atomic import write_json

ROWS = (
    "gradient",
    "sampler_gradients",
    "effective_samples",
    "vi_step",
    "vi_target",
    "predictive",
    "alignment",
    "start_up",
)
_HERE = Path(__file__).parent
_RESULTS, _README = _HERE / "results.json", _HERE / "README.md"
_HEADER = "| candidate | this package | peer | ratio (quartiles) | target | met |"
_BEGIN, _END = "<!-- table: begin -->", "<!-- table: end -->"


def measure_rows(name: str, *, quick: bool) -> list[dict[str, Any]] | str:
    """Return the rows of a module, or the reason of a failure in one line."""
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


def tables(results: dict[str, Any]) -> str:
    """Return Markdown tables of all rows: one for each quantity, followed by its notes."""
    groups: dict[str, list[tuple[str, dict[str, Any]]]] = {}
    for name in ROWS:
        for row in results.get(name, {}).get("rows", []):
            title, candidate = _title(row)
            groups.setdefault(title, []).append((candidate, row))
    lines = []
    for title, rows in groups.items():
        lines += [*_wrapped(f"**{title}**"), "", _HEADER, "| --- | --- | --- | --- | --- | --- |"]
        lines += [f"| {candidate} | {' | '.join(_cells(row))} |" for candidate, row in rows]
        lines += ["", *_notes(rows)]
    return "\n".join(lines).rstrip()


def _title(row: dict[str, Any]) -> tuple[str, str]:
    """Return the title of a row's table and the candidate in its first column."""
    solver, is_alignment, problem = row["quantity"].partition(", MLP 64-")
    if is_alignment:
        return f"alignment, against {row['peer']}; MLP 64-{problem}", solver
    return row["quantity"], row["peer"]


def _cells(row: dict[str, Any]) -> list[str]:
    ours, theirs = (_value(row[key], row["unit"]) for key in ("ours", "theirs"))
    ratio, target = row["ratio"], row["target"]
    compared = f"{ratio['median']:.2f} ({ratio['low']:.2f} - {ratio['high']:.2f})" if ratio else "-"
    bound = "-" if target is None else f"{'<=' if row['sense'] == 'at most' else '>='} {target:g}"
    met = {True: "yes", False: "**no**", None: "-"}[row["met"]]
    return [ours, theirs, compared, bound, met]


def _notes(rows: list[tuple[str, dict[str, Any]]]) -> list[str]:
    """Return the notes of a table as lines: once if all rows share them."""
    notes = {
        candidate: "; ".join(part for part in (row["limit"], row["note"]) if part)
        for candidate, row in rows
    }
    if len(set(notes.values())) == 1:
        return [*_wrapped(f"Notes: {text}."), ""] if (text := next(iter(notes.values()))) else []
    lines = [_wrapped(f"- {candidate}: {text}", "  ") for candidate, text in notes.items() if text]
    return [*(line for wrapped in lines for line in wrapped), ""]


def _wrapped(text: str, indent: str = "") -> list[str]:
    return textwrap.wrap(text, 100, subsequent_indent=indent, break_on_hyphens=False)


def _value(value: float | None, unit: str) -> str:
    return "-" if value is None else f"{value:.4g} {unit}"


def store(name: str, rows: list[dict[str, Any]]) -> None:
    """Store the rows of a module in `results.json` and in the tables of README.md."""
    # Read again, because another process may have written meanwhile.
    results = json.loads(_RESULTS.read_text(encoding="utf-8")) if _RESULTS.exists() else {}
    results[name] = {"machine": machine(), "rows": rows}
    write_json(_RESULTS, results)
    text = _README.read_text(encoding="utf-8")
    before, after = text.split(_BEGIN)[0], text.split(_END)[1]
    _README.write_text(f"{before}{_BEGIN}\n\n{tables(results)}\n\n{_END}{after}", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--quick", action="store_true", help="a smoke test: few repeats; its rows are not stored"
    )
    parser.add_argument(
        "--only", nargs="+", choices=ROWS, default=ROWS, metavar="ROW", help=", ".join(ROWS)
    )
    options = parser.parse_args()
    for name in options.only:
        print(f"{name} ...", flush=True)
        rows = measure_rows(name, quick=options.quick)
        if isinstance(rows, str):
            print(f"  not measured: {rows}", flush=True)
            continue
        for row in rows:
            print(" | ".join([row["quantity"], row["peer"], *_cells(row)]), flush=True)
        if not options.quick:
            store(name, rows)


if __name__ == "__main__":
    main()
