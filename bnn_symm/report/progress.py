"""Progress bars of a running fit: on a terminal, and nothing in a pipe."""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Column

from bnn_symm.experiments.study_run import Progress as StudyProgress
from bnn_symm.inference import Callback, DeepEnsemble, Method, Sampler, StochasticGradientMethod
from bnn_symm.inference.optimisation import OptimisedMethod


class ProgressBars(Callback):
    """One bar a chain or ensemble member, with what a person wants to know.

    Args:
        method: says how many steps each takes.
        warm_start: methods that run before it.
    """

    def __init__(self, method: Method, warm_start: Sequence[Method] = ()):
        self._stages = [*warm_start, method]
        self._tasks: dict[tuple[int, int], TaskID] = {}
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=10),
            TextColumn("{task.completed}/{task.total}"),
            TimeRemainingColumn(compact=True, table_column=Column(no_wrap=True, min_width=5)),
            TextColumn("{task.fields[told]}"),
            console=Console(stderr=True),
            disable=not sys.stderr.isatty(),
        )

    def __enter__(self) -> "ProgressBars":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def on_history(self, row: Mapping[str, Any]) -> None:
        """Moves the bar of the row's chain."""
        where = (row.get("stage", len(self._stages)), row["chain"])
        if where not in self._tasks:
            method = self._stages[where[0] - 1]
            total, label = _extent(method)
            description = f"{label} {where[1]}" if len(self._stages) == 1 else f"{method.name}: {label} {where[1]}"
            self._tasks[where] = self._progress.add_task(description, total=total, told="")
        self._progress.update(self._tasks[where], completed=row["step"], told=told(row))


class CountBar:
    """One bar that counts what is done: on a terminal, and nothing in a pipe.

    Args:
        label: what is counted.
        total: how many are wanted; None if the first move says so.
        done: those that were there before.
        quiet: show nothing on a terminal either.
    """

    def __init__(self, label: str, *, total: int | None = None, done: int = 0, quiet: bool = False):
        self._progress = Progress(
            TextColumn(label),
            BarColumn(bar_width=20),
            TextColumn("{task.completed}/{task.total}"),
            TimeRemainingColumn(compact=True, table_column=Column(no_wrap=True, min_width=5)),
            TextColumn("{task.fields[told]}"),
            console=Console(stderr=True),
            disable=quiet or not sys.stderr.isatty(),
        )
        self._task = self._progress.add_task("", total=total, completed=done, told="")

    def __enter__(self) -> "CountBar":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()


class StudyBar(CountBar):
    """The fits and barriers of a study, and what came to an end last."""

    def __init__(self, *, quiet: bool = False):
        super().__init__("study", quiet=quiet)

    def __call__(self, progress: StudyProgress) -> None:
        """Moves the bar."""
        done = progress.done + progress.failed
        self._progress.update(self._task, total=progress.total, completed=done, told=progress.last)


def _extent(method: Method) -> tuple[int | None, str]:
    """Steps of each bar, and what a bar stands for."""
    if isinstance(method, Sampler):
        return method.num_warmup + method.num_draws, "chain"
    if isinstance(method, StochasticGradientMethod):
        return method.num_steps, "chain"
    if isinstance(method, OptimisedMethod):
        return method.num_steps, "member" if isinstance(method, DeepEnsemble) else "fit"
    return None, method.name


def told(row: Mapping[str, Any]) -> str:
    """What a row of the history says to a person who waits."""
    if "acceptance_rate" in row:
        return (
            f"{row['phase']}  accepted {row['acceptance_rate']:.2f}  step {row['step_size']:.2g}  "
            f"diverged {row['divergences']}"
        )
    text = f"objective {row['objective']:.5g}"
    if row.get("validation_nll") is not None:
        text += f"  validation NLL {row['validation_nll']:.4f}"
    return text
