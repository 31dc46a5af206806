import resource
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from bnn_symm.data import Scaling
from bnn_symm.errors import IncompatiblePosteriors, InvalidRun
from bnn_symm.posteriors import DrawChunk, DrawLog, stack_chains
from tests.models.cases import CASES, normal

MODEL = CASES["gaussian-learned"].model()
LENGTH = MODEL.num_parameters


def chunk(chain: int, first: int, length: int, dtype: type = np.float64) -> DrawChunk:
    positions = normal(length, LENGTH, seed=100 * chain + first).numpy().astype(dtype)
    stats = {
        "diverging": np.arange(first, first + length) % 2 == 0,
        "energy": np.arange(first, first + length) + 1000.0 * chain,
    }
    return DrawChunk(chain, first, positions, stats)


def files(directory: Path) -> list[str]:
    return sorted(entry.name for entry in directory.iterdir())


def test_what_was_appended_is_read_back_chain_by_chain(tmp_path) -> None:
    log = DrawLog(tmp_path / "draws")
    written = [chunk(0, 0, 3), chunk(2, 0, 2), chunk(0, 3, 1), chunk(2, 2, 4)]
    for part in written:
        log.append(part)
    assert files(tmp_path / "draws") == ["000000.npy", "000001.npy", "000002.npy", "000003.npy"]
    chains = DrawLog(tmp_path / "draws").chains()
    assert list(chains) == [0, 2]
    for chain, (a, b) in {0: (written[0], written[2]), 2: (written[1], written[3])}.items():
        got = chains[chain]
        assert (got.chain, got.first) == (chain, 0)
        np.testing.assert_array_equal(got.positions, np.concatenate([a.positions, b.positions]))
        assert got.positions.dtype == np.float64
        assert list(got.stats) == ["diverging", "energy"]
        assert got.stats["diverging"].dtype == bool
        for name, values in got.stats.items():
            np.testing.assert_array_equal(values, np.concatenate([a.stats[name], b.stats[name]]))


def test_a_file_is_what_numpy_saves(tmp_path) -> None:
    DrawLog(tmp_path / "draws").append(chunk(0, 0, 3))
    path = tmp_path / "draws" / "000000.npy"
    np.save(tmp_path / "again.npy", np.load(path))
    assert path.read_bytes() == (tmp_path / "again.npy").read_bytes()


def test_a_disk_that_refuses_draws_is_heard(tmp_path) -> None:
    """No file may grow beyond 1,000 bytes: the reason is the operating system's, and no part of a
    file is left."""
    log = DrawLog(tmp_path / "draws")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            log.append(chunk(0, 0, 100))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert files(tmp_path / "draws") == []


def test_an_empty_log_has_no_chains(tmp_path) -> None:
    assert DrawLog(tmp_path / "draws").chains() == {}


def test_a_log_that_is_opened_again_goes_on_after_its_last_file(tmp_path) -> None:
    DrawLog(tmp_path / "draws").append(chunk(0, 0, 3))
    DrawLog(tmp_path / "draws").append(chunk(0, 3, 2, np.float64))
    assert files(tmp_path / "draws") == ["000000.npy", "000001.npy"]
    assert len(DrawLog(tmp_path / "draws").chains()[0].positions) == 5


def test_files_are_structured_arrays_that_need_no_pickle(tmp_path) -> None:
    part = chunk(1, 4, 3, np.float32)
    DrawLog(tmp_path / "draws").append(part)
    rows = np.load(tmp_path / "draws" / "000000.npy", allow_pickle=False)
    assert rows.dtype.names == ("chain", "draw", "position", "diverging", "energy")
    assert rows["chain"].tolist() == [1, 1, 1]
    assert rows["draw"].tolist() == [4, 5, 6]
    assert rows["position"].dtype == np.float32
    np.testing.assert_array_equal(rows["position"], part.positions)


@pytest.mark.parametrize("taken", [0, 1])
def test_a_file_that_was_taken_away_is_noticed(taken, tmp_path) -> None:
    log = DrawLog(tmp_path / "draws")
    for first in (0, 2, 4):
        log.append(chunk(7, first, 2))
    (tmp_path / "draws" / f"{taken:06d}.npy").unlink()
    with pytest.raises(InvalidRun, match="draws of chain 7 are missing or duplicated"):
        DrawLog(tmp_path / "draws").chains()


def test_doubled_draws_are_noticed(tmp_path) -> None:
    log = DrawLog(tmp_path / "draws")
    log.append(chunk(0, 0, 2))
    log.append(chunk(0, 1, 2))
    with pytest.raises(InvalidRun, match="draws of chain 0 are missing or duplicated"):
        log.chains()


def test_appending_after_a_file_was_taken_away_overwrites_nothing(tmp_path) -> None:
    log = DrawLog(tmp_path / "draws")
    for first in (0, 2, 4):
        log.append(chunk(0, first, 2))
    (tmp_path / "draws" / "000000.npy").unlink()
    DrawLog(tmp_path / "draws").append(chunk(0, 6, 2))
    assert files(tmp_path / "draws") == ["000001.npy", "000002.npy", "000003.npy"]


def test_a_crash_while_appending_leaves_the_log_as_it_was(tmp_path, monkeypatch) -> None:
    log = DrawLog(tmp_path / "draws")
    log.append(chunk(0, 0, 2))

    def crash(file, header):
        file.write(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(np.lib.format, "write_array_header_1_0", crash)
        with pytest.raises(KeyboardInterrupt):
            log.append(chunk(0, 2, 2))
    assert files(tmp_path / "draws") == ["000000.npy"]
    log.append(chunk(0, 2, 2))
    assert len(log.chains()[0].positions) == 4


def test_chunks_of_many_chains_make_one_file(tmp_path) -> None:
    log = DrawLog(tmp_path / "draws")
    log.append(chunk(1, 0, 2), chunk(0, 0, 3), chunk(1, 2, 2))
    log.append(chunk(0, 3, 1), chunk(1, 4, 1))
    log.append()
    assert files(tmp_path / "draws") == ["000000.npy", "000001.npy"]
    chains = log.chains()
    for chain, parts in {0: [(0, 3), (3, 1)], 1: [(0, 2), (2, 2), (4, 1)]}.items():
        expected = np.concatenate([chunk(chain, *part).positions for part in parts])
        np.testing.assert_array_equal(chains[chain].positions, expected)


def test_draws_of_a_log_are_read_where_they_are_asked_for(tmp_path) -> None:
    log = DrawLog(tmp_path / "draws")
    parts = [chunk(0, first, 3) for first in (0, 3, 6, 9)]
    for part in parts:
        log.append(part)
    expected = np.concatenate([part.positions for part in parts])
    positions = log.chains()[0].positions
    assert (len(positions), positions.shape, positions.nbytes) == (
        12,
        expected.shape,
        expected.nbytes,
    )
    for where in (0, 2, 3, 11, -1, -12):
        np.testing.assert_array_equal(positions[where], expected[where])
    for where in (
        slice(2, 8),
        slice(None, 5),
        slice(7, None),
        slice(4, 4),
        slice(-2, 100),
        slice(9, 3),
    ):
        np.testing.assert_array_equal(np.asarray(positions[where]), expected[where])
        np.testing.assert_array_equal(np.asarray(positions[2:][where]), expected[2:][where])
    np.testing.assert_array_equal(positions[3:][0], expected[3])
    with pytest.raises(IndexError):
        positions[12]
    with pytest.raises(ValueError, match="step 2"):
        positions[::2]
    (tmp_path / "draws" / "000001.npy").unlink()
    np.testing.assert_array_equal(np.asarray(positions[:3]), expected[:3])
    with pytest.raises(InvalidRun, match=r"000001.npy no longer exists"):
        np.asarray(positions)


@pytest.mark.parametrize("killed_after", [0, 1, 2, None], ids=str)
def test_a_cut_log_has_no_holes_whenever_it_is_killed(killed_after, tmp_path, monkeypatch) -> None:
    log = DrawLog(tmp_path / "draws")
    log.append(chunk(0, 0, 2), chunk(1, 0, 4), chunk(2, 0, 1))
    log.append(chunk(0, 2, 3), chunk(1, 4, 1), chunk(2, 1, 2))
    log.append(chunk(0, 5, 1), chunk(2, 3, 3))
    log.append(chunk(0, 6, 2))
    changes = []

    def dies(function):
        def changed(*arguments):
            if len(changes) == killed_after:
                raise KeyboardInterrupt
            changes.append(arguments)
            return function(*arguments)

        return changed

    keep = {0: 3, 2: 4}
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", dies(Path.unlink))
        patch.setattr(DrawLog, "_write", staticmethod(dies(DrawLog._write)))
        if killed_after is None:
            log.cut(keep)
        else:
            with pytest.raises(KeyboardInterrupt):
                log.cut(keep)
    between = {
        chain: len(part.positions) for chain, part in DrawLog(tmp_path / "draws").chains().items()
    }
    assert all(length >= keep.get(chain, 0) for chain, length in between.items())
    log.cut(keep)
    assert {chain: len(part.positions) for chain, part in log.chains().items()} == keep
    np.testing.assert_array_equal(
        log.chains()[2].positions,
        np.concatenate([chunk(2, *p).positions for p in [(0, 1), (1, 2), (3, 3)]])[:4],
    )
    log.append(chunk(0, 3, 2))
    assert len(DrawLog(tmp_path / "draws").chains()[0].positions) == 5


@pytest.mark.parametrize("length", [0, 20, 500])
def test_a_damaged_file_is_noticed(length, tmp_path) -> None:
    log = DrawLog(tmp_path / "draws")
    log.append(chunk(0, 0, 9))
    with (tmp_path / "draws" / "000000.npy").open("rb+") as file:
        file.truncate(length)
    with pytest.raises(InvalidRun, match=r"000000\.npy"):
        log.chains()


def stacked(lengths: dict[int, int], **keywords):
    chains = {chain: chunk(chain, 0, length) for chain, length in lengths.items()}
    return stack_chains(MODEL, Scaling.identity((2,)), chains, **keywords), chains


@pytest.mark.parametrize(
    ("lengths", "kept", "length"),
    [
        ({0: 4, 1: 4}, [0, 1], 4),
        ({0: 10, 1: 9, 2: 1}, [0, 1], 9),  # 18 draws, against 10 and 3
        ({0: 10, 1: 3, 2: 3}, [0], 10),  # 10 draws, against 6 and 9
        ({0: 10, 1: 4, 2: 4}, [0, 1, 2], 4),  # 12 draws, against 10 and 8
        ({3: 5, 1: 8, 2: 0}, [1, 3], 5),
        ({0: 6, 1: 3}, [0], 6),  # of two rectangles as large, that of the longer chains
    ],
    ids=str,
)
def test_ragged_chains_are_cut_to_the_largest_rectangle(lengths, kept, length) -> None:
    posterior, chains = stacked(lengths, info={"method": "hmc"})
    assert posterior.shape == (len(kept), length, LENGTH)
    assert posterior.info == {"method": "hmc"}
    expected = np.stack([chains[chain].positions[:length] for chain in kept])
    assert torch.equal(posterior.draws(), torch.from_numpy(expected).flatten(0, 1))
    for name in ("diverging", "energy"):
        expected = np.stack([chains[chain].stats[name][:length] for chain in kept])
        np.testing.assert_array_equal(posterior.sample_stats[name], expected)


@pytest.mark.parametrize("lengths", [{}, {0: 0, 1: 0}], ids=str)
def test_no_draws_yet_is_an_error(lengths) -> None:
    with pytest.raises(IncompatiblePosteriors, match="the chains have no draws yet"):
        stacked(lengths)


def test_an_interrupted_log_becomes_a_posterior(tmp_path) -> None:
    log = DrawLog(tmp_path / "draws")
    log.append(chunk(0, 0, 3))
    log.append(chunk(1, 0, 2))
    posterior = stack_chains(MODEL, Scaling.identity((2,)), log.chains())
    assert posterior.shape == (2, 2, LENGTH)
    assert posterior.predict(normal(3, 2)).outputs.shape == (2, 2, 3, 1)


def test_draws_beyond_the_last_state_stay_while_they_are_made_again(tmp_path: Path) -> None:
    def chunk(start: int, stop: int, shift: float = 0.0) -> DrawChunk:
        positions = np.arange(start, stop, dtype=np.float64)[:, None] + shift
        return DrawChunk(0, start, positions, {})

    folder = tmp_path / "draws"
    DrawLog(folder, run="a1").append(chunk(0, 4), DrawChunk(1, 0, np.zeros((2, 1)), {}))
    log = DrawLog(folder, run="a1")  # of a fit that was resumed from its second draw
    log.append(chunk(2, 3))
    assert len(log.chains()[0].positions) == 4
    log.append(chunk(3, 6))
    assert np.asarray(log.chains()[0].positions).ravel().tolist() == [0, 1, 2, 3, 4, 5]
    other = DrawLog(folder, run="a1")  # a fit that went another way from there
    other.append(chunk(2, 5, shift=0.5))
    chains = DrawLog(folder, run="a1").chains()
    assert np.asarray(chains[0].positions).ravel().tolist() == [0, 1, 2.5, 3.5, 4.5]
    assert len(chains[1].positions) == 2
