"""Functions whose compiled kernels are called without the rest, and those that have more."""

import pytest
import torch

from bnn_symm.inference.density.compiled import Compiled, Replayed, has_compiler


def step(x: torch.Tensor, total: torch.Tensor) -> None:
    following = x.sin() + 0.5
    total.copy_(total + following.sum())
    x.copy_(following)


def powers(x: torch.Tensor, total: torch.Tensor) -> None:
    # The compiler has no kernel for powers of integers; their result is a new tensor each time.
    total.copy_(total + (torch.ones_like(total, dtype=torch.int64) * 2) ** x.long().sum())
    x.copy_(x + 1)


def test_a_function_that_is_not_compiled_is_called():
    x, total = torch.zeros(3), torch.zeros(())
    replayed = Replayed(step, [x, total])
    for _ in range(5):
        replayed()
    assert not replayed.is_replayed
    assert x.min() > 0.5


@pytest.mark.thorough
@pytest.mark.skipif(not has_compiler(), reason="there is no C++ compiler")
@pytest.mark.parametrize(("function", "is_replayed"), [(step, True), (powers, False)])
def test_replayed_kernels_do_what_the_function_does(function, is_replayed):
    tensors, plain = ([torch.zeros(3), torch.zeros(())] for _ in range(2))
    replayed = Replayed(Compiled(function, "a step"), tensors)
    for _ in range(8):
        replayed()
        function(*plain)
    assert replayed.is_replayed == is_replayed
    for tensor, expected in zip(tensors, plain, strict=True):
        torch.testing.assert_close(tensor, expected)
