"""Inputs of a network: the shape of one point, whether it takes tokens, and points to pass.

A network takes tokens, integers that it embeds, if it has the attribute `num_tokens`, or if its
first layer is an `nn.Embedding`. Where they are nodes of a graph, its attribute `token_name` is
`nodes`.
"""

import torch
from jaxtyping import Shaped
from torch import Tensor, nn

from bnn_symm.errors import ConfigError, SymmetryError
from bnn_symm.randomness import torch_generator


def input_shape_of(net: nn.Module) -> tuple[int, ...]:
    """Return the shape of one point, as declared by a network or by its first linear layer.

    Args:
        net: the network.

    Raises:
        SymmetryError: if the network does not declare it.
    """
    shape = getattr(net, "input_shape", None)
    if shape is not None:
        return tuple(shape)
    first = _first_layer(net)
    if isinstance(first, nn.Flatten):
        first = next((module for module in net.modules() if isinstance(module, nn.Linear)), None)
    if isinstance(first, nn.Linear):
        return (first.in_features,)
    raise SymmetryError(
        f"the input shape of a {type(net).__name__} is unknown; pass the shape of one point, such "
        "as input_shape=(3, 32, 32)"
    )


def num_tokens_of(net: nn.Module) -> int | None:
    """Return the number of tokens that a network embeds; None if its inputs are numbers.

    Args:
        net: the network.

    Example:
        >>> num_tokens_of(nn.Sequential(nn.Embedding(100, 8), nn.Flatten(), nn.Linear(80, 2)))
        100
    """
    declared = getattr(net, "num_tokens", None)
    if isinstance(declared, int):
        return declared
    first = _first_layer(net)
    return first.num_embeddings if isinstance(first, nn.Embedding) else None


def network_inputs(net: nn.Module, x: Shaped[Tensor, "*axes"]) -> Shaped[Tensor, "*axes"]:
    """Return inputs on the device of a network and in its type; tokens stay integers.

    Args:
        net: the network.
        x: numbers or tokens.

    Raises:
        ConfigError: if the network does not embed a token.
    """
    reference, num_tokens = next(net.parameters(), torch.zeros(())), num_tokens_of(net)
    if x.is_floating_point() or num_tokens is None:
        return x.to(reference.device, reference.dtype)
    if x.numel() and not 0 <= int(x.min()) <= int(x.max()) < num_tokens:
        if getattr(net, "token_name", "tokens") == "nodes":
            raise ConfigError(
                f"x has nodes from {int(x.min())} to {int(x.max())}, but the graph has those from "
                f"0 to {num_tokens - 1}; leave out the others"
            )
        raise ConfigError(
            f"x has tokens from {int(x.min())} to {int(x.max())}, but the network embeds those "
            f"from 0 to {num_tokens - 1}; give it a larger embedding, or replace unknown tokens"
        )
    return x.to(reference.device)


def zero_point(net: nn.Module, input_shape: tuple[int, ...]) -> Shaped[Tensor, "1 *axes"]:
    """Return one input of zeros in the type of a network, for passes that read shapes only.

    Args:
        net: the network.
        input_shape: shape of one point.
    """
    is_number = num_tokens_of(net) is None
    return network_inputs(
        net, torch.zeros(1, *input_shape, dtype=None if is_number else torch.int64)
    )


def input_points(net: nn.Module, input_shape: tuple[int, ...] | None, number: int) -> Tensor:
    """Return standard normals (point, *input) in float64, or random tokens; always the same.

    Args:
        net: the network.
        input_shape: shape of one point; default that of `input_shape_of`.
        number: number of points.
    """
    shape = input_shape_of(net) if input_shape is None else tuple(input_shape)
    generator, num_tokens = torch_generator("watched points"), num_tokens_of(net)
    if num_tokens is not None:
        return torch.randint(num_tokens, (number, *shape), generator=generator)
    return torch.randn(number, *shape, generator=generator, dtype=torch.float64)


def _first_layer(net: nn.Module) -> nn.Module | None:
    """Return the first module without children, in the order of definition."""
    return next((module for module in net.modules() if not list(module.children())), None)
