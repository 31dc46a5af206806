"""Permanents against brute force, and the bound against permanents."""

import itertools
import math

import pytest
import torch
from torch import Tensor

from bnn_symm.symmetry.group.permanent import log_factorial, log_permanent, log_permanent_bound
from tests.models.cases import normal


def brute_force(logs: Tensor) -> Tensor:
    size = logs.shape[-1]
    rows = torch.arange(size)
    terms = [
        logs[..., rows, torch.tensor(order)].sum(-1)
        for order in itertools.permutations(range(size))
    ]
    return torch.stack(terms).logsumexp(0)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 6, 7])
@pytest.mark.parametrize("spread", [0.0, 1.0, 30.0])
def test_it_is_the_sum_over_all_orders(size, spread):
    logs = spread * normal(3, size, size)
    torch.testing.assert_close(log_permanent(logs), brute_force(logs), rtol=1e-13, atol=1e-12)


def test_densities_beyond_the_range_of_floats_are_no_trouble():
    logs = normal(5, 5) + 1e4 * torch.eye(5).double() - 1e5
    assert float(log_permanent(logs)) == pytest.approx(float(logs.diagonal().sum()), rel=1e-12)
    assert float(log_permanent_bound(logs)) == pytest.approx(
        float(logs.diagonal().sum()), rel=1e-12
    )


def test_known_permanents_of_twelve():
    ones = torch.zeros(12, 12, dtype=torch.float64)
    assert float(log_permanent(ones)) == pytest.approx(math.log(math.factorial(12)), rel=1e-12)
    # Ones but on the diagonal: the derangements of 12.
    holes = ones.masked_fill(torch.eye(12).bool(), -1e6)
    assert float(log_permanent(holes)) == pytest.approx(math.log(176214841), rel=1e-12)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("spread", [0.1, 1.0, 5.0])
def test_the_bound_is_above(size, spread):
    logs = spread * normal(40, size, size)
    rounding = 1e-10
    assert bool((log_permanent_bound(logs) >= log_permanent(logs) - rounding).all())


def test_the_bound_is_exact_for_equal_entries_for_single_ones_and_for_blocks():
    apart = -300.0 * (1 - torch.eye(9).double())
    blocks = torch.block_diag(*[torch.ones(size, size) for size in (4, 3, 2)]).double()
    for logs, wanted in (
        (torch.full((9, 9), -2.0).double(), log_factorial(9) - 18),
        (apart, 0.0),
        (300 * (blocks - 1), math.log(24 * 6 * 2)),
    ):
        assert float(log_permanent_bound(logs)) == pytest.approx(wanted, abs=1e-9)


def test_scales_of_rows_and_columns_only_shift_it():
    logs = normal(6, 6)
    rows, columns = 10 * normal(6, 1, seed=1), 10 * normal(1, 6, seed=2)
    shift = float(rows.sum() + columns.sum())
    assert float(log_permanent(logs + rows + columns)) == pytest.approx(
        float(log_permanent(logs)) + shift, abs=1e-9
    )
    # Ten rounds of scaling undo a column's scale nearly: without them the bound would be nats
    # apart.
    bound = float(log_permanent_bound(logs))
    assert float(log_permanent_bound(logs + rows + columns)) == pytest.approx(
        bound + shift, abs=0.05
    )
