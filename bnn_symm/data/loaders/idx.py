"""Fashion-MNIST in the IDX format of MNIST: a big-endian header, then bytes."""

import gzip
import io
import math
import struct
from pathlib import Path

import numpy as np

from bnn_symm.data.loaders.data_folders import check_sha256, locate, read_limited, refetch_advice
from bnn_symm.data.raw import RawData, pixel_names
from bnn_symm.errors import InvalidData
from bnn_symm.io.boundary import parser_errors, shown

# SHA-256 of the decompressed files. The compressed bytes differ between distributions.
FASHION_MNIST = {
    "train-images-idx3-ubyte.gz": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",  # noqa: E501
    "train-labels-idx1-ubyte.gz": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",  # noqa: E501
    "t10k-images-idx3-ubyte.gz": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte.gz": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
# Bytes of the largest of these files when decompressed; none is larger when compressed.
LARGEST = 16 + 60_000 * 28 * 28
_LABELS = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
# Type byte of the header for unsigned 8-bit integers.
_UINT8 = 0x08
_MAX_AXES = 3


def fashion_mnist() -> RawData:
    """Load 60,000 training and 10,000 test images of clothes, (1, 28, 28), values 0..255."""
    folder = locate("fashion_mnist", tuple(FASHION_MNIST))
    train_x, train_y, test_x, test_y = (
        read_idx(folder / file, sha256, "fashion_mnist") for file, sha256 in FASHION_MNIST.items()
    )
    labels = np.array(_LABELS, dtype=object)
    return RawData(
        x=np.concatenate([train_x, test_x])[:, None],
        y=labels[np.concatenate([train_y, test_y])],
        target="clothing",
        source="Fashion-MNIST (Xiao, Rasul and Vollgraf 2017, arXiv:1708.07747)",
        licence="MIT",
        task="classification",
        class_labels=_LABELS,
        feature_names=pixel_names((1, 28, 28)),
        train=np.arange(len(train_y)),
        test=np.arange(len(train_y), len(train_y) + len(test_y)),
    )


def read_idx(path: Path, sha256: str | None = None, name: str = "fashion_mnist") -> np.ndarray:
    """Return the array of a gzipped IDX file of unsigned bytes.

    Decompression stops at the size of the largest file of Fashion-MNIST.

    Args:
        path: path of the file.
        sha256: expected hash of the decompressed content; None to skip the check.
        name: data set to fetch again if the file is damaged.

    Raises:
        InvalidData: if the file is truncated, damaged, too large, or not IDX.
    """
    compressed = io.BytesIO(read_limited(path, LARGEST, name))
    with (
        parser_errors(path, refetch_advice(name), InvalidData, "cannot be decompressed"),
        gzip.open(compressed) as file,
    ):
        content = file.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise InvalidData(
            f"{shown(path)} is not the expected file: it decompresses to more than {LARGEST} "
            f"bytes; {refetch_advice(name)}"
        )
    if sha256 is not None:
        check_sha256(content, sha256, path, name)
    axes = content[3] if content[:3] == bytes([0, 0, _UINT8]) and len(content) > 3 else 0
    header = 4 + 4 * axes
    if not 0 < axes <= _MAX_AXES or len(content) < header:
        raise InvalidData(
            f"{shown(path)}: got the header {content[:4].hex()}, expected IDX with unsigned bytes "
            "(000008..)"
        )
    shape = struct.unpack(f">{axes}I", content[4:header])
    if math.prod(shape) != len(content) - header:
        raise InvalidData(
            f"{shown(path)}: got {len(content) - header} bytes of data, expected shape {shape} of "
            "bytes"
        )
    return np.frombuffer(content, dtype=np.uint8, offset=header).reshape(shape)
