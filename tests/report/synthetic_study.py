"""Write a synthetic study to disk in the format of a real one."""

import itertools
import math
from pathlib import Path

import numpy as np
import pandas as pd

from bnn_symm.io.atomic import write_json
from bnn_symm.studies.results.comparisons import compare_settings, summarize_settings
from bnn_symm.studies.results.conclusions import conclude

SYMMETRY = "architecture.symmetry"
# Kind, role, more keys of the symmetry, log10 of the group's order, and made-up truths: NLL,
# barrier, speed.
KINDS = (
    ("standard", "baseline", {}, 178.2, 0.127, 1.08, 550.0),
    ("weight_asymmetric", "asymmetric", {"kappa": "auto"}, 0.0, 0.152, 0.20, 388.0),
    ("init_matched", "keeps_symmetry", {"kappa": "auto"}, 178.2, 0.130, 0.17, 540.0),
    ("parameter_matched", "keeps_symmetry", {"kappa": "auto"}, 160.4, 0.129, 1.11, 545.0),
    ("block_fixed", "keeps_symmetry", {"kappa": "auto", "block": 4}, 44.2, 0.149, 0.43, 430.0),
    ("weight_asymmetric", "breaks_symmetry", {"kappa": 0.0}, 0.0, 0.128, 1.10, 560.0),
)


def write_study(
    path: Path,
    *,
    contexts: tuple[str, ...] = ("all runs",),
    seeds: int = 5,
    regression: bool = False,
    failures: bool = False,
    sampler: bool = False,
    bare: bool = False,
    label: str = "",
    kinds: int = len(KINDS),
) -> Path:
    """Write a study.

    Args:
        path: of its directory, which is made.
        contexts: their labels, such as `widths=[64, 64]`.
        seeds: how many.
        regression: RMSE and CRPS in place of accuracy, ECE and Brier score.
        failures: of a fit and the pairs that need it.
        sampler: with R-hat of chains.
        bare: nothing is known but that fits were asked for.
        label: put behind the label of every asymmetric setting.
        kinds: how many of the kinds, from the first.
    """
    generator = np.random.default_rng(7)
    (path / "pairs").mkdir(parents=True)
    settings, cells, pairs, described = [], [], [], []
    for number, context in enumerate(contexts):
        numbers = []
        for kind, role, keys, order, *truth in KINDS[:kinds]:
            numbers.append(len(settings))
            own = _setting(number, contexts, kind, role, keys, order, seeds, label)
            settings.append(own)
            cells += _cells(
                own, context, truth, number, seeds, generator, regression, failures, sampler, bare
            )
            if not bare:
                pairs += _pairs(path, own, context, truth, seeds, generator, failures)
        described.append(
            {
                "label": context,
                "differences": {}
                if len(contexts) == 1
                else {"architecture.widths": [16 * 2**number] * 2},
                "settings": numbers,
                "baseline": numbers[0],
                "convergence": None if bare else _convergence(settings, numbers, seeds),
                "convergence_reason": "no fit exists" if bare else None,
            }
        )
    settings = summarize_settings(settings, cells, pairs)
    comparisons = compare_settings(settings, cells, pairs, contexts=described)
    conclusions, headline = conclude(settings, described, comparisons)
    _write_tables(path, cells, pairs)
    lost = [row for row in (*cells, *pairs) if row["status"] == "failed"]
    write_json(
        path / "summary.json",
        {
            "study_schema": 1,
            "name": path.name,
            "directory": str(path),
            "status": "incomplete" if failures or bare else "complete",
            "headline": headline,
            "commands": {
                "repeat": "bnn-symm compare study.yaml --out DIR",
                "resume": f"bnn-symm compare --resume {path.name}",
                "report": f"bnn-symm report {path.name}",
            },
            "counts": _counts(cells, pairs),
            "failures": [
                {"key": row["key"], "what": f"fit or pair {row['key']}", "error": row["error"]}
                for row in lost
            ],
            "conclusions": [conclusion.to_dict() for conclusion in conclusions],
            "contexts": described,
            "settings": settings,
            "comparisons": comparisons,
            "provenance": {
                "numerics": 1,
                "versions": {"python": "3.11.7", "torch": "2.13.0", "bnn_symm": "0.1.0"},
                "dataset": {
                    "name": "digits",
                    "task": "classification",
                    "sha256": "f6d9e39f37dc45d3",
                    "train": 1294,
                },
                "threads": [1],
                "hosts": ["laboratory"],
                "started": "2026-01-02T03:04:05+0000",
            },
            "config": "data:\n  name: digits\nstudy:\n  seeds: 5\n",
        },
    )
    return path


def _setting(number, contexts, kind, role, keys, order, seeds, label):
    name = ", ".join(
        [kind, *(f"{key}={value}" for key, value in keys.items() if value not in ("auto",))]
    )
    name += label if role == "asymmetric" else ""
    outer = {} if len(contexts) == 1 else {"architecture.widths": [16 * 2**number] * 2}
    inner = {
        f"{SYMMETRY}.kind": kind,
        **{f"{SYMMETRY}.{key}": value for key, value in keys.items()},
    }
    return {
        "label": name if len(contexts) == 1 else f"{contexts[number]}, {name}",
        "context": number,
        "kind": kind,
        "role": role,
        "differences": {**outer, **inner},
        "seeds": list(range(seeds)),
        "num_complete": seeds,
        "num_failed": 0,
        "num_parameters": 8970 if kind == "standard" else 7626,
        "log10_order": order,
        "certificate": "trivial: all rows of the masks differ"
        if order == 0
        else "symmetric groups of all layers",
    }


def _cells(own, context, truth, number, seeds, generator, regression, failures, sampler, bare):
    nll, _, speed = truth
    rows = []
    for seed in range(seeds):
        row = {
            "key": f"c{number}{abs(hash_of(own['label'])) % 10**8:08d}{seed}",
            "setting": own["label"],
            "context": context,
            "kind": own["kind"],
            "role": own["role"],
            "seed": seed,
            "status": "missing" if bare else "complete",
            "error": None,
        }
        noise = generator.normal(0, 0.004, size=6)
        shared = 0.003 * math.sin(seed)
        found = {
            "test_nll": nll + shared + noise[0],
            "test_brier": nll / 2 + noise[1] / 4,
            "test_crps": None,
            "test_accuracy": 0.965 - nll / 20 + noise[2] / 2,
            "test_rmse": None,
            "test_ece": 0.03 - nll / 10 + noise[3] / 4,
            "test_coverage_90": None,
            "seconds": speed / 100,
            "elbo": -1900 + 30 * (speed < 500) + 900 * noise[4],
            "train_nll": nll / 2,
            "gradients_to_target": speed * (1 + 5 * noise[5]),
            "to_target_censored": False,
            "num_parameters": own["num_parameters"],
            "rhat_raw_max": 1.9 + 50 * noise[0] ** 2 if sampler else None,
            "rhat_aligned_max": 1.3 + 50 * noise[1] ** 2 if sampler else None,
            "rhat_function_max": 1.02 + 50 * noise[2] ** 2 if sampler else None,
        }
        if regression:
            found |= {"test_accuracy": None, "test_ece": None, "test_brier": None}
            found |= {
                "test_rmse": 2.4 + nll,
                "test_crps": 1.3 + nll,
                "test_coverage_90": 0.9 - nll / 10,
            }
        row |= dict.fromkeys(found) if bare else found
        if failures and own["role"] == "asymmetric" and seed == 0:
            row |= {
                "status": "failed",
                "error": "FitDiverged: the objective is not finite at step 120",
                **dict.fromkeys(found),
            }
            own["num_complete"], own["num_failed"] = seeds - 1, 1
        rows.append(row)
    return rows


def _pairs(path, own, context, truth, seeds, generator, failures):
    rows = []
    for first, second in itertools.combinations(range(seeds), 2):
        naive = truth[1] * (1 + generator.normal(0, 0.08))
        aligned = naive if own["log10_order"] == 0 else min(naive, 0.17 + generator.normal(0, 0.01))
        row = {
            "key": f"p{abs(hash_of(own['label'])) % 10**8:08d}{first}{second}",
            "relation": "across_seeds",
            "first": f"{first}",
            "second": f"{second}",
            "setting": own["label"],
            "other_setting": own["label"],
            "context": context,
            "kind": own["kind"],
            "role": own["role"],
            "seed": first,
            "other_seed": second,
            "status": "complete",
            "error": None,
            "naive": naive,
            "naive_standard_error": 0.02,
            "aligned": aligned,
            "aligned_standard_error": 0.01,
            "naive_error": naive / 10,
            "aligned_error": aligned / 10,
            "num_moved": 0 if own["log10_order"] == 0 else 120,
            "num_movable": 0 if own["log10_order"] == 0 else 128,
            "rhat_raw": 1.8,
            "rhat_aligned": 1.4 if own["log10_order"] else 1.8,
            "rhat_function": 1.01 + 0.001 * first,
        }
        if failures and own["role"] == "asymmetric" and first == 0:
            row |= {
                "status": "failed",
                "error": "InvalidRun: one of them diverged",
                **dict.fromkeys(list(row)[13:]),
            }
        else:
            curves = {"naive": {"test": _curve(naive)}, "test": _curve(aligned), "aligned": True}
            write_json(path / "pairs" / f"{row['key']}.json", curves)
        rows.append(row)
    return rows


def _curve(height):
    tau = [0.0, 0.1, 0.3, 0.45, 0.5, 0.55, 0.7, 0.9, 1.0]
    return {
        "tau": tau,
        "marginal_nll": [0.13 + 0.01 * t + height * 4 * t * (1 - t) for t in tau],
        "height": height,
    }


def _convergence(settings, numbers, seeds):
    groups = []
    for place, setting in enumerate(numbers):
        speed = KINDS[place][6]
        clocks = {"gradient_evaluations": 1.0, "seconds": 0.004}
        times = np.geomspace(10, 3000, 40)
        level = -1900 + 30 * (speed < 500)
        target = {
            "kind": "value",
            "value": -1950.0,
            "start": -6000.0,
            "level": -1870.0,
            "half_width": None,
            "reason": None,
        }
        median = level - 4000 * np.exp(-4.2 * times / speed)
        bands, speeds = {}, {}
        for clock, scale in clocks.items():
            values = {
                "times": times * scale,
                "median": median,
                "low": median - 30,
                "high": median + 30,
            }
            bands[clock] = {key: value.tolist() for key, value in values.items()}
            mid = {
                "value": speed * scale,
                "low": 0.92 * speed * scale,
                "high": 1.08 * speed * scale,
            }
            speeds[clock] = {
                "median": mid,
                "restricted_mean": mid,
                "tau": 3000 * scale,
                "num_runs": seeds,
                "num_censored": 0,
            }
        groups.append(
            {
                "setting": setting,
                "label": settings[setting]["label"],
                "differences": settings[setting]["differences"],
                "runs": list(range(place * seeds, (place + 1) * seeds)),
                "target": target,
                "num_converged": seeds,
                "bands": bands,
                "speed": speeds,
                "sentence": "",
            }
        )
    tests = []
    for i, j in itertools.combinations(range(len(numbers)), 2):
        ratio = KINDS[i][6] / KINDS[j][6]
        tests.append(
            {
                "first": i,
                "second": j,
                "clock": "gradient_evaluations",
                "paired": True,
                "num_pairs": seeds,
                "p_value": 0.0625 if seeds == 5 else None,
                "p_adjusted": 0.4,
                "smallest_p": 0.0625,
                "ratio": {"value": ratio, "low": 0.95 * ratio, "high": 1.05 * ratio},
                "num_censored": {"first": 0, "second": 0},
                "reached": {"first": seeds, "second": seeds},
                "sentence": "",
            }
        )
    return {
        "quantity": "elbo",
        "direction": "higher",
        "reference": "value",
        "target": "elbo=-1950",
        "groups": groups,
        "comparisons": tests,
        "notes": ["seconds depend on the machine that each run was fitted on"],
    }


def _write_tables(path, cells, pairs):
    for name, rows in (("cells", cells), ("pairs", pairs)):
        frame = pd.DataFrame(rows)
        empty = {column: "float64" for column in frame.columns if frame[column].isna().all()}
        frame.astype(empty).to_parquet(path / f"{name}.parquet", index=False)


def _counts(cells, pairs):
    counts = {}
    for name, rows in (("cells", cells), ("pairs", pairs)):
        counts[name] = len(rows)
        for status in ("complete", "failed"):
            counts[f"{name}_{status}"] = sum(row["status"] == status for row in rows)
    return counts


def hash_of(text):
    """Return a hash that is the same in every process."""
    return int.from_bytes(text.encode(), "big")
