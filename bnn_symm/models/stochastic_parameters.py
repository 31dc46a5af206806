"""Select the parameters of a network that get a posterior, by patterns of their names."""

import fnmatch
from collections.abc import Sequence

from torch import nn

from bnn_symm.architectures import fixed_parameters
from bnn_symm.errors import ConfigError, nearest, one_line

_MAX_NAMES = 200  # characters of the list of names in a message


def stochastic_parameters(net: nn.Module, patterns: Sequence[str]) -> set[str]:
    """Return the names of the parameters that patterns select.

    A parameter that layers share has several names; a pattern selects it by any of them.

    Args:
        net: a private copy of a network.
        patterns: patterns of names, such as `head.*`; none selects all parameters.

    Returns:
        Names, as `named_parameters` gives them.

    Raises:
        ConfigError: if a pattern selects nothing.

    Example:
        >>> net = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1))
        >>> sorted(stochastic_parameters(net, ["2.*"]))
        ['2.bias', '2.weight']
    """
    first = {id(value): name for name, value in net.named_parameters()}
    if not patterns:
        return set(first.values())
    every = {name: first[id(value)] for name, value in net.named_parameters(remove_duplicate=False)}
    selected: set[str] = set()
    for pattern in patterns:
        matched = fnmatch.filter(every, pattern)
        if not matched:
            raise ConfigError(f"parameters: pattern {pattern!r} {_problem(net, every, pattern)}")
        selected |= {every[name] for name in matched}
    return selected


def _problem(net: nn.Module, names: Sequence[str] | dict[str, str], pattern: str) -> str:
    """Return why a pattern selects no parameter, and what to do."""
    if fnmatch.filter(fixed_parameters(net), pattern):
        return (
            "matches only parameters that are fixed already, by requires_grad=False or an earlier "
            "choice; call requires_grad_(True) on those that get a posterior"
        )
    if pattern.startswith("likelihood."):
        return (
            "matches no parameter of the network; latent variables of the likelihood always get a "
            "posterior, so leave it out"
        )
    known = one_line(", ".join(names), _MAX_NAMES)
    close = nearest(pattern, names)
    hint = f"{close} Parameters are {known}" if close.startswith("did") else f"they are {known}"
    return f"matches no parameter of the network; {hint}"
