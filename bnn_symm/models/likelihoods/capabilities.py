"""Ask a likelihood for its optional members, and use what holds for any likelihood without them.

Nothing else in the program asks which likelihood it has, so that likelihoods that are defined
elsewhere work as those of this package do.
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from bnn_symm.models.likelihoods.likelihood import Latents


def is_classification(likelihood: Any) -> bool:
    """Return whether the target is a class.

    Args:
        likelihood: any likelihood.
    """
    return likelihood.task == "classification"


def is_ordered(likelihood: Any) -> bool:
    """Return whether the target is a class, and the order of the classes has a meaning.

    Args:
        likelihood: any likelihood.
    """
    return is_classification(likelihood) and likelihood.is_ordered


def is_count(likelihood: Any) -> bool:
    """Return whether the target is a count: 0, 1, 2, ...

    Args:
        likelihood: any likelihood.
    """
    return likelihood.task == "count"


def fixed_num_outputs(likelihood: Any) -> int | None:
    """Return the number of outputs that the network must have; None if any number is possible.

    Args:
        likelihood: any likelihood.
    """
    if not is_classification(likelihood):
        return likelihood.num_net_outputs(num_columns(likelihood))
    number = likelihood.num_classes
    return None if number is None else likelihood.num_net_outputs(number)


def num_columns(likelihood: Any) -> int:
    """Return the number of columns of the targets that a likelihood reads.

    Args:
        likelihood: any likelihood.
    """
    if condition(likelihood) is not None:
        return 2
    return likelihood.num_columns or 1


def condition(likelihood: Any) -> str | None:
    """Return the name of the second column of targets, which is not predicted.

    Args:
        likelihood: any likelihood.

    Returns:
        `event`: whether the event was seen at the time in the first column; `exposure` of the
        count in the first column; None if all columns are predicted.
    """
    return likelihood.condition


def has_events(likelihood: Any) -> bool:
    """Return whether targets are times, some of which are censored.

    Args:
        likelihood: any likelihood.
    """
    return condition(likelihood) == "event"


def without_exposure(likelihood: Any, outputs: Tensor, y: Tensor) -> tuple[Any, Tensor, Tensor]:
    """Return the likelihood, the outputs and the targets of counts whose exposure is one.

    Args:
        likelihood: any likelihood.
        outputs: of the network, (..., point, output).
        y: targets of the points, as the likelihood reads them.

    Returns:
        What has the same densities; the arguments themselves without an exposure.
    """
    if condition(likelihood) != "exposure":
        return likelihood, outputs, y
    return likelihood.given(outputs, y)


def target_distribution(
    likelihood: Any, outputs: Tensor, latents: Latents, y: Tensor | None
) -> tuple[Any, Tensor | None]:
    """Return a Pyro distribution whose density is that of the likelihood, and what it observes.

    Args:
        likelihood: any likelihood.
        outputs: of the network, (..., point, output).
        latents: latent variables, each (...).
        y: targets, as the likelihood reads them; None if they are to be sampled.

    Returns:
        The distribution, and the targets without events and exposures.
    """
    if y is None or condition(likelihood) is None:
        return likelihood.distribution(outputs, latents), y
    return likelihood.conditional_distribution(outputs, latents, y), y[..., 0]


def num_classes(likelihood: Any, num_net_outputs: int) -> int:
    """Return the number of classes of a likelihood of classes.

    Args:
        likelihood: a likelihood of classes.
        num_net_outputs: number of outputs of the network.
    """
    return likelihood.num_classes or num_net_outputs


def canonical_outputs(likelihood: Any, outputs: Tensor) -> Tensor:
    """Return functions of the outputs that are equal wherever the predicted distribution is.

    Logits of classes, for example, are centered: a common shift has no effect.

    Args:
        likelihood: any likelihood.
        outputs: of the network, (..., output).

    Returns:
        (..., output); the outputs themselves, unless the likelihood overrides it.
    """
    return likelihood.canonical_outputs(outputs)


def output_names(likelihood: Any, number: int) -> Sequence[str | int]:
    """Return the names of the outputs of the network, or their numbers.

    Args:
        likelihood: any likelihood.
        number: of outputs.
    """
    names = likelihood.output_names
    return names if len(names) == number else range(number)


def normal_components(
    likelihood: Any, outputs: Tensor, latents: Latents
) -> tuple[Tensor, Tensor, Tensor] | None:
    """Return the normal distributions whose mixture the target has given each draw.

    Args:
        likelihood: a likelihood of numbers.
        outputs: of the network, (..., point, output).
        latents: latent variables, each (...).

    Returns:
        Weights, means and standard deviations, each (..., point, component); None if the likelihood
        has no `normal_components`.
    """
    own = getattr(likelihood, "normal_components", None)
    return None if own is None else own(outputs, latents)
