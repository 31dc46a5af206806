"""Define posteriors as draws, in memory or in a file."""

from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

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
from bnn_symm.arguments import check_at_least, checked
from bnn_symm.data import Scaling
from bnn_symm.errors import ConfigError, IncompatiblePosteriors
from bnn_symm.models import BayesianModel
from bnn_symm.posteriors.external.external_draws import read_checkpoint
from bnn_symm.posteriors.external.name_mapping import NameMapping
from bnn_symm.posteriors.external.parameter_matching import Matching, match_names
from bnn_symm.posteriors.io.draw_log import DrawChunk
from bnn_symm.posteriors.lazy_draws import LazyDraws
from bnn_symm.posteriors.posterior import Posterior, check_length
from bnn_symm.randomness import numpy_generator
from bnn_symm.symmetry import Permutation


class SamplePosterior(Posterior):
    """Hold draws of the flat vector, (chain, draw, parameter).

    Draws come from HMC, NUTS, ensembles, a MAP estimate, or chains of other software.

    Args:
        model: the model.
        scaling: of the targets.
        positions: the draws, in memory or in a file.
        sample_stats: name -> (chain, draw), the sampler's statistics.
        info: provenance.
        history: one row per logged step.

    Raises:
        ConfigError: if `positions` is of another type.
        IncompatiblePosteriors: if there are no draws, or they do not fit the model.

    Example:
        >>> import torch
        >>> from bnn_symm import BayesianModel, Prior, SamplePosterior
        >>> from bnn_symm.likelihoods import Gaussian
        >>> model = BayesianModel(torch.nn.Linear(2, 1), Prior(), Gaussian(noise=0.1))
        >>> SamplePosterior.from_draws(model, torch.zeros(2, 5, 3)).shape
        (2, 5, 3)
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
        names: NameMapping | None = None,
        sample_stats: Mapping[str, np.ndarray] | None = None,
        info: Mapping[str, Any] | None = None,
        history: Sequence[Mapping[str, Any]] = (),
    ) -> "SamplePosterior":
        """Return a posterior from draws of other software.

        Names and shapes are paired with the parameters by `match_names`; `info["matching"]` records
        the pairs and the transposed axes.

        Args:
            model: the model of the draws.
            draws: a flat tensor, or name -> (chain, draw, *shape).
            scaling: of the targets; default none.
            names: parameter -> name of the array, or {name, transpose, flatten, transform}, where
                the names alone are ambiguous.
            sample_stats: name -> (chain, draw).
            info: provenance.
            history: one row per logged step.

        Returns:
            The posterior.

        Raises:
            ConfigError: if `names` lists unknown parameters or arrays.
            IncompatiblePosteriors: if a name is missing or unknown, a shape does not fit the model,
                or draws have NaN or infinite values.
        """
        if isinstance(draws, Mapping):
            matching = match_names(draws, model, names, strict=True)
            draws, info = matching.flatten(draws), _with_matching(info, matching)
        elif names is not None:
            raise ConfigError("names apply to draws by name; omit them for a flat tensor")
        if draws.dim() != 3:
            raise IncompatiblePosteriors(
                f"draws: got a tensor of shape {tuple(draws.shape)}, expected (chain, draw, "
                "parameter); for one chain, pass draws[None]"
            )
        draws = draws.to(model.dtype)
        return cls(
            model,
            scaling or Scaling.identity((1,)),
            positions=LazyDraws.from_tensor(draws),
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
        names: NameMapping | None = None,
        info: Mapping[str, Any] | None = None,
    ) -> "SamplePosterior":
        """Return an ensemble from ordinary checkpoints, one chain of one draw each.

        Buffers of the network in a checkpoint are ignored; the model has its own.
        `info["matching"]` records which array became which parameter.

        Args:
            model: the model of the checkpoints.
            states: state dicts, networks, or files of state dicts (`read_checkpoint`).
            scaling: of the targets; default none.
            names: as for `from_draws`.
            info: provenance.

        Returns:
            The ensemble.

        Raises:
            ConfigError: if `names` lists unknown parameters or arrays.
            InvalidRun: if a file cannot be read, or holds more than tensors.
            IncompatiblePosteriors: if names or shapes do not fit the model's network, if its fixed
                entries differ, or the likelihood has latent variables, which no checkpoint of a
                network holds.
        """
        if not states:
            raise IncompatiblePosteriors("got no checkpoints; an ensemble needs at least one")
        members: list[Tensor] = []
        provenance = dict(info or {})
        for index, state in enumerate(states):
            which = str(state) if isinstance(state, str | Path) else f"checkpoint {index}"
            content = read_checkpoint(state) if isinstance(state, str | Path) else state
            values = {
                name: value[None, None]
                for name, value in _parameters(content, model.net, which).items()
            }
            try:
                matching = match_names(values, model, names, strict=True)
                members.append(matching.flatten(values))
                provenance = _with_matching(info, matching)
            except IncompatiblePosteriors as error:
                raise IncompatiblePosteriors(f"{which}: {error}") from None
        return cls.from_draws(model, torch.cat(members), scaling, info=provenance)

    @property
    def positions(self) -> LazyDraws:
        """Return the draws, read from their file as far as they are used."""
        return self._positions

    def mean(self) -> Float[Tensor, " parameter"]:
        """Return the mean over chains and draws, accumulated in float64."""
        return self._moments[0].to(self.model.device, self.model.dtype)

    def standard_deviation(self) -> Float[Tensor, " parameter"]:
        """Return the standard deviation over pooled chains and draws; zero for a single draw."""
        return self._moments[1].to(self.model.device, self.model.dtype)

    @cached_property
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
        """Return all draws with the same permutation, applied when they are read."""
        return self.permute_chains([permutation] * self.shape[0])

    def permute_chains(
        self, permutations: Sequence[Permutation] | Sequence[Sequence[Permutation]]
    ) -> "SamplePosterior":
        """Return the draws with one permutation for every chain, or for every draw of every chain.

        Args:
            permutations: one per chain, or one per draw of every chain.

        Returns:
            The permuted posterior; draws are permuted when they are read.

        Raises:
            NotRepresentable: if one of them moves fixed entries of the network.
            IncompatiblePosteriors: if their number is not that of the chains or draws.
        """
        chains, draws, _ = self.shape
        lengths = [draws if isinstance(part, Permutation) else len(part) for part in permutations]
        if len(lengths) != chains or any(length != draws for length in lengths):
            raise IncompatiblePosteriors(
                f"got permutations for {lengths} draws of {len(lengths)} chains, expected one per "
                f"chain ({chains}), or one per draw ({draws} in each chain)"
            )
        positions = self.positions.map(partial(_permuted, self.model, permutations))
        every = [
            permutation
            for part in permutations
            for permutation in ([part] if isinstance(part, Permutation) else part)
        ]
        for permutation in every:
            self.model.check_representable(permutation)
        return SamplePosterior(
            self.model.permuted(*every),
            self.scaling,
            positions=positions,
            sample_stats=self.sample_stats,
            info=self.info,
            history=self.history,
        )

    def draws(
        self, num_samples: int | None = None, *, seed: int = 0
    ) -> Float[Tensor, "draw parameter"]:
        """Return a random subset without replacement, in random order.

        Args:
            num_samples: size of the subset; None for all draws in their order.
            seed: of the subset.

        Returns:
            One row per draw.

        Raises:
            ConfigError: if the posterior holds fewer draws, or less than one is requested.
        """
        chains, draws, _ = self.shape
        if num_samples is None:
            return torch.cat(list(self.iter_draws()))
        check_at_least("num_samples", num_samples, 1)
        if num_samples > chains * draws:
            raise ConfigError(
                f"got num_samples={num_samples}, but the posterior holds {chains * draws} draws; "
                "request at most that many"
            )
        chosen = numpy_generator(seed, "subset of draws").choice(
            chains * draws, num_samples, replace=False
        )
        return torch.cat(
            [self.read(int(i) // draws, int(i) % draws, int(i) % draws + 1) for i in chosen]
        ).to(self.model.device)


def longest_rectangle(lengths: Sequence[int]) -> tuple[list[int], int]:
    """Return the chains of unequal lengths whose common rectangle has the most draws.

    Of all choices of the longest k chains, it is the one with the most draws.

    Args:
        lengths: draws of each chain, at least one chain.

    Returns:
        The indices of the chains, in ascending order, and the length of the shortest of them.
    """
    order = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
    best = max(range(1, len(order) + 1), key=lambda k: k * lengths[order[k - 1]])
    return sorted(order[:best]), lengths[order[best - 1]]


def stack_chains(
    model: BayesianModel, scaling: Scaling, chains: Mapping[int, DrawChunk], **keywords: Any
) -> SamplePosterior:
    """Return a posterior from the draws of several chains.

    Draws in a `DrawLog` stay there; their statistics are read. Chains of unequal length (the
    sampler was interrupted) are cut by `longest_rectangle`.

    Args:
        model: the model.
        scaling: of the targets.
        chains: chain -> its draws.
        keywords: other arguments of `SamplePosterior`.

    Returns:
        The posterior.

    Raises:
        IncompatiblePosteriors: if there are no draws.
    """
    chunks = [chains[chain] for chain in sorted(chains)]
    if not any(len(chunk.positions) for chunk in chunks):
        raise IncompatiblePosteriors("the chains have no draws yet")
    numbers, length = longest_rectangle([len(chunk.positions) for chunk in chunks])
    kept = [chunks[number] for number in numbers]
    positions = LazyDraws.stack([chunk.lazy_draws(model.dtype) for chunk in kept])
    stats = {
        name: np.stack([np.asarray(chunk.stats[name][:length]) for chunk in kept])
        for name in kept[0].stats
    }
    return SamplePosterior(model, scaling, positions=positions, sample_stats=stats, **keywords)


def _permuted(
    model: BayesianModel,
    permutations: Sequence[Permutation] | Sequence[Sequence[Permutation]],
    chain: int,
    start: int,
    draws: Tensor,
) -> Tensor:
    """Return consecutive draws of one chain, permuted."""
    draws, of_chain = draws.to(model.device), permutations[chain]
    if isinstance(of_chain, Permutation):
        return model.permute(draws, of_chain)
    pairs = zip(draws, of_chain[start : start + len(draws)], strict=True)
    return torch.stack([model.permute(draw, permutation) for draw, permutation in pairs])


def _with_matching(info: Mapping[str, Any] | None, matching: Matching) -> dict[str, Any]:
    """Return `info` with a record of which array became which parameter."""
    return {**(info or {}), "matching": matching.rows()}


def _parameters(
    state: Mapping[str, Tensor] | nn.Module, net: nn.Module, which: str
) -> dict[str, Tensor]:
    """Return the parameters of a checkpoint, after a check of its fixed entries."""
    if isinstance(state, nn.Module):
        state = {**dict(state.named_parameters()), **dict(state.named_buffers())}
    expected = fixed_buffers(net)
    got = {**expected, **{name: state[name] for name in expected if name in state}}
    if expected and fingerprint_of(got) != fingerprint(net):
        raise IncompatiblePosteriors(
            f"{which} has the fingerprint {short_fingerprint(fingerprint_of(got))}, the network "
            f"{short_fingerprint(fingerprint(net))}: their fixed entries differ; build the network "
            "with the architecture.symmetry of the checkpoint, its seed included"
        )
    buffers = dict(net.named_buffers())
    differs = constants_differ(state, net)
    if differs is not None:
        raise IncompatiblePosteriors(
            f"{which} has other values of {differs}, which is constant in the model (a buffer or a "
            "frozen parameter); build the model from this network, or load the checkpoint into it "
            "first"
        )
    return {name: value for name, value in state.items() if name not in buffers}


def check_shapes(got: Mapping[str, tuple[int, ...]], model: BayesianModel) -> None:
    """Refuse names and shapes that are not the model's.

    Args:
        got: name -> shape.
        model: the model.

    Raises:
        IncompatiblePosteriors: if they differ; the message lists the first five differences.
    """
    expected = {name: tuple(shape) for name, shape in model.shapes.items()}
    problems = [f"{name} is missing" for name in expected if name not in got]
    problems += [f"{name} is unknown" for name in got if name not in expected]
    problems += [
        f"{name} has shape {got[name]}, expected {expected[name]}"
        for name in expected
        if name in got and got[name] != expected[name]
    ]
    if problems:
        raise IncompatiblePosteriors("the draws do not fit the network: " + "; ".join(problems[:5]))
