"""Planted permutations, scales and rotations are recovered, and families that are not closed are
refused."""

import functools

import pytest
import torch
from torch import Tensor, nn

from bnn_symm import BayesianModel, GaussianPosterior, Prior, SamplePosterior
from bnn_symm.alignment import align_continuous
from bnn_symm.alignment.transport import Transport, transport_posterior
from bnn_symm.errors import ConfigError
from bnn_symm.likelihoods import Gaussian
from bnn_symm.posteriors import Posterior
from bnn_symm.randomness import torch_generator
from bnn_symm.symmetry import SymmetryGroup, symmetry_group
from bnn_symm.symmetry.linear_maps import linear_maps
from tests.symmetry.networks import Attention

ALL = ("permutation", "scale", "rotation")


class Small(nn.Module):
    """A block of a transformer with two heads and a relu layer."""

    input_shape = (3, 2)

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.attention = nn.Linear(2, 4), Attention(4, 2)
        self.up, self.head = nn.Linear(4, 3), nn.Linear(3, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.embed(x))
        return self.head(self.up(h + self.attention(h)).relu().mean(1))


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 1))


@functools.cache
def group_of(build) -> SymmetryGroup:
    return symmetry_group(draws(build).model.net)


def draws(build, number: int = 1) -> SamplePosterior:
    torch.manual_seed(0)
    model = BayesianModel(build().double(), Prior(), Gaussian(noise=0.1))
    shape = (1, number, model.num_parameters)
    noise = torch.randn(shape, generator=torch_generator("draws"), dtype=torch.float64)
    first = noise[:, :1]
    return SamplePosterior.from_draws(model, first + 0.05 * noise if number > 1 else first)


def planted(posterior: Posterior, group: SymmetryGroup, *, rotated: bool) -> Posterior:
    """The posterior with a random permutation, scales of relu units and rotations of heads."""
    net = posterior.model.net
    maps = linear_maps(net, group.spec, group.fixed) if rotated else []
    names = group.spec.scaled_groups - {own.where for own in maps}
    key = torch_generator("planted")
    factors = {
        name: 0.5 + 2 * torch.rand(group.spec.groups[name].size, generator=key) for name in names
    }
    noise = [torch.randn(*own.free[0].shape, 2, generator=key).double() for own in maps]
    rotations = [torch.linalg.qr(own).Q for own in noise]
    transport = Transport(group.spec, factors, tuple(zip(maps, rotations, strict=True)))
    return transport_posterior(posterior.permute(group.random("planted")), transport)


@pytest.mark.thorough
@pytest.mark.parametrize(("build", "symmetries"), [(mlp, ALL[:2]), (Small, ALL)])
def test_a_planted_element_is_recovered(build, symmetries):
    reference = draws(build)
    group = group_of(build)
    other = planted(reference, group, rotated="rotation" in symmetries)
    found = align_continuous(
        reference, other, symmetries, solver="coordinate", group=group, restarts=2
    )
    assert found.distance_permutation > 0.1
    assert found.distance_after < 1e-6 * found.distance_before
    assert found.function_difference < 1e-9
    aligned = found.apply(other)
    torch.testing.assert_close(aligned.mean(), reference.mean(), rtol=0, atol=1e-4)
    x = torch.randn(4, *getattr(reference.model.net, "input_shape", (3,)), dtype=torch.float64)
    outputs = [own.predict(x).outputs for own in (reference, other, aligned)]
    torch.testing.assert_close(outputs[1], outputs[0])
    torch.testing.assert_close(outputs[2], outputs[0])
    # The barrier: the function on the straight line between the means is that of its ends.
    middle = SamplePosterior.from_draws(
        reference.model, (0.5 * (reference.mean() + aligned.mean()))[None, None]
    )
    torch.testing.assert_close(middle.predict(x).outputs, outputs[0], rtol=1e-4, atol=1e-4)


@pytest.mark.thorough
def test_draws_are_transported_one_by_one():
    reference = draws(Small, 3)
    group = group_of(Small)
    other = planted(reference, group, rotated=True)
    found = align_continuous(reference, other, ALL, solver="coordinate", group=group, restarts=0)
    moved = found.apply(reference)
    x = torch.randn(4, 3, 2, dtype=torch.float64)
    torch.testing.assert_close(moved.predict(x).outputs, reference.predict(x).outputs)
    assert not torch.allclose(moved.mean(), reference.mean())


@pytest.mark.thorough
def test_scales_of_independent_normals():
    model = draws(mlp).model
    loc = draws(mlp).mean()
    reference = GaussianPosterior(model, draws(mlp).scaling, loc=loc, scale=0.1 + 0.1 * loc.abs())
    other = planted(reference, group_of(mlp), rotated=False)
    found = align_continuous(reference, other, ALL[:2], solver="coordinate", restarts=2)
    assert found.compared == "w2"
    aligned = found.apply(other)
    assert isinstance(aligned, GaussianPosterior)
    torch.testing.assert_close(aligned.loc, reference.loc, rtol=0, atol=1e-4)
    torch.testing.assert_close(aligned.scale, reference.scale, rtol=0, atol=1e-4)


def test_a_rotated_normal_is_refused():
    loc = draws(Small).mean()
    normal = GaussianPosterior(
        draws(Small).model, draws(Small).scaling, loc=loc, scale=torch.ones_like(loc)
    )
    with pytest.raises(ConfigError, match="not of its family"):
        align_continuous(
            normal, normal, ALL, solver="coordinate", group=group_of(Small), restarts=0
        )


@pytest.mark.parametrize("symmetries", [("scale",), ("permutation", "flip"), ("permutation",) * 2])
def test_unknown_symmetries_are_refused(symmetries):
    with pytest.raises(ConfigError, match="symmetries"):
        align_continuous(draws(mlp), draws(mlp), symmetries)
