"""Recurrent, attention, graph and partly frozen networks: every kind of method fits and resumes."""

import math
from functools import cache

import pytest
import torch
from torch import Tensor, nn

from bnn_symm.data import load_dataset
from bnn_symm.inference import MCLMC, NUTS, FitState, MeanFieldVI, Method
from bnn_symm.models import BayesianModel, Categorical, Prior
from bnn_symm.symmetry import symmetry_group
from bnn_symm.testing.interruption import Interruption, all_draws

DATA = load_dataset("digits", limit=60)


class Recurrent(nn.Module):
    """Read an image row by row."""

    def __init__(self, kind: type[nn.RNNBase]):
        super().__init__()
        self.cells = kind(8, 4, batch_first=True)
        self.head = nn.Linear(4, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.cells(x.squeeze(1))[0][:, -1])


class VisionTransformer(nn.Module):
    """Attend over four patches in one block."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(1, 8, 4, stride=4)
        self.before_attention = nn.LayerNorm(8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.before_mlp = nn.LayerNorm(8)
        self.mlp = nn.Sequential(nn.Linear(8, 6), nn.GELU(), nn.Linear(6, 8))
        self.head = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        normed = self.before_attention(tokens)
        tokens = tokens + self.attention(normed, normed, normed, need_weights=False)[0]
        tokens = tokens + self.mlp(self.before_mlp(tokens))
        return self.head(tokens.mean(1))


class GraphConvolution(nn.Module):
    """Convolve over the graph of neighboring pixels: relu(A X W), twice."""

    adjacency: Tensor

    def __init__(self):
        super().__init__()
        place = torch.cartesian_prod(torch.arange(8), torch.arange(8)).float()
        near = (torch.cdist(place, place) < 1.5).float()
        self.register_buffer("adjacency", near / near.sum(1, keepdim=True))
        self.first, self.second = nn.Linear(1, 4), nn.Linear(4, 5)
        self.head = nn.Linear(5, 10)

    def forward(self, x: Tensor) -> Tensor:
        nodes = x.flatten(2).transpose(1, 2)
        nodes = (self.adjacency @ self.first(nodes)).relu()
        nodes = (self.adjacency @ self.second(nodes)).relu()
        return self.head(nodes.mean(1))


class FrozenBackbone(nn.Module):
    """Learn only the last layer, on features that are given."""

    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AvgPool2d(3), nn.Flatten())
        self.backbone.requires_grad_(False)
        self.head = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.backbone(x))


NETWORKS = {
    "LSTM": lambda: Recurrent(nn.LSTM),
    "GRU": lambda: Recurrent(nn.GRU),
    "vision transformer": VisionTransformer,
    "graph convolution": GraphConvolution,
    "frozen backbone": FrozenBackbone,
}
ORDERS = {
    # The units of a cell, whose values may flip.
    "LSTM": math.factorial(4) * 2**4,
    "GRU": math.factorial(4) * 2**4,
    # The stream, the heads, the values and the queries of both heads with their signs, the MLP.
    "vision transformer": math.factorial(8) * 2 * (math.factorial(4) ** 4 * 2**16) * 720,
    "graph convolution": math.factorial(4) * math.factorial(5),
    "frozen backbone": 1,
}
METHODS = {
    "VI": MeanFieldVI(num_steps=30, learning_rate=0.01, log_every=10, num_draws=6),
    "MCLMC": MCLMC(num_chains=2, num_warmup=15, num_draws=6),
    "NUTS": NUTS(num_chains=1, num_warmup=8, num_draws=6, max_tree_depth=2),
}


@cache
def model_of(name: str) -> BayesianModel:
    torch.manual_seed(0)
    return BayesianModel(NETWORKS[name](), Prior(scale="fan_in"), Categorical())


@pytest.mark.parametrize(
    "method",
    [
        # Compiled for each network.
        pytest.param(method, id=name, marks=[pytest.mark.thorough] if name == "MCLMC" else [])
        for name, method in METHODS.items()
    ],
)
@pytest.mark.parametrize(
    "name",
    [n if n == "LSTM" else pytest.param(n, marks=pytest.mark.thorough) for n in NETWORKS],
)
def test_fit_resume_and_permute(name: str, method: Method) -> None:
    model = model_of(name)
    whole = method.fit(model, DATA, seed=0)
    assert torch.isfinite(all_draws(whole)).all()
    assert whole.shape[2] == sum(value.numel() for value in model.net.parameters())
    interruption = Interruption(7)
    part = method.fit(model, DATA, seed=0, callbacks=[interruption], fit_state=FitState())
    assert part.info["status"] == "interrupted"
    state = method.truncate_to_checkpoint(interruption.fit_state())
    assert torch.equal(
        all_draws(method.fit(model, DATA, seed=0, fit_state=state)), all_draws(whole)
    )
    group = symmetry_group(model.net, input_shape=(1, 8, 8))
    moved = whole.permute(group.random("test", 1)).predict(DATA.test.x)
    torch.testing.assert_close(
        moved.probabilities(), whole.predict(DATA.test.x).probabilities(), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("name", NETWORKS)
def test_the_group_has_the_order_of_its_parts(name: str) -> None:
    group = symmetry_group(model_of(name).net, input_shape=(1, 8, 8))
    assert group.log10_order == pytest.approx(math.log10(ORDERS[name]))
