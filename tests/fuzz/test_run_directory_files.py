"""Damaged files of a run raise an error of one line, or the scores are unchanged.

The short run is a sample; the long one, `pytest -m slow tests/fuzz`, has 1,500 cases.
"""

import os
import random
import shutil
import signal
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bnn_symm.diagnostics import score
from bnn_symm.errors import BnnSymmError
from bnn_symm.inference import Callback
from bnn_symm.report.html.rendering import write_report
from bnn_symm.runs import fit_run, load_config, load_run
from bnn_symm.runs.fit_runner import resume_run
from tests.fuzz.damage import DAMAGES
from tests.report.synthetic_study import write_study

pytestmark = pytest.mark.thorough

SHORT, LONG = 24, 1500
_SECONDS = 60  # after which a case hangs
_SECONDS_HUGE = 2  # after which a file of 1 TiB has not taken the memory: its hash takes an hour
_KEYS = ["data.name=gap", "architecture.widths=[3]", "data.limit=40"]
_METHODS = {
    "vi": ["inference.num_steps=5", "inference.num_draws=5"],
    "hmc": [
        "inference.name=hmc",
        "inference.num_warmup=6",
        "inference.num_draws=60",
        "inference.num_chains=2",
        "inference.max_num_steps=3",
    ],
    "map": ["inference.name=map", "inference.num_steps=30"],
    "swag": ["inference.name=swag", "inference.num_steps=6"],
    "warm": [
        "warm_start=[{name: map, num_steps: 5}]",
        "inference.num_steps=4",
        "inference.num_draws=4",
    ],
    "fixed": [
        "inference.num_steps=3",
        "inference.num_draws=3",
        "architecture.symmetry.kind=sigma_asymmetric",
    ],
}


class _StopAfter(Callback):
    """Stop a fit at a given row of its history."""

    def __init__(self, rows: int):
        self._left = rows

    def on_history(self, row: Any) -> None:
        """Count the rows of the history."""
        self._left -= 1

    def should_stop(self) -> bool:
        """Return whether the row was reached."""
        return self._left <= 0


@dataclass(frozen=True)
class Target:
    """A directory to damage, another one to copy files from, and the function that uses it."""

    path: Path
    other: Path
    use: Callable[[Path], Any]


def _use_run(path: Path) -> Any:
    run = load_run(path)
    posterior = run.posterior
    history = posterior.history if run.status == "complete" else None  # a log has no signature
    return run.status, posterior.shape, score(posterior, run.dataset().test), run.metrics, history


def _resume(path: Path) -> Any:
    run = resume_run(path)
    return run.status, run.metrics, score(run.posterior, run.dataset().test)


def _report(path: Path) -> Any:
    """Write the report of a study, whose tables have no signature to compare."""
    write_report(path, path / "out.html")


@pytest.fixture(scope="module")
def targets() -> Iterator[list[Target]]:
    with tempfile.TemporaryDirectory(prefix="f") as folder:
        yield build_targets(Path(folder))


@pytest.fixture(scope="module")
def few_targets() -> Iterator[list[Target]]:
    """Yield a complete and a stopped run, because more take longer than the sample."""
    with tempfile.TemporaryDirectory(prefix="f") as folder:
        home = Path(folder)
        cut = [_fitted(home, "map", seed, 2) for seed in (0, 1)]
        yield [
            Target(_fitted(home, "hmc", 0), _fitted(home, "hmc", 1), _use_run),
            Target(*cut, _use_run),
        ]


def build_targets(home: Path) -> list[Target]:
    """Return small runs, complete and stopped, and a study, created unless they exist."""
    made = [Target(_fitted(home, name, 0), _fitted(home, name, 1), _use_run) for name in _METHODS]
    for name, rows in (("hmc", 3), ("map", 2), ("swag", 1)):
        pair = [_fitted(home, name, seed, rows) for seed in (0, 1)]
        made += [Target(*pair, use) for use in (_use_run, _resume)]
    studies = [home / f"study{number}" for number in (0, 1)]
    for number, path in enumerate(studies):
        if not path.exists():
            write_study(path, seeds=2 + number, kinds=2)
    return [*made, Target(*studies, _report)]


def _fitted(home: Path, name: str, seed: int, rows: int | None = None) -> Path:
    path = home / f"{name}{'' if rows is None else '-cut'}{seed}"
    if not path.exists():
        config = load_config(None, [*_KEYS, *_METHODS[name], f"seed={seed}"])
        fit_run(config, path, callbacks=[] if rows is None else [_StopAfter(rows)])
    return path


def _case(target: Target, dice: random.Random, expected: Any) -> str | None:
    """Damage one file of a copy, use it, and return what is wrong, or None."""
    with tempfile.TemporaryDirectory(prefix="f") as folder:
        copy = Path(folder) / "run"
        shutil.copytree(target.path, copy)
        names = sorted(str(path.relative_to(copy)) for path in copy.rglob("*") if path.is_file())
        name = dice.choice(names)
        before = (copy / name).read_bytes()
        damage = dice.choice(DAMAGES)
        what = f"{target.path.name} {target.use.__name__} {name} {damage.__name__}"
        if dice.random() < 0.12 and (target.other / name).exists():
            shutil.copy(target.other / name, copy / name)
            what = f"{target.path.name} {target.use.__name__} {name} of another run"
        else:
            try:
                damage(copy / name, dice)
            except (ValueError, TypeError, OSError, KeyError):  # what cannot be damaged in this way
                if not os.path.lexists(copy / name):
                    (copy / name).write_bytes(b"")
        if _content(copy / name) == before:
            return None
        is_huge = (copy / name).is_file() and (copy / name).stat().st_size > 2**30
        signal.alarm(_SECONDS_HUGE if is_huge else _SECONDS)
        try:
            got = target.use(copy)
        except BnnSymmError as error:
            text = str(error).replace(folder, "")
            return (
                None
                if "\n" not in text and len(text) <= 400
                else f"{what}: message of {len(text)}: {text[:200]}"
            )
        except _Hang:
            return None if is_huge else f"{what}: it hangs"
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            place = traceback.extract_tb(error.__traceback__)[-1]
            own = [
                frame
                for frame in traceback.extract_tb(error.__traceback__)
                if "bnn_symm" in frame.filename
            ][-1]
            return (
                f"{what}: {type(error).__name__} {str(error)[:100]!r} at "
                f"{Path(own.filename).name}:{own.lineno} "
                f"({Path(place.filename).name}:{place.lineno})"
            )
        finally:
            signal.alarm(0)
        return None if repr(got) == repr(expected) else f"{what}: another result in silence"


def _content(path: Path) -> bytes | None:
    """Return the content of a plain file of ordinary size, or None."""
    if path.is_symlink() or not path.is_file() or path.stat().st_size > 2**30:
        return None
    return path.read_bytes()


class _Hang(BaseException):
    """Not an `Exception`, which readers of files would report as damage."""


def _hang(*_: Any) -> None:
    raise _Hang


def run_cases(targets: list[Target], number: int, seed: int) -> list[str]:
    """Return what is wrong in random cases from a seed."""
    handler = signal.signal(signal.SIGALRM, _hang)
    expected = {}
    for index, target in enumerate(targets):
        with tempfile.TemporaryDirectory(prefix="f") as folder:
            shutil.copytree(target.path, Path(folder) / "run")
            expected[index] = target.use(Path(folder) / "run")
    try:
        wrong = []
        for case in range(number):
            dice = random.Random(f"{seed} {case}")
            index = dice.randrange(len(targets))
            problem = _case(targets[index], dice, expected[index])
            if problem is not None:
                wrong.append(f"case {seed} {case}: {problem}")
        return wrong
    finally:
        signal.signal(signal.SIGALRM, handler)


def test_a_sample_of_damages(few_targets: list[Target]) -> None:
    assert run_cases(few_targets, SHORT, 0) == []


@pytest.mark.slow
def test_many_damages(targets: list[Target]) -> None:
    wrong = run_cases(targets, LONG, 1)
    assert not wrong, f"{Counter(problem.split(': ', 2)[-1] for problem in wrong).most_common()}"
