"""Convert posteriors to ArviZ: groups of labeled arrays.

    posterior              every parameter, (chain, draw, *shape), and the noise if it is learned
    sample_stats           statistics of the sampler for each draw
    log_likelihood         of every point of a split of the data, (chain, draw, point), in nats, in
                           the target's own units
    posterior_predictive   one target sampled for each of them
    observed_data          the targets themselves

Axes of parameters are named after the network's units, from its permutation spec: `layers.0.unit`
is the first axis of `layers.0.weight`, the axis of `layers.0.bias` and the second axis of
`layers.1.weight`, so that `data.posterior.sel({"layers.0.unit": 3})` selects all parameters of one
unit. Inputs and outputs are named after features and classes if a data set provides them. If no
spec can be derived, or an axis has no single group of units, axes are numbered as in
`posterior.nc`. Classes are indices, in the order of `class`.
"""

import math
from typing import Any, Literal

import numpy as np
import torch

from bnn_symm.architectures import fixed_buffers, weight_shapes
from bnn_symm.arguments import checked
from bnn_symm.data import Dataset, Split
from bnn_symm.errors import ConfigError, SymmetryError, require_extra
from bnn_symm.models import Categorical
from bnn_symm.models.likelihoods import output_names
from bnn_symm.posteriors.io.arviz_groups import Groups, from_groups
from bnn_symm.posteriors.lazy_draws import LazyDraws
from bnn_symm.posteriors.posterior import Posterior
from bnn_symm.posteriors.samples import SamplePosterior
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
    """Convert a posterior to `arviz.InferenceData` (ArviZ 0.x) or `xarray.DataTree` (1.x).

    Args:
        posterior: the posterior; one in closed form is represented by its draws.
        dataset: for the names of features and classes, and for the groups of predictions.
        part: the split of the data whose points are predicted.
        thin: keep every `thin`-th draw of each chain.
        max_gigabytes: largest size of the arrays, predictions included; all are in memory.
        seed: of predicted targets.

    Returns:
        The container of the installed ArviZ version.

    Raises:
        MissingExtra: if ArviZ is not installed.
        ConfigError: if the arrays would be larger than that, or the part has no points.

    Example:
        >>> import torch
        >>> from bnn_symm import BayesianModel, Prior, SamplePosterior, to_arviz
        >>> from bnn_symm.likelihoods import Gaussian
        >>> model = BayesianModel(torch.nn.Linear(2, 1), Prior(), Gaussian(noise=0.1))
        >>> draws = torch.zeros(2, 5, 3)
        >>> to_arviz(SamplePosterior.from_draws(model, draws)).posterior["weight"].shape
        (2, 5, 1, 2)
    """
    require_extra("arviz", "arviz", "to_arviz")
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
    """Return the groups of `to_arviz` as plain arrays with the names and labels of their axes."""
    if thin < 1:
        raise ConfigError(f"thin: got {thin}, expected 1 (all draws) or more")
    points = None if dataset is None else getattr(dataset, part)
    if points is not None and len(points) == 0:
        raise ConfigError(
            f"the {part} split of {dataset.name if dataset else ''} has no points; use another one"
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
        # Of several target columns, each is a variable; the likelihood is that of all together.
        dims |= {name: ["point"] for name in (_TARGET, *groups["observed_data"])}
        coords["point"] = np.arange(len(points))
    return Groups(groups, dims, coords)


def _check_size(posterior: Posterior, points: int, thin: int, max_gigabytes: float) -> None:
    """Refuse a conversion whose arrays, predictions included, would exceed the limit."""
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
            f"than max_gigabytes={max_gigabytes:g}; set thin={enough}, or raise max_gigabytes"
        )


def _thinned(posterior: Posterior, thin: int) -> SamplePosterior:
    """Return every `thin`-th draw of each chain, in memory."""
    kept = posterior.positions.thin(range(0, posterior.shape[1], thin))
    chains, draws, _ = kept.shape
    flat = torch.stack([kept.read(chain, 0, draws).cpu() for chain in range(chains)])
    stats = posterior.sample_stats if isinstance(posterior, SamplePosterior) else {}
    return SamplePosterior(
        posterior.model,
        posterior.scaling,
        positions=LazyDraws.from_tensor(flat),
        sample_stats={name: value[:, ::thin] for name, value in stats.items()},
    )


def _predictions(
    posterior: SamplePosterior, part: Split, seed: int
) -> dict[str, dict[str, np.ndarray]]:
    """Return likelihoods, predicted targets and the targets, computed in slices of the points."""
    likelihoods, samples, observed, names = [], [], [], (_TARGET,)
    start = 0
    for number, predictive in enumerate(posterior.iter_predict(part.x)):
        y = part.y[start : start + predictive.outputs.shape[2]]
        start += len(y)
        predictive, y = predictive.given(y)
        likelihoods.append(predictive.draw_log_prob(y).numpy())
        samples.append(
            predictive.sample(seed=key_seed(seed, "posterior predictive", number)).cpu().numpy()
        )
        observed.append((y if predictive.is_classification else predictive.observed(y)).cpu())
        names = predictive.column_names if len(predictive.columns) > 1 else names
    sampled, seen = np.concatenate(samples, axis=2), torch.cat(observed).numpy()
    if len(names) == 1:
        sampled, seen = sampled[..., None], seen[..., None]
    return {
        "log_likelihood": {_TARGET: np.concatenate(likelihoods, axis=2)},
        "posterior_predictive": {name: sampled[..., i] for i, name in enumerate(names)},
        "observed_data": {name: seen[..., i] for i, name in enumerate(names)},
    }


class _Axes:
    """Name and label the axes of every parameter."""

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
        """Return the axis of free entries, labeled by their positions in the whole weight."""
        axis = f"{name}.free_entry"
        mask = fixed_buffers(self._posterior.model.net)[f"{name.removesuffix('weight')}mask"]
        self.coords[axis] = np.array(
            [",".join(map(str, entry)) for entry in mask.nonzero().tolist()]
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
        # An array cannot have an axis twice: the second one, such as the inputs of a residual
        # layer, is numbered.
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
        self.coords["output"] = np.array(output_names(likelihood, size))
        return "output"


def _input_tensor(posterior: Posterior, spec: PermutationSpec | None) -> str | None:
    """Return the weight that reads the features of a flat point, or None.

    It is the first dense weight, if no permutation moves its inputs.
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
