"""Randomness by key, not by state.

Every random number of this package comes from a key such as `(seed, "vi noise", step)`. A key is
hashed to 64 bits with SHA-256, so a checkpoint needs no generator state, the order of work does not
matter, and the same key means the same numbers in every process (Python's own `hash` is salted per
process and is never used).
"""

import contextlib
import hashlib
import random
from collections.abc import Iterator

import numpy as np
import torch

Key = int | str


def key_seed(*key: Key) -> int:
    """A seed in [0, 2**63) for a key: the first 63 bits of the SHA-256 of the key's canonical text.

    Raises:
        TypeError: if a part of the key is neither an int nor a str.
    """
    for part in key:
        if isinstance(part, bool) or not isinstance(part, int | str):
            raise TypeError(
                f"a key is made of ints and strings; got {part!r} of type {type(part).__name__}"
            )
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in key)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def torch_generator(*key: Key) -> torch.Generator:
    """A CPU generator for a key. Numbers are always drawn on the CPU, so every device sees the same
    ones.
    """
    return torch.Generator().manual_seed(key_seed(*key))


def numpy_generator(*key: Key) -> np.random.Generator:
    """A Philox generator for a key: counter based, the same stream on every platform."""
    return np.random.Generator(np.random.Philox(key=key_seed(*key)))


@contextlib.contextmanager
def global_seed(*key: Key) -> Iterator[None]:
    """Seeds torch's global generators by a key, and puts their former states back on exit.

    Only for code that cannot be handed a generator: Pyro's kernels and a module's own
        initialization.
    """
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(key_seed(*key))
        yield


@contextlib.contextmanager
def numpy_and_python_seed(*key: Key) -> Iterator[None]:
    """Seed the global generators of NumPy and Python by a key, and put their former states back on
    exit.

    Only for code of the user's own, which may draw from them.
    """
    states = random.getstate(), np.random.get_state()  # noqa: NPY002
    random.seed(key_seed(*key))
    np.random.seed(key_seed(*key) % 2**32)  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
