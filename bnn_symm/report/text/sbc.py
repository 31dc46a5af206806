"""The answer of `bnn-symm sbc`: its text, its picture, and a bar while it runs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bnn_symm.diagnostics.simulation.sbc_simulation import SimulatedFit
from bnn_symm.report.plots.ecdf import plot_ecdf_differences
from bnn_symm.report.progress import CountBar
from bnn_symm.report.text.tables import table


def sbc_text(content: Mapping[str, Any]) -> str:
    """A row a quantity, the least likely first, how to read it, and what it says in words."""
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
            f"p uniform is of the ECDF of {len(content['simulations'])} ranks; at most {share:.2g} "
            "is off, which is "
            f"{content['level']:g} over {len(quantities)} quantities (Bonferroni)",
            "bias and spread are in standard errors: below 0 too high and too wide, above 0 too "
            "low and too narrow; draws are those behind a rank",
        ]
    failures = content["failures"]
    lines += [
        f"simulation {index} failed: {reason}" for index, reason in list(failures.items())[:5]
    ]
    if len(failures) > 5:
        lines.append(f"{len(failures) - 5} more failed; see sbc.json")
    return "\n".join([*lines, f"{content['kind'].upper()}: {content['conclusion']}"])


def _range(numbers: tuple[int, int, int]) -> str:
    least, _, most = numbers
    return str(most) if least == most else f"{least}-{most}"


def draw_sbc(content: Mapping[str, Any], folder: Path) -> list[Path]:
    """Writes the picture, if there is anything to draw; returns where it is."""
    if content["band"] is None:
        return []
    folder.mkdir(exist_ok=True)
    run = content["run"]
    title = f"{run['method']} on simulated {run['dataset']['name']}, {len(content['simulations'])} simulations"
    plot_ecdf_differences(content, folder / "sbc.png", title=title)
    return [folder / "sbc.png"]


class SimulationBar(CountBar):
    """One bar for all simulations: on a terminal, and nothing in a pipe.

    Args:
        total: simulations that are wanted.
        done: those that were there before.
        quiet: show nothing on a terminal either.
    """

    def __init__(self, total: int, done: int = 0, *, quiet: bool = False):
        super().__init__("simulations", total=total, done=done, quiet=quiet)
        self._failed = 0

    def __call__(self, simulation: SimulatedFit) -> None:
        """One more is there."""
        self._failed += simulation.failure is not None
        self._progress.update(
            self._task, advance=1, told=f"failed {self._failed}" if self._failed else ""
        )
