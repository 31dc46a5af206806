"""Tiny tasks of a study through local workers and through Dask: what a task costs, and leaks.

    PYTHONPATH=. python -m benchmarks.study_tasks [TASKS] [local|dask]

The fits of a task are also done in one process, for comparison. Memory (RSS, in MB), descriptors,
threads and zombies are those of all processes, by role, when a tenth more of the tasks is done.
"""

import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path

import psutil
from distributed import LocalCluster

from bnn_symm.studies import load_study, run_study, task
from bnn_symm.studies.directory import StudyDirectory
from bnn_symm.studies.plan import plan_study
from bnn_symm.studies.runner import Progress

JOBS = 2
FIT = ["data={name: iris, limit: 60}", "architecture.widths=[4]", "study.pairs.across_seeds=none"]
FIT += ["inference={name: map, num_steps: 5}"]


def roles() -> dict[psutil.Process, str]:
    """Return the processes of this program and their roles."""
    found = {psutil.Process(): "parent"}
    for process in psutil.Process().children(recursive=True):
        try:
            words, parent = " ".join(process.cmdline()), found.get(process.parent(), "")
        except psutil.NoSuchProcess:  # it ends
            words, parent = "", "server"
        role = "dask" if "spawn_main" in words else "server" if "forkserver" in words else "tracker"
        found[process] = "worker" if parent == "server" else role
    return found


def sample(progress: Progress) -> None:
    if progress.done % max(1, progress.total // 10):
        return
    memory, counts = Counter(), Counter()
    for process, role in roles().items():
        try:
            with process.oneshot():
                memory[role] = max(memory[role], round(process.memory_info().rss / 1e6))
                counts["zombies"] += process.status() == psutil.STATUS_ZOMBIE
                if role != "worker":
                    counts["descriptors"] += process.num_fds()
                    counts["threads"] += process.num_threads()
        except psutil.NoSuchProcess:
            continue
    print(f"{progress.done:5} done, {progress.failed} failed:", dict(memory), dict(counts))


def in_process(number: int) -> float:
    """Return the seconds of a task without a process."""
    with tempfile.TemporaryDirectory() as folder:
        study = load_study(None, [*FIT, f"study.seeds={number}"])
        plan = plan_study(study)
        directory = StudyDirectory.create(Path(folder, "out"), study, plan)
        begin = time.perf_counter()
        for fit in plan.fits:
            assert task.main([str(directory.path), fit.key]) == 0
        return (time.perf_counter() - begin) / number


def measure(number: int, **how: object) -> float:
    """Run a study; return the seconds of a task, without the first, which waits for imports."""
    moments = []

    def on_progress(progress: Progress) -> None:
        moments.append(time.perf_counter())
        sample(progress)

    with tempfile.TemporaryDirectory() as folder:
        study = load_study(None, [*FIT, f"study.seeds={number}"])
        run_study(study, f"{folder}/out", on_progress=on_progress, **how)
    return (moments[-1] - moments[JOBS]) / (len(moments) - 1 - JOBS)


def main() -> None:
    warnings.simplefilter("ignore")  # of convergence
    number = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    in_process(3)
    print(f"in one process: {in_process(30):.3f} s a task")
    if sys.argv[2:] != ["dask"]:
        seconds = measure(number, jobs=JOBS)
        print(f"{JOBS} local workers: a task every {seconds:.3f} s")
    if sys.argv[2:] != ["local"]:
        with LocalCluster(JOBS, threads_per_worker=1, dashboard_address=None) as cluster:
            seconds = measure(number, dask=cluster.scheduler_address)
            print(f"{JOBS} Dask workers: a task every {seconds:.3f} s")


if __name__ == "__main__":
    main()
