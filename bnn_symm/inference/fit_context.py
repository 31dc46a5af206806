"""What a method gets and returns: the arguments of a fit, its initial positions and its outcome."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from bnn_symm.data import Dataset, Scaling
from bnn_symm.errors import ConfigError, IncompatiblePosteriors
from bnn_symm.inference.callbacks import Callback, Callbacks, FitState, HistoryRecorder, State
from bnn_symm.inference.parallel.independent_chains import ChainMethod, run_chains
from bnn_symm.inference.parallel.process_group import ProcessGroup
from bnn_symm.models import BayesianModel
from bnn_symm.posteriors import DrawChunk, LazyDraws, Posterior, SamplePosterior, stack_chains
from bnn_symm.randomness import key_seed

_AnyPosterior = TypeVar("_AnyPosterior", bound=Posterior)


@dataclass(frozen=True, kw_only=True)
class FitContext:
    """The validated arguments of one call of `Method.fit`.

    Attributes:
        model: the model to fit.
        dataset: the data, with this process's share of the training split.
        seed: all randomness derives from it.
        initial: the posterior to start from, if any.
        callbacks: all callbacks, the recorder included.
        recorder: receives the final state of each chain.
        fit_state: the state to resume from; empty for a new fit.
        group: the processes that share the training split.
    """

    model: BayesianModel
    dataset: Dataset
    seed: int
    initial: Posterior | None
    callbacks: Callbacks
    recorder: HistoryRecorder
    fit_state: FitState
    group: ProcessGroup


@dataclass(frozen=True)
class FitOutcome:
    """The state of a fit, complete or not, from which its posterior is built.

    Attributes:
        model: the model of the fit.
        scaling: the scaling of its data.
        fit_state: the states, draws and history.
        seed: the seed of the fit.
        info: of the posterior.
    """

    model: BayesianModel
    scaling: Scaling
    fit_state: FitState
    seed: int
    info: dict[str, Any]

    def state(self) -> State:
        """Return the state of a fit with a single chain.

        Raises:
            IncompatiblePosteriors: if there is none.
        """
        if 0 not in self.fit_state.states:
            raise IncompatiblePosteriors(
                "the fit was stopped before its first state was stored; fit it again"
            )
        return self.fit_state.states[0]

    def tensor(self, name: str) -> Tensor:
        """Return an array of that state, on the device of the model.

        Args:
            name: its name.
        """
        return torch.from_numpy(self.state()[name]).to(self.model.device)

    def build(self, kind: Callable[..., _AnyPosterior], **arguments: Any) -> _AnyPosterior:
        """Return a posterior of the model.

        Args:
            kind: its class.
            arguments: further arguments of the class.
        """
        keywords = {"info": self.info, "history": self.fit_state.history, **arguments}
        return kind(self.model, self.scaling, **keywords)

    def from_function(self, draw: Callable[[int], Tensor], num_draws: int) -> SamplePosterior:
        """Return a posterior whose draws are computed from their index.

        Args:
            draw: index -> flat vector.
            num_draws: number of draws.
        """
        draws = LazyDraws.from_function(draw, num_draws, self.model.num_parameters)
        return self.build(SamplePosterior, positions=draws)

    def last_positions(self) -> SamplePosterior:
        """Return a posterior with one chain of one draw for the `position` of every state."""
        states = self.fit_state.states.items()
        chunks = {
            chain: DrawChunk(chain, 0, state["position"][None], {}) for chain, state in states
        }
        return self.build(stack_chains, chains=chunks)


def initial_position(fit: FitContext) -> Float[Tensor, " parameter"]:
    """Return the initial position of a single chain: a draw of `initial`, or the network's values.

    Args:
        fit: the arguments of the fit.
    """
    if fit.initial is None:
        return fit.model.initial()
    (start,) = initial_positions(fit.model, fit.initial, 1, fit.seed)
    return start


def initial_positions(
    model: BayesianModel, initial: Posterior | None, number: int, seed: int
) -> list[Float[Tensor, " parameter"]]:
    """Return initial positions of independent chains or ensemble members.

    With an `initial` posterior of equally many chains (two or more), each starts at the last draw
    of the corresponding chain. With any other, they start at random draws. Without one, they start
    at new random initial values of the network.

    Args:
        model: the model.
        initial: the posterior to start from, if any.
        number: chains or members.
        seed: all randomness derives from it.

    Raises:
        ConfigError: if the posterior has fewer draws than needed.
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
            f"the initial posterior has {chains * draws} draws, expected at least {number}, one "
            "per chain; lower inference.num_chains (or inference.num_members of an ensemble)"
        )
    return list(initial.draws(number, seed=key_seed(seed, "initial draw")).to(**where))


def run_method_chains(
    fit: FitContext,
    run_chain: Callable[[FitContext, Tensor, int, Callback], State],
    number: int,
    chain_method: ChainMethod,
) -> dict[int, State]:
    """Run independent chains or ensemble members, and record their final states.

    Args:
        fit: the arguments of the fit.
        run_chain: runs one chain, also in a worker process: (fit, initial position, index of the
            chain, receiver of its reports) -> final state. Its `fit` has no callbacks.
        number: number of chains.
        chain_method: one after another, or in parallel processes.

    Returns:
        The final state of each chain that was started.
    """
    starts = initial_positions(fit.model, fit.initial, number, fit.seed)
    sent = replace(fit, initial=None, callbacks=Callbacks(), recorder=HistoryRecorder())
    states = run_chains(
        _ChainTask(run_chain, sent, starts), range(number), fit.callbacks, chain_method
    )
    for chain, state in states.items():
        fit.recorder.keep_state(chain, state)
    return states


@dataclass(frozen=True)
class _ChainTask:
    """The task of running one chain, which is sent to worker processes."""

    run_chain: Callable[[FitContext, Tensor, int, Callback], State]
    fit: FitContext
    starts: list[Tensor]

    def __call__(self, chain: int, callbacks: Callback) -> State:
        return self.run_chain(self.fit, self.starts[chain], chain, callbacks)
