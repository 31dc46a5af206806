"""Batch norm is frozen or replaced, and the result is a function of one point."""

import copy

import pytest
import torch
from torch import Tensor, nn

from bnn_symm import (
    MAP,
    BayesianModel,
    Prior,
    convert_batch_norm,
    freeze_batch_norm,
    permutation_spec,
)
from bnn_symm.architectures import (
    CNNConfig,
    FrozenBatchNorm,
    MLPConfig,
    ResNetConfig,
    SymmetryConfig,
    build_network,
    frozen_layers,
)
from bnn_symm.data import Dataset
from bnn_symm.errors import ConfigError
from bnn_symm.likelihoods import Categorical

X = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
IMAGES = torch.rand(30, 2, 8, 8, generator=torch.Generator().manual_seed(1))


def table_net() -> nn.Module:
    return nn.Sequential(
        nn.Linear(3, 4),
        nn.BatchNorm1d(4),
        nn.ReLU(),
        nn.Linear(4, 4),
        nn.BatchNorm1d(4, affine=False),
        nn.Tanh(),
        nn.Linear(4, 2),
    )


def image_net() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 3, 3),
        nn.BatchNorm2d(3, track_running_stats=False),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(48, 2),
    )


def trained(net: nn.Module, x: Tensor) -> nn.Module:
    net.train()
    for start in range(0, len(x), 10):
        net(x[start : start + 10])
    return net.eval()


def inputs_of_norms(net: nn.Module, x: Tensor) -> dict[str, Tensor]:
    seen: dict[str, Tensor] = {}
    hooks = [
        module.register_forward_hook(lambda m, args, out, name=name: seen.update({name: out}))
        for name, module in frozen_layers(net).items()
    ]
    with torch.no_grad():
        net(x)
    for hook in hooks:
        hook.remove()
    return seen


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def test_a_trained_network_computes_the_same_in_both_modes() -> None:
    net = trained(table_net(), X)
    before = copy.deepcopy(net.state_dict())
    frozen = freeze_batch_norm(net)
    assert torch.equal(frozen.eval()(X), net(X))
    assert torch.equal(frozen.train()(X), net(X))
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert isinstance(net[1], nn.BatchNorm1d)
    frozen.load_state_dict(net.state_dict())  # the names and shapes are those of torch
    assert frozen.batch_norm_report.estimated == []


@pytest.mark.parametrize(("make", "x"), [(table_net, X), (image_net, IMAGES)])
def test_statistics_that_were_never_trained_are_those_of_the_inputs(make, x) -> None:
    net = make()
    frozen = freeze_batch_norm(net, x)
    assert frozen.batch_norm_report.estimated == list(frozen_layers(frozen))
    for name, out in inputs_of_norms(frozen, x).items():
        layer = frozen_layers(frozen)[name]
        if layer.weight is not None:  # weight 1 and bias 0 at the start
            assert torch.equal(layer.weight, torch.ones_like(layer.weight))
        values = out.transpose(0, 1).flatten(1)
        assert values.mean(1).abs().max() < 1e-5
        expected = layer.running_var / (layer.running_var + layer.eps)
        assert torch.allclose(values.var(1, correction=0), expected, atol=1e-5)
    # One batch in training mode normalizes by the same statistics.
    assert torch.allclose(frozen(x), net.train()(x), atol=1e-4)


def test_trained_statistics_are_kept_beside_estimated_ones() -> None:
    net = trained(table_net(), X)
    net[4].reset_running_stats()
    frozen = freeze_batch_norm(net, X)
    assert frozen.batch_norm_report.estimated == ["4"]
    assert torch.equal(frozen[1].running_mean, net[1].running_mean)
    assert not torch.equal(frozen[4].running_mean, net[4].running_mean)


def test_a_layer_that_is_called_twice_has_the_statistics_of_all_its_inputs() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm1d(3, affine=False)
            self.head = nn.Linear(3, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.norm(x) + self.norm(x + 2))

    norm = freeze_batch_norm(Twice(), X).norm
    assert torch.allclose(norm.running_mean, torch.cat([X, X + 2]).mean(0), atol=1e-6)


@pytest.mark.parametrize(("make", "x"), [(table_net, X), (image_net, IMAGES)])
def test_conversion_keeps_scale_offset_and_all_permutations(make, x) -> None:
    net = trained(make(), x)
    with torch.no_grad():
        net[1].weight.uniform_(0.5, 2)
    converted = convert_batch_norm(net, x)
    assert isinstance(converted[1], nn.GroupNorm)
    assert torch.equal(converted[1].weight, net[1].weight)
    single = torch.cat([converted(point[None]) for point in x[:3]])
    assert torch.allclose(converted(x)[:3], single, atol=1e-5)
    sizes = [g.size for g in permutation_spec(converted, tuple(x.shape[1:])).groups.values()]
    assert sizes == [net[0].weight.shape[0], net[3].weight.shape[0]]
    report = converted.batch_norm_report
    frozen = freeze_batch_norm(net, x)(x)
    change = (converted(x) - frozen).norm() / frozen.norm()
    assert report.relative_change == pytest.approx(float(change.detach()), rel=1e-5)
    assert report.num_points == len(x)


class Doubled(nn.BatchNorm1d):
    def forward(self, x):
        return 2 * super().forward(x)


class OverChannelsLast(nn.BatchNorm1d):
    """Batch norm of tables, and something else for sequences."""

    def forward(self, x):
        return super().forward(x) if x.dim() == 2 else super().forward(x.mT).mT


class Clamped(nn.BatchNorm1d):
    def forward(self, x):
        variance = self.running_var.clamp(min=1e-3)
        return nn.functional.batch_norm(x, self.running_mean, variance, self.weight, self.bias)


class WithResidual(nn.BatchNorm1d):
    def forward(self, x, residual=None):
        x = super().forward(x)
        return x if residual is None else x + residual


class NormAndActivation(nn.BatchNorm1d):
    """Batch norm with an activation and a scale after it, in this order or the other one."""

    def __init__(self, units: int, order: int = 1):
        super().__init__(units)
        self.act, self.scale, self._order = nn.PReLU(units), nn.Linear(units, units), order

    def forward(self, x):
        x = super().forward(x)
        for module in [self.act, self.scale][:: self._order]:
            x = module(x)
        return x


def test_what_follows_the_norm_in_a_subclass_is_kept() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), NormAndActivation(4), nn.Linear(4, 2))
    net(X)  # in training mode, which sets the statistics
    frozen = freeze_batch_norm(net)
    assert list(dict(frozen[1].named_children())) == ["norm", "act", "scale"]
    assert torch.allclose(frozen(X), net.eval()(X), atol=1e-5)
    converted = convert_batch_norm(net, X)
    assert isinstance(converted[1].norm, nn.GroupNorm)
    assert torch.equal(converted[1].act.weight, net[1].act.weight)
    assert converted.batch_norm_report.layers == ["1.norm"]
    model = BayesianModel(frozen, Prior(), Categorical())
    data = Dataset.from_arrays(X, torch.arange(len(X)) % 2)
    assert MAP(num_steps=3).fit(model, data, seed=0).mean().isfinite().all()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: nn.Linear(3, 1), "no batch norm"),
        (lambda: nn.Sequential(nn.Linear(3, 2), nn.LazyBatchNorm1d()), "no shape yet"),
        *[
            (lambda norm=norm: nn.Sequential(nn.Linear(3, 3), norm(3)), "class of its own")
            for norm in (Doubled, OverChannelsLast, Clamped, WithResidual)
        ],
        (lambda: nn.Sequential(nn.Linear(3, 2), NormAndActivation(2, order=-1)), "in their order"),
        (table_net, "never trained"),
    ],
)
def test_what_cannot_be_frozen(make, words) -> None:
    with pytest.raises(ConfigError, match=words):
        freeze_batch_norm(make())


@pytest.mark.parametrize(
    ("config", "shape"),
    [
        (MLPConfig(widths=(4, 3), norm="batch", batch_norm="frozen"), (3,)),
        (CNNConfig(widths=(2, 3), norm="batch", batch_norm="frozen"), (2, 8, 8)),
        (ResNetConfig(norm="batch", batch_norm="frozen"), (2, 8, 8)),
        (
            MLPConfig(
                widths=(4, 3),
                norm="batch",
                batch_norm="frozen",
                symmetry=SymmetryConfig(kind="weight_asymmetric", fixed_per_row=(0, 1, 1)),
            ),
            (3,),
        ),
    ],
)
def test_architectures_of_the_package(config, shape) -> None:
    x = X if shape == (3,) else IMAGES
    net = build_network(config, input_shape=shape, num_outputs=2, points=x)
    for values in inputs_of_norms(net, x).values():  # also after the fixed entries are set
        assert values.transpose(0, 1).flatten(1).mean(1).abs().max() < 1e-4
    with pytest.raises(ConfigError, match="never trained"):
        build_network(config, input_shape=shape, num_outputs=2)


def test_the_refusal_names_both_replacements() -> None:
    with pytest.raises(ConfigError, match=r"batch_norm=frozen.*batch_norm=convert"):
        build_network(MLPConfig(norm="batch"), input_shape=(3,), num_outputs=2)
    with pytest.raises(ConfigError, match="no batch norm"):
        build_network(MLPConfig(batch_norm="frozen"), input_shape=(3,), num_outputs=2, points=X)


def test_a_frozen_layer_is_torch_batch_norm_in_evaluation() -> None:
    norm, ours = nn.BatchNorm2d(2).double(), FrozenBatchNorm(2).double()
    with torch.no_grad():
        for value in (*norm.parameters(), norm.running_mean, norm.running_var):
            value.uniform_(0.5, 1.5)
    ours.load_state_dict(norm.state_dict())
    assert torch.equal(ours(IMAGES.double()), norm.eval()(IMAGES.double()))
