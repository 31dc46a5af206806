"""What the package relies on in torch beyond its documented interface."""

import pytest
import torch
import torch.nn.functional as F
from torch.func import functional_call, grad, vmap

from bnn_symm import torch_internals
from bnn_symm.symmetry.tracing import source_lines
from bnn_symm.torch_internals import (
    OperationMode,
    compile_keywords,
    is_transformed,
    mark_first_axis_dynamic,
    unobserved,
)


class Names(OperationMode):
    def __init__(self):
        super().__init__()
        self.seen = []

    def operate(self, func, args, kwargs):
        self.seen.append((getattr(func, "__name__", ""), sorted(kwargs)))
        with unobserved():
            _ = args[0] + 1
        return func(*args, **kwargs)


def test_a_mode_receives_every_operation_but_its_own():
    x, weight = torch.ones(2, 3), torch.ones(4, 3)
    with Names() as mode:
        F.linear(x, weight)
        x.sum(dim=1)
        assert x.T.shape == (3, 2)
        with unobserved():
            x * 2
    names = [name for name, _ in mode.seen]
    assert names[:2] == ["linear", "sum"]
    assert "__get__" in names
    assert "mul" not in names
    assert "__mul__" not in names
    assert mode.seen[1] == ("sum", ["dim"])


def test_trees_have_leaves_in_order():
    tree = ((1, [2]), {"key": 3})
    assert torch_internals.tree_leaves(tree) == [1, 2, 3]
    assert torch_internals.tree_map(lambda leaf: leaf + 1, tree) == ((2, [3]), {"key": 4})


def test_transforms_of_functions_are_recognized():
    seen = []

    def function(x):
        seen.append(is_transformed([x]))
        return x.sum()

    function(torch.ones(3))
    grad(function)(torch.ones(3))
    vmap(function)(torch.ones(2, 3))
    assert seen == [False, True, True]


@pytest.mark.thorough
def test_compiled_code_is_recognized():
    def function(x):
        return x + (1 if is_transformed([x]) else 0)

    assert float(torch.compile(function, fullgraph=True)(torch.zeros(()))) == 1


def test_unknown_options_of_the_compiler_are_left_out():
    known = torch._inductor.list_options()[0]
    keywords = compile_keywords({known: 1, "no such option": 2})
    assert keywords["options"].pop(known) == 1
    assert set(keywords["options"]) <= {"guard_filter_fn"}
    assert set(keywords) <= {"options", "isolate_recompiles"}


def test_versions_without_control_of_guards_keep_them(monkeypatch):
    monkeypatch.delattr(torch.compiler, "skip_all_guards_unsafe", raising=False)
    assert "guard_filter_fn" not in compile_keywords({})["options"]
    monkeypatch.setattr(torch, "compile", lambda model, *, options=None: model)
    assert compile_keywords({}) == {"options": {}}


@pytest.mark.thorough
def test_compiled_code_has_no_guards_and_one_dynamic_axis():
    def function(x):
        return 2 * x

    keywords = compile_keywords({})
    compiled = torch.compile(function, fullgraph=True, dynamic=False, backend="eager", **keywords)
    first = torch.ones(3)
    mark_first_axis_dynamic(first)
    assert torch.equal(compiled(first), 2 * first)
    with torch._dynamo.config.patch(error_on_recompile=True):
        assert torch.equal(compiled(torch.ones(5)), 2 * torch.ones(5))


def test_the_call_of_a_network_is_found_in_a_traceback():
    class Network(torch.nn.Module):
        def forward(self, x):
            raise ValueError("in the network")

    net = Network()
    with pytest.raises(ValueError, match="in the network") as caught:
        functional_call(net, {}, (torch.ones(1),))
    assert "raise ValueError" in source_lines.raising_position(caught.value, net)
