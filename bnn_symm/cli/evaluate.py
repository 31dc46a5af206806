"""`bnn-symm evaluate`: scores a run on data."""

import argparse
from pathlib import Path
from typing import Any

from bnn_symm.cli.command import add_command, answer, open_run


def add(commands: Any) -> None:
    """Adds the command."""
    parser = add_command(
        commands,
        "evaluate",
        _evaluate,
        "score a run on data: its own test part, another set, or a file",
        details="Writes RUN/evaluations/<data>.json.",
        example="bnn-symm evaluate runs/digits --shift rotation:30",
        module=True,
    )
    parser.add_argument("run", metavar="RUN", help="a run directory")
    parser.add_argument("--data", metavar="NAME|FILE", help="a data set or a file (default: the run's test part)")
    parser.add_argument("--shift", metavar="NAME:SEVERITY", help="shift the inputs, such as rotation:30")


def _evaluate(options: argparse.Namespace) -> int:
    from bnn_symm.data import load_points, parse_shift, shift
    from bnn_symm.diagnostics import score
    from bnn_symm.experiments.run_directory import disk_errors
    from bnn_symm.files import write_json
    from bnn_symm.report.tables import scores_table
    from bnn_symm.threads import use_threads

    run = open_run(options)
    wanted = parse_shift(options.shift) if options.shift else None
    source = options.data
    if source is None:
        name, part = "test", run.dataset().test
    else:
        name = Path(source).stem
        if Path(source).is_file():
            source = str(Path(source).resolve())
        part = load_points(options.data, run.preprocessing, dtype=run.model.dtype)
    if wanted is not None:
        part = shift(part, wanted.name, wanted.severity, scaling=run.preprocessing.scaling, seed=run.config.seed)
        name = f"{name}-{wanted.name}-{wanted.severity:g}"
    with use_threads(run.threads):
        scores = score(run.posterior, part)
    if scores is None:
        from bnn_symm.errors import InvalidData

        raise InvalidData(f"{name} has no points to evaluate on; name others with --data")
    content = {"run": str(run.path), "data": source, "shift": options.shift, "status": run.status, **scores}
    path = run.directory.evaluation_path(name, content)
    with disk_errors(path, "make room, or make the folder writable, and evaluate again"):
        path.parent.mkdir(exist_ok=True)
        write_json(path, content)
    answer(options, content, f"{scores_table({name: scores})}\nwritten: {path}")
    return 0
