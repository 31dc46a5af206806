"""Transport the masks of iterative pruning to another network through a permutation.

The masks of one run are permuted by the permutation that aligns its networks to those of another
run. If the networks of both seeds differ by this permutation, as far as their sparsity is
concerned, the other network trains with the permuted mask as well as with its own (Sharma et al.
2024, arXiv:2404.06498). Controls are the mask without the permutation, and a random mask with as
many weights in each tensor.
"""

from collections.abc import Sequence
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
        level: level of the mask.
        weights_left: fraction of the weights that are left.
        mask: `own`: of the network itself; `transported`: of the other run, permuted;
            `untransported`: the same without the permutation; `random`: with as many weights in
            each tensor as the transported one.
        overlap: fraction of the weights in this mask that are in the network's own one too.
        nll: test NLL, in nats per point.
        error: test error.
    """

    level: int
    weights_left: float
    mask: MaskKind
    overlap: float
    nll: float
    error: float


def transport_masks(
    source: Run,
    target: Run,
    *,
    levels: Sequence[int] = (),
    point: str = "first",
    matching: Matching = "w2",
    seed: int = 0,
) -> list[MaskScore]:
    """Train the networks of a run with masks of another one, and compare test scores.

    Args:
        source: a run of iterative pruning, whose masks are transported.
        target: a run of the same settings with another seed, whose rewound weights are trained.
        levels: levels of the masks, from 1; all by default. Each takes three fits.
        point: the level whose networks are aligned: `first`, before any pruning; `last`; `joint`
            for all levels together; or the step of the end of a level.
        matching: the matching cost, `w2` or `means`.
        seed: of the alignment and the random masks.

    Returns:
        One row for every level and mask, with that of the level itself first.

    Raises:
        ConfigError: if a run is not one of iterative pruning or is derived from one, the settings
            of the runs differ, or there is no such level.

    Example:
        >>> import pandas
        >>> from bnn_symm import load_run
        >>> runs = load_run("runs/p0"), load_run("runs/p1")  # doctest: +SKIP
        >>> rows = [row.to_dict() for row in transport_masks(*runs)]  # doctest: +SKIP
        >>> pandas.DataFrame(rows).pivot(index="level", columns="mask")  # doctest: +SKIP
    """
    method = _method(source, target)
    sequence, masks = sequence_of(target), sequence_of(source).posteriors
    chosen = levels or range(1, method.num_levels + 1)
    for level in chosen:
        if not 1 <= level < len(masks):
            raise ConfigError(f"levels: got {level}, expected levels from 1 to {len(masks) - 1}")
    (alignment,) = align_run_sequences(target, [source], point=point, matching=matching, seed=seed)
    states = target.directory.kept_states()
    rewind = torch.from_numpy(next(iter(states.values()))[0]["rewind"]).to(target.model.device)
    dataset, rows = target.dataset(), []
    with use_threads(target.threads):
        for level in chosen:
            network, other = sequence.posteriors[level], weights_left(masks[level])
            candidates: dict[MaskKind, Tensor] = {"own": weights_left(network)}
            moved = permuted_mask(target.model, other, alignment.permutation)
            candidates |= {"transported": moved, "untransported": other}
            candidates["random"] = random_mask(
                target.model, moved, seed=key_seed(seed, "random mask", level)
            )
            for kind, mask in candidates.items():
                trained = (
                    network
                    if kind == "own"
                    else method.fit_mask(
                        target.model, dataset, seed=target.config.seed, rewind=rewind, mask=mask
                    )
                )
                rows.append(_score(level, kind, mask, candidates["own"], trained, dataset))
    return rows


def _method(source: Run, target: Run) -> IterativePruning:
    """Return the method of both runs."""
    method = target.config.inference
    for run in (source, target):
        if not isinstance(run.config.inference, IterativePruning):
            name = advise_setting("inference.name=iterative_pruning")
            raise ConfigError(
                f"{run.path} was fitted by {run.config.inference.name} and has no masks; fit it "
                f"with {name}"
            )
    if source.config.inference != method:
        raise ConfigError(
            f"{source.path} and {target.path} have different settings of iterative_pruning; fit "
            "both with the same, and different seeds"
        )
    if "derived" in target.record:
        raise ConfigError(
            f"{target.path} was derived from another run and has no weights to rewind to; name "
            "the run that was fitted"
        )
    assert isinstance(method, IterativePruning)
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
    level: int, kind: MaskKind, mask: Tensor, own: Tensor, trained: Posterior, dataset: Dataset
) -> MaskScore:
    """Return the row of a trained network."""
    weights = prunable_weights(trained.model)
    found = losses(trained, trained.mean()[None], dataset.test)
    left = mask & weights
    return MaskScore(
        level=level,
        weights_left=float(mask[weights].double().mean()),
        mask=kind,
        overlap=float((left & own).sum() / left.sum()),
        nll=found.marginal_nll,
        error=found.error,
    )
