import pytest
import torch
from torch import nn

from bnn_symm.architectures import (
    CNNConfig,
    MLPConfig,
    ResNetConfig,
    SymmetryConfig,
    asymmetrize,
    build_network,
    fingerprint,
)
from bnn_symm.errors import ConfigError
from bnn_symm.likelihoods import Categorical
from bnn_symm.models import BayesianModel, Prior
from bnn_symm.symmetry import symmetry_group


def mlp(seed: int = 0, kind: str = "bias_asymmetric", **keys) -> nn.Module:
    config = MLPConfig(widths=(5, 6), activation="relu", symmetry=SymmetryConfig(kind=kind, **keys))
    return build_network(config, input_shape=(4,), num_outputs=3, seed=seed)


def frozen(net: nn.Module) -> set[str]:
    return {name for name, value in net.named_parameters() if not value.requires_grad}


def test_only_the_biases_of_hidden_units_are_fixed() -> None:
    net = mlp()
    biases = {name for name in dict(net.named_parameters()) if name.endswith("bias")}
    assert frozen(net) == biases - {"head.bias"}
    model = BayesianModel(net, Prior(), Categorical())
    assert model.num_parameters == 4 * 5 + 5 * 6 + 6 * 3 + 3


def test_no_permutation_scale_or_flip_is_left() -> None:
    assert symmetry_group(mlp(kind="standard")).log10_order > 4
    group = symmetry_group(mlp())
    assert group.log10_order == 0
    tanh = MLPConfig(
        widths=(5,), activation="tanh", symmetry=SymmetryConfig(kind="bias_asymmetric")
    )
    assert symmetry_group(build_network(tanh, input_shape=(2,), num_outputs=1)).log10_order == 0


def test_values_depend_on_the_seed_of_the_symmetry_alone() -> None:
    first, other = mlp(seed=0), mlp(seed=1)
    assert fingerprint(first) == fingerprint(other)
    assert fingerprint(first) != fingerprint(mlp(seed=0, **{"kind": "bias_asymmetric"}, kappa=0.5))
    reseeded = SymmetryConfig(kind="bias_asymmetric", seed=1)
    config = MLPConfig(widths=(5, 6), symmetry=reseeded)
    assert fingerprint(first) != fingerprint(build_network(config, input_shape=(4,), num_outputs=3))
    for name in frozen(first):
        assert torch.equal(first.get_parameter(name), other.get_parameter(name))
        assert first.get_parameter(name).std() > 0.3


def test_convolutions_and_modules() -> None:
    symmetry = SymmetryConfig(kind="bias_asymmetric")
    cnn = build_network(
        CNNConfig(widths=(3, 4), symmetry=symmetry), input_shape=(1, 8, 8), num_outputs=2
    )
    assert symmetry_group(cnn).log10_order == 0
    plain = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 1))
    changed = asymmetrize(plain, kind="bias_asymmetric", input_shape=(4,), kappa=2.0)
    assert frozen(changed) == {"0.bias"}
    assert frozen(plain) == set()


def test_what_cannot_be_fixed_is_refused() -> None:
    plain = nn.Sequential(nn.Linear(4, 3, bias=False), nn.ReLU(), nn.Linear(3, 1))
    with pytest.raises(ConfigError, match="no hidden layer with a bias in Sequential"):
        asymmetrize(plain, kind="bias_asymmetric", input_shape=(4,))
    with pytest.raises(ConfigError, match="pass input_shape"):
        asymmetrize(plain, kind="bias_asymmetric")
    with pytest.raises(ConfigError, match="one number above 0"):
        mlp(kappa=0.0)
    with pytest.raises(ConfigError, match="one number above 0"):
        mlp(kappa=(1.0, 2.0))
    resnet = ResNetConfig(depth=20, norm="layer", symmetry=SymmetryConfig(kind="bias_asymmetric"))
    with pytest.raises(ConfigError, match="no hidden layer with a bias"):
        build_network(resnet, input_shape=(3, 8, 8), num_outputs=2)
