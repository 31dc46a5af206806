"""What an experiment measured: a setting, a seed or a pair of seeds, and measures in each row.

A study (`experiments/NAME.yaml`) has one row for each fit and one for each pair of seeds, in
`cells.csv` and `pairs.csv`. A module (`experiments/NAME.py`) has `REPLICATES`, a number, and
`measure(replicate, runs)`, which returns the rows of one replicate: mappings with `setting` and
measures, and `seed` or the two seeds of a pair if they are not the replicate itself. They are
stored in `runs/NAME/rows-R.json`, so that a stopped experiment can be resumed.
"""

import csv
import importlib
import json
import math
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bnn_symm.errors import ConfigError, InvalidData
from bnn_symm.studies import load_study

FOLDER = Path(__file__).parent / "experiments"
Unit = int | tuple[int, int]


class Rows:
    """The rows of an experiment.

    Args:
        rows: with `setting`, `unit` (a seed, or a pair of seeds), and measures.
        seconds: that the experiment took.
    """

    def __init__(self, rows: Sequence[Mapping[str, Any]], seconds: float = 0.0):
        self._rows = rows
        self.seconds = seconds

    def values(self, setting: str, measure: str) -> Iterator[tuple[Unit, float]]:
        """Yield the values of a measure of a setting, with the seed or pair of seeds of each.

        Args:
            setting: label of the setting.
            measure: column.

        Yields:
            Seed or pair of seeds, and value.

        Raises:
            InvalidData: if there is none.
        """
        found = [
            (row["unit"], float(row[measure]))
            for row in self._rows
            if row["setting"] == setting and row.get(measure) not in (None, "")
        ]
        if not found:
            known = sorted({row["setting"] for row in self._rows})
            raise InvalidData(
                f"no value of {measure!r} in setting {setting!r}; the settings are "
                f"{'; '.join(known)}"
            )
        yield from ((unit, value) for unit, value in found if not math.isnan(value))


def check_settings(name: str, labels: Iterable[str]) -> None:
    """Check, before anything runs, that a study has settings.

    Args:
        name: of the experiment; settings of a module are not known before it runs.
        labels: of the settings.

    Raises:
        ConfigError: if the study has no such setting.
    """
    path = FOLDER / f"{name}.yaml"
    if path.exists():
        known = [setting.label for setting in load_study(path).settings()]
        for label in sorted(set(labels).difference(known)):
            raise ConfigError(
                f"no setting {label!r} in {path.name}; the settings are {'; '.join(known)}"
            )


def run_experiment(name: str, runs: Path) -> Rows:
    """Run what is missing of an experiment and return its rows.

    Args:
        name: of a file in `experiments`.
        runs: directory of all experiments.

    Returns:
        Its rows.

    Raises:
        ConfigError: if there is no such experiment, or the study failed.
    """
    if (FOLDER / f"{name}.yaml").exists():
        _run_study(FOLDER / f"{name}.yaml", runs / name)
    elif (FOLDER / f"{name}.py").exists():
        _run_module(name, runs / name)
    else:
        raise ConfigError(f"no experiment {name!r} in {FOLDER}")
    return measured_rows(name, runs)


def measured_rows(name: str, runs: Path) -> Rows:
    """Return the rows that an experiment has measured so far, without running anything.

    Args:
        name: of a file in `experiments`.
        runs: directory of all experiments.

    Returns:
        Its rows.

    Raises:
        InvalidData: if there are none.
    """
    out = runs / name
    if (out / "plan.json").exists():
        return study_rows(out)
    paths = sorted(out.glob("rows-*.json"))
    if not paths:
        raise InvalidData(f"nothing was measured in {out}")
    contents = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
    return Rows(
        [
            {"unit": _unit(row, content["replicate"]), **row}
            for content in contents
            for row in content["rows"]
        ],
        math.fsum(content["seconds"] for content in contents),
    )


def _run_study(config: Path, out: Path) -> None:
    command = [sys.executable, "-m", "bnn_symm.cli", "compare", str(config), "--quiet"]
    command += ["--resume" if (out / "plan.json").exists() else "--out", str(out)]
    if subprocess.run(command, stdout=subprocess.DEVNULL).returncode:
        raise ConfigError(f"the study {config} failed; see {out}")


def study_rows(out: Path) -> Rows:
    """Return the rows of the tables of a study.

    Args:
        out: directory of the study.

    Returns:
        Its rows.
    """
    fits, pairs = (_read(out / f"{name}.csv") for name in ("cells", "pairs"))
    rows = [{**row, "unit": int(row["seed"])} for row in fits]
    rows += [
        {**row, "unit": (int(row["seed"]), int(row["other_seed"]))}
        for row in pairs
        if row["relation"] == "across_seeds" and row["setting"] == row["other_setting"]
    ]
    complete = [row for row in rows if row["status"] == "complete"]
    return Rows(complete, math.fsum(float(row["seconds"]) for row in fits if row["seconds"]))


def _read(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _run_module(name: str, out: Path) -> None:
    module = importlib.import_module(f"claims.experiments.{name}")
    out.mkdir(parents=True, exist_ok=True)
    for replicate in range(module.REPLICATES):
        path = out / f"rows-{replicate}.json"
        if path.exists():
            continue
        begin = time.perf_counter()
        rows = module.measure(replicate, out)
        seconds = time.perf_counter() - begin
        content = {"replicate": replicate, "seconds": seconds, "rows": rows}
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(content, indent=1), encoding="utf-8")
        partial.rename(path)
        print(f"{name}: replicate {replicate}, {seconds:.0f} s", flush=True)


def _unit(row: Mapping[str, Any], replicate: int) -> Unit:
    seed = row.get("seed", replicate)
    return (seed, row["other_seed"]) if "other_seed" in row else seed
