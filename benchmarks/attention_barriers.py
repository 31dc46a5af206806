"""Measure barriers between small transformers, aligned over one more symmetry at a time.

    python -m benchmarks.attention_barriers [--seeds 6] [--networks vit text] [--width 32]

`vit` reads images of digits as 16 patches of 2 x 2 pixels, and `text` predicts the next character
of the descriptions of scikit-learn's data sets from the 16 before. Both have two blocks with layer
norm, four heads and relu units, and a prior of scale `fan_in`. Each seed is a MAP fit from its own
initial values, without dropout. Barriers are those of the test split, in nats per point, along the
straight line; rows are means over all pairs of seeds with 95 % intervals by the jackknife.

The symmetries that are aligned: permutations of heads, of hidden units and of the residual stream;
scales of relu units; rotations of queries with keys, and of values with outputs. Rotations of the
residual stream, which a layer norm without scales and shifts allows, are not.
"""

import argparse
import itertools
import re
import time
from collections.abc import Callable
from dataclasses import asdict
from importlib import resources

import numpy as np
import torch
from torch import Tensor, nn

from bnn_symm import MAP, BayesianModel, Dataset, Prior
from bnn_symm.alignment import align, align_continuous
from bnn_symm.data import load_dataset
from bnn_symm.diagnostics import barrier
from bnn_symm.diagnostics.statistics.paired_comparison import pair_estimate
from bnn_symm.formatting import mean_and_interval
from bnn_symm.likelihoods import Categorical
from bnn_symm.posteriors import Posterior
from bnn_symm.symmetry import symmetry_group

WAYS = {
    "+ permutation": ["permutation"],
    "+ scale": ["permutation", "scale"],
    "+ rotation": ["permutation", "scale", "rotation"],
}
CONTEXT = 16
HEADS, BLOCKS = 4, 2


class Block(nn.Module):
    """Attention and two linear layers, each after a layer norm."""

    def __init__(self, width: int):
        super().__init__()
        self.before_attention, self.before_mlp = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, HEADS, batch_first=True)
        self.mlp = nn.Sequential(
            nn.Linear(width, 2 * width), nn.ReLU(), nn.Linear(2 * width, width)
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the tokens after the block, (point, token, width)."""
        normed = self.before_attention(tokens)
        tokens = tokens + self.attention(normed, normed, normed, need_weights=False)[0]
        return tokens + self.mlp(self.before_mlp(tokens))


class VisionTransformer(nn.Module):
    """Classify an image by the mean of its tokens."""

    def __init__(self, width: int):
        super().__init__()
        self.patches = nn.Conv2d(1, width, 2, stride=2)
        self.position = nn.Parameter(0.02 * torch.randn(1, 16, width))
        self.blocks = nn.Sequential(*(Block(width) for _ in range(BLOCKS)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (point, class) of images (point, 1, 8, 8)."""
        tokens = self.patches(x).flatten(2).transpose(1, 2) + self.position
        return self.head(self.norm(self.blocks(tokens)).mean(1))


class TextTransformer(nn.Module):
    """Predict the character after the last token."""

    def __init__(self, width: int, characters: int):
        super().__init__()
        self.embedding = nn.Embedding(characters, width)
        self.position = nn.Parameter(0.02 * torch.randn(1, CONTEXT, width))
        self.blocks = nn.Sequential(*(Block(width) for _ in range(BLOCKS)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, characters)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (point, character) of tokens (point, time)."""
        tokens = self.blocks(self.embedding(x) + self.position)
        return self.head(self.norm(tokens[:, -1]))


def text_data() -> tuple[Dataset, int]:
    """Return windows of the text with the character that follows, and the number of characters."""
    files = sorted(
        (each for each in resources.files("sklearn.datasets.descr").iterdir()),
        key=lambda each: each.name,
    )
    text = "".join(each.read_text("utf-8") for each in files if each.name.endswith(".rst")).lower()
    # Rare characters are one.
    known, codes = np.unique(list(re.sub(r"[^a-z .,-]", "#", text)), return_inverse=True)
    windows = np.lib.stride_tricks.sliding_window_view(codes, CONTEXT + 1)
    # Windows of one part of the text share characters, so the split is by place in the text.
    data = Dataset.from_arrays(
        windows[:, :-1],
        windows[:, -1],
        task="classification",
        layout="tokens",
        time=np.arange(len(windows)),
    )
    return data, len(known)


def problem(name: str, width: int) -> tuple[Dataset, Callable[[], nn.Module], MAP]:
    """Return the data, the factory of the network and the method of a name."""
    if name == "vit":
        method = MAP(num_steps=2500, batch_size=64, learning_rate=0.003)
        return load_dataset("digits"), lambda: VisionTransformer(width), method
    data, characters = text_data()
    method = MAP(num_steps=3000, batch_size=128, learning_rate=0.002)
    return data, lambda: TextTransformer(width, characters), method


def heights(fits: list[Posterior], data: Dataset) -> dict[str, dict[tuple[int, int], float]]:
    """Return the heights of the barriers of all pairs, by what is aligned."""
    found: dict[str, dict[tuple[int, int], float]] = {"naive": {}}
    found |= {way: {} for way in WAYS}
    group = symmetry_group(fits[0].model.net, input_shape=data.input_shape)
    for pair in itertools.combinations(range(len(fits)), 2):
        first, second = (fits[i] for i in pair)
        found["naive"][pair] = barrier(first, second, data, num_draws=1).height
        permutation = align(first, second, group=group).permutation
        for way, symmetries in WAYS.items():
            moved = second.permute(permutation)
            if len(symmetries) > 1:
                identity = group.spec.identity()
                moved = align_continuous(
                    first, moved, symmetries, first=identity, group=group
                ).apply(moved)
            found[way][pair] = barrier(first, moved, data, num_draws=1).height
        print(*pair, {way: round(own[pair], 3) for way, own in found.items()}, flush=True)
    return found


def measure(name: str, seeds: int, width: int) -> None:
    """Fit the networks of a name, and print their barriers."""
    data, network, method = problem(name, width)
    started = time.process_time()
    fits: list[Posterior] = []
    for seed in range(seeds):
        torch.manual_seed(seed)
        model = BayesianModel(network(), Prior(scale="fan_in"), Categorical())
        fits.append(method.fit(model, data, seed=seed))
    seconds = (time.process_time() - started) / seeds
    scores = [fit.predict(data.test.x) for fit in fits]
    nll = np.mean([-float(one.log_prob(data.test.y).mean()) for one in scores])
    accuracy = np.mean(
        [float((one.probabilities().argmax(-1) == data.test.y).float().mean()) for one in scores]
    )
    number = fits[0].model.num_parameters
    print(f"{name}: {number:,} parameters, {seeds} fits of {seconds:.0f} s")
    print(f"test NLL {nll:.3f}, accuracy {accuracy:.3f}")
    print(f"| {name} | barrier (95 % interval) |\n| --- | --- |")
    for way, own in heights(fits, data).items():
        print(f"| {way} | {mean_and_interval(asdict(pair_estimate(own)))} |", flush=True)


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--networks", nargs="+", choices=("vit", "text"), default=["vit", "text"])
    parser.add_argument("--width", type=int, default=32)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for name in options.networks:
        measure(name, options.seeds, options.width)


if __name__ == "__main__":
    main()
