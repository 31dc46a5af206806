"""Show progress bars of fits and studies on a terminal; they are hidden in a pipe."""

import sys
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Column

from bnn_symm.errors import one_line
from bnn_symm.formatting import count, number
from bnn_symm.inference import Callback, DeepEnsemble, Method, Mixture, Sampler
from bnn_symm.studies.runner import Progress as StudyProgress

# Maximum number of characters of the status of a bar.
_LONGEST = 200


class _Bars:
    """Bars on a terminal, which are shown within a `with` block."""

    def __init__(self, *, width: int, quiet: bool = False):
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=width),
            TextColumn("{task.completed}/{task.total}", markup=False),
            TimeRemainingColumn(compact=True, table_column=Column(no_wrap=True, min_width=5)),
            TextColumn("{task.fields[status]}", markup=False),
            console=Console(stderr=True),
            disable=quiet or not sys.stderr.isatty(),
        )

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()


class ProgressBars(_Bars, Callback):
    """Progress bars of a fit: one per chain or ensemble member, or one for a batch of chains.

    Args:
        method: the method, which defines the number of steps; `auto` until it is chosen.
        warm_start: methods that run before it.
    """

    def __init__(self, method: Method, warm_start: Sequence[Method] = ()):
        super().__init__(width=10)
        self.set_methods(method, warm_start)
        # For each bar, by stage and chain (None: all chains), the last row of each of its chains.
        self._rows: dict[tuple[int, int | None], dict[int, Mapping[str, Any]]] = {}
        self._tasks: dict[tuple[int, int | None], TaskID] = {}

    def set_methods(self, method: Method, warm_start: Sequence[Method] = ()) -> None:
        """Set the methods, before the first row of the history.

        Args:
            method: the method.
            warm_start: methods that run before it.
        """
        self._stages = [*warm_start, method]

    def on_history(self, row: Mapping[str, Any]) -> None:
        """Advance the bar of the chain of a row.

        Args:
            row: of the history.
        """
        stage = row.get("stage", len(self._stages))
        method = self._stages[stage - 1]
        chain = None if _is_batched(method) else row["chain"]
        rows = self._rows.setdefault((stage, chain), {})
        rows[row["chain"]] = row
        if (stage, chain) not in self._tasks:
            label, total = _extent(method, chain)
            description = label if len(self._stages) == 1 else f"{method.name}: {label}"
            self._tasks[stage, chain] = self._progress.add_task(description, total=total, status="")
        done = sum(own["step"] for own in rows.values())
        self._progress.update(
            self._tasks[stage, chain], completed=done, status=status_text(list(rows.values()))
        )


class CountBar(_Bars):
    """Progress bar that counts finished items.

    Args:
        label: name of the items.
        total: number of items; None if it is unknown at the start.
        done: number of items that are already done.
        quiet: whether to hide the bar on a terminal too.
    """

    def __init__(self, label: str, *, total: int | None = None, done: int = 0, quiet: bool = False):
        super().__init__(width=20, quiet=quiet)
        self._task = self._progress.add_task(
            one_line(label, _LONGEST), total=total, completed=done, status=""
        )

    def advance(self, number: int = 1) -> None:
        """Count finished items.

        Args:
            number: of items.
        """
        self._progress.update(self._task, advance=number)


class StudyBar(CountBar):
    """Progress bar of the fits and barriers of a study."""

    def __init__(self, *, quiet: bool = False):
        super().__init__("study", quiet=quiet)

    def __call__(self, progress: StudyProgress) -> None:
        """Advance the bar.

        Args:
            progress: of the study.
        """
        done, status = progress.done + progress.failed, one_line(progress.last, _LONGEST)
        self._progress.update(self._task, total=progress.total, completed=done, status=status)


def _is_batched(method: Method) -> bool:
    """Return whether all chains advance in one batch, which has one bar."""
    return isinstance(method, Sampler) and method.engine == "batched"


def _extent(method: Method, chain: int | None) -> tuple[str, int | None]:
    """Return the label of the bar of a chain, or of all chains, and its total number of steps."""
    steps = method.steps_per_chain
    if isinstance(method, Sampler) and chain is None:
        return count(method.num_chains, "chain"), steps and method.num_chains * steps
    item = "member" if isinstance(method, DeepEnsemble | Mixture) else "fit"
    return f"{'chain' if method.is_sampler else item} {chain}", steps


def status_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the status of one or several chains from the last rows of their histories.

    For several chains, it contains the earliest phase, the mean acceptance rate and step size, and
    the sum of divergences.

    Args:
        rows: one row per chain.

    Returns:
        The text.
    """
    row = rows[-1]
    if "acceptance_rate" in row:
        phase = "warmup" if any(own["phase"] == "warmup" for own in rows) else row["phase"]
        accepted, step = (
            fmean(own[key] for own in rows) for key in ("acceptance_rate", "step_size")
        )
        diverged = sum(own["divergences"] for own in rows)
        numbers = f"accepted {number(accepted, 2)}  step {number(step, 2)}"
        return f"{phase}  {numbers}  diverged {diverged}"
    text = f"objective {number(row['objective'], 5)}"
    if row.get("validation_nll") is not None:
        text += f"  validation NLL {number(row['validation_nll'], 4)}"
    return text
