"""Restrict a fit to the parameters that get a posterior; all others are kept fixed.

A method with `parameters=["head.*"]` infers the matching parameters of the network. The others are
constants: they have no prior and no part in the KL divergence, and are not counted. Their values
are those at which the fit would start: the initial values of the network, or the mean of the
posterior that the fit starts from. A network whose features are fitted by MAP and whose last layer
is Bayesian is therefore a MAP fit, followed by a fit of another method from its posterior.

References:
    Sharma, Farquhar, Nalisnick & Rainforth 2023, "Do Bayesian neural networks need to be fully
    stochastic?", arXiv:2211.06291.
"""

from collections.abc import Iterable, Mapping, Sequence

from torch import Tensor

from bnn_symm.errors import ConfigError, IncompatiblePosteriors
from bnn_symm.models import BayesianModel, stochastic_parameters
from bnn_symm.posteriors import Posterior, SamplePosterior


def stochastic_part(
    model: BayesianModel, parameters: Sequence[str], initial: Posterior | None
) -> tuple[BayesianModel, Posterior | None]:
    """Return the model of the stochastic parameters, and the posterior that its fit starts from.

    Args:
        model: a model of all parameters, or of the stochastic ones already.
        parameters: patterns of the names of the stochastic parameters; none for those of the model.
        initial: the posterior to start from, of this model or of one with other stochastic
            parameters of the same network.

    Returns:
        The model, which is the given one if nothing is to be fixed; and the initial posterior. If
        that was of other parameters, it is a single draw: the mean.

    Raises:
        ConfigError: if a pattern matches nothing, or the mean of the initial posterior is not a
            network because it has several chains.
        IncompatiblePosteriors: if the initial posterior is of another network.
    """
    try:
        selected = stochastic_parameters(model.net, parameters)
    except ConfigError as error:
        raise ConfigError(f"inference.{error}") from None
    if selected < {name for name, _ in model.net.named_parameters()}:
        values = model.net_values(model.unflatten(model.initial()))
        if initial is not None:
            same = selected == initial.model.net_values(initial.model.shapes).keys()
            values = initial.model.fixed_values() if same else _mean(initial)
            names = [name for name in model.net_values(model.shapes) if name not in selected]
            _check_shapes(model, values, names)
        model = model.restrict(parameters, values)
    if initial is not None and initial.model.shapes.keys() != model.shapes.keys():
        initial = point_posterior(model, initial)
    return model, initial


def chosen_fixed_values(model: BayesianModel, full_model: BayesianModel) -> dict[str, Tensor]:
    """Return the parameters that a restriction keeps fixed, without constants of the network.

    Args:
        model: the model of the stochastic parameters.
        full_model: the model that it restricts.

    Returns:
        Name -> value.
    """
    constant = full_model.fixed_values()
    return {name: value for name, value in model.fixed_values().items() if name not in constant}


def point_posterior(model: BayesianModel, posterior: Posterior) -> Posterior:
    """Return the mean of a posterior as a posterior of other parameters of the same network.

    Args:
        model: the model with the other stochastic parameters.
        posterior: a posterior of one chain.

    Returns:
        A posterior of one draw.

    Raises:
        ConfigError: if it has several chains.
        IncompatiblePosteriors: if it is of another network.
    """
    values = _mean(posterior)
    _check_shapes(model, values, model.shapes)
    where = {"device": model.device, "dtype": model.dtype}
    flat = model.flatten({name: values[name].to(**where) for name in model.shapes})
    return SamplePosterior.from_draws(model, flat[None, None], posterior.scaling)


def _check_shapes(model: BayesianModel, values: Mapping[str, Tensor], names: Iterable[str]) -> None:
    """Check that values of an initial posterior are those of the network of a model."""
    for name in names:
        if name not in values or values[name].shape != model.shapes[name]:
            raise IncompatiblePosteriors(
                f"the initial posterior is of another network: it has no {name} of shape "
                f"{tuple(model.shapes[name])}; use the same architecture and likelihood"
            )


def _mean(posterior: Posterior) -> dict[str, Tensor]:
    """Return name -> mean of all parameters and latent variables, those that are fixed included."""
    chains = posterior.shape[0]
    if chains > 1:
        raise ConfigError(
            f"inference.parameters: the fit starts from a posterior with {chains} chains, whose "
            "hidden units differ, so that their mean is not a network; start from one with a "
            "single chain, such as map"
        )
    return {**posterior.model.fixed_values(), **posterior.model.unflatten(posterior.mean())}
