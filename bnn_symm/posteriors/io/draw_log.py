"""Store the draws of a running sampler in an append-only log, and read arrays from it lazily.

A log is a folder of files `NNNNNN.npy`. Each is a structured array with one row per draw: `chain`,
`draw` (its index within the chain), `position`, `run` (a number that identifies the run), and the
sampler's statistics. A chain continues from file to file; a file may have draws of several chains.
Files are written under a temporary name and renamed, so that a process killed at any moment leaves
a valid log.

No function here holds more than a few megabytes of rows in memory, however many draws there are.
"""

import contextlib
import math
import re
import zlib
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, overload

import numpy as np
import torch
from torch import Tensor

from bnn_symm.errors import InvalidRun, one_line
from bnn_symm.io.arrays import read_npy_layout
from bnn_symm.io.atomic import make_folder, sync_folder, write_atomically
from bnn_symm.posteriors.lazy_draws import LazyDraws

# Bytes per read of a file.
_BYTES_PER_READ = 2**23
_ADVICE = "it is damaged or of another run; restore the original file"
_DRAW_FIELDS = ("chain", "draw", "position")
_RUN = "run"
_DRAW_FILE = re.compile(r"[0-9]{6,}\.npy")


class _Span(NamedTuple):
    """Describe consecutive draws [first, stop) of one chain in one file.

    The first of them starts `offset` bytes into the file.
    """

    path: Path
    offset: int
    rows: np.dtype
    first: int
    stop: int


class LoggedArray:
    """Read one field of the draws of one chain from a log, (draw, *event).

    An integer index reads that draw; a slice of consecutive draws is again a `LoggedArray`;
    `np.asarray` reads all of it.
    """

    def __init__(self, spans: Sequence[_Span], field: str, draws: range | None = None):
        self._spans, self._field = spans, field
        self._draws = range(spans[-1].stop) if draws is None else draws

    @property
    def dtype(self) -> np.dtype:
        """Return the dtype of the array."""
        return self._spans[0].rows[self._field].base

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the shape of the array, (draw, *event)."""
        return (len(self._draws), *self._spans[0].rows[self._field].shape)

    @property
    def nbytes(self) -> int:
        """Return the number of bytes that the array takes in memory."""
        return math.prod(self.shape) * self.dtype.itemsize

    def __len__(self) -> int:
        return len(self._draws)

    @overload
    def __getitem__(self, index: int) -> np.ndarray: ...
    @overload
    def __getitem__(self, index: slice) -> "LoggedArray": ...
    def __getitem__(self, index: int | slice) -> "np.ndarray | LoggedArray":
        draws = self._draws[index]
        if isinstance(draws, int):
            return self._read(draws, draws + 1)[0]
        if draws.step != 1:
            raise ValueError(f"got a slice with step {draws.step}, expected consecutive draws")
        return LoggedArray(self._spans, self._field, draws)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self._read(self._draws.start, self._draws.start + len(self)), dtype)

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
            f"{span.path} no longer exists, because the run continued meanwhile; load it again"
        ) from None
    if len(rows) < count:
        raise InvalidRun(f"{span.path} is damaged: it is truncated")
    return rows


@dataclass(frozen=True)
class DrawChunk:
    """Hold consecutive draws of one chain: positions (draw, parameter) and statistics.

    Both may be stored in a `DrawLog`; `np.asarray` reads them.
    """

    chain: int
    first: int
    positions: np.ndarray | LoggedArray
    stats: Mapping[str, np.ndarray | LoggedArray]

    def lazy_draws(self, dtype: torch.dtype) -> LazyDraws:
        """Return one chain of these draws: views of memory, or read from the log."""
        _, parameters = self.positions.shape
        return LazyDraws((1, len(self.positions), parameters), partial(self._read, dtype))

    def _read(self, dtype: torch.dtype, chain: int, start: int, stop: int) -> Tensor:
        return torch.from_numpy(np.asarray(self.positions[start:stop])).to(dtype)

    def part(self, start: int, stop: int) -> "DrawChunk":
        """Return the draws from `start` to `stop`, counted within this chunk."""
        stats = {name: values[start:stop] for name, values in self.stats.items()}
        return DrawChunk(self.chain, self.first + start, self.positions[start:stop], stats)


def _chunk(chain: int, spans: Sequence[_Span]) -> DrawChunk:
    columns = {name: LoggedArray(spans, name) for name in spans[0].rows.names or ()}
    stats = {name: value for name, value in columns.items() if name not in (*_DRAW_FIELDS, _RUN)}
    return DrawChunk(chain, 0, columns["position"], stats)


def is_draw_file(name: str) -> bool:
    """Return whether a name is that of a file of a log.

    Args:
        name: of the file.
    """
    return _DRAW_FILE.fullmatch(name) is not None


class DrawLog:
    """Append draws of a running sampler to a log, one structured array per file."""

    def __init__(self, directory: Path, run: str | None = None):
        """Open a log, or create one.

        Args:
            directory: of the log.
            run: a hexadecimal number of 64 bits that identifies the run; its draws carry it,
                combined with a checksum of each. None for a run without a number.
        """
        self._directory = directory
        self._run = None if run is None else int(run, 16)
        make_folder(directory)
        files = self._files()
        self._next = int(files[-1].stem) + 1 if files else 0
        # What an interrupted fit stored, until the resumed one has reached it again.
        self._former: dict[int, DrawChunk] | None = None if files else {}

    def append(self, *chunks: DrawChunk) -> None:
        """Write chunks, of one chain or of several, as one file and sync it to disk.

        Draws that an interrupted fit had stored beyond its last state stay on disk while the
        resumed fit makes them again; they are not written twice.

        Args:
            chunks: consecutive draws of their chains.
        """
        chunks = tuple(self._new_part(chunk) for chunk in chunks)
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

    def _new_part(self, chunk: DrawChunk) -> DrawChunk:
        """Return the draws of a chunk that are not stored yet."""
        if self._former is None:
            self._former = {}
            with contextlib.suppress(InvalidRun):  # a log with a gap is refused by its readers
                self._former = self._chains(None)  # checked when the fit was resumed
        former = self._former.get(chunk.chain)
        known = 0 if former is None else len(former.positions) - chunk.first
        if former is None or known <= 0:
            return chunk
        known = min(known, len(chunk.positions))
        stored = np.asarray(former.positions[chunk.first : chunk.first + known])
        if np.array_equal(stored, np.asarray(chunk.positions[:known])):
            return chunk.part(known, len(chunk.positions))
        # The fit went another way: what was stored from here on is not of this chain.
        lengths = {chain: len(other.positions) for chain, other in self._former.items()}
        self.cut(lengths | {chunk.chain: chunk.first})
        self._former = self._chains(None)
        return chunk

    def chains(self) -> dict[int, DrawChunk]:
        """Return all draws written so far, one chunk per chain, which stay on disk until read.

        Returns:
            Chain -> chunk.

        Raises:
            InvalidRun: if a chain has a gap because a file was removed.
            ValueError: if a file is damaged.
        """
        return self._chains(self._run)

    def _chains(self, run: int | None) -> dict[int, DrawChunk]:
        """Return all draws; without `run`, the checksums of the draws are not read."""
        by_chain: dict[int, list[_Span]] = {}
        for path in self._files():
            for chain, span in _spans(path, run):
                spans = by_chain.setdefault(chain, [])
                if spans and span.rows != spans[0].rows:
                    raise InvalidRun(f"{path} has other fields than the files before it; {_ADVICE}")
                if span.first != (spans[-1].stop if spans else 0):
                    raise InvalidRun(
                        f"{self._directory}: draws of chain {chain} are missing or duplicated"
                    )
                spans.append(span)
        return {chain: _chunk(chain, by_chain[chain]) for chain in sorted(by_chain)}

    def cut(self, lengths: Mapping[int, int]) -> None:
        """Keep the first `lengths[chain]` draws of each chain, and none of other chains.

        The last file comes first, so that a process killed meanwhile leaves chains without gaps.

        Args:
            lengths: chain -> number of draws to keep.
        """
        for path in reversed(self._files()):
            rows = _mapped(path)
            keep = np.zeros(len(rows), dtype=bool)
            for chain in np.unique(rows["chain"]):
                keep |= (rows["chain"] == chain) & (rows["draw"] < lengths.get(int(chain), 0))
            if not keep.any():
                path.unlink()
                # One file after the other, so that a power cut leaves no gap either.
                sync_folder(self._directory)
            elif not keep.all():
                self._write(path, rows[keep])

    @staticmethod
    def _write(path: Path, rows: np.ndarray) -> None:
        rows = np.ascontiguousarray(rows)

        def write(temporary: Path) -> None:
            with temporary.open("wb") as file:
                # The bytes of `np.save`, which hides the reason of a failed write.
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
    """Yield the chains of a file and the draws it has of each; all must be of one run."""
    rows = _mapped(path)
    if run is not None and (
        rows.dtype.fields is None
        or rows.dtype.fields.get(_RUN, (None,))[0] != np.dtype("u8")
        or bool((rows[_RUN] ^ _checksums(rows) != run).any())
    ):
        raise InvalidRun(
            f"{path} is damaged or has draws of another run; restore the original file, or fit "
            "again"
        )
    chain, draw = np.array(rows["chain"]), np.array(rows["draw"])
    cuts = np.flatnonzero((np.diff(chain) != 0) | (np.diff(draw) != 1)) + 1
    for start, stop in zip([0, *cuts.tolist()], [*cuts.tolist(), len(rows)], strict=True):
        offset = int(rows.offset) + start * rows.dtype.itemsize
        first = int(draw[start])
        yield int(chain[start]), _Span(path, offset, rows.dtype, first, first + stop - start)


def _checksums(rows: np.ndarray) -> np.ndarray:
    """Return the CRC-32 of every row, with its field `run` set to zero."""
    result = np.empty(len(rows), "u8")
    step = max(1, _BYTES_PER_READ // rows.dtype.itemsize)
    for start in range(0, len(rows), step):
        part = np.array(rows[start : start + step])
        part[_RUN] = 0
        lines = part.view("u1").reshape(len(part), rows.dtype.itemsize)
        result[start : start + step] = [zlib.crc32(line.data) for line in lines]
    return result


def _mapped(path: Path) -> np.memmap:
    """Return the rows of a file as a memory map, after checking their fields.

    Raises:
        InvalidRun: if the file is damaged, or its rows are not draws.
    """
    layout = read_npy_layout(path)
    fields = layout.dtype.fields or {}
    kinds = {name: (field[0].base.kind, field[0].ndim) for name, field in fields.items()}
    got = {name: kinds.get(name) for name in _DRAW_FIELDS}
    expected = {"chain": ("i", 0), "draw": ("i", 0), "position": ("f", 1)}
    is_plain = all(
        kind in "biuf" and ndim == 0
        for name, (kind, ndim) in kinds.items()
        if name not in _DRAW_FIELDS
    )
    if got != expected or not is_plain or len(layout.shape) != 1 or layout.shape[0] == 0:
        raise InvalidRun(f"{path} holds no draws, but {one_line(layout.dtype, 100)}; {_ADVICE}")
    rows = np.memmap(path, layout.dtype, mode="r", offset=layout.offset, shape=layout.shape)
    if int(rows["chain"].min()) < 0 or int(rows["draw"].min()) < 0:
        raise InvalidRun(f"{path} has draws with negative numbers; {_ADVICE}")
    return rows
