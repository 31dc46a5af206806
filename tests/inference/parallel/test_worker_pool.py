"""Work in spawned processes: every result is returned once, and errors are raised."""

import os
import threading
from dataclasses import dataclass

import pytest

from bnn_symm.errors import BnnSymmError, ConfigError, InvalidData
from bnn_symm.inference.parallel.worker_pool import map_unordered


@dataclass(frozen=True)
class Work:
    fails: int | None = None
    dies: int | None = None

    def __call__(self, number: int) -> tuple[int, int]:
        if number == self.fails:
            raise InvalidData(f"number {number} is bad")
        if number == self.dies:
            os._exit(3)
        return number, os.getpid()


def test_every_number_is_done_once_in_as_many_processes():
    results = list(map_unordered(Work(), range(5), jobs=2))
    assert sorted(number for number, _ in results) == list(range(5))
    assert len({process for _, process in results} - {os.getpid()}) == 2


def test_one_job_stays_in_this_process_and_in_order():
    assert list(map_unordered(Work(), range(3))) == [(number, os.getpid()) for number in range(3)]
    assert list(map_unordered(Work(), [], jobs=3)) == []


@pytest.mark.parametrize(
    ("work", "error", "message"),
    [
        (Work(fails=1), InvalidData, "number 1 is bad"),
        pytest.param(
            Work(dies=1), BnnSymmError, r"died \(exit code 3\).*jobs=1", marks=pytest.mark.slow
        ),
    ],
)
def test_an_error_in_a_process_is_raised(work, error, message):
    with pytest.raises(error, match=message):
        list(map_unordered(work, range(3), jobs=2))


def test_what_cannot_be_sent_is_refused():
    lock = threading.Lock()
    with pytest.raises(ConfigError, match=r"cannot be sent to another process.*jobs=1"):
        list(map_unordered(lambda number: lock, range(2), jobs=2))


def test_a_function_of_a_script_or_a_notebook_is_sent_with_its_values():
    shift = 3
    assert sorted(map_unordered(lambda number: number + shift, range(2), jobs=2)) == [3, 4]
