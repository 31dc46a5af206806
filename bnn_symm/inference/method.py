"""What every inference method is: frozen settings and `fit`, which returns a posterior.

    fit(model, dataset, *, seed, initial=None, callbacks=(), fit_state=None) -> Posterior

`fit_state` continues an interrupted fit from its last states, draws and history.
`posterior_from_state` makes a posterior of them without continuing. To add a method: one file here
with a settings class, one line in `AnyMethod`.
"""

import platform
import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from bnn_symm.arguments import checked
from bnn_symm.data import Dataset, Scaling, Split
from bnn_symm.errors import ConfigError, FitDiverged, IncompatiblePosteriors
from bnn_symm.inference.callbacks import Callback, Callbacks, FitState, HistoryRecorder
from bnn_symm.inference.fit_checks import check_draws, check_points
from bnn_symm.inference.parallel.process_group import ProcessGroup
from bnn_symm.models import BayesianModel, Tempering, check_task
from bnn_symm.posteriors import Posterior
from bnn_symm.randomness import key_seed
from bnn_symm.settings import Positive, settings

# Steps to settle in that are advised where a fit had none, or next to none.
_LEAST_TIME = 100


class ConvergenceWarning(UserWarning):
    """A fit that is complete ended far from the optimum of its objective."""


@dataclass(frozen=True, kw_only=True)
class FitContext:
    """One call of `Method.fit`: its arguments, made ready.

    Attributes:
        dataset: of the training part, this process's share.
        group: the processes that share it.
        callbacks: to be told everything.
        recorder: one of them; it is handed the final state of each chain.
        fit_state: where to go on from.
    """

    model: BayesianModel
    dataset: Dataset
    seed: int
    initial: Posterior | None
    callbacks: Callbacks
    recorder: HistoryRecorder
    fit_state: FitState
    group: ProcessGroup


@settings
class Method(ABC):
    """Settings that every method has.

    Attributes:
        temperature: T of the tempered posterior; 1 is Bayes, below 1 is colder (narrower).
        tempering: `likelihood`: exp(log_likelihood / T + log_prior); `posterior`:
            exp((log_likelihood + log_prior) / T).
    """

    temperature: Positive = 1.0
    tempering: Tempering = "likelihood"

    name: str
    engine: ClassVar[str] = "torch"
    is_sampler: ClassVar[bool] = False
    """Whether draws are those of Markov chains, which have to mix."""
    has_independent_draws: ClassVar[bool] = False
    """Whether draws are made one by one of a fitted law, and no chain links them."""
    warmup_setting: ClassVar[str] = "num_steps"
    """The setting that gives a fit more time to settle."""
    drops_units: ClassVar[bool] = False
    """Whether it drops units, at the rates that layers have (`architecture.dropout`)."""

    @property
    def prior_weight(self) -> float:
        """The weight of the log prior in the tempered log density, where the log likelihood has 1 /
        T.
        """
        return 1.0 if self.tempering == "likelihood" else 1.0 / self.temperature

    def num_draws_override(self, number: int) -> str | None:
        """What `--set` takes for chains of at least so many draws; None of a method that makes one
        each.
        """
        return f"inference.num_draws={number}" if hasattr(self, "num_draws") else None

    def longer_fit_override(self) -> str:
        """What `--set` takes for twice the time to settle, and some where there was none."""
        return f"inference.{self.warmup_setting}={max(_LEAST_TIME, 2 * getattr(self, self.warmup_setting))}"

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
        """Fits the model to the training part.

        Args:
            model: is not changed.
            dataset: the training part is fitted, the validation part only watched, the test part
                not touched.
            seed: everything random follows from it.
            initial: starting point; default the network's own initial values.
            callbacks: told of every logged step, draw and state; where one keeps the draws
                (`Callback.stored_draws`), they are not in memory, and the posterior reads them from
                there.
            fit_state: what an interrupted fit with the same settings and seed had reached; it goes on
                from there.
            group: processes that share the training part; all call this with the same arguments,
                callbacks aside, and get the same posterior.

        Raises:
            ConfigError: if likelihood, network and data do not fit, points have NaN or classes
                without an output, the network is no function of a point and its parameters, or the
                method has no use for several processes.
            NotEnoughMemory: if the draws would not fit into memory, and no callback keeps them.
            FitDiverged: if the objective became NaN or infinite; its `posterior` is of the last
                good state, if any.
            IncompatiblePosteriors: if a callback stopped it before there was anything to return.
            ProcessLost: if another process of the group is gone.
        """
        group = group or ProcessGroup()
        self.check_group(group)
        check_task(model.likelihood, dataset.task)
        if len(dataset.train) == 0:
            raise ConfigError(
                "the training part has no points; lower data.test_fraction or raise data.limit"
            )
        self.check(dataset)
        check_points(model, dataset)
        dataset = replace(dataset, train=group.share(dataset.train)).to(model.device, model.dtype)
        draw_store = next(
            (callback for callback in callbacks if callback.stored_draws() is not None), None
        )
        if draw_store is None:
            check_draws(self, model)
        recorder = HistoryRecorder(fit_state, draw_store)
        before = max((row["seconds"] for row in _last_rows(recorder.fit_state())), default=0.0)
        start = time.perf_counter()
        failure = None
        fit = FitContext(
            model=model,
            dataset=dataset,
            seed=seed,
            initial=initial,
            callbacks=Callbacks([recorder, *callbacks]),
            recorder=recorder,
            fit_state=fit_state or FitState(),
            group=group,
        )
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
                raise failure from None  # it failed before there was anything to keep
            raise
        posterior.info.update(
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
            warnings.warn(f"convergence: {note}", ConvergenceWarning, stacklevel=2)
        if failure:
            failure.posterior = posterior
            raise failure
        return posterior

    def is_compiled(self) -> bool:
        """Whether what it computes is compiled, where there is a compiler."""
        return False

    def shares_data(self) -> bool:
        """Whether several processes can share the training part."""
        return False

    def check_group(self, group: ProcessGroup) -> None:
        """Raises ConfigError if there are several processes and the method has no use for them."""
        if group.size > 1 and not self.shares_data():
            raise ConfigError(
                f"inference.name={self.name} (engine {self.engine}) runs in one process, got "
                f"{group.size}; start it without torchrun, or use hmc, nuts or chees_hmc with the "
                "engine batched"
            )

    def check(self, dataset: Dataset) -> None:  # noqa: B027 - most methods serve any data
        """Raises ConfigError for settings that these data cannot serve."""

    def convergence_warnings(
        self, fit: "FitContext", fit_state: FitState, posterior: Posterior
    ) -> list[str]:
        """Return what is wrong with a complete fit, in words: of those that optimize, an end far
        from an optimum.

        Args:
            fit: what was fitted.
            fit_state: its states and its history.
            posterior: that it made.
        """
        return []

    @abstractmethod
    def _run(self, fit: FitContext) -> bool:
        """Does the work; returns whether it was stopped before its end."""

    @abstractmethod
    def _posterior(
        self,
        model: BayesianModel,
        scaling: Scaling,
        fit_state: FitState,
        seed: int,
        keywords: dict[str, Any],
    ) -> Posterior:
        """The posterior of what was reached."""

    @abstractmethod
    def points_per_gradient(self, num_points: int) -> int:
        """How many of the training points one gradient evaluation uses."""

    def chains_per_gradient(self, model: BayesianModel, part: Split) -> int:
        """How many chains one gradient evaluation is of: their products are so many times as large
        as those of one.

        Args:
            model: whose density.
            part: the training part.
        """
        return 1

    @abstractmethod
    def truncate_to_checkpoint(self, fit_state: FitState) -> FitState:
        """The part of what was reached from which `fit` can go on to the same bits as if never
        interrupted.
        """

    def posterior_from_state(
        self, model: BayesianModel, scaling: Scaling, fit_state: FitState, *, seed: int
    ) -> Posterior:
        """The posterior of what was reached, complete or not.

        Raises:
            IncompatiblePosteriors: if nothing was reached at all.
        """
        info = {"method": self.name, "engine": self.engine, "seed": seed, "versions": versions()}
        info |= {"temperature": self.temperature, "tempering": self.tempering}
        return self._posterior(
            model, scaling, fit_state, seed, {"info": info, "history": fit_state.history}
        )


def _last_rows(fit_state: FitState) -> list[dict[str, Any]]:
    """The last row of every chain."""
    return list({row.get("chain", 0): row for row in fit_state.history}.values())


def initial_position(fit: FitContext) -> Float[Tensor, " parameter"]:
    """Where a method with one chain starts: at a draw of the initial posterior, or at the network's
    own values.
    """
    if fit.initial is None:
        return fit.model.initial()
    (start,) = initial_positions(fit.model, fit.initial, 1, fit.seed)
    return start


def initial_positions(
    model: BayesianModel, initial: Posterior | None, number: int, seed: int
) -> list[Float[Tensor, " parameter"]]:
    """Where `number` independent chains or ensemble members start.

    From an `initial` posterior with as many chains (two or more), each starts at the last draw of
    its own; from any other, at random draws of it; without one, at fresh random initial values of
    the network.
    """
    if initial is None:
        return [
            model.initial(key_seed(seed, "initial value of chain", chain))
            for chain in range(number)
        ]
    chains, draws, _ = initial.shape
    where = {"device": model.device, "dtype": model.dtype}
    if chains == number and number > 1:
        return [initial.read(chain, draws - 1, draws)[0].to(**where) for chain in range(number)]
    if chains * draws == 1:
        return [initial.mean().to(**where)] * number
    if chains * draws < number:
        raise ConfigError(
            f"the posterior that the fit starts from holds {chains * draws} draws, wanted {number} "
            "starting points; "
            f"set inference.num_chains (of an ensemble inference.num_members) to at most as many"
        )
    return list(initial.draws(number, seed=key_seed(seed, "initial draw")).to(**where))


def versions() -> dict[str, str]:
    """Versions of what the numbers depend on."""
    packages = {name: version(name) for name in ("bnn_symm", "pyro-ppl", "numpy")}
    return {"python": platform.python_version(), "torch": torch.__version__, **packages}
