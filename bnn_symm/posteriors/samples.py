"""Posteriors as draws, in memory or in a file."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from bnn_symm.architectures import (
    constants_differ,
    fingerprint,
    fingerprint_of,
    fixed_buffers,
    short_fingerprint,
)
from bnn_symm.arguments import checked
from bnn_symm.data import Scaling
from bnn_symm.errors import ConfigError, IncompatiblePosteriors
from bnn_symm.models import BayesianModel
from bnn_symm.posteriors.external.external_draws import read_checkpoint
from bnn_symm.posteriors.external.name_mapping import Names
from bnn_symm.posteriors.external.parameter_matching import Matching, match_names
from bnn_symm.posteriors.posterior import Posterior, check_length
from bnn_symm.randomness import numpy_generator
from bnn_symm.symmetry import Permutation


@runtime_checkable
class LazyDraws(Protocol):
    """Where the draws of a `SamplePosterior` lie: in memory or in a file."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(chain, draw, parameter)."""
        ...

    def read(self, chain: int, start: int, stop: int) -> Float[Tensor, "draw parameter"]:
        """Draws [start, stop) of one chain."""
        ...


class ArrayDraws:
    """Draws in memory, (chain, draw, parameter)."""

    def __init__(self, draws: Float[Tensor, "chain draw parameter"]):
        self._draws = draws

    @property
    def shape(self) -> tuple[int, int, int]:
        """(chain, draw, parameter)."""
        chains, draws, parameters = self._draws.shape
        return chains, draws, parameters

    def read(self, chain: int, start: int, stop: int) -> Float[Tensor, "draw parameter"]:
        """A view."""
        return self._draws[chain, start:stop]


class PermutedDraws:
    """Draws with the hidden units of their network permuted, when they are read.

    Args:
        base: the draws as they were.
        model: of the draws.
        permutations: one a chain, or one a draw of every chain.
    """

    def __init__(
        self,
        base: LazyDraws,
        model: BayesianModel,
        permutations: Sequence[Permutation] | Sequence[Sequence[Permutation]],
    ):
        self._base, self._model, self._permutations = base, model, permutations

    @property
    def shape(self) -> tuple[int, int, int]:
        """(chain, draw, parameter)."""
        return self._base.shape

    def read(self, chain: int, start: int, stop: int) -> Float[Tensor, "draw parameter"]:
        """Draws [start, stop) of one chain, permuted."""
        draws = self._base.read(chain, start, stop).to(self._model.device)
        own = self._permutations[chain]
        if isinstance(own, Permutation):
            return self._model.permute(draws, own)
        pairs = zip(draws, own[start:stop], strict=True)
        return torch.stack([self._model.permute(draw, permutation) for draw, permutation in pairs])


class SamplePosterior(Posterior):
    """Draws of the flat vector, (chain, draw, parameter): HMC, NUTS, ensembles, a MAP point, or
    chains of others.

    Args:
        model: the model.
        scaling: of the targets.
        positions: where the draws lie.
        sample_stats: name -> (chain, draw), what the sampler says of each draw.
        info: how it was made.
        history: one row a logged step.
    """

    kind = "samples"

    @checked
    def __init__(
        self,
        model: BayesianModel,
        scaling: Scaling,
        *,
        positions: LazyDraws,
        sample_stats: Mapping[str, np.ndarray] | None = None,
        info: Mapping[str, Any] | None = None,
        history: Sequence[Mapping[str, Any]] = (),
    ):
        if not hasattr(positions, "read"):
            raise ConfigError(
                f"positions: got an object of type {type(positions).__name__}, expected draws that "
                f"can be read; make the posterior with SamplePosterior.from_draws(model, draws)"
            )
        super().__init__(model, scaling, info=info, history=history)
        check_length(model, positions.shape[-1])
        if 0 in positions.shape[:2]:
            raise IncompatiblePosteriors(f"no draws: chains x draws is {positions.shape[:2]}")
        self._positions = positions
        self.sample_stats = dict(sample_stats or {})

    @classmethod
    @checked
    def from_draws(
        cls,
        model: BayesianModel,
        draws: Float[Tensor, "chain draw parameter"] | Mapping[str, Tensor | np.ndarray],
        scaling: Scaling | None = None,
        *,
        names: Names | None = None,
        sample_stats: Mapping[str, np.ndarray] | None = None,
        info: Mapping[str, Any] | None = None,
        history: Sequence[Mapping[str, Any]] = (),
    ) -> "SamplePosterior":
        """A posterior from draws made elsewhere: a flat tensor, or name -> (chain, draw, *shape).

        Names and shapes of other software are paired with the parameters by `match_names`;
        `info["matching"]` says what was paired with what, and what was turned.

        Args:
            model: whose network they are of.
            draws: flat, or by name.
            scaling: of the targets; default none.
            names: parameter -> name of theirs, or {name, transpose, flatten, transform}, where
                names do not say it.
            sample_stats: name -> (chain, draw).
            info: how they were made.
            history: one row a logged step.

        Raises:
            ConfigError: if `names` names what is not there.
            IncompatiblePosteriors: if a name is missing or unknown, or a shape does not fit the
                model.
            ConfigError: if draws have NaN or infinite values.
        """
        if isinstance(draws, Mapping):
            matching = match_names(draws, model, names, strict=True)
            draws, info = matching.flatten(draws), _with_matching(info, matching)
        elif names is not None:
            raise ConfigError("names are for draws by name; a flat tensor has none: leave them out")
        if draws.dim() != 3:
            raise IncompatiblePosteriors(
                f"draws: got a tensor of shape {tuple(draws.shape)}, expected (chain, draw, "
                "parameter); for one chain, "
                f"draws[None]"
            )
        draws = draws.to(model.dtype)
        return cls(
            model,
            scaling or Scaling.identity((1,)),
            positions=ArrayDraws(draws),
            sample_stats=sample_stats,
            info=info,
            history=history,
        )

    @classmethod
    @checked
    def from_state_dicts(
        cls,
        model: BayesianModel,
        states: Sequence[Mapping[str, Tensor] | nn.Module | str | Path],
        scaling: Scaling | None = None,
        *,
        names: Names | None = None,
        info: Mapping[str, Any] | None = None,
    ) -> "SamplePosterior":
        """An ensemble from ordinary checkpoints, one chain of one draw each.

        Buffers of the network that a checkpoint holds are left out; the model has its own.
        `info["matching"]` says what was paired with what.

        Args:
            model: whose network they are of.
            states: state dicts, networks, or files of state dicts (`foreign.read_checkpoint`).
            scaling: of the targets; default none.
            names: as for `from_draws`.
            info: how they were made.

        Raises:
            ConfigError: if `names` names what is not there.
            InvalidRun: if a file cannot be read, or holds more than tensors.
            IncompatiblePosteriors: if names or shapes do not fit the model's network, if it fixes
                other entries of its weights or at other values, or the likelihood has latent
                variables, which no checkpoint of a network holds.
        """
        if not states:
            raise IncompatiblePosteriors("no checkpoints: an ensemble needs at least one")
        members: list[Tensor] = []
        known = dict(info or {})
        for index, state in enumerate(states):
            which = str(state) if isinstance(state, str | Path) else f"checkpoint {index}"
            own = read_checkpoint(state) if isinstance(state, str | Path) else state
            values = {
                name: value[None, None]
                for name, value in _parameters(own, model.net, which).items()
            }
            try:
                matching = match_names(values, model, names, strict=True)
                members.append(matching.flatten(values))
                known = _with_matching(info, matching)
            except IncompatiblePosteriors as error:
                raise IncompatiblePosteriors(f"{which}: {error}") from None
        return cls.from_draws(model, torch.cat(members), scaling, info=known)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(chain, draw, parameter)."""
        return self._positions.shape

    def read(self, chain: int, start: int, stop: int) -> Float[Tensor, "draw parameter"]:
        """Return draws [start, stop) of one chain."""
        return self._positions.read(chain, start, stop)

    def mean(self) -> Float[Tensor, " parameter"]:
        """Mean over chains and draws, accumulated in float64."""
        return self._moments()[0].to(self.model.device, self.model.dtype)

    def standard_deviation(self) -> Float[Tensor, " parameter"]:
        """Over chains and draws pooled; zero for a single draw."""
        return self._moments()[1].to(self.model.device, self.model.dtype)

    def _moments(self) -> tuple[Tensor, Tensor]:
        chains, draws, parameters = self.shape
        mean = torch.zeros(parameters, dtype=torch.float64)
        for chunk in self.iter_draws():
            mean += chunk.double().sum(0).cpu() / (chains * draws)
        square = torch.zeros_like(mean)
        for chunk in self.iter_draws():
            square += (chunk.double().cpu() - mean).square().sum(0)
        return mean, (square / max(1, chains * draws - 1)).sqrt()

    def permute(self, permutation: Permutation) -> "SamplePosterior":
        """All draws with the hidden units of their network permuted alike; they are permuted when
        they are read.

        Raises:
            NotRepresentable: if the permutation moves what is fixed of the network.
        """
        return self.permute_chains([permutation] * self.shape[0])

    def permute_chains(
        self, permutations: Sequence[Permutation] | Sequence[Sequence[Permutation]]
    ) -> "SamplePosterior":
        """The same with a permutation of its own for every chain, or for every draw of every chain.

        Raises:
            NotRepresentable: if one moves what is fixed of the network.
            IncompatiblePosteriors: if there are not as many as chains, or as draws.
        """
        chains, draws, _ = self.shape
        lengths = [draws if isinstance(own, Permutation) else len(own) for own in permutations]
        if len(lengths) != chains or any(length != draws for length in lengths):
            raise IncompatiblePosteriors(
                f"got permutations for {lengths} draws of {len(lengths)} chains, wanted one for "
                f"each of {chains} chains, or for each of their {draws} draws"
            )
        positions = PermutedDraws(self._positions, self.model, permutations)
        for own in permutations:
            for permutation in [own] if isinstance(own, Permutation) else own:
                self.model.check_representable(permutation)
        return SamplePosterior(
            self.model,
            self.scaling,
            positions=positions,
            sample_stats=self.sample_stats,
            info=self.info,
            history=self.history,
        )

    def draws(
        self, num_samples: int | None = None, *, seed: int = 0
    ) -> Float[Tensor, "draw parameter"]:
        """A random subset without replacement, in random order; all draws in their order for
        None.
        """
        chains, draws, _ = self.shape
        if num_samples is None:
            return torch.cat(list(self.iter_draws()))
        if num_samples > chains * draws:
            raise ConfigError(
                f"{num_samples} draws were asked for, the posterior holds {chains * draws}; ask "
                "for at most that"
            )
        chosen = numpy_generator(seed, "subset of draws").choice(
            chains * draws, num_samples, replace=False
        )
        return torch.cat(
            [self.read(int(i) // draws, int(i) % draws, int(i) % draws + 1) for i in chosen]
        ).to(self.model.device)


def _with_matching(info: Mapping[str, Any] | None, matching: Matching) -> dict[str, Any]:
    """What is known of draws, and which of theirs is which parameter."""
    return {**(info or {}), "matching": matching.rows()}


def _parameters(
    state: Mapping[str, Tensor] | nn.Module, net: nn.Module, which: str
) -> dict[str, Tensor]:
    """The parameters in a checkpoint, after a look at what is fixed at random."""
    if isinstance(state, nn.Module):
        state = {**dict(state.named_parameters()), **dict(state.named_buffers())}
    wanted = fixed_buffers(net)
    got = {**wanted, **{name: state[name] for name in wanted if name in state}}
    if wanted and fingerprint_of(got) != fingerprint(net):
        raise IncompatiblePosteriors(
            f"{which} has the fingerprint {short_fingerprint(fingerprint_of(got))}, the network "
            f"{short_fingerprint(fingerprint(net))}: what is fixed of their weights differs; build "
            "the network with "
            f"the architecture.symmetry of the checkpoint, its seed included"
        )
    buffers = dict(net.named_buffers())
    differs = constants_differ(state, net)
    if differs is not None:
        raise IncompatiblePosteriors(
            f"{which} has other values of {differs}, which the model holds constant (a buffer or a "
            "frozen parameter); "
            f"make the model from this network, or load the checkpoint into it first"
        )
    return {name: value for name, value in state.items() if name not in buffers}


def check_shapes(got: Mapping[str, tuple[int, ...]], model: BayesianModel) -> None:
    """Raises IncompatiblePosteriors, naming what does not fit, unless names and shapes are the
    model's.
    """
    wanted = {name: tuple(shape) for name, shape in model.shapes.items()}
    problems = [f"{name} is missing" for name in wanted if name not in got]
    problems += [f"{name} is unknown" for name in got if name not in wanted]
    problems += [
        f"{name} has shape {got[name]}, wanted {wanted[name]}"
        for name in wanted
        if name in got and got[name] != wanted[name]
    ]
    if problems:
        raise IncompatiblePosteriors("the draws do not fit the network: " + "; ".join(problems[:5]))
