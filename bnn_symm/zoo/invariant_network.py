"""A network that predicts from weights and is invariant under permutations of hidden units.

It passes messages on the graph of parameters: nodes are hidden units, and an entry of a tensor
connects the units on its axes (Lim et al. 2024; Kofinas et al. 2024). A unit has features that do
not depend on signs (even), and, where units may flip, features that change their sign with it
(odd), as the entries do. For a block E with axes i and j, and features h_j of the other axis,

    m_i = sum_j (E_ij A) * (h_j B),        with the parity of axis i; h_j has the parity of axis j
    s_i = sum_j (E_ij^2 C) * (h_j D),      even

All functions of a unit are shared within its orbit, which starts from an embedding and scales its
messages by a gain. So the output is unchanged by every element of the symmetry group, and units
that the group distinguishes are distinguished. If it is trivial, every unit has its own embedding.

References:
    Lim et al. 2024, arXiv:2312.04501; Kofinas et al. 2024, arXiv:2403.12143; Zhou et al. 2023,
    arXiv:2302.14040.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bnn_symm.zoo.weight_blocks import Block, WeightLayout

Features = dict[str, Tensor]
"""Group -> (network, unit, feature)."""


class InvariantNetwork(nn.Module):
    """Maps the blocks of weights to outputs that no element of the symmetry group changes.

    Args:
        layout: the blocks of the architecture.
        num_outputs: number of outputs.
        width: number of features of a unit.
        rounds: number of rounds of messages.
    """

    def __init__(self, layout: WeightLayout, num_outputs: int, width: int = 16, rounds: int = 2):
        super().__init__()
        self._layout, self._width = layout, width
        self._rounds = nn.ModuleList(_Round(layout, width) for _ in range(rounds))
        self._embeddings = nn.ParameterList(
            nn.Parameter(torch.randn(int(orbit.max()) + 1, width))
            for orbit in layout.orbits.values()
        )
        self._constants = nn.ModuleList(
            nn.Linear(block.num_channels, width) for block in layout.blocks if not block.groups
        )
        inputs = width * (2 * len(layout.orbits) + len(self._constants))
        self._head = nn.Sequential(
            nn.Linear(inputs, 2 * width), nn.GELU(), nn.Linear(2 * width, num_outputs)
        )

    def forward(self, *blocks: Float[Tensor, "network ..."]) -> Float[Tensor, "network output"]:
        """Return the outputs for a batch of networks.

        Args:
            *blocks: of their weights, standardized.
        """
        number, layout = len(blocks[0]), self._layout
        even = {
            name: embedding[orbit].expand(number, -1, -1)
            for embedding, (name, orbit) in zip(
                self._embeddings, layout.orbits.items(), strict=True
            )
        }
        odd = {
            name: torch.zeros_like(even[name]) for name in layout.orbits if name in layout.signed
        }
        for part in self._rounds:
            even, odd = part(blocks, even, odd)
        fixed = [block for block, own in zip(blocks, layout.blocks, strict=True) if not own.groups]
        pooled = [pool(h) for h in even.values() for pool in (_mean, _mean_square)]
        pooled += [layer(block) for layer, block in zip(self._constants, fixed, strict=True)]
        return self._head(torch.cat(pooled, -1))


class _Round(nn.Module):
    """One round of messages over all blocks."""

    def __init__(self, layout: WeightLayout, width: int):
        super().__init__()
        self._layout = layout
        self._places = [
            (number, axis)
            for number, block in enumerate(layout.blocks)
            for axis in range(len(block.groups))
        ]
        self._messages = nn.ModuleList(
            _Message(layout.blocks[number], axis, width) for number, axis in self._places
        )
        self._updates = nn.ModuleList(
            _Update(orbit, name in layout.signed, width) for name, orbit in layout.orbits.items()
        )

    def forward(
        self, blocks: Sequence[Tensor], even: Features, odd: Features
    ) -> tuple[Features, Features]:
        """Return the features after one round."""
        even_sums = {name: torch.zeros_like(h) for name, h in even.items()}
        odd_sums = {name: torch.zeros_like(h) for name, h in odd.items()}
        for (number, axis), message in zip(self._places, self._messages, strict=True):
            own = self._layout.blocks[number]
            products, squares = message(blocks[number], even, odd)
            name = own.groups[axis]
            even_sums[name] = even_sums[name] + squares
            sums = odd_sums if own.is_odd[axis] else even_sums
            sums[name] = sums[name] + products
        new_even, new_odd = dict(even), dict(odd)
        for name, update in zip(even, self._updates, strict=True):
            new_even[name], own_odd = update(
                even[name], even_sums[name], odd.get(name), odd_sums.get(name)
            )
            if own_odd is not None:
                new_odd[name] = own_odd
        return new_even, new_odd


class _Message(nn.Module):
    """The messages of a block to the units of one of its axes."""

    def __init__(self, block: Block, axis: int, width: int):
        super().__init__()
        self._block, self._axis = block, axis
        self._others = [other for other in range(len(block.groups)) if other != axis]
        scale = block.num_channels**-0.5
        self._entries = nn.ParameterList(
            nn.Parameter(scale * torch.randn(block.num_channels, width)) for _ in range(2)
        )
        self._features = nn.ModuleList(
            nn.Linear(width, width, bias=False) for _ in range(2 * len(self._others))
        )

    def forward(self, entries: Tensor, even: Features, odd: Features) -> tuple[Tensor, Tensor]:
        """Return the products and the products with squares, each (network, unit, feature)."""
        results = []
        for kind, values in enumerate((entries, entries.square())):
            features = []
            for position, other in enumerate(self._others):
                is_odd = self._block.is_odd[other] and kind == 0
                source = (odd if is_odd else even)[self._block.groups[other]]
                features.append(self._features[2 * position + kind](source))
            results.append(self._sum(values, features, self._entries[kind]))
        return results[0], results[1]

    def _sum(self, values: Tensor, features: Sequence[Tensor], matrix: Tensor) -> Tensor:
        """Sum over the units of all other axes, then map channels to features."""
        letters = "ijklm"[: len(self._block.groups)]
        left, tail = letters, "c"
        for other, feature in zip(self._others, features, strict=True):
            letter = letters[other]
            rest = left.replace(letter, "")
            equation = f"n{left}{tail},n{letter}d->n{rest}cd"
            values = torch.einsum(equation, values, feature) * feature.shape[1] ** -0.5
            left, tail = rest, "cd"
        return torch.einsum(f"n{left}{tail},cd->n{left}d", values, matrix)


class _Update(nn.Module):
    """Updates the features of the units of one group."""

    def __init__(self, orbit: Tensor, is_signed: bool, width: int):
        super().__init__()
        self.register_buffer("_orbit", orbit)
        self._gain = nn.Parameter(torch.ones(int(orbit.max()) + 1, width))
        self._combine = nn.Sequential(
            nn.Linear(width * (3 if is_signed else 2), 2 * width),
            nn.GELU(),
            nn.Linear(2 * width, width),
        )
        if is_signed:
            self._odd, self._gate = nn.Linear(width, width, bias=False), nn.Linear(width, width)

    def forward(
        self, even: Tensor, even_sum: Tensor, odd: Tensor | None, odd_sum: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Return the new even and odd features."""
        gain = self._gain[self.get_buffer("_orbit")]
        inputs = [even, gain * even_sum]
        if odd is None or odd_sum is None:
            return even + self._combine(torch.cat(inputs, -1)), None
        total: Tensor = odd + gain * self._odd(odd_sum)
        # Bounded by a factor that does not depend on the sign.
        total = total / (1 + total.square().mean(-1, keepdim=True)).sqrt()
        even = even + self._combine(torch.cat([*inputs, total.square()], -1))
        return even, total * self._gate(even).sigmoid()


def _mean(features: Tensor) -> Tensor:
    return features.mean(1)


def _mean_square(features: Tensor) -> Tensor:
    return features.square().mean(1)
