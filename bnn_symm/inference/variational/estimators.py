"""Monte Carlo estimators of the expected log likelihood under Normal(loc, scale).

They compute gradients too. A sample is w = loc + scale eps for the sampled coordinates, with eps
keyed by the step. Linear layers that are treated locally sample their pre-activations instead.
Samples are antithetic pairs, eps and -eps. Gradients are written to preallocated flat vectors: the
gradient with respect to `loc` is that of w itself, and the one with respect to `scale` is that of w
times eps. Linear layers write theirs directly; those of other parameters come from autograd and are
copied.

`SequentialEstimator` supports any network, with one pass per sample. `BatchedEstimator` computes
all samples in one pass if every parameter belongs to a known linear layer: points are repeated (if
local), or weights have a sample axis.
"""

import functools
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import functional_call

from bnn_symm.inference.density.layer_overrides import LayerOverrides, Operation
from bnn_symm.inference.variational.flipout import Flipout
from bnn_symm.inference.variational.local_reparameterization import (
    GradientBuffer,
    LocalReparameterization,
    PlainLinear,
)
from bnn_symm.models import BayesianModel

Layers = list[tuple[str, str | None]]

# Total weights of all samples up to which a single pass is faster than one pass per sample. Larger
# ones are bound by the products, and exceed the caches.
_BATCHED_WEIGHTS = 1 << 18


@dataclass(frozen=True, kw_only=True)
class GradientBuffers:
    """The parameters of a fit and preallocated buffers of its gradients, all flat (parameter,).

    Attributes:
        model: the model.
        layers: names (weight, bias or None) of layers that are used once per point (`local_layers`,
            `flipout_layers`).
        is_local: whether these layers have independent noise for each point.
        is_flipout: whether that noise is by flipout, not at the pre-activations.
        loc: means.
        scale: standard deviations, which the caller updates.
        loc_grad: receives the gradient with respect to `loc`.
        scale_grad: receives the gradient with respect to `scale`.
    """

    model: BayesianModel
    layers: Layers
    is_local: bool
    is_flipout: bool
    loc: Tensor
    scale: Tensor
    loc_grad: Tensor
    scale_grad: Tensor

    @property
    def local_names(self) -> set[str]:
        """Return the names of parameters that are never sampled."""
        return _names(self.layers) if self.is_local else set()

    def sampled(self) -> list[slice]:
        """Return the slices of the sampled coordinates, merged if they are adjacent."""
        slices: list[slice] = []
        for name, where in self.model.slices().items():
            if name in self.local_names:
                continue
            if slices and slices[-1].stop == where.start:
                where = slice(slices.pop().start, where.stop)
            slices.append(where)
        return slices


def build_estimator(
    buffers: GradientBuffers, num_samples: int
) -> "SequentialEstimator | BatchedEstimator":
    """Return the faster estimator that supports the model and the number of samples.

    Args:
        buffers: the parameters and gradients of a fit.
        num_samples: Monte Carlo samples per step.
    """
    parameters = {name for name, _ in buffers.model.net.named_parameters()}
    all_at_once = (
        num_samples > 1 and not buffers.is_flipout and parameters == _names(buffers.layers)
    )
    if all_at_once and (
        buffers.is_local or num_samples * buffers.model.num_parameters <= _BATCHED_WEIGHTS
    ):
        return BatchedEstimator(buffers, num_samples)
    return SequentialEstimator(buffers, num_samples)


def fill_with_noise(out: Tensor, generator: torch.Generator) -> Tensor:
    """Fill a tensor with standard normal noise, drawn on the CPU for any device.

    Args:
        out: the tensor.
        generator: a generator on the CPU.

    Returns:
        The tensor.
    """
    if out.device.type == "cpu" and out.is_contiguous():
        return out.normal_(generator=generator)
    return out.copy_(torch.randn(out.shape, generator=generator, dtype=out.dtype))


def signed_noise(
    shape: torch.Size, *, like: Tensor, generator: torch.Generator, mirrored: bool
) -> Tensor:
    """Return standard normal noise, or its negative for the second sample of an antithetic pair.

    Args:
        shape: its shape.
        like: determines device and dtype.
        generator: a generator on the CPU.
        mirrored: whether the noise is negated.
    """
    drawn = fill_with_noise(like.new_empty(shape), generator)
    return drawn.neg_() if mirrored else drawn


def _paired_noise(
    shape: torch.Size, *, like: Tensor, generator: torch.Generator, counts: tuple[int, int]
) -> Tensor:
    """Return rows of new noise, followed by the negatives of the first ones.

    `shape` is that of all rows.
    """
    fresh = fill_with_noise(like.new_empty(counts[0], *shape[1:]), generator)
    return torch.cat([fresh, -fresh[: counts[1]]])


class SequentialEstimator:
    """An estimator with one pass through the network per sample."""

    def __init__(self, buffers: GradientBuffers, num_samples: int):
        self._buffers, self._num_samples = buffers, num_samples
        self._sampled = buffers.sampled()
        self._weights = buffers.loc.clone() if self._sampled else buffers.loc
        if num_samples == 1:
            # The noise is stored in the buffer of the scale's gradient, and then multiplied by the
            # gradient of the weights.
            self._weight_grads, self._local_scale_grads, self._noise = (
                buffers.loc_grad,
                buffers.scale_grad,
                buffers.scale_grad,
            )
        else:
            self._weight_grads, self._local_scale_grads, self._noise = (
                torch.zeros_like(buffers.loc) for _ in range(3)
            )
        self._leaves = ParameterLeaves(
            buffers, self._weights, self._weight_grads, self._local_scale_grads
        )
        flat = (
            buffers.loc,
            buffers.scale,
            self._noise,
            self._weights,
            self._weight_grads,
            buffers.scale_grad,
        )
        self._slices = [tuple(values[where] for values in flat) for where in self._sampled]

    def __call__(self, x: Tensor, y: Tensor, generator: torch.Generator, factor: float) -> Tensor:
        """Return the total log likelihood of all samples; write its gradient times `factor`."""
        buffers = self._buffers
        if self._num_samples == 1:
            self._draw(generator, 1.0)
            total = self._leaves.log_likelihood(x, y, generator, 1.0, factor)
            for _, _, noise, _, weight_grads, _ in self._slices:
                noise.mul_(weight_grads)
            return total
        buffers.loc_grad.zero_()
        buffers.scale_grad.zero_()
        total = torch.zeros((), dtype=torch.float64, device=x.device)
        state = generator.get_state()
        for sample in range(self._num_samples):
            # Odd samples use the noise of the previous even sample with the opposite sign.
            sign = 1.0 if sample % 2 == 0 else -1.0
            self._draw(generator, sign)
            if sign > 0:
                state = generator.get_state()
            else:
                generator.set_state(state)
            total += self._leaves.log_likelihood(x, y, generator, sign, factor)
            buffers.loc_grad.add_(self._weight_grads)
            if buffers.is_local:
                buffers.scale_grad.add_(self._local_scale_grads)
            for _, _, noise, _, weight_grads, scale_grad in self._slices:
                scale_grad.addcmul_(noise, weight_grads, value=sign)
        return total

    def _draw(self, generator: torch.Generator, sign: float) -> None:
        """Compute weights from new noise, or with sign -1 from the previous noise."""
        for loc, scale, noise, weights, _, _ in self._slices:
            if sign > 0:
                fill_with_noise(noise, generator)
            torch.addcmul(loc, scale, noise, value=sign, out=weights)


class BatchedEstimator:
    """An estimator with all samples in one pass.

    All parameters must belong to linear layers that are used once per point.
    """

    def __init__(self, buffers: GradientBuffers, num_samples: int):
        self._buffers, self._num_samples = buffers, num_samples
        self._pairs = (num_samples + 1) // 2
        (self._where,) = buffers.sampled() or [slice(0, 0)]
        self._leaves = (
            ParameterLeaves(buffers, buffers.loc, buffers.loc_grad, buffers.scale_grad)
            if buffers.is_local
            else None
        )

    def __call__(self, x: Tensor, y: Tensor, generator: torch.Generator, factor: float) -> Tensor:
        """Return the total log likelihood of all samples; write its gradient times `factor`."""
        buffers, model = self._buffers, self._buffers.model
        number, mirrored = self._num_samples, self._num_samples - self._pairs
        loc, scale = buffers.loc[self._where], buffers.scale[self._where]
        half = fill_with_noise(loc.new_empty(self._pairs, len(loc)), generator)
        noise = torch.cat([half, -half[:mirrored]])
        draws = torch.addcmul(loc, scale, noise).requires_grad_()
        points = x.repeat(number, *[1] * (x.dim() - 1))
        if self._leaves is None:
            values = model.unflatten(draws)
            outputs = self._outputs(model.layer_values(values), points)
            latents = model.latent_values(values)
        else:
            counts = (self._pairs * len(x), mirrored * len(x))
            outputs = self._leaves.outputs(
                points,
                functools.partial(_paired_noise, like=loc, generator=generator, counts=counts),
            )
            latents = dict(zip(model.likelihood.latents, draws.unbind(-1), strict=True))
        log_prob = model.log_prob(outputs.unflatten(0, (number, len(x))), y, latents)
        total = log_prob.sum(dtype=torch.float64)
        (total * factor).backward()
        if self._leaves is not None:
            self._leaves.collect()
        if draws.grad is not None:
            torch.sum(draws.grad, 0, out=buffers.loc_grad[self._where])
            torch.sum(draws.grad.mul_(noise), 0, out=buffers.scale_grad[self._where])
        return total.detach()

    def _outputs(self, seen: Mapping[str, Tensor], points: Tensor) -> Tensor:
        """Return the outputs of weights with a sample axis."""
        # Layers are identified by the weights of the first sample, which have no other use.
        first = {name: value[0] for name, value in seen.items()}
        layers = {
            id(first[w]): (seen[w], None if b is None else seen[b]) for w, b in self._buffers.layers
        }
        with _BatchedLinear(layers, (first[w] for w, _ in self._buffers.layers)):
            return functional_call(self._buffers.model.net, first, (points,))


class _BatchedLinear(LayerOverrides):
    """While active, `F.linear` with a known weight uses a different weight for each sample.

    Inputs and outputs are (sample x point, feature).
    """

    def __init__(self, layers: Mapping[int, tuple[Tensor, Tensor | None]], first: Iterable[Tensor]):
        super().__init__(first)
        self._layers = layers

    def apply(self, operation: Operation, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Return the outputs of all samples as one batched product."""
        weights, biases = self._layers[id(weight)]
        x = x.unflatten(0, (len(weights), -1))
        product = (
            torch.bmm(x, weights.mT)
            if biases is None
            else torch.baddbmm(biases[:, None], x, weights.mT)
        )
        return product.flatten(0, 1)


class ParameterLeaves:
    """The parameters of a network as views of flat vectors, and the targets of their gradients.

    Args:
        buffers: the parameters and gradients of the fit.
        flat: (parameter,), values of sampled parameters. For locally treated ones, the means are
            used.
        flat_grad: (parameter,), receives the gradient with respect to the values.
        scale_grad: (parameter,), receives the gradient with respect to the scales of locally
            treated parameters.
    """

    def __init__(
        self, buffers: GradientBuffers, flat: Tensor, flat_grad: Tensor, scale_grad: Tensor
    ):
        self._model, self._layers, self._is_local = buffers.model, buffers.layers, buffers.is_local
        self._is_flipout = buffers.is_flipout
        local = buffers.local_names
        self._values = {
            name: view.requires_grad_() for name, view in _views(buffers.model, flat).items()
        }
        means, scales = _views(buffers.model, buffers.loc), _views(buffers.model, buffers.scale)
        self._values |= {
            name: means[name].requires_grad_() for name in self._values if name in local
        }
        self._scales = {
            name: scales[name].requires_grad_() for name in self._values if name in local
        }
        seen, seen_scales = self._see()
        # Layers write the gradients of leaves that they use directly. Autograd computes those of
        # leaves from which weights are derived.
        known = set[str]() if buffers.is_flipout else _names(buffers.layers)
        self._is_plain = all(seen[name] is self._values[name] for name in seen)
        self._seen = seen, seen_scales
        self._leaf_buffers: dict[int, GradientBuffer] = {}
        self._others: list[tuple[Tensor, Tensor]] = []
        for leaves, as_seen, targets in (
            (self._values, seen, _views(buffers.model, flat_grad)),
            (self._scales, seen_scales, _views(buffers.model, scale_grad)),
        ):
            for name, leaf in leaves.items():
                if name in known and as_seen[name] is leaf:
                    self._leaf_buffers[id(leaf)] = GradientBuffer(targets[name])
                else:
                    self._others.append((leaf, targets[name]))

    def _see(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        return self._model.layer_values(self._values), self._model.layer_scales(self._scales)

    def outputs(self, x: Tensor, noise: Callable[[torch.Size], Tensor]) -> Tensor:
        """Return the outputs of the network.

        Args:
            x: points.
            noise: shape -> noise of the pre-activations.
        """
        seen, scales = self._seen if self._is_plain else self._see()
        if self._is_local:
            weights = [(seen[weight], scales[weight]) for weight, _ in self._layers]
            biases = [(seen[bias], scales[bias]) for _, bias in self._layers if bias is not None]
            if self._is_flipout:
                mode = Flipout(weights, biases, noise)
            else:
                mode = LocalReparameterization(weights, biases, noise, self._leaf_buffers)
        else:
            mode = PlainLinear((seen[weight] for weight, _ in self._layers), self._leaf_buffers)
        with mode if self._layers else nullcontext():
            return functional_call(self._model.net, seen, (x,))

    def log_likelihood(
        self, x: Tensor, y: Tensor, generator: torch.Generator, sign: float, factor: float
    ) -> Tensor:
        """Return the log likelihood summed over points; write its gradient times `factor`."""
        like = next(iter(self._values.values()))
        noise = functools.partial(signed_noise, like=like, generator=generator, mirrored=sign < 0)
        outputs = self.outputs(x, noise)
        latents = self._model.latent_values(self._values)
        total = self._model.log_prob(outputs, y, latents).sum(dtype=torch.float64)
        (total * factor).backward()
        self.collect()
        return total.detach()

    def collect(self) -> None:
        """Finish a step: write all gradients to the flat vectors."""
        for buffer in self._leaf_buffers.values():
            buffer.close()
        for leaf, target in self._others:
            if leaf.grad is None:
                target.zero_()
            else:
                target.copy_(leaf.grad)
                leaf.grad = None


def _views(model: BayesianModel, flat: Tensor) -> dict[str, Tensor]:
    """Return views of a flat vector by name, each of which is a leaf."""
    return {name: value.detach() for name, value in model.unflatten(flat.detach()).items()}


def _names(layers: Layers) -> set[str]:
    return {name for layer in layers for name in layer if name is not None}
