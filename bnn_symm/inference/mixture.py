"""Mixtures of approximate posteriors: independent fits of one method, with equal weights.

An approximation around one mode misses the others. A mixture of k of them, from independent initial
values and with independent noise, covers up to k modes:

    q(w) = (1/k) sum_j q_j(w)

With `swag` as the member it is MultiSWAG, with `laplace` a mixture of Laplace approximations, and
with variational members an ensemble of VI. Equal weights need no estimate of the evidence of a
mode, of which the members have none that is comparable. A chain of the result is a member, so that
diagnostics, alignment and merges treat members as they treat chains.

A member is bitwise identical to a fit of its method with its own seed and initial value.

References:
    Wilson & Izmailov 2020, arXiv:2002.08791; Eschenhagen, Daxberger, Hennig & Kristiadi 2021,
    arXiv:2111.03577.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field
from torch import Tensor

from bnn_symm.data import Dataset
from bnn_symm.errors import ConfigError, FitDiverged, IncompatiblePosteriors
from bnn_symm.inference.callbacks import Callback, Callbacks, FitState, HistoryRecorder, State
from bnn_symm.inference.fit_context import FitContext, FitOutcome, run_method_chains
from bnn_symm.inference.laplace.laplace import LaplaceApproximation
from bnn_symm.inference.method import Method
from bnn_symm.inference.optimization.swag import SWAG
from bnn_symm.inference.parallel.independent_chains import ChainMethod
from bnn_symm.inference.variational.ivon import IVON
from bnn_symm.inference.variational.low_rank_vi import LowRankVI
from bnn_symm.inference.variational.mean_field_vi import MeanFieldVI
from bnn_symm.inference.variational.symmetrized_vi import SymmetrizedVI
from bnn_symm.posteriors import MixturePosterior, Posterior, SamplePosterior, longest_rectangle
from bnn_symm.randomness import key_seed
from bnn_symm.settings import PositiveInt, settings

MemberMethod = Annotated[
    SWAG | LaplaceApproximation | MeanFieldVI | IVON | LowRankVI | SymmetrizedVI,
    Field(discriminator="name"),
]
# Members whose distance from their optimum is checked.
_CHECKED = 5


@settings
class Mixture(Method):
    """Settings of mixtures (config `inference: {name: mixture, member: {name: swag}}`).

    Attributes:
        member: the method of every member, with its settings, except that temperature, tempering
            and parameters are those of the mixture. Each member has `num_draws` draws.
        num_members: number of members, which have equal weights.
        chain_method: members one after another or in parallel processes, with the same results.
    """

    name: Literal["mixture"] = "mixture"
    member: MemberMethod = Field(default_factory=SWAG)
    num_members: PositiveInt = 5
    chain_method: ChainMethod = "auto"

    has_independent_draws: ClassVar[bool] = True

    @property
    def tempered_member(self) -> MemberMethod:
        """Return the method of the members at the temperature of the mixture."""
        return replace(self.member, temperature=self.temperature, tempering=self.tempering)

    @property
    def steps_per_chain(self) -> int:
        """Return the number of steps of each member."""
        return self.member.num_steps

    def num_draws_override(self, number: int) -> str:
        """Return the override for at least a number of draws per member.

        Args:
            number: draws per member.
        """
        return f"inference.member.num_draws={number}"

    def longer_fit_override(self) -> str:
        """Return the override that doubles the steps of the members."""
        return _of_member(self.member.longer_fit_override())

    def points_per_gradient(self, num_points: int) -> int:
        """Return the batch size of the members.

        Args:
            num_points: size of the training split.
        """
        return self.member.points_per_gradient(num_points)

    def check(self, dataset: Dataset) -> None:
        """Check the settings of the members, and that only the mixture has a temperature.

        Args:
            dataset: the data to fit.

        Raises:
            ConfigError: if they are not valid for these data.
        """
        for key in ("temperature", "tempering", "parameters"):
            own = getattr(self.member, key)
            if own not in (getattr(Method, key), getattr(self, key)):
                raise ConfigError(
                    f"inference.member.{key}={own} but inference.{key}={getattr(self, key)}: all "
                    f"members have the {key} of the mixture; set inference.{key}={own}"
                )
        with _member_errors():
            self.tempered_member.check(dataset)

    def _run(self, fit: FitContext) -> bool:
        states = run_method_chains(fit, self._run_member, self.num_members, self.chain_method)
        return len(states) < self.num_members or any(
            bool(state["stopped"]) for state in states.values()
        )

    def _run_member(self, fit: FitContext, start: Tensor, chain: int, callbacks: Callback) -> State:
        state, recorder = fit.fit_state.states.get(chain), HistoryRecorder()
        own = replace(
            fit,
            seed=member_seed(fit.seed, chain),
            initial=SamplePosterior.from_draws(fit.model, start[None, None], fit.dataset.scaling),
            callbacks=Callbacks([_MemberReports(chain, callbacks)]),
            recorder=recorder,
            fit_state=FitState() if state is None else FitState({0: state}),
        )
        try:
            with _member_errors():
                stopped = self.tempered_member._run(own)
        except FitDiverged as error:
            error.states = dict(zip([chain], error.states.values(), strict=False))
            error.args = (str(error).replace("of chain 0", f"of member {chain}"),)
            raise
        return {**recorder.fit_state().states[0], "stopped": np.asarray(stopped)}

    def convergence_warnings(
        self, fit: FitContext, fit_state: FitState, posterior: Posterior
    ) -> list[str]:
        """Return messages on the first five members that ended far from their optima.

        Args:
            fit: the arguments of the fit.
            fit_state: its final states and its history.
            posterior: its result.
        """
        assert isinstance(posterior, MixturePosterior)
        notes = []
        for (chain, own), component in zip(
            list(_states_of_members(fit_state))[:_CHECKED], posterior.components, strict=False
        ):
            member_fit = replace(fit, seed=member_seed(fit.seed, chain))
            notes += [
                f"member {chain}: {_of_member(note)}"
                for note in self.tempered_member.convergence_warnings(member_fit, own, component)
            ]
        return notes

    def _posterior(self, outcome: FitOutcome) -> Posterior:
        components = [
            self.tempered_member._posterior(
                replace(outcome, fit_state=own, seed=member_seed(outcome.seed, chain))
            )
            for chain, own in _states_of_members(outcome.fit_state)
        ]
        if not components:
            raise IncompatiblePosteriors(
                "the fit was stopped before the first state of a member was stored; fit it again"
            )
        # A member that was stopped in the middle may have a single draw.
        kept, _ = longest_rectangle([component.shape[1] for component in components])
        return outcome.build(MixturePosterior, components=[components[index] for index in kept])


def member_seed(seed: int, member: int) -> int:
    """Return the seed of a member.

    Args:
        seed: of the mixture.
        member: index of the member.
    """
    return key_seed(seed, "mixture member", member)


def _states_of_members(fit_state: FitState) -> Iterator[tuple[int, FitState]]:
    """Yield the state of each member, as its method stores it."""
    for chain, state in fit_state.states.items():
        rows = [{**row, "chain": 0} for row in fit_state.history if row["chain"] == chain]
        yield chain, FitState({0: state}, history=rows)


@dataclass(frozen=True)
class _MemberReports(Callback):
    """Forward the reports of a member with its index."""

    chain: int
    callbacks: Callback

    def on_history(self, row: Mapping[str, Any]) -> None:
        self.callbacks.on_history({**row, "chain": self.chain})

    def on_state(self, chain: int, state: Callable[[], State], *, essential: bool = False) -> None:
        self.callbacks.on_state(self.chain, state, essential=essential)

    def should_stop(self) -> bool:
        return self.callbacks.should_stop()


def _of_member(text: str) -> str:
    """Return a message of a member with the keys that its settings have in the mixture."""
    return re.sub(r"\binference\.", "inference.member.", text)


@contextmanager
def _member_errors() -> Iterator[None]:
    """Name the settings of members in errors as the configuration does."""
    try:
        yield
    except (ConfigError, FitDiverged) as error:
        error.args = (_of_member(str(error)),)
        raise
