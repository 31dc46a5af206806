import torch

from bnn_symm.architectures.layers.activations import ThresholdedLinearUnit
from bnn_symm.architectures.layers.norms import FilterResponseNorm, image_norm


def test_filter_response_norm_and_threshold_against_the_formula_by_hand() -> None:
    norm = FilterResponseNorm(2).double()
    threshold = ThresholdedLinearUnit(2).double()
    gamma, beta, tau = [1.5, -0.5], [0.1, 0.2], [-0.3, 0.4]
    with torch.no_grad():
        norm.weight.copy_(torch.tensor(gamma, dtype=torch.float64))
        norm.bias.copy_(torch.tensor(beta, dtype=torch.float64))
        threshold.tau.copy_(torch.tensor(tau, dtype=torch.float64))
    x = torch.randn(3, 2, 4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    z = threshold(norm(x)).detach()
    for point in range(3):
        for channel in range(2):
            values = x[point, channel].flatten().tolist()
            mean_square = sum(value**2 for value in values) / 20
            scale = gamma[channel] / (mean_square + 1e-6) ** 0.5
            offset, least = beta[channel], tau[channel]
            by_hand = torch.tensor(
                [max(scale * value + offset, least) for value in values], dtype=torch.float64
            )
            torch.testing.assert_close(z[point, channel].flatten(), by_hand, rtol=0, atol=1e-12)


def test_a_new_threshold_is_a_relu() -> None:
    y = torch.linspace(-2, 2, 8).reshape(1, 2, 2, 2)
    assert torch.equal(ThresholdedLinearUnit(2)(y), y.relu())


def test_filter_response_norm_of_an_empty_map_is_finite() -> None:
    assert torch.equal(FilterResponseNorm(2)(torch.zeros(1, 2, 3, 3)), torch.zeros(1, 2, 3, 3))


def test_one_group_norm_standardizes_each_point_over_channels_and_places() -> None:
    x = 3 + 2 * torch.randn(4, 5, 6, 6, generator=torch.Generator().manual_seed(0))
    y = image_norm("layer", 5)(x).flatten(1)
    torch.testing.assert_close(y.mean(1), torch.zeros(4), rtol=0, atol=1e-5)
    torch.testing.assert_close(y.var(1, correction=0), torch.ones(4), rtol=0, atol=1e-4)
