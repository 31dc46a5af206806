"""Random numbers from keys instead of generator state.

Every random number of this package comes from a key such as `(seed, "vi noise", step)`, hashed to
64 bits with SHA-256. Checkpoints therefore need no generator state, results do not depend on the
order of the work, and equal keys give equal numbers in every process. Python's own `hash` is salted
per process and is never used.
"""

import contextlib
import hashlib
import random
from collections.abc import Iterator

import numpy as np
import torch

Key = int | str


def key_seed(*key: Key) -> int:
    """Return a seed in [0, 2**63) for a key.

    The seed is the first 63 bits of the SHA-256 of the key's canonical text.

    Args:
        key: integers and strings.

    Raises:
        TypeError: if a component of the key is neither an int nor a str.
    """
    for part in key:
        if isinstance(part, bool) or not isinstance(part, int | str):
            raise TypeError(
                f"a key consists of ints and strings; got {part!r} of type {type(part).__name__}"
            )
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in key)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def torch_generator(*key: Key) -> torch.Generator:
    """Return a CPU generator for a key.

    Numbers are always drawn on the CPU, so that they do not depend on the device.

    Args:
        key: integers and strings.
    """
    return torch.Generator().manual_seed(key_seed(*key))


def numpy_generator(*key: Key) -> np.random.Generator:
    """Return a Philox generator for a key.

    Philox is counter-based and gives the same stream on every platform.

    Args:
        key: integers and strings.
    """
    return np.random.Generator(np.random.Philox(key=key_seed(*key)))


@contextlib.contextmanager
def global_seed(*key: Key) -> Iterator[None]:
    """Seed torch's global generators by a key, and restore their states on exit.

    Only for code that accepts no generator: Pyro's kernels and the initialization of modules.

    Args:
        key: integers and strings.
    """
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(key_seed(*key))
        yield


@contextlib.contextmanager
def numpy_and_python_seed(*key: Key) -> Iterator[None]:
    """Seed the global generators of NumPy and Python by a key, and restore them on exit.

    Only for user code that may draw from them.

    Args:
        key: integers and strings.
    """
    states = random.getstate(), np.random.get_state()  # noqa: NPY002
    random.seed(key_seed(*key))
    np.random.seed(key_seed(*key) % 2**32)  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
