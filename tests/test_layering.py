"""Layers import only lower layers, there are no circular imports, and protocols can be checked."""

import ast
from pathlib import Path

import grimp
import igraph
import pytest
from importlinter.cli import lint_imports

import bnn_symm


@pytest.fixture(scope="module")
def graph():
    """Return every import of the package, also in functions and under TYPE_CHECKING."""
    return grimp.build_graph("bnn_symm", cache_dir=None)


def circles(graph: grimp.ImportGraph) -> list[list[str]]:
    names = sorted(graph.modules)
    edges = [(a, b) for a in names for b in graph.find_modules_directly_imported_by(a)]
    components = igraph.Graph.TupleList(edges, directed=True)
    return [
        sorted(components.vs[part]["name"])
        for part in components.connected_components("strong")
        if len(part) > 1
    ]


def test_the_contracts_of_layers_hold(capsys):
    # The contracts are in pyproject.toml; the report goes to stdout.
    assert lint_imports(no_cache=True) == 0, capsys.readouterr().out


def test_no_modules_import_each_other_in_a_circle(graph):
    assert circles(graph) == []


def test_a_circle_is_noticed(graph):
    graph.add_import(importer="bnn_symm.errors", imported="bnn_symm.cli.program")
    assert any("bnn_symm.errors" in circle for circle in circles(graph))
    graph.remove_import(importer="bnn_symm.errors", imported="bnn_symm.cli.program")


def test_protocols_that_are_checked_at_run_time_have_no_tensors():
    # Modules give parameters and buffers by `__getattr__`, which `isinstance` of a protocol does
    # not ask from Python 3.12 on.
    found = [
        (path.name, ast.unparse(member.target))
        for path in Path(bnn_symm.__file__).parent.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef)
        and "runtime_checkable" in map(ast.unparse, node.decorator_list)
        for member in node.body
        if isinstance(member, ast.AnnAssign) and "Tensor" in ast.unparse(member.annotation)
    ]
    assert found == []
