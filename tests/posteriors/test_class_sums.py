"""Sums of class probabilities and entropies over draws, against torch's softmax in float64."""

import pytest
import torch

from bnn_symm.posteriors.predictive import class_sums


def softmax_sums(logits):
    p = torch.softmax(logits.double(), -1)
    return p.sum(0), torch.special.entr(p).sum(-1).sum(0)


@pytest.mark.parametrize("scale", [0.1, 3.0, 60.0, 300.0])  # beyond 88, exp of a float32 overflows
@pytest.mark.parametrize("shape", [(7, 5, 3), (3, 4000, 10), (400, 3, 2), (2, 3, 1)])
def test_it_is_the_sum_of_softmax(scale, shape):
    logits = scale * torch.randn(shape, generator=torch.Generator().manual_seed(0))
    for found, wanted in zip(
        class_sums(logits, with_entropy=True), softmax_sums(logits), strict=True
    ):
        # Float32 holds a logit of size 300 to 2e-5, and so its exponential relatively.
        assert torch.allclose(found, wanted, rtol=1e-4, atol=1e-4 * shape[0])


def test_one_logit_of_two_classes():
    logit = torch.randn(4, 6, 1, generator=torch.Generator().manual_seed(1))
    both = torch.cat([torch.zeros_like(logit), logit], -1)
    for found, wanted in zip(
        class_sums(logit, is_binary=True, with_entropy=True), softmax_sums(both), strict=True
    ):
        assert torch.allclose(found, wanted, rtol=1e-5)


def test_impossible_and_certain_classes():
    logits = torch.tensor([[[0.0, -torch.inf, 0.0]], [[500.0, 0.0, -500.0]]])
    probabilities, entropy = class_sums(logits, with_entropy=True)
    assert torch.allclose(probabilities, torch.tensor([[1.5, 0.0, 0.5]]).double(), atol=1e-6)
    assert torch.allclose(entropy, torch.log(torch.tensor([2.0])).double(), atol=1e-6)
