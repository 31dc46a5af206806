"""The methods of a run, one after another: those of its warm start, and the one that it is of.

    runs/<name>/warm_start/<number>/
      history.jsonl  draws/  checkpoint/               while a method of the warm start runs
      history.parquet  posterior.nc  cost.json         once it is complete

Each starts from the posterior of the one before, as it lies on disk, so that a run that was killed
goes on from the same numbers. The last one keeps what it reaches in the directory of the run
itself.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bnn_symm.data import Scaling
from bnn_symm.inference import Callback, FitState, Method, State
from bnn_symm.io.atomic import make_folder, write_json
from bnn_symm.io.boundary import parser_errors
from bnn_symm.models import BayesianModel
from bnn_symm.posteriors import DrawChunk, Posterior, load_posterior
from bnn_symm.randomness import key_seed
from bnn_symm.runs.configuration.config import Config
from bnn_symm.runs.directory.history import COST, cost_of
from bnn_symm.runs.directory.run_directory import RunDirectory

_ADVICE = "put back the files as they were written, or fit again"


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One method of a run.

    Attributes:
        number: from 1 on.
        method: its settings.
        seed: of everything random in it; stages share none.
        directory: where it keeps what it reaches.
        is_last: whether the run is of it.
    """

    number: int
    method: Method
    seed: int
    directory: RunDirectory
    is_last: bool

    @property
    def is_complete(self) -> bool:
        """Whether its posterior and all that belongs to it is on disk."""
        return self.directory.history.exists()

    @property
    def name(self) -> str:
        """What messages call it."""
        return (
            self.method.name
            if self.is_last
            else f"warm_start.{self.number - 1} ({self.method.name})"
        )

    def begin(self) -> FitState:
        """Makes its directory, or takes off the disk what it cannot go on from; what is left of
        what it had reached.
        """
        if not self.is_last:
            make_folder(self.directory.path)
        with parser_errors(self.directory.checkpoint, _ADVICE, problem="is damaged"):
            fit_state = self.method.truncate_to_checkpoint(self.directory.fit_state())
        return self.directory.rewrite(fit_state)

    def complete(self, posterior: Posterior, *, max_megabytes: float) -> None:
        """Keeps the posterior of a stage of the warm start; a killed process has all of it on disk,
        or goes on.
        """
        posterior.save(self.directory.posterior, max_megabytes=max_megabytes)
        cost = {key: posterior.info[key] for key in ("seconds", "gradient_evaluations")}
        write_json(self.directory.path / COST, {"method": self.method.name, **cost})
        self.directory.finish_history(posterior.history)
        self.close()

    def close(self) -> None:
        """Sign the files of a stage that is complete, and remove those that led to them."""
        self.directory.sign()
        self.directory.remove_working_files()

    def posterior(self, model: BayesianModel, scaling: Scaling) -> Posterior:
        """The posterior of a complete stage, or of what it has reached.

        Raises:
            IncompatiblePosteriors: if nothing was reached.
            InvalidRun: if a file is damaged.
        """
        if not self.directory.has_posterior():
            with parser_errors(self.directory.checkpoint, _ADVICE, problem="is damaged"):
                return self.method.posterior_from_state(
                    model, scaling, self.directory.fit_state(), seed=self.seed
                )
        info = {"method": self.method.name, "engine": self.method.engine, "seed": self.seed}
        info |= {"temperature": self.method.temperature, "tempering": self.method.tempering}
        history = self.directory.read_history()
        return load_posterior(self.directory.posterior, model, scaling, info=info, history=history)


def stage_seed(config: Config, number: int) -> int:
    """The seed of a stage: the run's own of the last one, for others one of their own."""
    return (
        config.seed
        if number > len(config.warm_start)
        else key_seed(config.seed, "warm start", number)
    )


def stages_of(directory: RunDirectory, config: Config) -> list[Stage]:
    """All methods of a run, in their order."""
    last = len(config.warm_start) + 1
    return [
        Stage(
            number=number,
            method=method,
            seed=stage_seed(config, number),
            directory=directory if number == last else _directory_of(directory, number),
            is_last=number == last,
        )
        for number, method in enumerate([*config.warm_start, config.inference], start=1)
    ]


def _directory_of(run: RunDirectory, number: int) -> RunDirectory:
    return RunDirectory(run.path / "warm_start" / str(number), signature=run.signature)


def costs(stages: Sequence[Stage]) -> list[dict[str, Any]]:
    """What `run.json` says of the methods of a warm start: of complete ones, what they had cost."""
    return [
        {"method": stage.method.name, **(cost_of(stage.directory.path) or {})}
        for stage in stages
        if not stage.is_last
    ]


class TellStage(Callback):
    """Tells another callback everything, and which stage a row of the history is of.

    Args:
        callback: to be told.
        stage: its number.
    """

    def __init__(self, callback: Callback, stage: int):
        self._callback, self._stage = callback, stage

    def on_history(self, row: Mapping[str, Any]) -> None:
        """With the stage."""
        self._callback.on_history({"stage": self._stage, **row})

    def on_draws(self, chunk: DrawChunk) -> None:
        """As they are."""
        self._callback.on_draws(chunk)

    def on_state(self, chain: int, state: Callable[[], State], *, essential: bool = False) -> None:
        """As it is."""
        self._callback.on_state(chain, state, essential=essential)

    def should_stop(self) -> bool:
        """Whether the other wants to."""
        return self._callback.should_stop()

    def stored_draws(self) -> dict[int, DrawChunk] | None:
        """Those of the other."""
        return self._callback.stored_draws()
