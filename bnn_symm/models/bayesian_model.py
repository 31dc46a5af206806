"""Provide `BayesianModel`: a Pyro model and the same density as pure functions of one flat vector.

The flat vector holds every stochastic parameter of the network, in the order of
`named_parameters()` (of a weight with fixed entries the parameter is the vector of its free ones),
followed by the latent variables of the likelihood (names start with `likelihood.`). All of them
take values on the whole real line, so no change of variables is needed. A test checks that both
views agree in value and gradient.
"""

import copy
import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Literal, TypeVar, get_args

import pyro
import pyro.distributions as dist
import torch
from jaxtyping import Float, Int, Shaped
from pyro import poutine
from torch import Tensor, nn
from torch.func import functional_call

from bnn_symm.architectures import (
    check_function,
    check_structure,
    effective_parameters,
    effective_scales,
    fix_parameters,
    fixed_parameters,
    free_parameters,
    initialize,
    private_copy,
    weight_shapes,
)
from bnn_symm.arguments import check_tensor
from bnn_symm.errors import ConfigError, NotRepresentable
from bnn_symm.models.likelihoods import (
    Likelihood,
    check_likelihood,
    fixed_num_outputs,
    is_classification,
    num_classes,
    num_columns,
    target_distribution,
)
from bnn_symm.models.output_checks import check_logits
from bnn_symm.models.priors.prior import Prior, check_prior
from bnn_symm.models.stochastic_parameters import stochastic_parameters
from bnn_symm.summaries import Summarized
from bnn_symm.symmetry import Permutation, fixed_entries, moved_tensors, unit_statistics
from bnn_symm.symmetry.inputs import network_inputs
from bnn_symm.torch_internals import is_transformed

Tempering = Literal["likelihood", "posterior"]
T = TypeVar("T")

_LATENT = "likelihood."


class BayesianModel(Summarized):
    """Combine a network, a prior over its parameters and a likelihood of its outputs.

    An instance is callable and is then a Pyro model that any Pyro algorithm accepts. Its methods
    give the same density in torch alone.

    Args:
        net: maps (point, *feature) to (point, output). The present values of its parameters are the
            initial ones; parameters with `requires_grad=False` are constants and are not inferred.
            The model works on a copy in evaluation mode, so the network itself is never changed.
        prior: the prior of the network's parameters.
        likelihood: the likelihood of targets given outputs, with the prior of its own latent
            variables.
        parameters: patterns of the names of the parameters that get a posterior, such as
            `["head.*"]`; all others are constants too. Default: all.

    Raises:
        ConfigError: if the network has dropout, batch statistics, a state or nothing to infer
            (`check_structure`), a pattern matches no parameter, or an argument is of another type.

    Attributes:
        net: the copy of the network; its parameters are inferred, its buffers are constant. Its
            `input_shape` is the shape of the first points that the model has seen, unless the
            network declares one.
        shapes: name -> shape of every entry of the flat vector, in order.
        num_parameters: length of the flat vector.
        num_fixed_parameters: entries of the parameters that are constants.
        num_outputs: number of outputs of the network; 0 before it has seen any points.
        parameter_prior: density of the network's part of the flat vector.

    Example:
        >>> from torch import nn
        >>> from bnn_symm import BayesianModel, Prior
        >>> from bnn_symm.likelihoods import Gaussian
        >>> net = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1))
        >>> BayesianModel(net, Prior(), Gaussian(noise=0.1)).num_parameters
        13
        >>> last = BayesianModel(net, Prior(), Gaussian(noise=0.1), parameters=["2.*"])
        >>> last.num_parameters, last.num_fixed_parameters
        (4, 9)
    """

    def __init__(
        self,
        net: nn.Module,
        prior: Prior,
        likelihood: Likelihood,
        *,
        parameters: Sequence[str] = (),
    ):
        self._name = f"the network ({type(net).__name__})"
        check_structure(self._name, net)
        check_prior(prior)
        check_likelihood(likelihood)
        net = private_copy(net, self._name)
        selected = stochastic_parameters(net, parameters)
        fix_parameters(net, {name for name, _ in net.named_parameters()} - selected)
        self.net = net
        self.prior = prior
        self.likelihood = likelihood
        self._checked_shapes: set[tuple[int, ...]] = set()
        self.num_outputs = 0
        stochastic = dict(net.named_parameters())
        for name in stochastic:
            if not _is_net(name):
                raise ConfigError(
                    f"parameter {name}: names that begin with {_LATENT!r} are reserved; rename "
                    "the submodule"
                )
        self.shapes: dict[str, torch.Size] = {
            name: value.shape for name, value in stochastic.items()
        }
        sizes = {name: value.numel() for name, value in stochastic.items()}
        self.num_net_parameters = sum(sizes.values())
        self.num_fixed_parameters = sum(value.numel() for value in fixed_parameters(net).values())
        shapes = weight_shapes(net, constants=True)
        self.parameter_prior = prior.bind(_fan_in(shapes), sizes, _mean(prior, net))
        # Cached: searching the modules for a parameter takes longer than a forward pass of a small
        # network.
        self._reference = next(net.parameters())
        self.parameter_prior.keep_scales(self._reference)
        for name in likelihood.latents:
            self.shapes[_LATENT + name] = torch.Size([])
        self._sizes = [shape.numel() for shape in self.shapes.values()]
        self.num_parameters = sum(self._sizes)

    def _facts(self) -> dict[str, Any]:
        """Return what its representation shows."""
        return {
            "net": type(self.net).__name__,
            "num_parameters": self.num_parameters,
            "prior": self.prior,
            "likelihood": self.likelihood,
        }

    @property
    def dtype(self) -> torch.dtype:
        """Return the floating-point dtype of the network."""
        return self._reference.dtype

    @property
    def device(self) -> torch.device:
        """Return the device of the network."""
        return self._reference.device

    def slices(self) -> dict[str, slice]:
        """Return name -> slice of the flat vector."""
        stops = [0]
        for size in self._sizes:
            stops.append(stops[-1] + size)
        return {
            name: slice(a, b) for name, (a, b) in zip(self.shapes, pairwise(stops), strict=True)
        }

    def unflatten(self, flat: Float[Tensor, "*draw parameter"]) -> dict[str, Tensor]:
        """Split a flat vector, or a batch of them, into named views.

        Args:
            flat: one flat vector, or a batch of them.

        Returns:
            Name -> view of the vector, (*draw, *shape).
        """
        parts = flat.split(self._sizes, dim=-1)
        return {
            name: part.reshape((*flat.shape[:-1], *shape))
            for (name, shape), part in zip(self.shapes.items(), parts, strict=True)
        }

    def flatten(self, values: Mapping[str, Tensor]) -> Float[Tensor, "*draw parameter"]:
        """Concatenate named tensors into flat vectors; the inverse of `unflatten`.

        Args:
            values: name -> (*draw, *shape), for every name in `shapes`.

        Returns:
            The flat vector, or a batch of them.
        """
        parts = []
        for name, shape in self.shapes.items():
            value = values[name]
            parts.append(value.reshape(*value.shape[: value.dim() - len(shape)], -1))
        return torch.cat(parts, dim=-1)

    def initial(self, seed: int | None = None) -> Float[Tensor, " parameter"]:
        """Return the initial values as a flat vector.

        Where the prior has a mean, the network's parameters start at that mean, whatever the seed.
        Latent variables start at their prior means.

        Args:
            seed: draws the layers anew for this seed; None keeps the network's own initial values.

        Returns:
            The flat vector of initial values.
        """
        net = self.net
        if seed is not None and self.parameter_prior.mean is None:
            net = copy.deepcopy(net)
            initialize(net, seed)
        values = {name: value.detach() for name, value in net.named_parameters()}
        if self.parameter_prior.mean is not None:
            own = self.parameter_prior.means(next(net.parameters()).detach())
            parts = own.split([value.numel() for value in values.values()])
            values = {
                name: part.reshape(self.shapes[name])
                for name, part in zip(values, parts, strict=True)
            }
        for name, (mean, _) in self.likelihood.latents.items():
            values[_LATENT + name] = torch.tensor(mean, dtype=self.dtype, device=self.device)
        return self.flatten(values)

    def fixed_values(self) -> dict[str, Tensor]:
        """Return name -> value of the parameters of the network that are constants."""
        return fixed_parameters(self.net)

    def restrict(
        self, parameters: Sequence[str], values: Mapping[str, Tensor] | None = None
    ) -> "BayesianModel":
        """Return the model in which fewer parameters are stochastic, and the others are constants.

        Args:
            parameters: patterns of the names of the parameters that get a posterior.
            values: name -> value of the network's parameters; default: their initial values.

        Returns:
            A new model with the same prior and likelihood.

        Raises:
            ConfigError: if a pattern matches no parameter.

        Example:
            >>> from torch import nn
            >>> from bnn_symm import BayesianModel, Prior
            >>> from bnn_symm.likelihoods import Gaussian
            >>> model = BayesianModel(nn.Linear(2, 1), Prior(), Gaussian(noise=0.1))
            >>> part = model.restrict(["bias"], {"weight": torch.zeros(1, 2)})
            >>> part.num_parameters, part.fixed_values()
            (1, {'weight': tensor([[0., 0.]])})
        """
        net = copy.deepcopy(self.net)
        if values is None:
            values = self.net_values(self.unflatten(self.initial()))
        with torch.no_grad():
            for name, value in net.named_parameters():
                if name in values:
                    value.copy_(values[name])
        return BayesianModel(net, self.prior, self.likelihood, parameters=parameters)

    def latents(self, flat: Float[Tensor, "*draw parameter"]) -> dict[str, Tensor]:
        """Return the latent variables of the likelihood, each (*draw,).

        Args:
            flat: one flat vector, or a batch of them.

        Returns:
            Name of the latent variable, without prefix -> its values.
        """
        start = self.num_net_parameters
        return {name: flat[..., start + i] for i, name in enumerate(self.likelihood.latents)}

    def inputs(self, x: Shaped[Tensor, "*axes"]) -> Shaped[Tensor, "*axes"]:
        """Return inputs on the device of the network and in its type; tokens stay integers.

        Args:
            x: numbers or tokens.
        """
        return network_inputs(self.net, x)

    def check_function(self, x: Float[Tensor, "point *feature"]) -> None:
        """Refuse a network whose outputs are not a function of a point and the parameters.

        Only the first points of each shape that a model sees are checked.

        Args:
            x: points of the data.

        Raises:
            ConfigError: if a forward pass fails, if outputs have another shape than the likelihood
                needs or are probabilities where it expects logits, or as
                `bnn_symm.architectures.check_function`.
        """
        if tuple(x.shape[1:]) in self._checked_shapes or len(x) == 0:
            return
        wanted = fixed_num_outputs(self.likelihood)
        self.num_outputs = check_function(self._name, self.net, x, wanted)
        check_logits(self._name, self.net, x, self.likelihood)
        self._checked_shapes.add(tuple(x.shape[1:]))
        if getattr(self.net, "input_shape", None) is None:
            # Derivations of the symmetry of this copy then need no shape.
            self.net.input_shape = tuple(x.shape[1:])  # pyright: ignore[reportArgumentType]

    def _check_call(self, flat: Tensor | None, x: Tensor, y: Tensor | None = None) -> None:
        """Refuse wrong arguments of the density, by comparing types and lengths only."""
        check_tensor("x", x, self.dtype)
        if flat is not None:
            check_tensor("flat", flat, self.dtype)
            if flat.shape[-1:] != (self.num_parameters,):
                raise ConfigError(
                    f"flat: got a shape of {tuple(flat.shape)}, expected ({self.num_parameters},), "
                    "as model.initial() returns"
                )
        if y is not None:
            check_tensor("y", y, self.dtype)
            columns = num_columns(self.likelihood)
            shape = (len(x),) if columns == 1 else (len(x), columns)
            if y.shape not in (shape, (len(x), columns + 1)):
                raise ConfigError(
                    f"y: got a shape of {tuple(y.shape)} for {len(x)} points, expected {shape}, "
                    f"the targets, or ({len(x)}, {columns + 1}) with weights as the last column"
                )
        # Under a compiler or a transform of torch.func, the caller has already checked the model.
        tensors = [value for value in (flat, x) if value is not None]
        if is_transformed(tensors):
            return
        self.check_function(x)
        if y is not None and is_classification(self.likelihood) and len(y):
            classes = self._without_weight(y)[0]
            low, high = int(classes.min()), int(classes.max())
            if low < 0 or high >= (number := num_classes(self.likelihood, self.num_outputs)):
                raise ConfigError(
                    f"y: got classes from {low} to {high}, expected indices from 0 to {number - 1}"
                )

    def outputs(
        self, flat: Float[Tensor, " parameter"], x: Float[Tensor, "point *feature"]
    ) -> Float[Tensor, "point output"]:
        """Return the network's outputs at one flat vector.

        Args:
            flat: the flat vector.
            x: inputs.

        Returns:
            The outputs of every point.

        Raises:
            ConfigError: as `log_likelihood`.
        """
        self._check_call(flat, x)
        return functional_call(self.net, self.net_values(self.unflatten(flat)), (x,))

    def net_values(self, values: Mapping[str, T]) -> dict[str, T]:
        """Return the named values that are parameters of the network.

        Args:
            values: name -> value, for any names in `shapes`.

        Returns:
            The subset whose names are not latent variables of the likelihood.
        """
        return {name: value for name, value in values.items() if _is_net(name)}

    def latent_values(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the named values that are latent variables, without their prefix.

        Args:
            values: name -> value, for any names in `shapes`.

        Returns:
            The subset of latent variables of the likelihood, by the likelihood's own names.
        """
        return {name.removeprefix(_LATENT): v for name, v in values.items() if not _is_net(name)}

    def layer_values(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the network's parameters as its layers use them: whole weights.

        Args:
            values: name -> value, for any names in `shapes`.

        Returns:
            Name -> whole weight, fixed entries included.
        """
        return effective_parameters(self.net, self.net_values(values))

    def layer_scales(self, scales: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the standard deviations of `layer_values`; 0 where nothing varies.

        Args:
            scales: name -> standard deviations of the free parameters.

        Returns:
            Name -> standard deviations of the whole weight.
        """
        return effective_scales(self.net, self.net_values(scales))

    def layer_entries(self) -> dict[str, Int[Tensor, "..."]]:
        """Return the position of each entry of `layer_values` in the flat vector, plus one.

        Fixed entries have position 0.

        Returns:
            Name -> positions, on the CPU.
        """
        number = torch.arange(1, self.num_parameters + 1, dtype=torch.float64, device=self.device)
        return {
            name: value.long().cpu()
            for name, value in self.layer_scales(self.unflatten(number)).items()
        }

    def pull_back(
        self, layer_grads: Mapping[str, Tensor], latent_grads: Mapping[str, Tensor]
    ) -> Float[Tensor, "*draw parameter"]:
        """Return the gradient with respect to the flat vector.

        Args:
            layer_grads: gradients with respect to all `layer_values`.
            latent_grads: gradients with respect to the `latents`.

        Returns:
            The gradient, in the order of the flat vector.
        """
        return self.flatten(
            {
                **free_parameters(self.net, layer_grads),
                **{_LATENT + name: value for name, value in latent_grads.items()},
            }
        )

    def permute(
        self,
        flat: Float[Tensor, "*draw parameter"],
        permutation: Permutation,
        *,
        project: bool = False,
    ) -> Float[Tensor, "*draw parameter"]:
        """Permute the hidden units of the network: the same function with other coordinates.

        Args:
            flat: free coordinates and latent variables of the likelihood; the latter are unchanged.
            permutation: of the network's spec.
            project: restore fixed entries that the permutation moves, which changes the function.

        Returns:
            The permuted flat vector, or a batch of them.

        Raises:
            NotRepresentable: if the permutation moves fixed entries and `project` is false.
        """
        if not project:
            self.check_representable(permutation)
        values = self.unflatten(flat)
        permuted = free_parameters(self.net, permutation.apply(self.layer_values(values)))
        return self.flatten({**values, **permuted})

    def check_representable(self, permutation: Permutation) -> None:
        """Refuse a permutation that moves fixed entries of the network.

        Statistics of frozen batch norm may move: the permuted posterior has the model `permuted`.

        Args:
            permutation: of the network's spec.

        Raises:
            NotRepresentable: if it moves fixed entries; the message names the tensor.
        """
        fixed, moving = fixed_entries(self.net), self.statistics
        fixed = {name: entry for name, entry in fixed.items() if name not in moving}
        moved = next(moved_tensors(permutation, fixed), None)
        if moved is not None:
            raise NotRepresentable(
                f"the permutation moves fixed entries of {moved}: the permuted weights are not in "
                "the parameter space of this network; permute within its symmetry_group"
            )

    @property
    def statistics(self) -> dict[str, Tensor]:
        """Return the statistics of frozen batch norm, name -> buffer, which belong to units."""
        return unit_statistics(self.net)

    def with_statistics(self, statistics: Mapping[str, Tensor]) -> "BayesianModel":
        """Return the model with other statistics of frozen batch norm; itself if they are equal.

        Args:
            statistics: name -> value, for every name in `statistics`.
        """
        own = self.statistics
        if all(torch.equal(value, statistics[name].to(value)) for name, value in own.items()):
            return self
        other = copy.copy(self)
        other.net = copy.deepcopy(self.net)
        other._reference = next(other.net.parameters())
        for name, value in other.statistics.items():
            value.copy_(statistics[name])
        return other

    def permuted(self, *permutations: Permutation) -> "BayesianModel":
        """Return the model whose statistics of frozen batch norm have moved with the units.

        Args:
            permutations: of the network's spec, one or several of which the statistics must not
                differ.

        Raises:
            NotRepresentable: if they differ.
        """
        own = self.statistics
        if not own:
            return self
        first, *others = (permutation.apply(own) for permutation in permutations)
        for name, value in first.items():
            if any(not torch.equal(value, other[name]) for other in others):
                raise NotRepresentable(
                    f"the permutations move {name} of frozen batch norm differently, but all "
                    "chains of a posterior share one network; permute within its symmetry_group"
                )
        return self.with_statistics(first)

    def prior_standard_deviations(self, like: Tensor) -> Float[Tensor, " parameter"]:
        """Return the prior standard deviation of every entry of the flat vector.

        Args:
            like: a tensor with the device and dtype of the result.

        Returns:
            The standard deviations, latent variables included.
        """
        latents = like.new_tensor([sd for _, sd in self.likelihood.latents.values()])
        return torch.cat([self.parameter_prior.standard_deviations(like), latents])

    def log_prior(self, flat: Float[Tensor, " parameter"]) -> Float[Tensor, ""]:
        """Return the log prior density in nats, summed in float64.

        Args:
            flat: the flat vector.

        Returns:
            The log density of the network's parameters and the latent variables.
        """
        total = self.parameter_prior.log_prob(flat[: self.num_net_parameters])
        for (mean, sd), value in zip(
            self.likelihood.latents.values(), self.latents(flat).values(), strict=True
        ):
            total = (
                total
                - 0.5 * ((value - mean) / sd) ** 2
                - math.log(sd)
                - 0.5 * math.log(2 * math.pi)
            )
        return total

    def cross_entropy(
        self, loc: Float[Tensor, " parameter"], scale: Float[Tensor, " parameter"]
    ) -> Float[Tensor, " parameter"]:
        """Return -E[log prior] under independent Normal(loc, scale), per coordinate, in nats.

        Args:
            loc: means.
            scale: standard deviations.

        Returns:
            One value per coordinate of the flat vector.
        """
        n = self.num_net_parameters
        parts = [self.parameter_prior.cross_entropy(loc[:n], scale[:n])]
        for i, (mean, sd) in enumerate(self.likelihood.latents.values(), start=n):
            square = (loc[i] - mean) ** 2 + scale[i] ** 2
            parts.append(
                (0.5 * square / sd**2 + math.log(sd) + 0.5 * math.log(2 * math.pi)).reshape(1)
            )
        return torch.cat(parts)

    def log_likelihood(
        self,
        flat: Float[Tensor, " parameter"],
        x: Float[Tensor, "point *feature"],
        y: Shaped[Tensor, "point *column"],
    ) -> Float[Tensor, " point"]:
        """Return the log likelihood of every point, in nats, in the units of training.

        Args:
            flat: the flat vector.
            x: inputs.
            y: one target per point, or as many columns as the likelihood has; weights, which
                multiply the log likelihood, may be a further last column (`Split.targets`).

        Returns:
            One value per point.

        Raises:
            ConfigError: if an argument is not a tensor or has another dtype or length, or as
                `check_function`, at the first call.
        """
        self._check_call(flat, x, y)
        return self.log_prob(self.outputs(flat, x), y, self.latents(flat))

    def log_prob(
        self,
        outputs: Float[Tensor, "*draw point output"],
        y: Shaped[Tensor, "point *column"],
        latents: Mapping[str, Tensor],
    ) -> Float[Tensor, "*draw point"]:
        """Return the log likelihood of every point given its outputs, times its weight.

        Args:
            outputs: of the network.
            y: targets, as for `log_likelihood`.
            latents: of the likelihood.

        Returns:
            One value per point. Without weights it is the log density of the target.
        """
        targets, weight = self._without_weight(y)
        log_prob = self.likelihood.log_prob(outputs, targets, latents)
        return log_prob if weight is None else log_prob * weight

    def _without_weight(self, y: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the targets, and the weights if there are any."""
        columns = num_columns(self.likelihood)
        if y.dim() == 1 or (columns > 1 and y.shape[-1] == columns):
            return y, None
        targets, weight = y[:, 0] if columns == 1 else y[:, :columns], y[:, -1]
        return targets.long() if self.likelihood.task == "classification" else targets, weight

    def potential(
        self,
        flat: Float[Tensor, " parameter"],
        x: Float[Tensor, "point *feature"],
        y: Shaped[Tensor, "point *column"],
        *,
        temperature: float = 1.0,
        tempering: Tempering = "likelihood",
    ) -> Float[Tensor, ""]:
        """Return U = -log_likelihood / T - log_prior, the potential energy of HMC, in nats.

        Sums run in float64; the result has the dtype of `flat`.

        Args:
            flat: the flat vector.
            x: inputs.
            y: targets, as for `log_likelihood`.
            temperature: T.
            tempering: `likelihood`, or `posterior`, which divides the prior by T too.

        Returns:
            The negative tempered log density.

        Raises:
            ConfigError: if the tempering is another word.
        """
        if tempering not in get_args(Tempering):
            raise ConfigError(f"tempering: got {tempering!r}, expected likelihood or posterior")
        log_likelihood = self.log_likelihood(flat, x, y).sum(dtype=torch.float64)
        log_prior = self.log_prior(flat)
        prior_weight = 1.0 if tempering == "likelihood" else 1.0 / temperature
        return -(log_likelihood / temperature + prior_weight * log_prior).to(flat.dtype)

    def __call__(
        self, x: Tensor, y: Tensor | None = None, *, data_size: int | None = None
    ) -> Float[Tensor, "point output"]:
        """Run the Pyro model: one sample site per parameter, and `y`, scaled to `data_size` points.

        Args:
            x: (point, *feature).
            y: targets, as for `log_likelihood`, or None to sample them.
            data_size: number of points in the whole data set when x is a minibatch; default len(x).

        Returns:
            The network's outputs at the sampled parameters.
        """
        self._check_call(None, x, y)
        reference = next(self.net.parameters()).detach()
        values = {}
        for name, where in self.slices().items():
            if not _is_net(name):
                continue
            values[name] = pyro.sample(
                name, self.parameter_prior.distribution(where.start, self.shapes[name], reference)
            )
        latents = {
            name: pyro.sample(
                _LATENT + name, dist.Normal(reference.new_tensor(mean), reference.new_tensor(sd))
            )
            for name, (mean, sd) in self.likelihood.latents.items()
        }
        outputs = functional_call(self.net, values, (x,))
        scale: Any = 1.0 if data_size is None else data_size / len(x)
        counted: Any = True
        if y is not None:
            y, weight = self._without_weight(y)
            if weight is not None:
                # A scale must be positive; points of weight zero are masked.
                counted = weight > 0
                scale = scale * torch.where(counted, weight, 1.0)
        target, y = target_distribution(self.likelihood, outputs, latents, y)
        if y is not None and target.support is dist.constraints.boolean:
            # Class indices are integers; torch's Bernoulli takes floats only.
            y = y.to(outputs.dtype)
        plate = pyro.plate("data", len(x))
        with plate, poutine.scale(scale=scale), poutine.mask(mask=counted):
            pyro.sample("y", target, obs=y)
        return outputs


def _mean(prior: Prior, net: nn.Module) -> dict[str, Tensor] | None:
    """Return the prior mean of every parameter, or None if the prior has none."""
    if isinstance(prior.mean, str):
        raise ConfigError(
            f"prior.mean={prior.mean} is the name of a run or a file, which a model does not read; "
            "pass the weights: Prior(mean=PriorMean(state_dict))"
        )
    return None if prior.mean is None else prior.mean.free(net)


def _is_net(name: str) -> bool:
    return not name.startswith(_LATENT)


def _fan_in(shapes: Mapping[str, torch.Size]) -> dict[str, int | None]:
    """Return the fan-in of every parameter; a bias takes that of its layer's weight."""
    fan_in: dict[str, int | None] = {}
    for name, shape in shapes.items():
        layer, _, _ = name.rpartition(".")
        weight = shapes.get(f"{layer}.weight" if layer else "weight")
        source = shape if len(shape) >= 2 else weight
        fan_in[name] = source[1:].numel() if source is not None and len(source) >= 2 else None
    return fan_in
