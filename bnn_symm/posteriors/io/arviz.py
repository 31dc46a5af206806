"""The bridge to ArviZ: a posterior as groups of labeled arrays.

    posterior              every parameter, (chain, draw, *shape), and the noise where it is learned
    sample_stats           what the sampler says of each draw log_likelihood         of every point
    of a part of the data, (chain, draw, point), in nats, in own units posterior_predictive   one
    target drawn for each of them observed_data          the targets themselves

The axes of parameters go by the network's own units, found by its permutation spec: `layers.0.unit`
is the first axis of `layers.0.weight`, the axis of `layers.0.bias` and the second axis of
`layers.1.weight`, so that `data.posterior.sel({"layers.0.unit": 3})` is all that belongs to one
unit. Inputs and outputs go by the names of features and classes, where a data set says them. A
network whose spec cannot be derived, and an axis of which the spec says nothing so simple, has
numbered axes, as `posterior.nc` has. Classes are numbers, in the order of `class`.
"""

import math
from typing import Any, Literal

import numpy as np
import torch

from bnn_symm.architectures import fixed_buffers, weight_shapes
from bnn_symm.arguments import checked
from bnn_symm.data import Dataset, Split
from bnn_symm.errors import ConfigError, SymmetryError
from bnn_symm.models import Categorical, HeteroscedasticGaussian
from bnn_symm.posteriors.io.arviz_groups import Groups, from_groups
from bnn_symm.posteriors.posterior import Posterior
from bnn_symm.posteriors.samples import ArrayDraws, SamplePosterior
from bnn_symm.randomness import key_seed
from bnn_symm.symmetry import PermutationSpec, permutation_spec

PartName = Literal["train", "validation", "test"]
_TARGET = "y"


@checked
def to_arviz(
    posterior: Posterior,
    dataset: Dataset | None = None,
    *,
    part: PartName = "test",
    thin: int = 1,
    max_gigabytes: float = 4.0,
    seed: int = 0,
) -> Any:
    """An `arviz.InferenceData` under ArviZ 0.x, an `xarray.DataTree` under 1.x.

    Args:
        posterior: any; of a closed form, the draws that stand for it.
        dataset: for the names of features and classes, and for the groups of predictions.
        part: whose points are predicted.
        thin: every how many draws of each chain are kept.
        max_gigabytes: how much the arrays may take, predictions included; they are all in memory at
            once.
        seed: of predicted targets.

    Raises:
        ConfigError: if the arrays would be larger than that, or the part has no points.
    """
    return from_groups(
        *to_groups(posterior, dataset, part=part, thin=thin, max_gigabytes=max_gigabytes, seed=seed)
    )


def to_groups(
    posterior: Posterior,
    dataset: Dataset | None = None,
    *,
    part: PartName = "test",
    thin: int = 1,
    max_gigabytes: float = 4.0,
    seed: int = 0,
) -> Groups:
    """The same as plain arrays with the names and labels of their axes; arguments and errors as
    `to_arviz`.
    """
    if thin < 1:
        raise ConfigError(f"thin: got {thin}, wanted 1 (all draws) or more")
    points = None if dataset is None else getattr(dataset, part)
    if points is not None and len(points) == 0:
        raise ConfigError(
            f"the {part} part of {dataset.name if dataset else ''} has no points; name another part"
        )
    _check_size(posterior, 0 if points is None else len(points), thin, max_gigabytes)
    kept = _thinned(posterior, thin)
    chains, draws, _ = kept.shape
    values = posterior.model.unflatten(kept.draws().cpu().unflatten(0, (chains, draws)))
    groups = {"posterior": {name: value.numpy() for name, value in values.items()}}
    if kept.sample_stats:
        groups["sample_stats"] = kept.sample_stats
    axes = _Axes(posterior, dataset)
    dims, coords = axes.dims, axes.coords
    if points is not None:
        groups |= _predictions(kept, points, seed)
        dims[_TARGET] = ["point"]
        coords["point"] = np.arange(len(points))
    return Groups(groups, dims, coords)


def _check_size(posterior: Posterior, points: int, thin: int, max_gigabytes: float) -> None:
    """Raises ConfigError if the arrays, predictions included, would take more than is allowed."""
    chains, draws, parameters = posterior.shape
    # Likelihoods and predicted targets in at most 8 bytes; the network's outputs pass through
    # memory in slices.
    numbers = parameters * posterior.model.dtype.itemsize + points * 16
    size = chains * math.ceil(draws / thin) * numbers / 1e9
    if size > max_gigabytes:
        enough = math.ceil(thin * size / max_gigabytes)
        what = f"{parameters} parameters" + (f" and {points} points" if points else "")
        raise ConfigError(
            f"{chains} x {math.ceil(draws / thin)} draws of {what} would take {size:.1f} GB, more "
            "than "
            f"max_gigabytes={max_gigabytes:g}; keep every {enough}th draw with thin={enough}, or "
            "raise max_gigabytes"
        )


def _thinned(posterior: Posterior, thin: int) -> SamplePosterior:
    """Every `thin`-th draw of each chain, in memory."""
    chains, draws, _ = posterior.shape
    kept, place = [], 0
    for chunk in posterior.iter_draws():
        # Chunks end with their chain, so that `place` is the draw within it.
        own = torch.arange(place, place + len(chunk)) % thin == 0
        kept.append(chunk.cpu()[own])
        place = (place + len(chunk)) % draws
    flat = torch.cat(kept).unflatten(0, (chains, -1))
    stats = posterior.sample_stats if isinstance(posterior, SamplePosterior) else {}
    return SamplePosterior(
        posterior.model,
        posterior.scaling,
        positions=ArrayDraws(flat),
        sample_stats={name: value[:, ::thin] for name, value in stats.items()},
    )


def _predictions(
    posterior: SamplePosterior, part: Split, seed: int
) -> dict[str, dict[str, np.ndarray]]:
    """Likelihoods, predicted targets and the targets, walked in slices of the points."""
    likelihoods, samples, observed = [], [], []
    start = 0
    for number, predictive in enumerate(posterior.iter_predict(part.x)):
        y = part.y[start : start + predictive.outputs.shape[2]]
        start += len(y)
        likelihoods.append(predictive.draw_log_prob(y).numpy())
        samples.append(
            predictive.sample(seed=key_seed(seed, "posterior predictive", number)).cpu().numpy()
        )
        observed.append(
            (
                y if predictive.is_classification else predictive.location + predictive.scale * y
            ).cpu()
        )
    return {
        "log_likelihood": {_TARGET: np.concatenate(likelihoods, axis=2)},
        "posterior_predictive": {_TARGET: np.concatenate(samples, axis=2)},
        "observed_data": {_TARGET: torch.cat(observed).numpy()},
    }


class _Axes:
    """Names and labels of the axes of every parameter."""

    def __init__(self, posterior: Posterior, dataset: Dataset | None):
        self.dims: dict[str, list[str]] = {}
        self.coords: dict[str, np.ndarray] = {}
        self._posterior, self._dataset = posterior, dataset
        try:
            spec = permutation_spec(posterior.model.net)
        except SymmetryError:
            spec = None
        inputs = _input_tensor(posterior, spec)
        whole = weight_shapes(posterior.model.net)
        for name, shape in posterior.model.shapes.items():
            if name in whole and whole[name] != shape:
                self.dims[name] = [self._free(name)]
            else:
                used: list[str] = []
                for dim, size in enumerate(shape):
                    used.append(self._axis(spec, inputs, name, dim, size, used))
                self.dims[name] = used

    def _free(self, name: str) -> str:
        """The axis of free entries, labeled by their places in the whole weight."""
        axis = f"{name}.free_entry"
        mask = fixed_buffers(self._posterior.model.net)[f"{name.removesuffix('weight')}mask"]
        self.coords[axis] = np.array(
            [",".join(map(str, place)) for place in mask.nonzero().tolist()]
        )
        return axis

    def _axis(
        self,
        spec: PermutationSpec | None,
        inputs: str | None,
        name: str,
        dim: int,
        size: int,
        used: list[str],
    ) -> str:
        axis = f"{name}_dim_{dim}"
        segments = spec.axes[name][dim] if spec is not None and name in spec.axes else ()
        if spec is not None and spec.output_axes.get(name) == dim:
            axis = self._output(size)
        elif len(segments) == 1 and segments[0].group is not None and segments[0].size == size:
            axis = f"{segments[0].group}.unit"
            self.coords[axis] = np.arange(size)
        elif name == inputs and dim == 1:
            axis = "feature"
            names = () if self._dataset is None else self._dataset.feature_names
            self.coords[axis] = np.array(names) if len(names) == size else np.arange(size)
        # No array has the same axis twice: the second one, such as the inputs of a residual layer,
        # is numbered.
        return f"{name}_dim_{dim}" if axis in used else axis

    def _output(self, size: int) -> str:
        likelihood = self._posterior.model.likelihood
        if isinstance(likelihood, Categorical):
            labels = () if self._dataset is None else self._dataset.class_labels
            self.coords["class"] = (
                np.array([str(label) for label in labels])
                if len(labels) == size
                else np.arange(size)
            )
            return "class"
        numbered = not (isinstance(likelihood, HeteroscedasticGaussian) and size == 2)
        self.coords["output"] = np.arange(size) if numbered else np.array(["mean", "log_sd"])
        return "output"


def _input_tensor(posterior: Posterior, spec: PermutationSpec | None) -> str | None:
    """The weight that reads the features of a flat point: the first one, if its inputs stay where
    they are.
    """
    if spec is None or spec.input_shape is None:
        return None
    name = next(
        (name for name, shape in weight_shapes(posterior.model.net).items() if len(shape) == 2),
        None,
    )
    if name is None or name not in spec.axes:
        return None
    segments = spec.axes[name][1]
    fixed = (
        len(segments) == 1
        and segments[0].group is None
        and segments[0].size == math.prod(spec.input_shape)
    )
    return name if fixed and spec.output_axes.get(name) != 1 else None
