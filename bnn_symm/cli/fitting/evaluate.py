"""Provide `bnn-symm evaluate`: score a run on data, under shifts, or out of distribution."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bnn_symm.cli.command import add_command, answer, file_line, open_run, warn

if TYPE_CHECKING:
    from bnn_symm.data import Split
    from bnn_symm.runs import Run

_DISK_REMEDY = "free some space or make the folder writable, then evaluate again"


def add(commands: Any) -> None:
    """Add the command to the parser.

    Args:
        commands: the subparsers of the program.
    """
    parser = add_command(
        commands,
        "evaluate",
        _evaluate,
        "score a run on data: its own test split, another set, or a file",
        details="Writes RUN/evaluations/<data>.json, and for a shift at all severities also "
        "figures into RUN/figures. With --ood it measures how well the uncertainty of the run "
        "separates out-of-distribution points from its own data.",
        example="bnn-symm evaluate runs/digits --shift rotation:30",
        module=True,
    )
    parser.add_argument("run", metavar="RUN", help="a run directory")
    parser.add_argument(
        "--data", metavar="NAME|FILE", help="a data set or a file (default: the run's test split)"
    )
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument(
        "--shift",
        metavar="NAME[:SEVERITY]",
        help="shift the inputs, such as rotation:30; without a severity, score every severity; "
        "all: every shift",
    )
    kind.add_argument(
        "--ood",
        metavar="NAME|FILE",
        help="out-of-distribution points, such as photo_patches for digits, digits_5_9 for "
        "digits_0_4, mnist10k for fashion_mnist, or a file",
    )
    parser.add_argument(
        "--baseline",
        choices=("linear", "gradient_boosting"),
        help="also score baselines that are fitted to the training split: linear: the base rates "
        "or the mean, and a linear model; gradient_boosting: boosted trees, too",
    )
    parser.add_argument(
        "--conformal",
        metavar="LEVEL",
        type=float,
        help="also the coverage and size of intervals or sets of classes of this level, such as "
        "0.9, which the validation split calibrates, beside those of the posterior",
    )
    parser.add_argument(
        "--temperature-scaling",
        action="store_true",
        help="also score classes with log probabilities divided by a temperature, which is fitted "
        "on the validation split of the run",
    )


def _evaluate(options: argparse.Namespace) -> int:
    whole_shift = options.shift is not None and ":" not in options.shift
    if options.ood is not None or whole_shift:
        _refuse_scores(options)
    run = open_run(options)
    if options.ood is not None:
        return _out_of_distribution(options, run)
    if whole_shift:
        return _shifts(options, run)
    return _scores(options, run)


def _refuse_scores(options: argparse.Namespace) -> None:
    """Raise an error if an option that applies to the scores of one set of points is given."""
    from bnn_symm.errors import ConfigError

    given = f"--ood {options.ood}" if options.ood is not None else f"--shift {options.shift}"
    for flag in ("--temperature-scaling", "--baseline", "--conformal"):
        value = getattr(options, flag.removeprefix("--").replace("-", "_"))
        if value is not None and value is not False:
            raise ConfigError(
                f"{flag} applies to one set of points, got {given}; leave it out, or give the "
                "shift a severity, such as --shift rotation:30"
            )


def _scores(options: argparse.Namespace, run: "Run") -> int:
    from bnn_symm.analyses.predictions.evaluation import evaluate_points
    from bnn_symm.data import parse_shift, shift
    from bnn_symm.errors import one_line
    from bnn_symm.report.text.calibration import regions_table
    from bnn_symm.report.text.tables import scores_table
    from bnn_symm.runs.conformal import OTHER_POINTS
    from bnn_symm.threads import use_threads

    requested = parse_shift(options.shift) if options.shift is not None else None
    name, source, part = _points(options, run)
    overlap = _overlap(source, name, part, run)
    if requested is not None:
        part = shift(
            part,
            requested.name,
            requested.severity,
            scaling=run.preprocessing.scaling,
            seed=run.config.seed,
        )
        name = f"{name}-{requested.name}-{requested.severity:g}"
    with use_threads(run.threads):
        result = evaluate_points(
            run,
            part,
            name=name,
            baseline=options.baseline,
            conformal=options.conformal,
            temperature_scaling=options.temperature_scaling,
        )
    if options.conformal is not None and (source is not None or requested is not None):
        result.notes.append(OTHER_POINTS)
    if options.baseline is None and source is None and requested is None:
        result.notes.extend((run.metrics or {}).get("notes", []))
    content = {
        "run": str(run.path),
        "data": source,
        **overlap,
        "shift": options.shift,
        "status": run.status,
        **result.content,
        "notes": result.notes,
    }
    lines = [
        scores_table(result.rows),
        *([regions_table(content["conformal"]).text()] if options.conformal is not None else []),
        *result.conclusions,
        *(f"note: {one_line(note)}" for note in result.notes),
    ]
    suffix = "-temperature-scaled" if options.temperature_scaling else ""
    path = _write(run, f"{name}{suffix}", content)
    answer(options, content, "\n".join([*lines, file_line("written", path)]))
    return 0


def _shifts(options: argparse.Namespace, run: "Run") -> int:
    from bnn_symm.analyses.predictions.other_data import describe_shifts
    from bnn_symm.data import SHIFTS
    from bnn_symm.errors import ConfigError, nearest
    from bnn_symm.report.text.calibration import draw_shifts, shifts_text
    from bnn_symm.runs.directory.output_directory import disk_errors
    from bnn_symm.summaries import plain
    from bnn_symm.threads import use_threads

    if options.shift not in (*SHIFTS, "all"):
        raise ConfigError(
            f"unknown shift {options.shift!r}; {nearest(options.shift, (*SHIFTS, 'all'))}"
        )
    name, source, part = _points(options, run)
    overlap = _overlap(source, name, part, run)
    with use_threads(run.threads):
        names = None if options.shift == "all" else [options.shift]
        curves = describe_shifts(run, part, names, seed=run.config.seed)
    content = {
        "run": str(run.path),
        "data": source,
        **overlap,
        "shift": options.shift,
        "status": run.status,
        "points": len(part),
        "curves": plain(curves),
    }
    path = _write(run, f"{name}-{'shifts' if options.shift == 'all' else options.shift}", content)
    figures = run.path / "figures"
    with disk_errors(figures, _DISK_REMEDY):
        figures.mkdir(exist_ok=True)
        # Named after the evaluation, whose number distinguishes data of the same name.
        stem = path.stem if options.shift == "all" else path.stem.removesuffix(f"-{options.shift}")
        pictures = draw_shifts(curves, figures, stem=stem, title=f"{run.path.name} on {name}")
    lines = [
        shifts_text(curves),
        *(file_line("figure", picture) for picture in pictures),
        file_line("written", path),
    ]
    answer(options, content, "\n".join(lines))
    return 0


def _out_of_distribution(options: argparse.Namespace, run: "Run") -> int:
    from bnn_symm.analyses.predictions.other_data import describe_out_of_distribution
    from bnn_symm.data import out_of_distribution_inputs
    from bnn_symm.report.text.calibration import out_of_distribution_text
    from bnn_symm.threads import use_threads

    name, source, part = _points(options, run)
    overlap = _overlap(source, name, part, run)
    outside = out_of_distribution_inputs(options.ood, run.preprocessing, dtype=run.model.dtype)
    with use_threads(run.threads):
        separation = describe_out_of_distribution(run, part, outside, seed=run.config.seed)
    other = str(Path(options.ood).resolve()) if Path(options.ood).is_file() else options.ood
    content = {
        "run": str(run.path),
        "data": source,
        **overlap,
        "shift": None,
        "ood": other,
        "status": run.status,
        **separation.to_dict(),
    }
    path = _write(run, f"{name}-ood-{Path(options.ood).stem}", content)
    text = out_of_distribution_text(separation, inside=name, outside=Path(options.ood).stem)
    answer(options, content, f"{text}\n{file_line('written', path)}")
    return 0


def _points(options: argparse.Namespace, run: "Run") -> "tuple[str, str | None, Split]":
    """Return the name of the points, their source (None: the run's test split), and the points."""
    from bnn_symm.data import load_points
    from bnn_symm.errors import InvalidData

    source = options.data
    if source is None:
        name, part = "test", run.dataset().test
    else:
        name = Path(source).stem
        if Path(source).is_file():
            source = str(Path(source).resolve())
        part = load_points(options.data, run.preprocessing, dtype=run.model.dtype)
    if len(part) == 0:
        raise InvalidData(f"{name} has no points to evaluate on; name other data with --data")
    return name, source, part


def _overlap(source: str | None, name: str, part: "Split", run: "Run") -> dict[str, int | None]:
    """Return how many points of other data the run was fitted to, with a warning if there are any.

    The number is None if the data of the run cannot be read.
    """
    from bnn_symm.data.leakage import shared_points
    from bnn_symm.errors import BnnSymmError, one_line

    if source is None:
        return {}
    try:
        train = run.dataset().train
    except BnnSymmError:
        return {"shared_with_training": None}
    count = int(shared_points(part, train).sum())
    if count:
        warn(
            [
                f"{count} of {len(part)} points of {one_line(name, 60)} are training points of the "
                "run, with equal features and target; scores on them are too good"
            ]
        )
    return {"shared_with_training": count}


def _write(run: "Run", name: str, content: dict[str, Any]) -> Path:
    """Write an evaluation into the directory of the run, and return its path."""
    from bnn_symm.io.atomic import write_json
    from bnn_symm.runs.directory.output_directory import disk_errors

    path = run.directory.evaluation_path(name, content)
    with disk_errors(path, _DISK_REMEDY):
        path.parent.mkdir(exist_ok=True)
        write_json(path, content)
    return path
