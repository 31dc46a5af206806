"""Format and draw the result of `bnn-symm sbc`, and show its progress."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bnn_symm.diagnostics.simulation.sbc_simulation import SimulatedFit
from bnn_symm.formatting import count, first_lines, number
from bnn_symm.report.plots.ecdf import plot_ecdf_differences
from bnn_symm.report.progress import CountBar
from bnn_symm.report.text.tables import table

# Maximum number of printed failures.
_FAILURES = 5


def sbc_text(content: Mapping[str, Any]) -> str:
    """Return a table with one row per quantity, the smallest p-value first, and the conclusion.

    Args:
        content: of `sbc.json`.

    Returns:
        The text.
    """
    quantities = sorted(content["quantities"], key=lambda own: own["p_value"])
    lines = []
    if quantities:
        header = [
            "quantity",
            "posteriors are",
            "p uniform",
            "p symmetric",
            "p chi-square",
            "bias",
            "spread",
            "draws",
        ]
        keys = (
            "name",
            "shape",
            "p_value",
            "symmetry_p_value",
            "chi_square_p_value",
            "bias",
            "spread",
        )
        rows = [[*(own[key] for key in keys), _range(own["num_draws"])] for own in quantities]
        share = content["level"] / len(quantities)
        lines = [
            table(header, rows),
            f"p uniform tests the ECDF of {count(len(content['simulations']), 'rank')}; it is "
            f"significant up to {number(share, 2)}, which is {number(content['level'])} over "
            f"{len(quantities)} quantities (Bonferroni)",
            "bias and spread are in standard errors: negative means too high and too wide, "
            "positive too low and too narrow; draws is the number of draws per rank",
        ]
    failures = content["failures"]
    failed = [f"simulation {index} failed: {reason}" for index, reason in failures.items()]
    lines += first_lines(failed, _FAILURES, "failed; see sbc.json")
    return "\n".join([*lines, f"{content['kind'].upper()}: {content['conclusion']}"])


def _range(numbers: tuple[int, int, int]) -> str:
    least, _, most = numbers
    return str(most) if least == most else f"{least}-{most}"


def draw_sbc(content: Mapping[str, Any], folder: Path) -> list[Path]:
    """Draw the differences of the ECDFs, if they are defined.

    Args:
        content: of `sbc.json`.
        folder: of the figure.

    Returns:
        The path of the figure, or nothing.
    """
    if content["band"] is None:
        return []
    folder.mkdir(exist_ok=True)
    run = content["run"]
    count = len(content["simulations"])
    title = f"{run['method']} on simulated {run['dataset']['name']}, {count} simulations"
    plot_ecdf_differences(content, folder / "sbc.png", title=title)
    return [folder / "sbc.png"]


class SimulationBar(CountBar):
    """Progress bar of all simulations; it is hidden in a pipe.

    Args:
        total: number of simulations.
        done: number of simulations that are already done.
        quiet: whether to hide the bar on a terminal too.
    """

    def __init__(self, total: int, done: int = 0, *, quiet: bool = False):
        super().__init__("simulations", total=total, done=done, quiet=quiet)
        self._failed = 0

    def __call__(self, simulation: SimulatedFit) -> None:
        """Advance the bar by one simulation.

        Args:
            simulation: that ended.
        """
        self._failed += simulation.failure is not None
        self._progress.update(
            self._task, advance=1, status=f"failed {self._failed}" if self._failed else ""
        )
