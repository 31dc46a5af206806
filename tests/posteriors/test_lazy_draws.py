"""Draws that are derived from others: the same numbers, read only when they are needed."""

import pickle

import torch

from bnn_symm.posteriors import LazyDraws
from bnn_symm.posteriors import lazy_draws as module

DRAWS = torch.arange(24.0).reshape(2, 6, 2)


def _add(chain: int, start: int, draws):
    return draws + 100 * chain + torch.arange(start, start + len(draws))[:, None]


def _double(index: int):
    return torch.tensor([2.0 * index])


def test_derived_draws_read_from_their_base(monkeypatch) -> None:
    base = LazyDraws.from_tensor(DRAWS)
    assert base.read(1, 4, 99).data_ptr() == DRAWS[1, 4:].data_ptr()
    assert torch.equal(base.chain(1).read(0, 2, 4), DRAWS[1, 2:4])
    expected = DRAWS + 100 * torch.arange(2)[:, None, None] + torch.arange(6)[:, None]
    assert torch.equal(base.map(_add).read(1, 3, 5), expected[1, 3:5])
    kept = [0, 3, 3, 5]
    for numbers in (1, 4, 100):  # draws that are read at once: one, two, all
        monkeypatch.setattr(module, "_NUMBERS_PER_READ", numbers)
        assert torch.equal(base.map(_add).thin(kept).read(1, 1, 4), expected[1, [3, 3, 5]])
    stacked = LazyDraws.stack([base, base.thin(range(0, 6, 2)).map(_add)])
    assert stacked.shape == (4, 3, 2)
    assert torch.equal(stacked.read(0, 0, 9), DRAWS[0, :3])


def test_derived_draws_can_be_pickled() -> None:
    computed = LazyDraws.from_function(_double, 5, 1)
    assert computed.read(0, 3, 9)[:, 0].tolist() == [6.0, 8.0]
    stacked = LazyDraws.stack([computed.thin([1, 4]).map(_add), computed.chain(0)])
    copy = pickle.loads(pickle.dumps(stacked))
    assert torch.equal(copy.read(0, 0, 2), stacked.read(0, 0, 2))
