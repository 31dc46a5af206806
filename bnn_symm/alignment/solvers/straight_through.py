"""Match by the straight-through estimator: minimize the loss of the midpoint on data.

    min_P  loss((A + P B) / 2)

A copy of the weights, initialized at the reference, is learned. The forward pass replaces it by its
nearest permutation of B, found by `coordinate` from the previous one; the backward pass applies the
gradient at the midpoint to the copy itself. The first permutation is therefore that of weight
matching. Of all permutations visited, the identity among them, the one with the lowest loss is
returned.

Posteriors are represented by their means, or by means and standard deviations: then the midpoint is
the normal between both, and its loss that of draws whose noise is a function of the key.

References:
    Ainsworth et al. (2023), arXiv:2209.04836, algorithm 3; Bengio et al. (2013), arXiv:1308.3432,
    the estimator.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from bnn_symm.alignment.objective import Moments, moment_objective, moments, whole_weights
from bnn_symm.alignment.solvers.coordinate import coordinate
from bnn_symm.data import Split
from bnn_symm.posteriors import Posterior
from bnn_symm.randomness import torch_generator
from bnn_symm.symmetry import Permutation, SymmetryGroup

_STEPS, _BATCH = 60, 128
# Adam's step, relative to the root mean square of the reference's weights.
_STEP_SIZE = 0.1
# Points on which permutations are compared, and draws of the noise there.
_POINTS, _DRAWS = 1000, 4


def straight_through(
    reference: Posterior,
    other: Posterior,
    part: Split,
    group: SymmetryGroup,
    *,
    noisy: bool,
    seed: int,
) -> tuple[Permutation, float]:
    """Learn the permutation with the lowest loss at the midpoint.

    Args:
        reference: the posterior that is not changed.
        other: the posterior to be permuted.
        part: points to learn from, in the units of training; permutations are compared on the first
            1,000.
        group: of their network, to stay in.
        noisy: whether to use standard deviations, or means only.
        seed: of the order of the data and of the noise.

    Returns:
        An element of the group, and its midpoint's loss: mean negative log likelihood, in nats.
    """
    midpoint = Midpoint(reference, other, noisy)
    model, spec = reference.model, group.spec
    first = reference.mean().detach()
    theirs = moments(other, spec)
    zeros = {name: torch.zeros_like(value) for name, value in theirs.mean.items()}
    best = current = spec.identity()
    lowest = midpoint.loss(current, part, seed)
    learned = first.clone().requires_grad_()
    optimizer = torch.optim.Adam([learned], lr=_STEP_SIZE * float(first.square().mean().sqrt()))
    for step in range(_STEPS):
        copy = Moments(whole_weights(model, learned.detach(), spec), zeros)
        nearest, _ = coordinate(
            moment_objective(copy, theirs, spec, "means"), group, current, seed, "nearest", step
        )
        if step == 0 or not nearest.same_as(current):
            current = nearest
            loss = midpoint.loss(current, part, seed)
            if loss < lowest:
                best, lowest = current, loss
        chosen = torch.randint(
            len(part), (_BATCH,), generator=torch_generator(seed, "straight-through points", step)
        )
        # The midpoint has half of the weights; Adam is invariant to that factor of the gradient.
        learned.grad = midpoint.gradient(
            current, Split(x=part.x[chosen], y=part.y[chosen]), seed, "straight-through noise", step
        )
        optimizer.step()
    return best, lowest


class Midpoint:
    """Represent the normal midway between one posterior and another, permuted, and its loss.

    Args:
        reference: the posterior that is not changed.
        other: the posterior that is permuted.
        noisy: whether the midpoint has a standard deviation, or is a point.
    """

    def __init__(self, reference: Posterior, other: Posterior, noisy: bool):
        self._model = reference.model
        both = (reference, other)
        self._means = [posterior.mean().detach() for posterior in both]
        self._scales = (
            [posterior.standard_deviation().detach() for posterior in both] if noisy else []
        )

    def loss(self, permutation: Permutation, part: Split, seed: int) -> float:
        """Return the mean negative log likelihood of at most 1,000 points, in nats.

        All permutations share the same draws of the noise.

        Args:
            permutation: of the other posterior.
            part: the points.
            seed: of the noise.
        """
        points = self._on_device(Split(x=part.x[:_POINTS], y=part.y[:_POINTS]))
        draws = range(_DRAWS if self._scales else 1)
        with torch.no_grad():
            flats = [self._draw(permutation, seed, "midpoint", draw) for draw in draws]
            losses = [
                -self._model.log_likelihood(flat, points.x, points.y).double().mean()
                for flat in flats
            ]
        return float(torch.stack(losses).mean())

    def gradient(
        self, permutation: Permutation, part: Split, *key: int | str
    ) -> Float[Tensor, " parameter"]:
        """Return the gradient of the loss of one draw of the midpoint, with respect to its mean.

        Args:
            permutation: of the other posterior.
            part: the points.
            key: of the noise.
        """
        points = self._on_device(part)
        flat = self._draw(permutation, *key).requires_grad_()
        loss = -self._model.log_likelihood(flat, points.x, points.y).mean()
        return torch.autograd.grad(loss, flat)[0]

    def _draw(self, permutation: Permutation, *key: int | str) -> Tensor:
        flat = self._half(self._means, permutation)
        if self._scales:
            noise = torch.randn(flat.shape, generator=torch_generator(*key), dtype=torch.float64)
            flat = flat + self._half(self._scales, permutation.unsigned()) * noise.to(flat)
        return flat

    def _half(self, both: list[Tensor], permutation: Permutation) -> Tensor:
        first, second = both
        return 0.5 * (first + self._model.permute(second, permutation))

    def _on_device(self, part: Split) -> Split:
        y = part.to(self._model.device, self._model.dtype).y
        return Split(x=self._model.inputs(part.x), y=y)
