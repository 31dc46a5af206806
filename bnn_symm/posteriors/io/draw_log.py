"""The draws of a running sampler on disk: a log that is only appended to, and arrays that read from
it when asked.

A log is a folder of files `NNNNNN.npy`. Each is a structured array with one row a draw: `chain`,
    `draw` (its number
within the chain), `position`, `run` (a number that draws of no other run carry), and what the
sampler says of it. A chain goes on from file to file; a file may have draws of many chains. Files
are written under a temporary name and renamed, so a process killed at any moment leaves a log.

Nothing here holds more than a few megabytes of rows at a time, however many draws there are.
"""

import math
import re
import zlib
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, overload

import numpy as np

from bnn_symm.errors import InvalidRun, one_line
from bnn_symm.io.arrays import read_npy_layout
from bnn_symm.io.atomic import make_folder, sync_folder, write_atomically

# How much of a file is read at once, in bytes.
_BYTES_PER_READ = 2**23
_ADVICE = "it is damaged or of another run; put back the file that was there"
_OWN_FIELDS = ("chain", "draw", "position")
_RUN = "run"
_DRAW_FILE = re.compile(r"[0-9]{6,}\.npy")


class _Span(NamedTuple):
    """Consecutive draws of one chain in one file: [first, stop), the first of them `offset` bytes
    into the file.
    """

    path: Path
    offset: int
    rows: np.dtype
    first: int
    stop: int


class LoggedArray:
    """One field of the draws of one chain in a log, (draw, *event): read from disk where it is
    needed.

    An integer index reads that draw; a slice of consecutive draws is again a `LoggedArray`;
    `np.asarray` reads all.
    """

    def __init__(self, spans: Sequence[_Span], field: str, start: int = 0, stop: int | None = None):
        self._spans, self._field, self._start = spans, field, start
        self._stop = spans[-1].stop if stop is None else stop

    @property
    def dtype(self) -> np.dtype:
        """Of the array."""
        return self._spans[0].rows[self._field].base

    @property
    def shape(self) -> tuple[int, ...]:
        """(draw, *event)."""
        return (self._stop - self._start, *self._spans[0].rows[self._field].shape)

    @property
    def nbytes(self) -> int:
        """What it would take in memory."""
        return math.prod(self.shape) * self.dtype.itemsize

    def __len__(self) -> int:
        return self._stop - self._start

    @overload
    def __getitem__(self, index: int) -> np.ndarray: ...
    @overload
    def __getitem__(self, index: slice) -> "LoggedArray": ...
    def __getitem__(self, index: int | slice) -> "np.ndarray | LoggedArray":
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            if step != 1:
                raise ValueError(
                    f"draws of a log are read in their order; got a slice with step {step}"
                )
            return LoggedArray(
                self._spans, self._field, self._start + start, self._start + max(start, stop)
            )
        if not -len(self) <= index < len(self):
            raise IndexError(f"draw {index} of {len(self)}")
        where = self._start + index % len(self)
        return self._read(where, where + 1)[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        values = self._read(self._start, self._stop)
        return values if dtype is None else values.astype(dtype, copy=False)

    def _read(self, start: int, stop: int) -> np.ndarray:
        result = np.empty((stop - start, *self.shape[1:]), self.dtype)
        done = start
        number = bisect_right(self._spans, start, key=lambda span: span.first) - 1
        while done < stop:
            span = self._spans[number]
            count = (
                min(span.stop, stop, done + max(1, _BYTES_PER_READ // span.rows.itemsize)) - done
            )
            rows = _read_rows(span, done, count)
            values = rows[self._field]
            if self._field == "position" and not np.isfinite(values).all():
                raise InvalidRun(f"{span.path} has positions that are not finite; {_ADVICE}")
            result[done - start : done - start + count] = values
            done += count
            number += done == span.stop
        return result


def _read_rows(span: _Span, first: int, count: int) -> np.ndarray:
    try:
        offset = span.offset + (first - span.first) * span.rows.itemsize
        rows = np.fromfile(span.path, span.rows, count, offset=offset)
    except FileNotFoundError:
        raise InvalidRun(
            f"{span.path} is not there any more: the run went on meanwhile; load it again"
        ) from None
    if len(rows) < count:
        raise InvalidRun(f"{span.path} is damaged: it ends too early")
    return rows


class _LoggedStats(Mapping[str, np.ndarray]):
    """What the sampler says of the draws of one chain, by name; a column is read when it is asked
    for.
    """

    def __init__(self, spans: Sequence[_Span]):
        self._spans = spans
        self._names = [
            name for name in spans[0].rows.names or () if name not in (*_OWN_FIELDS, _RUN)
        ]

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self._names:
            raise KeyError(name)
        return np.asarray(LoggedArray(self._spans, name))

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


@dataclass(frozen=True)
class DrawChunk:
    """Consecutive draws of one chain: positions (draw, parameter), and what the sampler says of
    each.

    Both may lie in a `DrawLog`; `np.asarray` reads the positions, `stats[name]` a column of the
    statistics.
    """

    chain: int
    first: int
    positions: np.ndarray | LoggedArray
    stats: Mapping[str, np.ndarray]


def is_draw_file(name: str) -> bool:
    """Return whether a name is that of a file of a log."""
    return _DRAW_FILE.fullmatch(name) is not None


class DrawLog:
    """The append-only log of draws of a running sampler: one structured array a file, renamed into
    place.
    """

    def __init__(self, directory: Path, run: str | None = None):
        """Open a log, or make one.

        Args:
            directory: of the log.
            run: a hexadecimal number of 64 bits that its draws carry, combined with a checksum of
                each; None of a run that has none.
        """
        self._directory = directory
        self._run = None if run is None else int(run, 16)
        make_folder(directory)
        files = self._files()
        self._next = int(files[-1].stem) + 1 if files else 0

    def append(self, *chunks: DrawChunk) -> None:
        """Writes chunks, of one chain or of many, as one file and syncs it to disk."""
        ordered = sorted(
            (chunk for chunk in chunks if len(chunk.positions)),
            key=lambda part: (part.chain, part.first),
        )
        if not ordered:
            return
        positions = np.asarray(ordered[0].positions)
        fields = [
            ("chain", "i4"),
            ("draw", "i8"),
            ("position", positions.dtype, positions.shape[1:]),
        ]
        fields += [(_RUN, "u8")] if self._run is not None else []
        fields += [(name, value.dtype) for name, value in ordered[0].stats.items()]
        rows = np.empty(sum(len(chunk.positions) for chunk in ordered), dtype=fields)
        start = 0
        for chunk in ordered:
            part = rows[start : start + len(chunk.positions)]
            part["chain"] = chunk.chain
            part["draw"] = chunk.first + np.arange(len(part))
            part["position"] = chunk.positions
            for name, value in chunk.stats.items():
                part[name] = value
            start += len(part)
        if self._run is not None:
            rows[_RUN] = np.uint64(self._run) ^ _checksums(rows)
        self._write(self._directory / f"{self._next:06d}.npy", rows)
        self._next += 1

    def chains(self) -> dict[int, DrawChunk]:
        """Everything written so far, one chunk a chain, which stays on disk until it is asked for.

        Raises:
            InvalidRun: if a chain has a hole: a file was taken away.
            ValueError: if a file is damaged.
        """
        found: dict[int, list[_Span]] = {}
        for path in self._files():
            for chain, span in _spans(path, self._run):
                own = found.setdefault(chain, [])
                if own and span.rows != own[0].rows:
                    raise InvalidRun(f"{path} has other fields than the files before it; {_ADVICE}")
                if span.first != (own[-1].stop if own else 0):
                    raise InvalidRun(
                        f"{self._directory}: draws of chain {chain} are missing or doubled"
                    )
                own.append(span)
        return {
            chain: DrawChunk(chain, 0, LoggedArray(own, "position"), _LoggedStats(own))
            for chain, own in sorted(found.items())
        }

    def cut(self, lengths: Mapping[int, int]) -> None:
        """Keeps the first `lengths[chain]` draws of each chain, and none of a chain that is not
        named.

        It begins with the last file, so that a process killed meanwhile leaves chains without
        holes.
        """
        for path in reversed(self._files()):
            rows = _mapped(path)
            keep = np.zeros(len(rows), dtype=bool)
            for chain in np.unique(rows["chain"]):
                keep |= (rows["chain"] == chain) & (rows["draw"] < lengths.get(int(chain), 0))
            if not keep.any():
                path.unlink()
                sync_folder(
                    self._directory
                )  # one after the other, so that a power cut leaves no hole either
            elif not keep.all():
                self._write(path, rows[keep])

    @staticmethod
    def _write(path: Path, rows: np.ndarray) -> None:
        rows = np.ascontiguousarray(rows)

        def write(temporary: Path) -> None:
            with temporary.open("wb") as file:
                # The bytes of `np.save`, which itself loses the reason for which a disk refuses
                # them.
                np.lib.format.write_array_header_1_0(
                    file, np.lib.format.header_data_from_array_1_0(rows)
                )
                file.write(rows.data)

        write_atomically(path, write)

    def _files(self) -> list[Path]:
        return sorted(
            (path for path in self._directory.glob("*.npy") if is_draw_file(path.name)),
            key=lambda path: int(path.stem),
        )


def _spans(path: Path, run: int | None) -> Iterator[tuple[int, _Span]]:
    """The chains of a file, and which of their draws it has; all of them must be of one run."""
    rows = _mapped(path)
    if run is not None and (
        rows.dtype.fields is None
        or rows.dtype.fields.get(_RUN, (None,))[0] != np.dtype("u8")
        or bool((rows[_RUN] ^ _checksums(rows) != run).any())
    ):
        raise InvalidRun(
            f"{path} is damaged or has draws of another run; put back the run's own file, or fit "
            "again"
        )
    chain, draw = np.array(rows["chain"]), np.array(rows["draw"])
    cuts = np.flatnonzero((np.diff(chain) != 0) | (np.diff(draw) != 1)) + 1
    for start, stop in zip([0, *cuts.tolist()], [*cuts.tolist(), len(rows)], strict=True):
        offset = int(rows.offset) + start * rows.dtype.itemsize
        first = int(draw[start])
        yield int(chain[start]), _Span(path, offset, rows.dtype, first, first + stop - start)


def _checksums(rows: np.ndarray) -> np.ndarray:
    """Return the CRC-32 of every row, its own place for the run left out."""
    result = np.empty(len(rows), "u8")
    step = max(1, _BYTES_PER_READ // rows.dtype.itemsize)
    for start in range(0, len(rows), step):
        part = np.array(rows[start : start + step])
        part[_RUN] = 0
        lines = part.view("u1").reshape(len(part), rows.dtype.itemsize)
        result[start : start + step] = [zlib.crc32(line.data) for line in lines]
    return result


def _mapped(path: Path) -> np.memmap:
    """Return the rows of a file, which stay on disk, after checking what they hold.

    Raises:
        InvalidRun: if the file is damaged, or its rows are no draws.
    """
    layout = read_npy_layout(path)
    fields = layout.dtype.fields or {}
    kinds = {name: (field[0].base.kind, field[0].ndim) for name, field in fields.items()}
    own = {name: kinds.get(name) for name in _OWN_FIELDS}
    wanted = {"chain": ("i", 0), "draw": ("i", 0), "position": ("f", 1)}
    is_plain = all(
        kind in "biuf" and ndim == 0
        for name, (kind, ndim) in kinds.items()
        if name not in _OWN_FIELDS
    )
    if own != wanted or not is_plain or len(layout.shape) != 1 or layout.shape[0] == 0:
        raise InvalidRun(f"{path} holds no draws, but {one_line(layout.dtype, 100)}; {_ADVICE}")
    rows = np.memmap(path, layout.dtype, mode="r", offset=layout.offset, shape=layout.shape)
    if int(rows["chain"].min()) < 0 or int(rows["draw"].min()) < 0:
        raise InvalidRun(f"{path} has draws with negative numbers; {_ADVICE}")
    return rows
