"""Format and draw the result of `bnn-symm sbc`, and show its progress."""

from pathlib import Path

from bnn_symm.analyses.sbc_runner import CompletedSbc
from bnn_symm.diagnostics.simulation.sbc import SbcResult
from bnn_symm.diagnostics.simulation.sbc_simulation import SimulatedFit
from bnn_symm.formatting import count, first_lines, number
from bnn_symm.report.plots.ecdf import plot_ecdf_differences
from bnn_symm.report.progress import CountBar
from bnn_symm.report.tables import Table

# Maximum number of printed failures.
_FAILURES = 5


def sbc_text(result: SbcResult) -> str:
    """Return a table with one row per quantity, the smallest p-value first, and the conclusion.

    Args:
        result: of the check.

    Returns:
        The text.
    """
    quantities, lines = result.worst_first, []
    if quantities:
        columns = {
            "quantity": [own.name for own in quantities],
            "posteriors are": [own.shape for own in quantities],
            "p uniform": [own.p_value for own in quantities],
            "p symmetric": [own.symmetry_p_value for own in quantities],
            "p chi-square": [own.chi_square_p_value for own in quantities],
            "bias": [own.bias for own in quantities],
            "spread": [own.spread for own in quantities],
            "draws": [_range(own.num_draws) for own in quantities],
        }
        share = result.level / len(quantities)
        lines = [
            Table(caption="", columns=columns).text(),
            f"p uniform tests the ECDF of {count(len(result.simulations), 'rank')}; it is "
            f"significant up to {number(share, 2)}, which is {number(result.level)} over "
            f"{len(quantities)} quantities (Bonferroni)",
            "bias and spread are in standard errors: negative means too high and too wide, "
            "positive too low and too narrow; draws is the number of draws per rank",
        ]
    failed = [f"simulation {index} failed: {why}" for index, why in result.failures.items()]
    lines += first_lines(failed, _FAILURES, "failed; see sbc.json")
    return "\n".join([*lines, f"{result.kind.upper()}: {result.conclusion}"])


def _range(numbers: tuple[int, int, int]) -> str:
    least, _, most = numbers
    return str(most) if least == most else f"{least}-{most}"


def draw_sbc(completed: CompletedSbc, folder: Path) -> list[Path]:
    """Draw the differences of the ECDFs, if they are defined.

    Args:
        completed: the check.
        folder: of the figure.

    Returns:
        The path of the figure, or nothing.
    """
    result, run = completed.result, completed.run
    if result.band is None:
        return []
    folder.mkdir(exist_ok=True)
    name = f"{run['method']} on simulated {run['dataset']['name']}"
    title = f"{name}, {len(result.simulations)} simulations"
    plot_ecdf_differences(result, result.band, folder / "sbc.png", title=title)
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
