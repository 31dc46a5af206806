"""A fit in two processes is resumed bitwise identically after the death of either of them."""

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import torch

from bnn_symm.advice import for_command_line
from bnn_symm.cli import main
from bnn_symm.cli.command import INTERRUPTED, exit_status
from bnn_symm.cli.torchrun import only_first_process_prints
from bnn_symm.errors import BnnSymmError, ConfigError, InvalidRun
from bnn_symm.inference import Callback, FitState
from bnn_symm.inference.parallel.process_group import ProcessGroup, join_process_group
from bnn_symm.runs import fit_run, load_config, load_run, resume_run
from bnn_symm.runs.configuration.prepare import prepare
from bnn_symm.runs.distributed_fit import check_can_share, run_worker, shared_fit
from tests.ranks import Ranks, run_ranks, start_ranks

from .fits import GAP, fit, flags, history, lines, same_bits, wait_until

pytestmark = pytest.mark.thorough

KEYS = [
    *GAP,
    "dtype=float64",
    "checkpoint.every=0.001",
    "inference.name=hmc",
    "inference.num_chains=2",
    "inference.num_warmup=20",
    "inference.num_draws=60",
    "inference.max_num_steps=3",
    "inference.compile=false",
]


def say_in(folder: str) -> None:
    """Redirect the output of each process to a file of its own."""
    handle = os.open(
        Path(folder) / f"output-{os.environ['RANK']}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    )
    os.dup2(handle, 1)
    os.dup2(handle, 2)


def output_of(folder: Path) -> str:
    """Return the output of all processes."""
    return "".join((folder / f"output-{rank}").read_text() for rank in range(2))


def command_line(arguments: list[str], folder: str) -> int:
    say_in(folder)
    return main(arguments)


def start_fit(folder: Path, *arguments: str) -> Ranks:
    return start_ranks(command_line, ["fit", "--quiet", *arguments], str(folder))


class _Signal(Callback):
    """Send a signal to a process at a row of the history, of which 20 iterations write two."""

    def __init__(self, pid: int, number: int, row: int):
        self._pid, self._number, self._left = pid, number, row

    def on_history(self, row):
        self._left -= 1
        if self._left == 0:
            os.kill(self._pid, self._number)


def fit_until(folder: str, rank: int, number: int, *keys: str) -> int:
    """Fit as the command line does; one process gets a signal after 60 of 80 iterations."""
    say_in(folder)
    try:
        with join_process_group() as group, only_first_process_prints(group):
            pids = group.gather(os.getpid())
            if not group.is_first:
                return INTERRUPTED if run_worker(group) else 0
            config = load_config(None, [*KEYS, *keys])
            run = fit_run(
                config, f"{folder}/run", callbacks=[_Signal(pids[rank], number, row=5)], group=group
            )
            return 0 if run.status == "complete" else INTERRUPTED
    except BnnSymmError as error:
        print(error)
        return exit_status(error)


def check_stopped_on_its_way(path: Path) -> None:
    (state,) = load_run(path).directory.fit_state().states.values()
    assert 40 <= state["counts.done"].min() < 80


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    assert start_fit(folder, *flags(KEYS), "--out", str(folder / "run")).statuses() == [0, 0], (
        output_of(folder)
    )
    return load_run(folder / "run")


def check_resumed_bits(folder: Path, undisturbed) -> None:
    path = folder / "run"
    assert start_fit(folder, "--resume", str(path)).statuses() == [0, 0], output_of(folder)
    resumed = load_run(path)
    assert resumed.status == "complete"
    assert same_bits(resumed, undisturbed)
    assert history(resumed) == history(undisturbed)
    assert resumed.metrics == undisturbed.metrics
    assert {file.name for file in path.iterdir()} == {
        file.name for file in undisturbed.path.iterdir()
    }


def test_a_run_of_two_processes_is_one_run(undisturbed):
    assert output_of(undisturbed.path.parent) == ""
    assert undisturbed.record["processes"] == 2
    assert undisturbed.record["dataset"]["train"] == undisturbed.metrics["train"]["points"] == 90
    assert undisturbed.posterior.shape[:2] == (2, 60)


def test_a_killed_process_is_named_and_the_resumed_run_is_bitwise_identical(tmp_path, undisturbed):
    ranks = start_ranks(fit_until, str(tmp_path), 1, signal.SIGKILL)
    assert ranks.statuses() == [1, -signal.SIGKILL]
    path = tmp_path / "run"
    assert output_of(tmp_path) == (
        f"process 1 of 2 (pid {ranks.processes[1].pid}) died; resume with: torchrun "
        "--nproc-per-node 2 -m "
        f"bnn_symm.cli fit --resume {path}\n"
    )
    assert load_run(path).status == "failed"
    assert not (path / "lock.json").exists()
    check_stopped_on_its_way(path)

    copy = shutil.copytree(path, tmp_path / "copy")
    with (
        for_command_line(),
        pytest.raises(
            InvalidRun, match="processes was 2, is 1; start it with: torchrun --nproc-per-node 2"
        ) as error,
    ):
        resume_run(copy)
    assert str(error.value).endswith("or accept a different result with --allow-changes")
    check_resumed_bits(tmp_path, undisturbed)


def test_a_run_around_learned_weights_is_resumed_without_their_run(tmp_path):
    pretrained = fit(
        tmp_path / "pretrained", [*GAP, "dtype=float64", "inference={name: map, num_steps: 40}"]
    )
    around = f"prior={{mean: {pretrained.path}, scale: 0.5}}"
    whole = tmp_path / "whole"
    whole.mkdir()
    assert start_fit(whole, *flags([*KEYS, around]), "--out", str(whole / "run")).statuses() == [
        0,
        0,
    ], output_of(whole)
    assert start_ranks(fit_until, str(tmp_path), 1, signal.SIGKILL, around).statuses() == [
        1,
        -signal.SIGKILL,
    ]
    check_stopped_on_its_way(tmp_path / "run")
    learned = pretrained.posterior.mean()
    shutil.rmtree(pretrained.path)
    check_resumed_bits(tmp_path, load_run(whole / "run"))
    model = load_run(tmp_path / "run").model
    weights = model.num_net_parameters
    assert torch.equal(model.parameter_prior.mean, learned[:weights])


@pytest.mark.slow
def test_the_first_process_killed(tmp_path, undisturbed):
    ranks = start_ranks(fit_until, str(tmp_path), 0, signal.SIGKILL)
    assert ranks.statuses() == [-signal.SIGKILL, 1]
    assert output_of(tmp_path).startswith(
        f"process 0 of 2 (pid {ranks.processes[0].pid}) died; resume with: "
    )
    assert load_run(tmp_path / "run").status == "interrupted"
    check_resumed_bits(tmp_path, undisturbed)


@pytest.mark.parametrize("rank", [1, pytest.param(0, marks=pytest.mark.slow)])
def test_a_signal_to_one_stops_all(tmp_path, undisturbed, rank):
    assert start_ranks(fit_until, str(tmp_path), rank, signal.SIGTERM).statuses() == [
        INTERRUPTED,
        INTERRUPTED,
    ]
    path = tmp_path / "run"
    assert load_run(path).status == "interrupted"
    check_stopped_on_its_way(path)
    check_resumed_bits(tmp_path, undisturbed)


def kill_a_child(agent: subprocess.Popen) -> None:
    psutil.Process(agent.pid).children()[1].kill()


@pytest.mark.parametrize(
    ("stop", "words"),
    [
        (subprocess.Popen.terminate, "bnn-symm: interrupted; the last state is saved in "),
        pytest.param(kill_a_child, "bnn-symm: error: process 1 of 2 ", marks=pytest.mark.slow),
    ],
    ids=["terminated", "killed"],
)
def test_started_by_torchrun_itself(tmp_path, stop, words):
    path, log = tmp_path / "run", tmp_path / "log"
    keys = [*KEYS, "inference.num_draws=100000"]
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
    ]
    command += ["-m", "bnn_symm.cli", "fit", "--quiet", *flags(keys), "--out", str(path)]
    with log.open("w") as output:
        agent = subprocess.Popen(command, stdout=output, stderr=output)
        wait_until(
            lambda: lines(path / "history.jsonl") >= 4 or agent.poll() is not None, seconds=120
        )
        stop(agent)
        assert agent.wait(timeout=60) != 0
    (line,) = [line for line in log.read_text().splitlines() if line.startswith("bnn-symm: ")]
    assert line.startswith(words)
    assert line.endswith(
        f"resume with: torchrun --nproc-per-node 2 -m bnn_symm.cli fit --resume {path}"
    )
    assert load_run(path).status == ("interrupted" if "interrupted" in words else "failed")
    assert not (path / "lock.json").exists()


def test_a_run_of_one_process_is_not_resumed_with_two(tmp_path, undisturbed):
    path = shutil.copytree(undisturbed.path, tmp_path / "run")
    record = path / "run.json"
    # As a run of one process that was killed, made before `processes` was written.
    text = record.read_text().replace('"status": "complete"', '"status": "interrupted"')
    record.write_text(re.sub(r'\n *"processes": 2,', "", text))
    (path / "metrics.json").unlink()
    assert start_fit(tmp_path, "--resume", str(path)).statuses()[0] == 2
    (line,) = output_of(tmp_path).splitlines()
    assert "processes was 1, is 2; " in line
    assert line.endswith(f"--set initial={path}, or accept a different result with --allow-changes")


def begin_with_other_data(folder: str) -> None:
    with join_process_group() as group:
        config = load_config(
            None, [*KEYS, f"data.split_seed={group.rank}", f"data.limit={80 + group.rank}"]
        )
        with (
            pytest.raises(InvalidRun) as error,
            shared_fit(group, "run", prepare(config), FitState()),
        ):
            raise AssertionError("it began")
        (Path(folder) / str(group.rank)).write_text(str(error.value))


def test_processes_with_other_data_do_not_begin(tmp_path):
    run_ranks(begin_with_other_data, str(tmp_path))
    for rank in range(2):
        words = (tmp_path / str(rank)).read_text()
        assert words.startswith("process 1 of 2 differs from process 0: dataset.")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["fit"],
            "inference.name=mean_field_vi (engine torch) runs in one process, got 2; start it "
            "without torchrun",
        ),
        (
            ["fit", "--set", "inference.name=hmc", "inference.engine=pyro"],
            "inference.name=hmc (engine pyro) runs in",
        ),
        (["fit", "--resume", "nowhere"], "no run at nowhere"),
        (
            ["compare", "configs/quickstart.yaml"],
            "`bnn-symm compare` runs in one process, got 2; start it without",
        ),
    ],
)
def test_invalid_arguments_are_reported_once(tmp_path, arguments, words):
    first, other = start_ranks(command_line, arguments, str(tmp_path)).statuses()
    assert first == 2
    assert other != 0
    (line,) = output_of(tmp_path).splitlines()
    assert line.startswith("bnn-symm: error: ")
    assert words in line


def test_one_device_is_not_for_several_processes():
    config = load_config(None, ["inference.name=hmc", "device=cuda:0"])
    check_can_share(config, ProcessGroup())
    with pytest.raises(
        ConfigError, match="'cuda:0' is one device, got 2 processes; write device='cuda'"
    ):
        check_can_share(config, ProcessGroup(0, 2))
