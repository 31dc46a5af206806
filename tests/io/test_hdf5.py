"""Plain HDF5 and NetCDF files open; references to other files and wrong sizes are errors."""

from collections.abc import Callable
from pathlib import Path

import h5netcdf
import h5py
import numpy as np
import pytest
from h5py import h5o

from bnn_symm.errors import ConfigError, InvalidRun
from bnn_symm.io.hdf5 import integer_attribute, open_hdf5, open_netcdf, read_numbers, text_attribute

VALUES = np.arange(24.0).reshape(2, 3, 4)


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    path = tmp_path / "plain.nc"
    with h5netcdf.File(path, "w") as file:
        file.attrs["kind"], file.attrs["number"], file.attrs["numbers"] = "samples", 3, [1, 2]
        group = file.create_group("posterior")
        for name, size in {"chain": 2, "draw": 3, "w_dim_0": 4}.items():
            group.dimensions[name] = size
        group.create_variable("w", ("chain", "draw", "w_dim_0"), "f8", data=VALUES)
        group.create_variable(
            "z", ("chain", "draw", "w_dim_0"), "f8", data=VALUES, compression="gzip", shuffle=True
        )
        group.create_variable("big_endian", ("chain",), ">f4", data=np.array([1, 2], ">f4"))
        group.create_variable(
            "text", ("chain",), h5py.string_dtype(), data=np.array(["a", "b"], dtype=object)
        )
    return path


def test_plain_variables_and_attributes_are_read(plain: Path) -> None:
    with open_netcdf(plain) as file:
        group = file["posterior"]
        assert group["w"].dimensions == ("chain", "draw", "w_dim_0")
        assert np.array_equal(read_numbers(group["w"], "w"), VALUES)
        assert np.array_equal(read_numbers(group["z"], "z"), VALUES)
        swapped = read_numbers(group["big_endian"], "b")
        assert swapped.dtype.isnative
        assert swapped.tolist() == [1.0, 2.0]
        assert text_attribute(file.attrs, "kind") == "samples"
        assert text_attribute(file.attrs, "absent", "default") == "default"
        assert integer_attribute(file.attrs, "number") == 3
    with open_hdf5(plain) as file:
        assert np.array_equal(file["posterior/w"][1, 1:3], VALUES[1, 1:3])


@pytest.mark.parametrize(
    "read",
    [
        lambda file: read_numbers(file["posterior"]["text"], "text"),
        lambda file: text_attribute(file.attrs, "number"),
        lambda file: integer_attribute(file.attrs, "kind"),
        lambda file: integer_attribute(file.attrs, "numbers"),
        lambda file: file["no such group"],
        lambda file: file["posterior"]["w"].variables,
    ],
)
def test_other_types_are_one_line(plain: Path, read: Callable) -> None:
    with pytest.raises(InvalidRun, match=r"plain\.nc") as caught, open_netcdf(plain) as file:
        read(file)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) <= 300


def _external_link(file: h5py.File, other: Path) -> None:
    file["x"] = h5py.ExternalLink(str(other), "/secret")


def _soft_link(file: h5py.File, other: Path) -> None:
    file["x"] = h5py.SoftLink("/posterior")


def _dangling_link(file: h5py.File, other: Path) -> None:
    file["x"] = h5py.SoftLink("/nowhere")


def _link_in_a_group(file: h5py.File, other: Path) -> None:
    file["posterior/x"] = h5py.ExternalLink(str(other), "/secret")


def _external_storage(file: h5py.File, other: Path) -> None:
    file.create_dataset("posterior/x", (2, 3), "u1", external=[(str(other), 0, 6)])


def _virtual(file: h5py.File, other: Path) -> None:
    layout = h5py.VirtualLayout((4,), "f8")
    layout[:] = h5py.VirtualSource(str(other), "secret", (4,))
    file.create_virtual_dataset("x", layout)


def _cycle(file: h5py.File, other: Path) -> None:
    h5o.link(file["posterior"].id, file["posterior"].id, b"again")


def _second_name(file: h5py.File, other: Path) -> None:
    file["x"] = file["posterior/w"]


def _data_type(file: h5py.File, other: Path) -> None:
    file["x"] = np.dtype("f8")


def _other_filter(file: h5py.File, other: Path) -> None:
    file.create_dataset("x", data=np.arange(4), scaleoffset=True, chunks=(4,))


def _never_written(file: h5py.File, other: Path) -> None:
    file.create_dataset("x", (10**6, 10**6), "f8")


def _chunks_never_written(file: h5py.File, other: Path) -> None:
    file.create_dataset("x", (10**6, 10**6), "f8", chunks=(10, 10), compression="gzip")[0, 0] = 1


def _depth(file: h5py.File, other: Path) -> None:
    file.create_group("/".join("a" * 50))


def _attribute(file: h5py.File, other: Path) -> None:
    h5py.get_config().track_order = True
    try:
        group = file.create_group("dense", track_order=True)
    finally:
        h5py.get_config().track_order = False
    for number in range(1100):
        group.attrs[str(number)] = 0


HOSTILE = [
    _external_link,
    _soft_link,
    _dangling_link,
    _link_in_a_group,
    _external_storage,
    _virtual,
    _cycle,
    _second_name,
    _data_type,
    _other_filter,
    _never_written,
    _chunks_never_written,
    _depth,
    _attribute,
]


@pytest.mark.parametrize("change", HOSTILE, ids=lambda change: change.__name__)
def test_what_leads_out_of_the_file_is_refused(
    plain: Path, tmp_path: Path, change: Callable[[h5py.File, Path], None]
) -> None:
    other = tmp_path / "other.h5"
    with h5py.File(other, "w") as file:
        file["secret"] = np.arange(4.0)
    with h5py.File(plain, "a") as file:
        change(file, other)
    with pytest.raises(ConfigError, match="plain") as caught:
        open_hdf5(plain, ConfigError)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) <= 300


def test_truncated_and_foreign_files_are_one_line(plain: Path, tmp_path: Path) -> None:
    content = plain.read_bytes()
    for size in (0, 4, 8, 100, len(content) // 2, len(content) - 1):
        plain.write_bytes(content[:size])
        with pytest.raises(InvalidRun):
            open_hdf5(plain)
    plain.write_bytes(b"CDF\x01" + content[4:])
    with pytest.raises(InvalidRun):
        open_hdf5(plain)
    with pytest.raises(InvalidRun, match="folder"):
        open_hdf5(tmp_path)
    with pytest.raises(FileNotFoundError):
        open_hdf5(tmp_path / "absent.nc")
