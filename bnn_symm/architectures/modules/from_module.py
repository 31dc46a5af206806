"""Build a network from the user's own code: `package.module:factory`."""

import inspect
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from bnn_symm.architectures.config import ModuleConfig
from bnn_symm.architectures.module_checks import check_module
from bnn_symm.architectures.modules.batch_norm import with_frozen_layers
from bnn_symm.architectures.modules.private_copy import private_copy, set_mode
from bnn_symm.errors import ConfigError, nearest, one_line
from bnn_symm.randomness import numpy_and_python_seed
from bnn_symm.user_code import current_directory_on_path, import_named


def build_from_module(
    config: ModuleConfig,
    input_shape: tuple[int, ...],
    num_outputs: int,
    *,
    seed: int = 0,
    points: Tensor | None = None,
) -> nn.Module:
    """Import the factory, call it and check the module that it returns.

    The factory gets `input_shape` and `num_outputs` if its signature has them, and
    `config.keywords`, which take precedence. The current directory is on the import path meanwhile,
    as with `python -m`. This runs the user's code: where a configuration comes from a run
    directory, ask the user first.

    Args:
        config: The factory's name and keywords.
        input_shape: Shape of one point.
        num_outputs: Length of the output of one point.
        seed: Seed of the global generators of NumPy and Python while the factory runs.
        points: Points of the data on which the module is checked; default standard normals.

    Returns:
        A copy of the module, with the initial values of the factory; everything that is not
            inferred
        is among its buffers (`private_copy`).

    Raises:
        ConfigError: If there is no such factory, it cannot be called or fails, or its module fails
            a check.
    """
    with current_directory_on_path():
        factory = load_factory(config.factory)
        arguments = _arguments(
            config.factory,
            factory,
            {"input_shape": input_shape, "num_outputs": num_outputs},
            config.keywords,
        )
        try:
            with numpy_and_python_seed(seed, "module"):
                net = factory(**arguments)
        except Exception as error:
            given = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
            raise ConfigError(
                f"the factory {config.factory} raised "
                f"{one_line(f'{type(error).__name__}: {error}', 120)}; it was called with "
                f"({one_line(given, 80)}): correct it, or set architecture.keywords"
            ) from error
        if config.batch_norm != "refuse" and isinstance(net, nn.Module):
            net = with_frozen_layers(net, config.factory)
        check_module(config.factory, net, input_shape, num_outputs, points)
        return set_mode(private_copy(net, config.factory), training=True)


def load_factory(name: str) -> Callable[..., Any]:
    """Return the function or class that `package.module:factory` names.

    Args:
        name: Name of the factory, `package.module:factory`.

    Raises:
        ConfigError: If the name has another form, the module cannot be imported, or has no such
            callable.
    """
    factory = import_named(name, "architecture.factory", "networks:build")
    if not callable(factory):
        raise ConfigError(
            f"architecture.factory={name!r} is of type {type(factory).__name__}, want a function "
            "or class that returns a torch.nn.Module"
        )
    return factory


def _arguments(
    name: str, factory: Callable[..., Any], offered: dict[str, Any], keywords: dict[str, Any]
) -> dict[str, Any]:
    """Return the offered arguments that the factory accepts, and all of the user's keywords."""
    try:
        signature = inspect.signature(factory)
    except (TypeError, ValueError):  # some callables written in C have no signature
        return dict(keywords)
    by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    known = [key for key, parameter in signature.parameters.items() if parameter.kind in by_name]
    takes_any = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in signature.parameters.values())
    arguments = {
        key: value for key, value in offered.items() if takes_any or key in known
    } | keywords
    try:
        signature.bind(**arguments)
    except TypeError as error:
        unknown = [key for key in keywords if key not in known]
        if unknown and not takes_any:
            hint = nearest(unknown[0], known) if known else "it takes none"
            raise ConfigError(
                f"architecture.keywords has {unknown[0]!r}, which {name}{signature} does not take; "
                f"{hint}"
            ) from error
        raise ConfigError(
            f"{name}{signature} cannot be called with {sorted(arguments)}: {error}; set what is "
            "missing in architecture.keywords"
        ) from error
    return arguments
