"""The loss on straight lines from initial values to fits on digits, by kind of network.

Rows are the kinds of symmetry, with the shape of the training loss at 25 positions (Lim et al.
2024, section 5.4): `monotone` (1 or 0), `local_convexity`, `global_convexity` and `delta`.
"""

from pathlib import Path
from typing import Any

from bnn_symm import load_config
from bnn_symm.analyses.monotonicity import line_shapes
from claims.fits import DIGITS_POINTS, fitted

REPLICATES = 8
KINDS = ("standard", "weight_asymmetric", "sigma_asymmetric", "init_matched")
_OVERRIDES = (
    *DIGITS_POINTS,
    "architecture.widths=[64,64,64]",
    "architecture.activation=gelu",
    "inference.num_steps=600",
)


def measure(replicate: int, runs: Path) -> list[dict[str, Any]]:
    """Return the row of each kind.

    Args:
        replicate: number of the replicate.
        runs: directory of the experiment.

    Returns:
        The rows.
    """
    rows = []
    for kind in KINDS:
        keys = [f"architecture.symmetry.kind={kind}", f"seed={replicate}"]
        run = fitted(load_config(None, [*_OVERRIDES, *keys]), runs)
        start, end = run.model.initial(), run.posterior.mean()
        shape = line_shapes(run.posterior, start, end, run.dataset())["train"]
        rows.append(
            {
                "setting": kind,
                "monotone": float(shape.is_monotone),
                "local_convexity": shape.local_convexity,
                "global_convexity": shape.global_convexity,
                "delta": shape.delta,
            }
        )
    return rows
