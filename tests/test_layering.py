"""Arrows never run upwards: a module imports only from layers below its own."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "bnn_symm"

# From the bottom up; names in one row know nothing of each other.
LAYERS = [
    {"arguments", "errors", "randomness", "settings", "io", "threads"},
    {"data", "symmetry"},
    {"architectures"},
    {"models"},
    {"posteriors"},
    {"inference"},
    {"alignment"},
    {"diagnostics"},
    {"runs"},
    {"analyses"},
    {"studies"},
    {"report", "estimators"},
    {"cli"},
    {"__init__"},
]
HEIGHT = {name: height for height, names in enumerate(LAYERS) for name in names}
# The foundations may use each other.
FLAT = LAYERS[0]
ALLOWED = {"pyro": {"models", "inference"}, "matplotlib": {"report"}}

MODULES = sorted(PACKAGE.rglob("*.py"))


def layer_of(module: Path) -> str:
    return module.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(module: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import"
            names.add(node.module)
            if node.module == "bnn_symm":
                names |= {f"bnn_symm.{alias.name}" for alias in node.names}
    return names


def test_every_module_has_a_layer():
    assert {layer_of(module) for module in MODULES} <= set(HEIGHT)


@pytest.mark.parametrize("module", MODULES, ids=lambda m: str(m.relative_to(PACKAGE)))
def test_imports_run_downwards(module):
    own = layer_of(module)
    for name in imported(module):
        parts = name.split(".")
        if parts[0] == "bnn_symm" and len(parts) > 1:
            other = parts[1]
            same = other == own or {own, other} <= FLAT
            assert same or HEIGHT[other] < HEIGHT[own], f"{module}: {own} imports {other}"
        if parts[0] in ALLOWED:
            assert own in ALLOWED[parts[0]], f"{module}: {own} imports {parts[0]}"


def test_the_check_sees_an_arrow_that_runs_upwards(tmp_path):
    module = tmp_path / "wrong.py"
    module.write_text("def f():\n    from bnn_symm.cli import main\n")
    assert "bnn_symm.cli" in imported(module)
