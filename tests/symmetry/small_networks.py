"""Small networks with axes of one entry, gains, scales, embeddings and constants."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CONSTANT = torch.linspace(1.0, 2.0, 4)


class Net(nn.Module):
    """Layers and parameters by name, and a function of them and the input."""

    def __init__(self, forward: Callable[..., Tensor], **own: nn.Module | Tensor) -> None:
        super().__init__()
        self.function = forward
        for name, value in own.items():
            if isinstance(value, nn.Module | nn.Parameter):
                setattr(self, name, value)
            else:
                self.register_buffer(name, value)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


def parameter(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(shape))


def frozen(module: nn.Module) -> nn.Module:
    return module.requires_grad_(False)


class Plain(Net):
    """The tensors are attributes, and no buffers."""

    def __init__(
        self, forward: Callable[..., Tensor], constant: Tensor, **own: nn.Module | Tensor
    ) -> None:
        super().__init__(forward, **own)
        self.k = constant


def linear(inputs: int, outputs: int, bias: bool = True) -> nn.Linear:
    return nn.Linear(inputs, outputs, bias=bias)


def rezero(gain: Tensor, activation: Callable[[Tensor], Tensor] = torch.tanh) -> nn.Module:
    return Net(
        lambda s, x: s.c((h := s.a(x)) + s.g * s.b(activation(h))),
        a=linear(3, 4),
        b=linear(4, 4),
        c=linear(4, 2),
        g=gain,
    )


def head(end: Callable[[Tensor], Tensor]) -> nn.Module:
    return Net(lambda s, x: end(s.b(torch.tanh(s.a(x)))), a=linear(3, 4), b=linear(4, 1))


def tokens(forward: Callable[..., Tensor], **own: nn.Module | Tensor) -> nn.Module:
    return Net(forward, a=linear(3, 4), c=linear(4, 2), **own)


def attention(heads: int) -> nn.Module:
    def forward(s: Net, x: Tensor) -> Tensor:
        points, length = x.shape[:2]
        q, k, v = (
            layer(x).view(points, length, heads, 4 // heads).transpose(1, 2)
            for layer in (s.q, s.k, s.v)
        )
        mixed = (q @ k.transpose(-2, -1) / math.sqrt(4 // heads)).softmax(-1) @ v
        return s.o(mixed.transpose(1, 2).reshape(points, length, 4)).mean(1)

    return Net(forward, q=linear(3, 4), k=linear(3, 4), v=linear(3, 4), o=linear(4, 2))


def unet(s: Net, x: Tensor) -> Tensor:
    first = torch.tanh(s.a(x))
    below = torch.tanh(s.b(F.avg_pool2d(first, 2)))
    return (
        s.c(torch.cat([first, F.interpolate(below, scale_factor=2.0)], dim=1)).squeeze(1).flatten(1)
    )


def convnext(s: Net, x: Tensor) -> Tensor:
    x = s.stem(x)
    h = s.up(F.gelu(s.down(s.depthwise(x))))
    return s.c((x + s.scale * h).mean((2, 3)))


def squeeze_excite(s: Net, x: Tensor) -> Tensor:
    h = torch.tanh(s.a(x))
    gate = torch.sigmoid(s.up(F.relu(s.down(h.mean((2, 3))))))
    return s.c((h * gate[:, :, None, None]).mean((2, 3)))


def pooled_attention(s: Net, x: Tensor) -> Tensor:
    h = torch.tanh(s.a(x))
    weights = s.score(h).squeeze(-1).softmax(-1)
    return s.c(torch.einsum("nt,ntd->nd", weights, h))


def tied_autoencoder(s: Net, x: Tensor) -> Tensor:
    return F.linear(torch.tanh(F.linear(x, s.w, s.p)), s.w.t(), s.q)


def recurrent(s: Net, x: Tensor) -> Tensor:
    state = torch.zeros(x.shape[0], 4, dtype=x.dtype)
    for t in range(x.shape[1]):
        state = torch.tanh(s.a(x[:, t]) + s.r(state))
    return s.c(state)


def class_token(s: Net, x: Tensor) -> Tensor:
    h = torch.cat([s.token.expand(x.shape[0], -1, -1), s.a(x)], dim=1) + s.position
    return s.c(torch.tanh(h)[:, 0])


def between(
    function: Callable[[Tensor], Tensor], units: int = 4, reads: int | None = None
) -> nn.Module:
    """A function of hidden units between two layers."""
    return Net(
        lambda s, x: s.b(function(s.a(x))),
        a=linear(3, units),
        b=linear(units if reads is None else reads, 2),
    )


def chosen_by_input(units: int) -> nn.Module:
    return Net(
        lambda s, x: s.b(torch.where(x[:, :1] > 0, torch.tanh(s.a(x)), torch.tanh(s.c(x)))),
        a=linear(3, units),
        b=linear(units, 2),
        c=linear(3, units),
    )


def fused_attention(heads: int, units: int) -> nn.Module:
    def forward(s: Net, x: Tensor) -> Tensor:
        q, k, v = (
            layer(x).unflatten(-1, (heads, units // heads)).transpose(1, 2)
            for layer in (s.q, s.k, s.v)
        )
        return s.o(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)).mean(1)

    return Net(
        forward, q=linear(3, units), k=linear(3, units), v=linear(3, units), o=linear(units, 2)
    )


def attention_temperature(s: Net, x: Tensor) -> Tensor:
    return s.o((s.q(x) @ s.k(x).mT * s.t).softmax(-1) @ s.v(x)).mean(1)


Case = tuple[Callable[[], nn.Module], tuple[int, ...]]
SMALL: dict[str, Case] = {
    "rezero": (lambda: rezero(parameter(1)), (3,)),
    "rezero, number": (lambda: rezero(parameter()), (3,)),
    "rezero, relu": (lambda: rezero(parameter(1), torch.relu), (3,)),
    "gain a unit": (lambda: rezero(parameter(4)), (3,)),
    "gain (1, 4)": (lambda: rezero(parameter(1, 4)), (3,)),
    "gain (1, 1)": (lambda: rezero(parameter(1, 1)), (3,)),
    "gain of the input": (
        lambda: Net(
            lambda s, x: s.b(torch.tanh(s.a(x * s.g))),
            a=linear(3, 4),
            b=linear(4, 2),
            g=parameter(1),
        ),
        (3,),
    ),
    "gain of the output": (
        lambda: Net(
            lambda s, x: s.g * s.b(torch.tanh(s.a(x))),
            a=linear(3, 4),
            b=linear(4, 2),
            g=parameter(1),
        ),
        (3,),
    ),
    "two gains in a row": (
        lambda: Net(
            lambda s, x: s.b(s.g * (s.h * s.a(x)).relu()),
            a=linear(3, 4),
            b=linear(4, 2),
            g=parameter(1),
            h=parameter(1),
        ),
        (3,),
    ),
    "even gain": (
        lambda: Net(
            lambda s, x: s.b(s.g.abs() * s.a(x).relu()),
            a=linear(3, 4),
            b=linear(4, 2),
            g=parameter(1),
        ),
        (3,),
    ),
    "shared bias": (
        lambda: Net(
            lambda s, x: s.b(torch.tanh(s.a(x)) + s.g),
            a=linear(3, 4),
            b=linear(4, 2),
            g=parameter(1),
        ),
        (3,),
    ),
    "layer scale": (
        lambda: Net(
            convnext,
            stem=nn.Conv2d(1, 3, 1),
            depthwise=nn.Conv2d(3, 3, 3, padding=1, groups=3),
            down=nn.Conv2d(3, 4, 1),
            up=nn.Conv2d(4, 3, 1),
            c=linear(3, 2),
            scale=parameter(3, 1, 1),
        ),
        (1, 3, 3),
    ),
    "position embedding": (
        lambda: tokens(lambda s, x: s.c(torch.tanh(s.a(x) + s.p).mean(1)), p=parameter(1, 5, 4)),
        (5, 3),
    ),
    "position embedding, sliced": (
        lambda: tokens(
            lambda s, x: s.c(torch.tanh(s.a(x) + s.p[:, : x.shape[1]]).mean(1)),
            p=parameter(1, 7, 4),
        ),
        (5, 3),
    ),
    "position embedding of one unit": (
        lambda: tokens(lambda s, x: s.c(torch.tanh(s.a(x) + s.p).mean(1)), p=parameter(1, 5, 1)),
        (5, 3),
    ),
    "class token": (
        lambda: tokens(class_token, token=parameter(1, 1, 4), position=parameter(1, 6, 4)),
        (5, 3),
    ),
    "head, squeeze": (lambda: head(lambda h: h.squeeze(-1)), (3,)),
    "head, view": (lambda: head(lambda h: h.view(-1)), (3,)),
    "head, flatten": (lambda: head(lambda h: h.flatten()), (3,)),
    "head, index": (lambda: head(lambda h: h[..., 0]), (3,)),
    "head, select": (lambda: head(lambda h: h.select(1, 0)), (3,)),
    "head, unbind": (lambda: head(lambda h: h.unbind(1)[0]), (3,)),
    "head, sum": (lambda: head(lambda h: h.sum(-1)), (3,)),
    "head, mean": (lambda: head(lambda h: h.mean(dim=1)), (3,)),
    "head, even": (lambda: head(lambda h: h.squeeze(-1).square()), (3,)),
    "head, odd": (lambda: head(lambda h: h.squeeze(-1).tanh().unsqueeze(-1)), (3,)),
    "head, einsum": (
        lambda: Net(
            lambda s, x: torch.einsum("nd,od->n", torch.tanh(s.a(x)), s.w),
            a=linear(3, 4),
            w=parameter(1, 4),
        ),
        (3,),
    ),
    "head, vector": (
        lambda: Net(lambda s, x: torch.tanh(s.a(x)) @ s.w, a=linear(3, 4), w=parameter(4)),
        (3,),
    ),
    "width one": (
        lambda: nn.Sequential(
            linear(3, 1), nn.Tanh(), linear(1, 4), nn.ReLU(), linear(4, 1), nn.Tanh(), linear(1, 2)
        ),
        (3,),
    ),
    "width one, squeezed": (
        lambda: Net(
            lambda s, x: s.b(torch.tanh(s.a(x)).squeeze(-1).unsqueeze(-1)) + s.c(x),
            a=linear(3, 1),
            b=linear(1, 2),
            c=linear(3, 2),
        ),
        (3,),
    ),
    "width one, expanded": (
        lambda: Net(
            lambda s, x: s.b(torch.tanh(s.a(x)).expand(-1, 4) * torch.tanh(s.c(x))),
            a=linear(3, 1),
            b=linear(4, 2),
            c=linear(3, 4),
        ),
        (3,),
    ),
    "gate of one unit": (
        lambda: Net(
            lambda s, x: s.b(torch.tanh(s.a(x)) * torch.tanh(s.c(x))),
            a=linear(3, 1),
            b=linear(4, 2),
            c=linear(3, 4),
        ),
        (3,),
    ),
    "one channel": (
        lambda: nn.Sequential(nn.Conv2d(1, 1, 2), nn.Tanh(), nn.Flatten(), linear(4, 2)),
        (1, 3, 3),
    ),
    "one channel, relu": (
        lambda: nn.Sequential(nn.Conv2d(1, 1, 2), nn.ReLU(), nn.Flatten(), linear(4, 2)),
        (1, 3, 3),
    ),
    "unet of one channel": (
        lambda: Net(
            unet,
            a=nn.Conv2d(1, 1, 3, padding=1),
            b=nn.Conv2d(1, 1, 3, padding=1),
            c=nn.Conv2d(2, 1, 1),
        ),
        (1, 4, 4),
    ),
    "layer norm, tanh": (
        lambda: nn.Sequential(linear(3, 4), nn.LayerNorm(4), nn.Tanh(), linear(4, 2)),
        (3,),
    ),
    "layer norm of one unit": (
        lambda: nn.Sequential(linear(3, 1), nn.LayerNorm(1), nn.Tanh(), linear(1, 2)),
        (3,),
    ),
    "layer norm, relu": (
        lambda: nn.Sequential(linear(3, 4), nn.LayerNorm(4), nn.ReLU(), linear(4, 2)),
        (3,),
    ),
    "layer norm, no offset": (
        lambda: nn.Sequential(
            linear(3, 4), nn.LayerNorm(4, elementwise_affine=False), nn.Tanh(), linear(4, 2)
        ),
        (3,),
    ),
    "group norm of one group": (
        lambda: nn.Sequential(
            nn.Conv2d(1, 4, 2), nn.GroupNorm(1, 4), nn.ReLU(), nn.Flatten(), linear(16, 2)
        ),
        (1, 3, 3),
    ),
    "group norm of single channels": (
        lambda: nn.Sequential(
            nn.Conv2d(1, 4, 2), nn.GroupNorm(4, 4), nn.ReLU(), nn.Flatten(), linear(16, 2)
        ),
        (1, 3, 3),
    ),
    "normalize": (lambda: between(lambda h: F.normalize(h, dim=-1)), (3,)),
    "norm": (lambda: between(lambda h: h.norm(dim=-1, keepdim=True), reads=1), (3,)),
    "norm of one": (lambda: between(lambda h: h.norm(dim=-1, keepdim=True), 1), (3,)),
    "hypot": (lambda: between(lambda h: torch.hypot(h, h.roll(1, 0))), (3,)),
    "product of units": (lambda: between(lambda h: h.prod(-1, keepdim=True), 3, reads=1), (3,)),
    "variance of units": (lambda: between(lambda h: h.var(-1, keepdim=True), 3, reads=1), (3,)),
    "sum of units": (lambda: between(lambda h: h.tanh().sum(-1, keepdim=True), reads=1), (3,)),
    "hardtanh": (lambda: between(F.hardtanh), (3,)),
    "hardtanh of one": (lambda: between(F.hardtanh, 1), (3,)),
    "clamp of one": (lambda: between(lambda h: h.clamp(-1, 1), 1), (3,)),
    "clamp of one, lopsided": (lambda: between(lambda h: h.clamp(-1, 2), 1), (3,)),
    "round of one": (lambda: between(lambda h: (3 * h).round(), 1), (3,)),
    "both halves of one": (lambda: between(lambda h: h.relu() + (-h).relu(), 1), (3,)),
    "chosen by the input": (lambda: chosen_by_input(4), (3,)),
    "chosen by the input, one unit": (lambda: chosen_by_input(1), (3,)),
    "filled with zeros": (
        lambda: Net(
            lambda s, x: s.b(torch.tanh(s.a(x)).masked_fill(x[:, :1] > 0, 0.0)),
            a=linear(3, 4),
            b=linear(4, 2),
        ),
        (3,),
    ),
    "filled with zeros by unit": (
        lambda: Net(
            lambda s, x: s.b(torch.tanh(s.a(x)).masked_fill(torch.arange(4) > 1, 0.0)),
            a=linear(3, 4),
            b=linear(4, 2),
        ),
        (3,),
    ),
    "tanh beside relu": (
        lambda: Net(
            lambda s, x: s.c(torch.cat([torch.tanh(s.a(x)), torch.relu(s.b(x))], dim=1)),
            a=linear(3, 2),
            b=linear(3, 2),
            c=linear(4, 2),
        ),
        (3,),
    ),
    "tanh beside relu, of one layer": (
        lambda: Net(
            lambda s, x: s.c(torch.cat([(h := s.a(x))[:, :2].tanh(), h[:, 2:].relu()], dim=1)),
            a=linear(3, 4),
            c=linear(4, 2),
        ),
        (3,),
    ),
    "tanh beside relu, with a gain": (
        lambda: Net(
            lambda s, x: s.c(s.g * torch.cat([torch.tanh(s.a(x)), torch.relu(s.b(x))], dim=1)),
            a=linear(3, 2),
            b=linear(3, 2),
            c=linear(4, 2),
            g=parameter(4),
        ),
        (3,),
    ),
    "tanh beside relu, twice": (
        lambda: Net(
            lambda s, x: s.c(
                (h := torch.cat([torch.tanh(s.a(x)), torch.relu(s.b(x))], dim=1))
                + torch.tanh(s.d(h))
            ),
            a=linear(3, 2),
            b=linear(3, 2),
            d=linear(4, 4),
            c=linear(4, 2),
        ),
        (3,),
    ),
    "rank one, outer": (
        lambda: Net(
            lambda s, x: F.linear(x, torch.outer(s.u, s.v)), u=parameter(2), v=parameter(3)
        ),
        (3,),
    ),
    "rank one, broadcast": (
        lambda: Net(lambda s, x: F.linear(x, s.u * s.v), u=parameter(2, 1), v=parameter(3)),
        (3,),
    ),
    "head, abs": (lambda: head(torch.abs), (3,)),
    "head, gain": (
        lambda: Net(
            lambda s, x: s.b(torch.tanh(s.a(x))).squeeze(-1) * s.g,
            a=linear(3, 4),
            b=linear(4, 1, bias=False),
            g=parameter(),
        ),
        (3,),
    ),
    "head, gain, abs": (
        lambda: Net(
            lambda s, x: (s.b(torch.tanh(s.a(x))).squeeze(-1) * s.g).abs(),
            a=linear(3, 4),
            b=linear(4, 1),
            g=parameter(),
        ),
        (3,),
    ),
    "fused attention, one unit": (lambda: fused_attention(1, 1), (5, 3)),
    "fused attention, heads of one unit": (lambda: fused_attention(2, 2), (5, 3)),
    "attention, temperature": (
        lambda: Net(
            attention_temperature,
            q=linear(3, 2),
            k=linear(3, 2),
            v=linear(3, 2),
            o=linear(2, 2),
            t=parameter(1),
        ),
        (5, 3),
    ),
    "group norm": (
        lambda: nn.Sequential(
            nn.Conv2d(1, 4, 2), nn.GroupNorm(2, 4), nn.Tanh(), nn.Flatten(), linear(16, 2)
        ),
        (1, 3, 3),
    ),
    "squeeze and excite": (
        lambda: Net(
            squeeze_excite, a=nn.Conv2d(1, 4, 2), down=linear(4, 2), up=linear(2, 4), c=linear(4, 2)
        ),
        (1, 3, 3),
    ),
    "gated units": (
        lambda: Net(
            lambda s, x: s.b(s.a(x).chunk(2, -1)[0] * s.a(x).chunk(2, -1)[1].sigmoid()),
            a=linear(3, 8),
            b=linear(4, 2),
        ),
        (3,),
    ),
    "attention, one head": (lambda: attention(1), (5, 3)),
    "attention, heads of one unit": (lambda: attention(4), (5, 3)),
    "attention pooling": (lambda: tokens(pooled_attention, score=linear(4, 1)), (5, 3)),
    "embedding": (
        lambda: Net(
            lambda s, x: s.c(torch.tanh(s.e((x.abs() * 3).long() % 5)).mean(1)),
            e=nn.Embedding(5, 4),
            c=linear(4, 2),
        ),
        (3,),
    ),
    "embedding of one unit": (
        lambda: Net(
            lambda s, x: s.c(torch.tanh(s.e((x.abs() * 3).long() % 5).squeeze(-1))),
            e=nn.Embedding(5, 1),
            c=linear(3, 2),
        ),
        (3,),
    ),
    "prelu of one": (lambda: nn.Sequential(linear(3, 4), nn.PReLU(), linear(4, 2)), (3,)),
    "prelu a unit": (lambda: nn.Sequential(linear(3, 4), nn.PReLU(4), linear(4, 2)), (3,)),
    "temperature": (
        lambda: Net(
            lambda s, x: s.b(torch.tanh(s.a(x))) / s.t,
            a=linear(3, 4),
            b=linear(4, 2),
            t=parameter(1),
        ),
        (3,),
    ),
    "slope": (
        lambda: Net(
            lambda s, x: s.b(torch.tanh(s.t * s.a(x))),
            a=linear(3, 4),
            b=linear(4, 2),
            t=parameter(1),
        ),
        (3,),
    ),
    "bilinear, one output": (
        lambda: Net(
            lambda s, x: s.f(torch.tanh(s.a(x)), torch.tanh(s.b(x))),
            a=linear(3, 4),
            b=linear(3, 4),
            f=nn.Bilinear(4, 4, 1),
        ),
        (3,),
    ),
    "depthwise": (
        lambda: nn.Sequential(
            nn.Conv2d(1, 4, 1), nn.Conv2d(4, 4, 2, groups=4), nn.Tanh(), nn.Flatten(), linear(16, 2)
        ),
        (1, 3, 3),
    ),
    "transposed convolution": (
        lambda: nn.Sequential(
            nn.ConvTranspose2d(1, 4, 2), nn.Tanh(), nn.ConvTranspose2d(4, 1, 2), nn.Flatten()
        ),
        (1, 2, 2),
    ),
    "tied autoencoder": (
        lambda: Net(tied_autoencoder, w=parameter(4, 3), p=parameter(4), q=parameter(3)),
        (3,),
    ),
    "recurrent": (lambda: Net(recurrent, a=linear(3, 4), r=linear(4, 4), c=linear(4, 2)), (5, 3)),
    "plain constant": (
        lambda: Plain(
            lambda s, x: s.b(torch.tanh(s.a(x) * s.k)), CONSTANT, a=linear(3, 4), b=linear(4, 2)
        ),
        (3,),
    ),
    "plain projection": (
        lambda: Plain(
            lambda s, x: s.b(torch.tanh(s.a(x @ s.k))), torch.eye(3), a=linear(3, 4), b=linear(4, 2)
        ),
        (3,),
    ),
    "global constant": (
        lambda: Net(
            lambda s, x: s.b(torch.tanh(s.a(x) * CONSTANT)), a=linear(3, 4), b=linear(4, 2)
        ),
        (3,),
    ),
    "buffer": (
        lambda: Net(
            lambda s, x: s.b(torch.tanh(s.a(x) * s.k)),
            a=linear(3, 4),
            b=linear(4, 2),
            k=CONSTANT.clone(),
        ),
        (3,),
    ),
    "buffer of integers": (
        lambda: Net(
            lambda s, x: s.b(torch.tanh(s.a(x) * s.k)),
            a=linear(3, 4),
            b=linear(4, 2),
            k=torch.arange(1, 5),
        ),
        (3,),
    ),
    "ones": (
        lambda: Net(
            lambda s, x: s.b(torch.tanh(s.a(x)) * torch.ones(4)), a=linear(3, 4), b=linear(4, 2)
        ),
        (3,),
    ),
    "arange": (
        lambda: Net(
            lambda s, x: s.b(torch.tanh(s.a(x)) * torch.arange(1, 5)),
            a=linear(3, 4),
            b=linear(4, 2),
        ),
        (3,),
    ),
    "frozen layer": (
        lambda: nn.Sequential(
            linear(3, 4), nn.Tanh(), frozen(linear(4, 4)), nn.Tanh(), linear(4, 2)
        ),
        (3,),
    ),
    "frozen gain": (lambda: rezero(parameter(1).requires_grad_(False)), (3,)),
    "weight norm": (
        lambda: nn.Sequential(
            nn.utils.parametrizations.weight_norm(linear(3, 4)), nn.Tanh(), linear(4, 2)
        ),
        (3,),
    ),
    "spectral norm": (
        lambda: nn.Sequential(
            nn.utils.parametrizations.spectral_norm(linear(3, 4)), nn.Tanh(), linear(4, 2)
        ),
        (3,),
    ),
    "complex": (
        lambda: Net(
            lambda s, x: s.b((x.to(s.w.dtype) @ s.w).abs()),
            w=nn.Parameter(torch.randn(3, 4, dtype=torch.complex64)),
            b=linear(4, 2),
        ),
        (3,),
    ),
}
