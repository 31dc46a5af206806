"""Bayesian neural network inference that accounts for the symmetries of weight space.

The public names are listed once, in `__init__.pyi`, for editors and type checkers. At run time each
name is imported from its module on first use, so that `import bnn_symm` is fast. Further names are
in the namespaces, such as `bnn_symm.likelihoods.Gaussian`, `bnn_symm.diagnostics.mixing` and
`bnn_symm.studies.run_study`.

Example:
    >>> import bnn_symm
    >>> bnn_symm.MeanFieldVI(num_steps=100).num_steps
    100
"""

import ast
from importlib import import_module, metadata
from pathlib import Path
from typing import Any


def _public_names() -> dict[str, str]:
    """Return name -> module, as imported in `__init__.pyi`."""
    stub = ast.parse(Path(__file__).with_suffix(".pyi").read_text(encoding="utf-8"))
    return {
        alias.name: node.module
        for node in stub.body
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
    }


_MODULE_OF = _public_names()
_FORMER = {"foreign_run": "external_run", "canonicalise": "canonicalize"}
"""Former name -> present name."""
# Names that this module exported in earlier versions are looked up in these.
_NAMESPACES = [name for name, module in _MODULE_OF.items() if module == __name__]

__all__ = sorted(_MODULE_OF)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        value: Any = metadata.version(__name__)
    elif name in _NAMESPACES:
        value = import_module(f"{__name__}.{name}")
    elif name in _MODULE_OF:
        value = getattr(import_module(_MODULE_OF[name]), name)
    else:
        value = _from_namespaces(_FORMER.get(name, name))
    globals()[name] = value
    return value


def _from_namespaces(name: str) -> Any:
    """Return a name from the first namespace that exports it."""
    for namespace in () if name.startswith("_") else _NAMESPACES:
        module = import_module(f"{__name__}.{namespace}")
        if name in module.__all__:
            return getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
