"""Match hidden units by the correlation of their activations on given inputs.

Activations of a group are the inputs of the first layer that reads its units. Each is averaged over
draws of its posterior, centered and scaled over inputs (and positions of maps); each group is one
assignment, independent of all others.

References:
    Li et al. (2016), Convergent Learning, arXiv:1511.07543; Ainsworth et al. (2023),
    arXiv:2209.04836, section 3.1.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call

from bnn_symm.alignment.solvers.assignment import assign, movable_groups
from bnn_symm.alignment.solvers.gains import Gain
from bnn_symm.posteriors import Posterior
from bnn_symm.symmetry import Permutation, PermutationSpec, Segment, SymmetryGroup

_DRAWS = 10
_POINTS = 1000
_READERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


def activation_alignment(
    reference: Posterior, other: Posterior, x: Float[Tensor, "point *feature"], group: SymmetryGroup
) -> Permutation:
    """Return the element of the group that matches units by correlated activations.

    Groups that no linear layer or convolution reads (within attention) are unchanged.

    Args:
        reference: the posterior that is not changed.
        other: the posterior to be permuted.
        x: inputs; at most 1,000 are used.
        group: of their network.

    Returns:
        The permutation of the other posterior.
    """
    first, second = (
        mean_activations(posterior, x[:_POINTS], group.spec) for posterior in (reference, other)
    )
    indices, signs = {}, {}
    for name, components in movable_groups(group).items():
        if name not in first:
            continue
        correlation = (_standardized(first[name]) @ _standardized(second[name]).T).cpu()
        flips = group.spec.groups[name].signed
        gain = Gain(torch.zeros_like(correlation), correlation) if flips else Gain(correlation)
        indices[name], sign = assign(components, gain)
        if flips:
            signs[name] = sign
    return group.spec.permutation(indices, signs)


def mean_activations(
    posterior: Posterior, x: Float[Tensor, "point *feature"], spec: PermutationSpec
) -> dict[str, Float[Tensor, "unit entry"]]:
    """Return the activations of units, averaged over draws.

    Args:
        posterior: the posterior.
        x: inputs.
        spec: of its network.

    Returns:
        Group -> activations of its units, one entry per input and position.
    """
    model = posterior.model
    readers: dict[str, tuple[str, Segment]] = {}
    for path, module in model.net.named_modules():
        name = f"{path}.weight" if path else "weight"
        if isinstance(module, _READERS) and name in spec.axes and getattr(module, "groups", 1) == 1:
            (*_, segment) = spec.axes[name][1]
            if (
                len(spec.axes[name][1]) == 1
                and segment.group is not None
                and segment.group not in readers
            ):
                readers[segment.group] = (path, segment)
    total: dict[str, Tensor] = {}

    def accumulate(group: str, segment: Segment):
        def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            value = inputs[0]
            channel = (
                1 if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d) else value.dim() - 1
            )
            units = value.movedim(channel, 0).reshape(segment.outer, segment.size, -1)
            rows = units.movedim(1, 0).flatten(1).double()
            total[group] = total[group] + rows if group in total else rows

        return hook

    hooks = [
        model.net.get_submodule(path).register_forward_pre_hook(accumulate(group, segment))
        for group, (path, segment) in readers.items()
    ]
    try:
        x = model.inputs(x)
        num_draws = posterior.shape[0] * posterior.shape[1]
        with torch.no_grad():
            for flat in posterior.draws(min(_DRAWS, num_draws)):
                functional_call(model.net, model.net_values(model.unflatten(flat)), (x,))
    finally:
        for handle in hooks:
            handle.remove()
    return total


def _standardized(activations: Tensor) -> Tensor:
    """Return rows with mean 0 and norm 1; a unit with constant activations becomes zero."""
    centered = activations - activations.mean(1, keepdim=True)
    norm = centered.norm(dim=1, keepdim=True)
    return torch.where(
        norm > 0, centered / norm.clamp(min=1e-300), torch.zeros_like(centered)
    ).float()
