"""Regular files, available memory and printable lines."""

import os
import socket

import pytest

from bnn_symm.errors import InvalidData, InvalidRun, NotEnoughMemory, one_line
from bnn_symm.io.memory import available_memory, check_memory, format_bytes, num_bytes_of
from bnn_symm.io.paths import check_regular_file, expand_user


def test_a_regular_file_has_its_size(tmp_path):
    file = tmp_path / "rows.csv"
    file.write_bytes(b"12345")
    link = tmp_path / "link"
    link.symlink_to(file)
    assert check_regular_file(file) == check_regular_file(link) == 5


@pytest.mark.parametrize("kind", ["folder", "pipe", "device", "socket"])
def test_what_is_not_a_regular_file_is_refused_at_once(tmp_path, kind):
    path = tmp_path / "x"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path = type(path)("/dev/zero")
    else:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(path))
        listener.close()
    with pytest.raises(InvalidRun, match=kind):
        check_regular_file(path, InvalidRun)


def test_a_missing_file_is_missing(tmp_path):
    for path in (tmp_path / "x", tmp_path / "x" / "y"):
        with pytest.raises(FileNotFoundError):
            check_regular_file(path)
    with pytest.raises(InvalidData, match="too long"):
        check_regular_file(tmp_path / ("x" * 300))


@pytest.mark.parametrize("name", ["~no-such-user-here/x.csv", "a\0b"])
def test_paths_that_name_nothing_are_refused(name):
    with pytest.raises(InvalidData):
        expand_user(name)


def test_memory_is_refused_with_both_numbers():
    check_memory(1000, "a small array", "nothing")
    with pytest.raises(NotEnoughMemory, match=r"a large array needs .* PB.*available; use less"):
        check_memory(10**18, "a large array", "use less")
    assert 0 < available_memory() < 10**15


def test_sizes_are_exact():
    assert num_bytes_of((2**40, 2**40), 8) == 2**83
    assert num_bytes_of((), 8) == 8
    assert [format_bytes(n) for n in (0, 999, 1500, 2.5e9)] == [
        "0 bytes",
        "999 bytes",
        "1.5 kB",
        "2.5 GB",
    ]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("plain", "plain"),
        ("two\nlines\tand a tab", "two lines and a tab"),
        ("\x1b[31mred\x07", r"\x1b[31mred\x07"),
        ("right\u202eleft", r"right\u202eleft"),
        ("half \ud800", r"half \ud800"),
        ("\u2028", ""),
        ("x" * 301, "x" * 149 + "..." + "x" * 148),
    ],
)
def test_a_quoted_text_is_one_printable_line(text, line):
    assert one_line(text) == line


def test_a_huge_text_is_cut():
    assert len(one_line("a\n" * 10**6, limit=80)) == 80
