"""The base class of inference methods: frozen settings and `fit`, which returns a posterior.

    fit(model, dataset, *, seed, initial=None, callbacks=(), fit_state=None) -> Posterior

`fit_state` resumes an interrupted fit from its last states, draws and history.
`posterior_from_state` builds a posterior from them without resuming. To add a method, add one file
with a settings class, and one line in `AnyMethod`.
"""

import platform
import time
import warnings
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from typing import Any, ClassVar

import torch

from bnn_symm.arguments import checked
from bnn_symm.data import Dataset, Scaling, Split
from bnn_symm.errors import ConfigError, FitDiverged, IncompatiblePosteriors
from bnn_symm.inference.callbacks import Callback, Callbacks, FitState, HistoryRecorder, State
from bnn_symm.inference.fit_checks import check_draws, check_points
from bnn_symm.inference.fit_context import FitContext, FitOutcome
from bnn_symm.inference.parallel.process_group import ProcessGroup
from bnn_symm.inference.stochastic_part import stochastic_part
from bnn_symm.models import BayesianModel, Prior, Tempering, check_scale_is_known, check_task
from bnn_symm.posteriors import Posterior
from bnn_symm.settings import Positive, SettingsType, settings

# The smallest number of warm-up steps that is suggested.
_LEAST_TIME = 100


class ConvergenceWarning(UserWarning):
    """Warns that a complete fit ended far from the optimum of its objective."""


@settings
class Method(metaclass=SettingsType):
    """Settings of every inference method.

    Attributes:
        temperature: T of the tempered posterior; 1 is Bayes, below 1 is colder (narrower).
        tempering: `likelihood`: exp(log_likelihood / T + log_prior); `posterior`:
            exp((log_likelihood + log_prior) / T).
        parameters: patterns of the names of the parameters that get a posterior, such as
            [head.*]; all others are kept at the values at which the fit starts, those of the
            network or of the warm start. Empty for all parameters.
    """

    temperature: Positive = 1.0
    tempering: Tempering = "likelihood"
    parameters: tuple[str, ...] = ()

    name: str
    engine: ClassVar[str] = "torch"
    is_sampler: ClassVar[bool] = False
    """Whether the draws are those of Markov chains."""
    has_independent_draws: ClassVar[bool] = False
    """Whether the draws are independent samples of a fitted distribution."""
    warmup_setting: ClassVar[str] = "num_steps"
    """The setting that controls the length of the warm-up or the optimization."""
    clips_norms: ClassVar[bool] = False
    """Whether the method has the setting `clip_norm`."""
    chooses_prior_scale: ClassVar[bool] = False
    """Whether the method chooses the scale of the prior (`prior.scale=evidence`)."""
    drops_units: ClassVar[bool] = False
    """Whether the method uses the dropout rates of layers (`architecture.dropout`)."""

    @property
    def prior_weight(self) -> float:
        """Return the weight of the log prior in the tempered log density."""
        return 1.0 if self.tempering == "likelihood" else 1.0 / self.temperature

    @property
    def steps_per_chain(self) -> int | None:
        """Return the number of steps of each chain, or of the fit; None if it has no such setting.

        For samplers of Hamiltonian dynamics, these are the iterations.
        """
        return getattr(self, "num_steps", None)

    @property
    def kept_steps(self) -> tuple[int, ...]:
        """Return the steps whose states are results themselves and are always preserved in a run.

        The method reports each of these states as essential.
        """
        return ()

    def num_draws_override(self, number: int) -> str | None:
        """Return the override of the configuration for at least a number of draws per chain.

        Args:
            number: draws per chain.

        Returns:
            The argument, or None if the method has no such setting.
        """
        return f"inference.num_draws={number}" if hasattr(self, "num_draws") else None

    def longer_fit_override(self) -> str:
        """Return the override that doubles the warm-up, or the steps of an optimization."""
        value = max(_LEAST_TIME, 2 * getattr(self, self.warmup_setting))
        return f"inference.{self.warmup_setting}={value}"

    @checked
    def fit(
        self,
        model: BayesianModel,
        dataset: Dataset,
        *,
        seed: int,
        initial: Posterior | None = None,
        callbacks: Sequence[Callback] = (),
        fit_state: FitState | None = None,
        group: ProcessGroup | None = None,
    ) -> Posterior:
        """Fit the model to the training split of a data set.

        Args:
            model: the model, which is not modified. With `parameters`, the posterior is of its
                restriction to them, and all others are fixed at the mean of `initial`, or by
                default at their initial values (`stochastic_part`).
            dataset: the training split is fitted. The validation split is only monitored, and the
                test split is not used.
            seed: all randomness derives from it.
            initial: the posterior to start from. By default, the network's own initial values.
            callbacks: receive every logged step, draw and state. If one of them stores the draws
                (`Callback.stored_draws`), the posterior reads them from there, not from memory.
            fit_state: the state of an interrupted fit with the same settings and seed, which
                resumes.
            group: the processes that share the training split. Each calls `fit` with the same
                arguments, except for callbacks, and gets the same posterior.

        Returns:
            The posterior. Its `info` has the status, the time and the convergence warnings.

        Raises:
            ConfigError: if likelihood, network and data do not match, the data have NaN, the
                network is not a pure function, or the method cannot share the data.
            NotEnoughMemory: if the draws do not fit into memory and no callback stores them.
            FitDiverged: if the objective became NaN or infinite. Its `posterior` is that of the
                last finite state, if there is one.
            IncompatiblePosteriors: if a callback stopped the fit before it had a state.
            ProcessLost: if another process of the group terminated.
        """
        model, initial = stochastic_part(model, self.parameters, initial)
        fit = self._context(model, dataset, seed, initial, callbacks, fit_state, group)
        recorder, start, failure = fit.recorder, time.perf_counter(), None
        before = max((row["seconds"] for row in _last_rows(recorder.fit_state())), default=0.0)
        try:
            stopped = self._run(fit)
        except FitDiverged as error:
            failure, stopped = error, True
            for chain, state in error.states.items():
                recorder.keep_state(chain, state)
        everything = recorder.fit_state()
        status = "failed" if failure else "interrupted" if stopped else "complete"
        if status != "complete":
            for chain, state in everything.states.items():
                Callbacks(callbacks).on_state(chain, lambda state=state: state, essential=True)
        try:
            posterior = self.posterior_from_state(model, dataset.scaling, everything, seed=seed)
        except IncompatiblePosteriors:
            if failure:
                raise failure from None  # it failed before the first state
            raise
        posterior.info.update(
            recorder.info,
            dataset=dataset.name,
            status=status,
            seconds=before + time.perf_counter() - start,
            gradient_evaluations=int(
                sum(row["gradient_evaluations"] for row in _last_rows(everything))
            ),
            warnings=self.convergence_warnings(fit, everything, posterior)
            if status == "complete"
            else [],
        )
        for note in posterior.info["warnings"]:
            warnings.warn(f"convergence: {note}", ConvergenceWarning, stacklevel=3)
        if failure:
            failure.posterior = posterior
            raise failure
        return posterior

    def _context(
        self,
        model: BayesianModel,
        dataset: Dataset,
        seed: int,
        initial: Posterior | None,
        callbacks: Sequence[Callback],
        fit_state: FitState | None,
        group: ProcessGroup | None,
    ) -> FitContext:
        """Check the arguments of `fit`, and move this process's share of the data to the device."""
        group = group or ProcessGroup()
        self.check_group(group)
        check_task(model.likelihood, dataset.task)
        self.check_prior(model.prior)
        if len(dataset.train) == 0:
            raise ConfigError(
                "the training split has no points; lower data.test_fraction or raise data.limit"
            )
        self.check(dataset)
        check_points(model, dataset)
        draw_store = next(
            (callback for callback in callbacks if callback.stored_draws() is not None), None
        )
        if draw_store is None:
            check_draws(self, model)
        recorder = HistoryRecorder(fit_state, draw_store)
        train = group.share(dataset.train)
        return FitContext(
            model=model,
            dataset=replace(dataset, train=train).to(model.device, model.dtype),
            seed=seed,
            initial=initial,
            callbacks=Callbacks([recorder, *callbacks]),
            recorder=recorder,
            fit_state=fit_state or FitState(),
            group=group,
        )

    def is_compiled(self, model: BayesianModel) -> bool:
        """Return whether the density of a model is compiled if a compiler is available.

        Args:
            model: the model.
        """
        return False

    def shares_data(self) -> bool:
        """Return whether several processes can share the training split."""
        return False

    def check_group(self, group: ProcessGroup) -> None:
        """Check that the method supports the number of processes.

        Args:
            group: the processes of the fit.

        Raises:
            ConfigError: if there are several processes and the method cannot share the data.
        """
        if group.size > 1 and not self.shares_data():
            raise ConfigError(
                f"inference.name={self.name} (engine {self.engine}) runs in one process, got "
                f"{group.size}; start it without torchrun, or use hmc, nuts, chees_hmc or mclmc "
                "with engine batched"
            )

    def check(self, dataset: Dataset) -> None:
        """Check that the settings are valid for these data.

        Args:
            dataset: the data to fit.

        Raises:
            ConfigError: if they are not.
        """

    def check_prior(self, prior: Prior) -> None:
        """Check that the method can use a prior.

        Args:
            prior: of the model.

        Raises:
            ConfigError: if its scale is to be chosen by the fit, which this method does not do.
        """
        if not self.chooses_prior_scale:
            check_scale_is_known(prior)

    def convergence_warnings(
        self, fit: "FitContext", fit_state: FitState, posterior: Posterior
    ) -> list[str]:
        """Return messages on a complete fit that ended far from its optimum; for samplers, none.

        Args:
            fit: the arguments of the fit.
            fit_state: its final states and its history.
            posterior: its result.
        """
        return []

    @abstractmethod
    def _run(self, fit: FitContext) -> bool:
        """Run the fit; return whether it was stopped before its end."""

    @abstractmethod
    def _posterior(self, outcome: FitOutcome) -> Posterior:
        """Build the posterior from the state of a fit."""

    @abstractmethod
    def points_per_gradient(self, num_points: int) -> int:
        """Return the number of training points that one gradient evaluation uses.

        Args:
            num_points: size of the training split.
        """

    def chains_per_gradient(self, model: BayesianModel, part: Split) -> int:
        """Return the number of chains that one gradient evaluation computes together.

        Args:
            model: the model.
            part: the training split.
        """
        return 1

    def num_draws_before(self, states: Mapping[int, State]) -> dict[int, int]:
        """Return the number of draws of each chain that precede its state.

        Args:
            states: the last state of each chain.
        """
        return dict.fromkeys(states, 0)

    def truncate_to_checkpoint(self, fit_state: FitState) -> FitState:
        """Return the part of a fit state from which `fit` resumes with bitwise identical results.

        That is the last state of each chain, without later draws and rows.

        Args:
            fit_state: the state of an interrupted fit.
        """
        result = FitState()
        for chain, num_draws in self.num_draws_before(fit_state.states).items():
            state, chunk = fit_state.states[chain], fit_state.draws.get(chain)
            if num_draws > (0 if chunk is None else len(chunk.positions)):
                continue  # draws before the state are missing, so the chain restarts
            result.states[chain] = state
            if chunk is not None and num_draws:
                result.draws[chain] = chunk.part(0, num_draws)
        ends = {chain: int(state["step"]) for chain, state in result.states.items()}
        result.history = [
            row for row in fit_state.history if row["step"] <= ends.get(row["chain"], -1)
        ]
        return result

    def posterior_from_state(
        self, model: BayesianModel, scaling: Scaling, fit_state: FitState, *, seed: int
    ) -> Posterior:
        """Build the posterior from the state of a fit, complete or not.

        Args:
            model: the model of the fit.
            scaling: the scaling of its data.
            fit_state: the states, draws and history.
            seed: the seed of the fit.

        Raises:
            IncompatiblePosteriors: if the state is empty.
        """
        info = {"method": self.name, "engine": self.engine, "seed": seed, "versions": versions()}
        info |= {"temperature": self.temperature, "tempering": self.tempering}
        return self._posterior(FitOutcome(model, scaling, fit_state, seed, info))


def _last_rows(fit_state: FitState) -> list[dict[str, Any]]:
    """Return the last row of every chain."""
    return list({row.get("chain", 0): row for row in fit_state.history}.values())


def versions() -> dict[str, str]:
    """Return the versions of the packages on which results depend."""
    packages = {name: version(name) for name in ("bnn_symm", "pyro-ppl", "numpy")}
    return {"python": platform.python_version(), "torch": torch.__version__, **packages}
