"""Transport the masks of iterative pruning to another network through a permutation.

The masks of one run, the source, are permuted by the permutation that aligns its networks to those
of another run, the target. If the networks of both seeds differ by this permutation, as far as
their sparsity is concerned, the target trains with the permuted mask as well as with its own
(Sharma et al. 2024, arXiv:2404.06498). Controls are the mask without the permutation, and a random
mask with as many weights in each tensor.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Bool
from torch import Tensor

from bnn_symm.advice import advise_setting
from bnn_symm.alignment import Matching
from bnn_symm.analyses.sequences import align_run_sequences, sequence_of
from bnn_symm.data import Dataset
from bnn_symm.diagnostics.barriers.interpolation import losses
from bnn_symm.errors import ConfigError
from bnn_symm.inference import IterativePruning
from bnn_symm.inference.optimization.iterative_pruning import prunable_weights, weights_left
from bnn_symm.models import BayesianModel
from bnn_symm.posteriors import Posterior
from bnn_symm.randomness import key_seed, torch_generator
from bnn_symm.runs.run import Run
from bnn_symm.summaries import Result
from bnn_symm.symmetry import Permutation
from bnn_symm.threads import use_threads

MaskKind = Literal["own", "transported", "untransported", "random"]
KINDS: tuple[MaskKind, ...] = get_args(MaskKind)


@dataclass(frozen=True, kw_only=True)
class MaskScore(Result):
    """Hold the test scores of a network that was trained with a mask.

    Attributes:
        source: path of the run whose masks are transported.
        level: level of the mask.
        weights_left: fraction of the weights that are left.
        mask: `own`: of the network itself; `transported`: of the source, permuted;
            `untransported`: the same without the permutation; `random`: with as many weights in
            each tensor as the transported one.
        overlap: fraction of the weights in this mask that are in the network's own one too.
        nll: test NLL, in nats per point.
        error: test error rate, or root mean squared error.
    """

    source: str
    level: int
    weights_left: float
    mask: MaskKind
    overlap: float
    nll: float
    error: float


def transport_masks(
    target: Run,
    sources: Sequence[Run],
    *,
    levels: Sequence[int] = (),
    point: str = "first",
    matching: Matching = "w2",
    seed: int = 0,
    on_score: Callable[[MaskScore], object] | None = None,
) -> list[MaskScore]:
    """Train the networks of a run with masks of other runs, and compare test scores.

    Args:
        target: a run of iterative pruning, whose rewound weights are trained.
        sources: runs of the same settings with other seeds, whose masks are transported.
        levels: levels of the masks, from 1; all by default. Each takes three fits for each source.
        point: the level whose networks are aligned: `first`, before any pruning; `last`; `joint`
            for all levels together; or the step of the end of a level.
        matching: the matching cost, `w2` or `means`.
        seed: of the alignment and the random masks.
        on_score: is called with each row as soon as its network is trained.

    Returns:
        One row for every source, level and mask, with that of the level itself first.

    Raises:
        ConfigError: if a run is not one of iterative pruning, the target is derived from one, the
            settings of the runs differ, or there is no such level. Nothing is trained then.

    Example:
        >>> import pandas
        >>> from bnn_symm import load_run
        >>> target, source = load_run("runs/p0"), load_run("runs/p1")  # doctest: +SKIP
        >>> rows = [row.to_dict() for row in transport_masks(target, [source])]  # doctest: +SKIP
        >>> pandas.DataFrame(rows).pivot(index="level", columns="mask")  # doctest: +SKIP
    """
    method = check_transport(target, sources, levels)
    alignments = align_run_sequences(target, sources, point=point, matching=matching, seed=seed)
    sequence, dataset = sequence_of(target).posteriors, target.dataset()
    states = target.directory.kept_states()
    rewind = torch.from_numpy(next(iter(states.values()))[0]["rewind"]).to(target.model.device)
    rows = []
    with use_threads(target.threads):
        for source, alignment in zip(sources, alignments, strict=True):
            masks = sequence_of(source).posteriors
            for level in levels or range(1, method.num_levels + 1):
                own, other = weights_left(sequence[level]), weights_left(masks[level])
                moved = permuted_mask(target.model, other, alignment.permutation)
                random_seed = key_seed(seed, "random mask", level)
                candidates: dict[MaskKind, Tensor] = {
                    "own": own,
                    "transported": moved,
                    "untransported": other,
                    "random": random_mask(target.model, moved, seed=random_seed),
                }
                for kind, mask in candidates.items():
                    trained = (
                        sequence[level]
                        if kind == "own"
                        else method.fit_mask(
                            target.model, dataset, seed=target.config.seed, rewind=rewind, mask=mask
                        )
                    )
                    row = _score(str(source.path), level, kind, mask, own, trained, dataset)
                    rows.append(row)
                    if on_score is not None:
                        on_score(row)
    return rows


def check_transport(
    target: Run, sources: Sequence[Run], levels: Sequence[int] = ()
) -> IterativePruning:
    """Refuse runs between which masks cannot be transported.

    Args:
        target: as for `transport_masks`.
        sources: as for `transport_masks`.
        levels: as for `transport_masks`.

    Returns:
        The method of all runs.

    Raises:
        ConfigError: as `transport_masks`.
    """
    method = target.config.inference
    for run in (target, *sources):
        if not isinstance(run.config.inference, IterativePruning):
            name = advise_setting("inference.name=iterative_pruning")
            raise ConfigError(
                f"{run.path} was fitted by {run.config.inference.name} and has no masks; fit it "
                f"with {name}"
            )
        if run.config.inference != method:
            raise ConfigError(
                f"{run.path} and {target.path} have different settings of iterative_pruning; fit "
                "both with the same, and different seeds"
            )
    if "derived" in target.record:
        raise ConfigError(
            f"{target.path} was derived from another run and has no weights to rewind to; name "
            "the run that was fitted"
        )
    assert isinstance(method, IterativePruning)
    for level in levels:
        if not 1 <= level <= method.num_levels:
            raise ConfigError(f"levels: got {level}, expected levels from 1 to {method.num_levels}")
    return method


def permuted_mask(
    model: BayesianModel, mask: Bool[Tensor, " parameter"], permutation: Permutation
) -> Bool[Tensor, " parameter"]:
    """Return a mask whose units are permuted; signs do not matter.

    Args:
        model: the model.
        mask: which entries of the flat vector are left.
        permutation: of the spec of its network.
    """
    return model.permute(mask.to(model.dtype), permutation.unsigned()).bool()


def random_mask(
    model: BayesianModel, mask: Bool[Tensor, " parameter"], *, seed: int
) -> Bool[Tensor, " parameter"]:
    """Return a random mask with as many weights in each tensor.

    Args:
        model: the model.
        mask: which entries of the flat vector are left.
        seed: of the mask.
    """
    shuffled = {}
    weights = model.unflatten(prunable_weights(model))
    for name, own in model.unflatten(mask).items():
        generator = torch_generator(seed, "order of the weights", name)
        order = torch.randperm(own.numel(), generator=generator).to(own.device)
        is_pruned = bool(weights[name].any())
        shuffled[name] = own.flatten()[order].reshape(own.shape) if is_pruned else own
    return model.flatten(shuffled)


def _score(
    source: str,
    level: int,
    kind: MaskKind,
    mask: Tensor,
    own: Tensor,
    trained: Posterior,
    dataset: Dataset,
) -> MaskScore:
    """Return the row of a trained network."""
    weights = prunable_weights(trained.model)
    found = losses(trained, trained.mean()[None], dataset.test)
    left = mask & weights
    return MaskScore(
        source=source,
        level=level,
        weights_left=float(mask[weights].double().mean()),
        mask=kind,
        overlap=float((left & own).sum() / left.sum()),
        nll=found.marginal_nll,
        error=found.error,
    )
