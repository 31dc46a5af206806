"""Progress bars of a running fit: on a terminal, and nothing in a pipe."""

import sys
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Column

from bnn_symm.errors import one_line
from bnn_symm.inference import Callback, DeepEnsemble, Method, Sampler, StochasticGradientMethod
from bnn_symm.inference.optimization.training_loop import OptimizationMethod
from bnn_symm.studies.runner import Progress as StudyProgress

# Characters of what a bar says beside its numbers.
_LONGEST = 200


class ProgressBars(Callback):
    """One bar a chain or ensemble member, or one for all chains of a batch, with what a person
    wants to know.

    Args:
        method: says how many steps each takes.
        warm_start: methods that run before it.
    """

    def __init__(self, method: Method, warm_start: Sequence[Method] = ()):
        self._stages = [*warm_start, method]
        # Of each bar, by its stage and its chain (None: all of them), the last row of every chain
        # that it stands for.
        self._rows: dict[tuple[int, int | None], dict[int, Mapping[str, Any]]] = {}
        self._tasks: dict[tuple[int, int | None], TaskID] = {}
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=10),
            TextColumn("{task.completed}/{task.total}", markup=False),
            TimeRemainingColumn(compact=True, table_column=Column(no_wrap=True, min_width=5)),
            TextColumn("{task.fields[told]}", markup=False),
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
        stage = row.get("stage", len(self._stages))
        method = self._stages[stage - 1]
        chain = None if _moves_as_one(method) else row["chain"]
        rows = self._rows.setdefault((stage, chain), {})
        rows[row["chain"]] = row
        if (stage, chain) not in self._tasks:
            label, total = _extent(method, chain)
            description = label if len(self._stages) == 1 else f"{method.name}: {label}"
            self._tasks[stage, chain] = self._progress.add_task(description, total=total, told="")
        done = sum(own["step"] for own in rows.values())
        self._progress.update(
            self._tasks[stage, chain], completed=done, told=told(list(rows.values()))
        )


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
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=20),
            TextColumn("{task.completed}/{task.total}", markup=False),
            TimeRemainingColumn(compact=True, table_column=Column(no_wrap=True, min_width=5)),
            TextColumn("{task.fields[told]}", markup=False),
            console=Console(stderr=True),
            disable=quiet or not sys.stderr.isatty(),
        )
        self._task = self._progress.add_task(
            one_line(label, _LONGEST), total=total, completed=done, told=""
        )

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
        self._progress.update(
            self._task, total=progress.total, completed=done, told=one_line(progress.last, _LONGEST)
        )


def _moves_as_one(method: Method) -> bool:
    """Whether all chains move in one batch, which has one bar."""
    return isinstance(method, Sampler) and method.engine == "batched"


def _extent(method: Method, chain: int | None) -> tuple[str, int | None]:
    """What the bar of a chain, or of all of them, stands for, and its steps, those of its chains
    together.
    """
    if isinstance(method, Sampler):
        steps = method.num_warmup + method.num_draws
        if chain is not None:
            return f"chain {chain}", steps
        return (
            "1 chain" if method.num_chains == 1 else f"{method.num_chains} chains",
            method.num_chains * steps,
        )
    if isinstance(method, StochasticGradientMethod):
        return f"chain {chain}", method.num_steps
    if isinstance(method, OptimizationMethod):
        return f"member {chain}" if isinstance(
            method, DeepEnsemble
        ) else f"fit {chain}", method.num_steps
    return f"{method.name} {chain}", None


def told(rows: Sequence[Mapping[str, Any]]) -> str:
    """What the last rows of the history of one chain or of several say to a person who waits.

    Of several: the phase that one of them is still in, means of acceptance rates and of step sizes,
        all divergences.
    """
    row = rows[-1]
    if "acceptance_rate" in row:
        phase = "warmup" if any(own["phase"] == "warmup" for own in rows) else row["phase"]
        accepted, step = (
            fmean(own[key] for own in rows) for key in ("acceptance_rate", "step_size")
        )
        return f"{phase}  accepted {accepted:.2f}  step {step:.2g}  diverged {sum(own['divergences'] for own in rows)}"
    text = f"objective {row['objective']:.5g}"
    if row.get("validation_nll") is not None:
        text += f"  validation NLL {row['validation_nll']:.4f}"
    return text
