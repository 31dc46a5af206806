"""A copy computes the same, has the same names, and no fit changes it."""

import copy

import pytest
import torch
from torch import nn

from bnn_symm import MAP, SGLD, BayesianModel, MeanFieldVI, Prior, load_dataset, symmetry_group
from bnn_symm.architectures import private_copy
from bnn_symm.likelihoods import Categorical


class Shared(nn.Module):
    """A network with one layer under three names, of which a container comes first."""

    input_shape = (4,)

    def __init__(self):
        super().__init__()
        layer = nn.Linear(5, 5)
        self.block = nn.Sequential(nn.Linear(4, 5), nn.Sequential(layer, nn.Tanh()))
        self.layer, self.layers = layer, nn.ModuleList([layer, nn.Linear(5, 3)])

    def forward(self, x):
        x = torch.tanh(self.layer(self.block(x)))
        return self.layers[1](x @ self.layers[0].weight)


def test_a_module_with_several_names_keeps_its_first_name_and_its_function():
    torch.manual_seed(0)
    net, x = Shared(), torch.randn(6, 4)
    clone = private_copy(net, "net")
    assert [name for name, _ in clone.named_parameters()] == [
        name for name, _ in net.named_parameters()
    ]
    for own in (clone, copy.deepcopy(clone), copy.deepcopy(clone).double()):
        assert torch.allclose(own(x.to(own.layer.weight.dtype)).float(), net(x), atol=1e-6)
    with torch.no_grad():
        clone.block[1][0].weight.mul_(2)
    assert not torch.allclose(clone(x), net(x))
    with pytest.raises(AttributeError, match="missing"):
        _ = clone.layer.missing


@pytest.mark.parametrize(
    "method", [MAP(num_steps=5), MeanFieldVI(num_steps=5), SGLD(num_warmup=3, num_draws=2)]
)
def test_fits_do_not_change_a_network_whose_module_has_several_names(method):
    model = BayesianModel(Shared(), Prior(), Categorical())
    before, data = model.initial(), load_dataset("iris")
    means = [method.fit(model, data, seed=0).mean() for _ in range(2)]
    assert torch.equal(*means)
    assert torch.equal(model.initial(), before)


def test_symmetries_of_a_module_with_several_names():
    layer = nn.Linear(5, 5)
    net = nn.Sequential(nn.Linear(4, 5), layer, nn.Tanh(), layer, nn.Linear(5, 3))
    assert symmetry_group(net).order == symmetry_group(private_copy(net, "net")).order
