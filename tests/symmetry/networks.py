"""Networks of every kind of operation that a spec can be derived from, with the groups that they
must have."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Attention(nn.Module):
    """Multi-head attention written by hand, as most people do."""

    def __init__(self, width: int, heads: int, fused: bool = True):
        super().__init__()
        self.heads, self.fused = heads, fused
        self.q, self.k, self.v, self.o = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        points, tokens, width = x.shape
        q, k, v = (
            layer(x).view(points, tokens, self.heads, width // self.heads).transpose(1, 2)
            for layer in (self.q, self.k, self.v)
        )
        if self.fused:
            mixed = F.scaled_dot_product_attention(q, k, v)
        else:
            scores = q @ k.transpose(-2, -1) / math.sqrt(width // self.heads)
            mixed = scores.softmax(-1) @ v
        return self.o(mixed.transpose(1, 2).reshape(points, tokens, width))


class Transformer(nn.Module):
    def __init__(self, attention: Callable[[int], nn.Module], width: int = 6):
        super().__init__()
        self.embed = nn.Linear(3, width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = attention(width)
        self.up, self.down = nn.Linear(width, 5), nn.Linear(5, width)
        self.head = nn.Linear(width, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        x = x + self.attention(self.norm1(x))
        x = x + self.down(F.gelu(self.up(self.norm2(x))))
        return self.head(x.mean(1))


class TorchAttention(nn.Module):
    def __init__(self, width: int, heads: int, batch_first: bool = True, **keywords: int):
        super().__init__()
        self.inner = nn.MultiheadAttention(width, heads, batch_first=batch_first, **keywords)
        self.own = bool(keywords)

    def forward(self, x: Tensor) -> Tensor:
        other = x[..., :3] if self.own else x
        return self.inner(x, other, other, need_weights=False)[0]


class Tokens(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(7, 4)
        self.body = nn.Linear(4, 3)
        self.head = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        tokens = (x.abs() * 3).long() % 7
        return self.head(F.silu(self.body(self.embedding(tokens).sum(1))))


class Concatenation(nn.Module):
    """Two branches side by side, and a gate cut out of one layer."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(5, 3), nn.Linear(5, 4)
        self.gated = nn.Linear(7, 10)
        self.head = nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        both = torch.cat([self.left(x).relu(), self.right(x).relu()], dim=1)
        value, gate = self.gated(both).chunk(2, dim=1)
        return self.head(value * gate.sigmoid())


class Shortcuts(nn.Module):
    """A residual stream, one block of which adds the input of the network itself."""

    def __init__(self, from_input: bool) -> None:
        super().__init__()
        self.first = nn.Linear(6, 6)
        self.inner, self.outer = nn.Linear(6, 5), nn.Linear(5, 6)
        self.head = nn.Linear(6, 2)
        self.from_input = from_input

    def forward(self, x: Tensor) -> Tensor:
        h = x + self.first(x).relu() if self.from_input else self.first(x).relu()
        return self.head(h + self.outer(self.inner(h).tanh()))


def convolutions(groups: int, channels: int = 4, out: int = 8) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, channels, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(channels, out, 3, padding=1, groups=groups),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(out, 3, 1),
        nn.GELU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(3, 2),
    )


def log10_factorial(*sizes: int) -> float:
    return sum(math.lgamma(size + 1) for size in sizes) / math.log(10)


def log10_heads(heads: int, units: int) -> float:
    """Heads of two kinds of units (queries with keys, values) that move together; within a head,
    all may flip."""
    return log10_factorial(heads) + 2 * heads * (log10_factorial(units) + units * math.log10(2))


_FFN = log10_factorial(6, 5)  # residual stream and hidden layer of `Transformer`
NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], float]] = {
    "hand attention": (
        lambda: Transformer(lambda w: Attention(w, 2)),
        (4, 3),
        _FFN + log10_heads(2, 3),
    ),
    "hand attention, step by step": (
        lambda: Transformer(lambda w: Attention(w, 3, fused=False)),
        (4, 3),
        _FFN + log10_heads(3, 2),
    ),
    "torch attention": (
        lambda: Transformer(lambda w: TorchAttention(w, 2)),
        (4, 3),
        _FFN + log10_heads(2, 3),
    ),
    "torch encoder layer": (
        lambda: nn.Sequential(
            nn.Linear(3, 4),
            nn.TransformerEncoderLayer(4, 2, 5, dropout=0.0, batch_first=True),
            nn.Flatten(),
            nn.Linear(16, 2),
        ),
        (4, 3),
        # The last norm's own scale and offset may flip each unit of the stream.
        log10_factorial(4, 5) + log10_heads(2, 2) + 4 * math.log10(2),
    ),
    "embedding": (Tokens, (5,), log10_factorial(4, 3) + 4 * math.log10(2)),
    # The values of gated units may flip, and their gates stay.
    "concatenation and gate": (
        Concatenation,
        (5,),
        log10_factorial(3, 4, 5) + 5 * math.log10(2),
    ),
    "residual stream": (lambda: Shortcuts(False), (6,), log10_factorial(6, 5) + 5 * math.log10(2)),
    "stream tied to the input": (
        lambda: Shortcuts(True),
        (6,),
        log10_factorial(5) + 5 * math.log10(2),
    ),
    "plain convolutions": (lambda: convolutions(1), (2, 6, 6), log10_factorial(4, 8, 3)),
    # Two blocks change places as a whole; within each, 2 channels go in and 4 come out.
    "grouped convolution": (lambda: convolutions(2), (2, 6, 6), log10_factorial(2, 2, 2, 4, 4, 3)),
    "depthwise convolution": (lambda: convolutions(4, 4, 4), (2, 6, 6), log10_factorial(4, 3)),
    "depthwise, two outputs a channel": (
        lambda: convolutions(4, 4, 8),
        (2, 6, 6),
        log10_factorial(4, 2, 2, 2, 2, 3),
    ),
    # Two blocks of four channels change places as a whole.
    "depthwise convolution after a group norm": (
        lambda: nn.Sequential(
            nn.Conv1d(2, 8, 3), nn.GroupNorm(2, 8), nn.ReLU(), nn.Conv1d(8, 8, 3, groups=8)
        ).append(nn.Sequential(nn.ReLU(), nn.Flatten(), nn.Linear(16, 2))),
        (2, 6),
        log10_factorial(2, 4, 4),
    ),
    "group norm": (
        lambda: nn.Sequential(
            nn.Conv1d(2, 6, 3), nn.GroupNorm(3, 6), nn.ReLU(), nn.Flatten(), nn.Linear(24, 2)
        ),
        (2, 6),
        log10_factorial(3, 2, 2, 2),
    ),
    "batch norm in evaluation": (
        lambda: nn.Sequential(
            nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2)
        ).eval(),
        (3,),
        log10_factorial(4),
    ),
    "prelu a unit": (
        lambda: nn.Sequential(nn.Linear(3, 5), nn.PReLU(5), nn.Linear(5, 2)),
        (3,),
        log10_factorial(5),
    ),
    "transposed convolution": (
        lambda: nn.Sequential(
            nn.ConvTranspose2d(2, 5, 2), nn.ReLU(), nn.Flatten(), nn.Linear(45, 2)
        ),
        (2, 2, 2),
        log10_factorial(5),
    ),
    "input channels in groups": (
        lambda: nn.Sequential(
            nn.Conv2d(2, 6, 1, groups=2), nn.ReLU(), nn.Flatten(), nn.Linear(24, 2)
        ),
        (2, 2, 2),
        log10_factorial(3, 3),
    ),
    "odd layers flip": (
        lambda: nn.Sequential(
            nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 5), nn.Softsign(), nn.Linear(5, 2)
        ),
        (3,),
        log10_factorial(4, 5) + 9 * math.log10(2),
    ),
    "affine norm before an odd layer": (
        lambda: nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Tanh(), nn.Linear(4, 2)),
        (3,),
        log10_factorial(4) + 4 * math.log10(2),
    ),
    "bare norm before an odd layer": (
        lambda: nn.Sequential(
            nn.Linear(3, 4), nn.LayerNorm(4, elementwise_affine=False), nn.Tanh(), nn.Linear(4, 2)
        ),
        (3,),
        log10_factorial(4),
    ),
}
