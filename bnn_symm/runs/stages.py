"""Run the methods of a run one after another: its warm start, then its main method.

    runs/<name>/warm_start/<number>/
      history.jsonl  draws/  checkpoint/               while a method of the warm start runs
      history.parquet  posterior.nc  cost.json         once it is complete
      fixed_parameters.safetensors                     if it infers a part of the parameters

Each method starts from the posterior of the previous one as stored on disk, so that a resumed run
continues from the same numbers. The main method stores its state in the run directory itself.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bnn_symm.data import Scaling
from bnn_symm.errors import InvalidRun
from bnn_symm.inference import (
    Callback,
    FitState,
    Method,
    State,
    chosen_fixed_values,
    stochastic_part,
)
from bnn_symm.io.atomic import make_folder, write_json
from bnn_symm.io.boundary import parser_errors
from bnn_symm.models import BayesianModel
from bnn_symm.posteriors import DrawChunk, Posterior, load_posterior, save_posterior
from bnn_symm.randomness import key_seed
from bnn_symm.runs.configuration.config import Config
from bnn_symm.runs.directory.history import COST, stage_cost
from bnn_symm.runs.directory.run_directory import RunDirectory

_ADVICE = "restore the original files, or fit again"


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Describe one method of a run.

    Attributes:
        number: the number of the stage, from 1.
        method: the settings of the method.
        seed: the seed of all its random numbers; stages have different seeds.
        directory: where it stores its state.
        is_last: whether it is the main method of the run.
    """

    number: int
    method: Method
    seed: int
    directory: RunDirectory
    is_last: bool

    @property
    def is_complete(self) -> bool:
        """Return whether the posterior of the stage and all its files are on disk."""
        return self.directory.history.exists()

    @property
    def name(self) -> str:
        """Return the name of the stage in messages."""
        return (
            self.method.name
            if self.is_last
            else f"warm_start.{self.number - 1} ({self.method.name})"
        )

    def model(self, full_model: BayesianModel) -> BayesianModel | None:
        """Return the model of the parameters that the stage infers.

        Args:
            full_model: the model of all parameters of the network.

        Returns:
            The model; None if the values of the other parameters are not known yet.

        Raises:
            InvalidRun: if the file with these values is damaged.
        """
        if not self.method.parameters:
            return full_model
        values = self.directory.read_fixed_parameters()
        if values is None:
            return None
        with parser_errors(self.directory.fixed_parameters, _ADVICE, problem="is damaged"):
            model = full_model.restrict(self.method.parameters, values)
            if chosen_fixed_values(model, full_model).keys() != values.keys():
                raise ValueError("it has other parameters than inference.parameters leaves")
        return model

    def start(
        self, full_model: BayesianModel, initial: Posterior | None
    ) -> tuple[BayesianModel, Posterior | None]:
        """Return the model of the stage, whose fixed parameters are stored, and its initial values.

        Args:
            full_model: the model of all parameters of the network.
            initial: the posterior that the stage starts from.
        """
        stored = self.model(full_model)
        model, initial = stochastic_part(stored or full_model, self.method.parameters, initial)
        if stored is None:
            if not self.is_last:
                make_folder(self.directory.path)
            self.directory.write_fixed_parameters(chosen_fixed_values(model, full_model))
        self.directory.sign_fixed_parameters()
        return model, initial

    def begin(self) -> FitState:
        """Create the directory of the stage, or truncate it to its last checkpoint.

        Returns:
            The state from which the fit continues.
        """
        if not self.is_last:
            make_folder(self.directory.path)
        with parser_errors(self.directory.checkpoint, _ADVICE, problem="is damaged"):
            fit_state = self.method.truncate_to_checkpoint(self._fit_state())
        return self.directory.rewrite(fit_state)

    def _fit_state(self) -> FitState:
        """Return the last saved state with all draws before it.

        Draws are written before the state that depends on them, so only damage removes them.

        Raises:
            InvalidRun: if a file is damaged, or draws are missing.
        """
        fit_state = self.directory.fit_state()
        for chain, expected in self.method.num_draws_before(fit_state.states).items():
            chunk = fit_state.draws.get(chain)
            stored = 0 if chunk is None else len(chunk.positions)
            if stored < expected:
                raise InvalidRun(
                    f"{self.directory.draws} has {stored} draws of chain {chain}, but its state "
                    f"was saved after {expected}; restore the original files, or fit again"
                )
        return fit_state

    def complete(self, posterior: Posterior, *, max_megabytes: float) -> None:
        """Write the posterior of a stage of the warm start.

        If the process is killed, the stage is either complete on disk or resumed.

        Args:
            posterior: the posterior.
            max_megabytes: the limit on draws of a closed-form posterior.
        """
        save_posterior(posterior, self.directory.posterior, max_megabytes=max_megabytes)
        cost = {key: posterior.info[key] for key in ("seconds", "gradient_evaluations")}
        write_json(self.directory.path / COST, {"method": self.method.name, **cost})
        self.directory.finish_history(posterior.history)
        self.close()

    def close(self) -> None:
        """Sign the files of a complete stage, and remove its working files."""
        self.directory.sign()
        self.directory.remove_working_files()

    def posterior(self, model: BayesianModel, scaling: Scaling) -> Posterior:
        """Return the posterior of a complete stage, or of its last saved state.

        Args:
            model: the model.
            scaling: the scaling of the data.

        Raises:
            IncompatiblePosteriors: if no state was saved.
            InvalidRun: if a file is damaged.
        """
        if not self.directory.has_posterior():
            with parser_errors(self.directory.checkpoint, _ADVICE, problem="is damaged"):
                return self.method.posterior_from_state(
                    model, scaling, self._fit_state(), seed=self.seed
                )
        info = {"method": self.method.name, "engine": self.method.engine, "seed": self.seed}
        info |= {"temperature": self.method.temperature, "tempering": self.method.tempering}
        history = self.directory.read_history()
        return load_posterior(self.directory.posterior, model, scaling, info=info, history=history)


def stage_seed(config: Config, number: int) -> int:
    """Return the seed of a stage: that of the run for the main method, a derived seed for others.

    Args:
        config: the configuration.
        number: the number of the stage, from 1.
    """
    return (
        config.seed
        if number > len(config.warm_start)
        else key_seed(config.seed, "warm start", number)
    )


def stages_of(directory: RunDirectory, config: Config) -> list[Stage]:
    """Return all stages of a run in their order.

    Args:
        directory: the run directory.
        config: its configuration.
    """
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
    """Return the entries `warm_start` of `run.json`: method, and the cost of complete stages.

    Args:
        stages: all stages of the run.
    """
    return [
        {"method": stage.method.name, **(stage_cost(stage.directory.path) or {})}
        for stage in stages
        if not stage.is_last
    ]


class StageCallback(Callback):
    """Forward everything to another callback, with the number of the stage in each history row.

    Args:
        callback: the other callback.
        stage: the number of the stage.
    """

    def __init__(self, callback: Callback, stage: int):
        self._callback, self._stage = callback, stage

    def on_history(self, row: Mapping[str, Any]) -> None:
        """Forward a row with the number of the stage."""
        self._callback.on_history({"stage": self._stage, **row})

    def on_draws(self, chunk: DrawChunk) -> None:
        """Forward draws to the callbacks, unchanged."""
        self._callback.on_draws(chunk)

    def on_state(self, chain: int, state: Callable[[], State], *, essential: bool = False) -> None:
        """Forward a state unchanged."""
        self._callback.on_state(chain, state, essential=essential)

    def should_stop(self) -> bool:
        """Return whether the other callback requests a stop."""
        return self._callback.should_stop()

    def stored_draws(self) -> dict[int, DrawChunk] | None:
        """Return the draws that the other callback has stored."""
        return self._callback.stored_draws()
