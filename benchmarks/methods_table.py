"""Print the tables of methods in docs/methods.md: one for each study, with one row per method.

    bnn-symm compare configs/methods_digits.yaml --jobs 1 --out runs/methods_digits
    bnn-symm compare configs/methods_fashion_mnist.yaml --jobs 1 --out runs/methods_fashion_mnist
    bnn-symm compare configs/methods_diabetes.yaml --jobs 1 --out runs/methods_diabetes
    python -m benchmarks.methods_table runs/methods_digits runs/methods_fashion_mnist \\
        runs/methods_diabetes
"""

import argparse
import json
from pathlib import Path
from typing import Any

from bnn_symm.formatting import plus_minus

# A study has the measures of its task.
MEASURES = {"test_nll": "NLL", "test_ece": "ECE", "test_coverage_90": "inside 90 %", "seconds": "s"}
# Keys that distinguish rows, where a study varies them.
KEYS = ("inference.name", "inference.structure")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("studies", type=Path, nargs="+")
    studies = [
        json.loads((path / "summary.json").read_text()) for path in parser.parse_args().studies
    ]
    for study in studies:
        measures = [measure for measure in MEASURES if _has(study, measure)]
        name = study["provenance"]["dataset"]["name"]
        header = ["method", *(f"{name}, {MEASURES[measure]}" for measure in measures)]
        for row in [header, ["---"] * len(header)]:
            print(f"| {' | '.join(row)} |")
        for method in dict.fromkeys(_method(context) for context in study["contexts"]):
            cells = [plus_minus(_measure(study, method, measure)) for measure in measures]
            print(f"| {' | '.join([method, *cells])} |")
        print()


def _method(context: dict[str, Any]) -> str:
    return ", ".join(
        str(context["differences"][key]) for key in KEYS if key in context["differences"]
    )


def _has(study: dict[str, Any], measure: str) -> bool:
    return any(
        (setting["measures"].get(measure) or {}).get("mean") is not None
        for setting in study["settings"]
    )


def _measure(study: dict[str, Any], method: str, measure: str) -> dict[str, Any] | None:
    for setting in study["settings"]:
        if _method(study["contexts"][setting["context"]]) == method:
            return setting["measures"].get(measure)
    return None


if __name__ == "__main__":
    main()
