"""The command line: `bnn-symm fit | evaluate | predict | data`.

Heavy imports wait until a command runs, so that `--help` answers at once. The answer goes to stdout as a short table,
or as JSON with --json; progress and warnings go to stderr. Exit status: 0 success, 2 wrong input, 1 a fit that
failed, 130 interrupted.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bnn_symm.errors import BnnSymmError, FitDiverged

if TYPE_CHECKING:
    from bnn_symm.experiments import Run

_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit status."""
    options = _parser().parse_args(arguments)
    try:
        status = options.command(options)
        sys.stdout.flush()
        return status
    except BnnSymmError as error:
        if options.debug:
            raise
        message = " ".join(str(error).split())
        print(f"bnn-symm: error: {message}", file=sys.stderr)
        return 1 if isinstance(error, FitDiverged) else 2
    except KeyboardInterrupt as error:
        print(f"bnn-symm: interrupted{f'; {error}' if str(error) else ''}", file=sys.stderr)
        return _INTERRUPTED
    except BrokenPipeError:
        # The reader of our output went away, as `| head` does; nothing more to say to it.
        _drop_output()
        return 0
    except OSError as error:
        if options.debug:
            raise
        print(f"bnn-symm: error: {error.filename or 'output'}: {error.strerror or error}", file=sys.stderr)
        _drop_output()
        return 2


def _drop_output() -> None:
    """What could not be written is not tried again when the interpreter ends, which would complain."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--quiet", action="store_true", help="no progress bars, no table")
    common.add_argument("--json", action="store_true", help="print the answer as JSON instead of a table")
    common.add_argument("--debug", action="store_true", help="show the traceback of an error")
    with_module = argparse.ArgumentParser(add_help=False)
    with_module.add_argument(
        "--module",
        metavar="PACKAGE.MODULE:FACTORY",
        help="the factory of your own network; repeated, since loading a run never executes code that it names",
    )
    parser = argparse.ArgumentParser(
        prog="bnn-symm",
        description="Bayesian neural networks whose weight-space symmetries are modelled, measured and removed.",
        formatter_class=_Help,
        epilog="example: bnn-symm fit --set inference.name=nuts --set data.name=gap --out runs/gap",
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    fit = _command(
        commands,
        "fit",
        _fit,
        [common, with_module],
        "fit a posterior to data and save it as a run",
        "With no CONFIG: digits, an MLP 64-64, a Normal(0, 1) prior and mean-field VI at temperature 1.",
        "bnn-symm fit configs/gap_nuts.yaml --set inference.num_draws=1000 --out runs/gap",
    )
    fit.add_argument("config", nargs="?", metavar="CONFIG", help="a YAML file; every key has a default")
    fit.add_argument(
        "--set", action="extend", nargs="+", default=[], metavar="KEY=VALUE", help="override keys of the config"
    )
    fit.add_argument("--out", metavar="DIR", help="the run directory, which must not exist (default: runs/...)")
    fit.add_argument("--resume", metavar="DIR", help="go on with a run that was killed or interrupted")

    evaluate = _command(
        commands,
        "evaluate",
        _evaluate,
        [common, with_module],
        "score a run on data: its own test part, another set, or a file",
        "Writes RUN/evaluations/<data>.json.",
        "bnn-symm evaluate runs/digits --shift rotation:30",
    )
    evaluate.add_argument("run", metavar="RUN", help="a run directory")
    evaluate.add_argument("--data", metavar="NAME|FILE", help="a data set or a file (default: the run's test part)")
    evaluate.add_argument("--shift", metavar="NAME:SEVERITY", help="shift the inputs, such as rotation:30")

    predict = _command(
        commands,
        "predict",
        _predict,
        [common, with_module],
        "predict from raw inputs in a file",
        "Numbers: mean, sd, its epistemic and aleatoric part, and quantiles, in the target's own units. Classes: the "
        "predicted label, every class's probability, entropy and mutual information in nats.",
        "bnn-symm predict runs/my-run inputs.csv -o predictions.csv",
    )
    predict.add_argument("run", metavar="RUN", help="a run directory")
    predict.add_argument("input", metavar="INPUT", help=".csv, .parquet or .npz, with the columns of the training data")
    predict.add_argument("-o", "--output", metavar="OUTPUT", required=True, help="a new .csv, .parquet or .npz file")
    predict.add_argument(
        "--quantiles",
        metavar="LEVELS",
        default="0.05,0.5,0.95",
        help="of numbers, separated by commas (default: %(default)s)",
    )

    data = commands.add_parser(
        "data",
        help="list the data sets, or fetch one",
        description="List the data sets, or fetch one.",
        epilog="example: bnn-symm data list",
        formatter_class=_Help,
    )
    data_commands = data.add_subparsers(metavar="ACTION", required=True)
    _command(
        data_commands,
        "list",
        _data_list,
        [common],
        "list the data sets, and which of them are on this machine",
        "",
        "bnn-symm data list",
    )
    fetch = _command(
        data_commands,
        "fetch",
        _data_fetch,
        [common],
        "download a data set into the cache",
        "",
        "bnn-symm data fetch fashion_mnist",
    )
    fetch.add_argument("name", metavar="NAME", help="a name from `bnn-symm data list`")
    return parser


def _command(
    commands: Any,
    name: str,
    function: Any,
    parents: list[argparse.ArgumentParser],
    help_text: str,
    details: str,
    example: str,
) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        name,
        parents=parents,
        help=help_text,
        description=f"{help_text[0].upper()}{help_text[1:]}. {details}",
        epilog=f"example: {example}",
        formatter_class=_Help,
    )
    parser.set_defaults(command=function)
    return parser


class _Help(argparse.HelpFormatter):
    """Leaves an example in one line, so that it can be copied."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return text if text.startswith("example: ") else super()._fill_text(text, width, indent)


class _Version(argparse.Action):
    """Prints the version; looking it up takes time that other commands need not spend."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from importlib.metadata import version

        print(f"bnn-symm {version('bnn_symm')}")
        parser.exit()


def _fit(options: argparse.Namespace) -> int:
    from bnn_symm.errors import ConfigError
    from bnn_symm.experiments import fit_run, load_config, load_run, resume_run
    from bnn_symm.report.progress import ProgressBars
    from bnn_symm.report.tables import scores_table

    if options.resume:
        if options.config or options.set or options.out:
            raise ConfigError("--resume goes on with a run as it was; it takes no CONFIG, --set or --out")
        config = load_run(options.resume, module=options.module).config
    else:
        overrides = list(options.set)
        if options.config is None and overrides and "=" not in overrides[-1] and Path(overrides[-1]).is_file():
            options.config = overrides.pop()  # fit --set KEY=VALUE CONFIG
        if options.module:
            overrides += ["architecture.name=module", f"architecture.factory={options.module}"]
        config = load_config(options.config, overrides)
    method = config.inference
    bars = [] if options.quiet else [ProgressBars(method)]
    try:
        for bar in bars:
            bar.__enter__()
        if options.resume:
            run = resume_run(options.resume, module=options.module, callbacks=bars)
        else:
            run = fit_run(config, options.out, callbacks=bars)
    finally:
        for bar in bars:
            bar.__exit__()
    metrics = run.metrics
    if metrics is None:
        print(
            f"bnn-symm: interrupted; what was reached is in {run.path}; go on with: bnn-symm fit --resume {run.path}",
            file=sys.stderr,
        )
        return _INTERRUPTED
    picture = _draw(run)
    summary = f"{run.config.inference.name} on {run.record['dataset']['name']}: {run.record['seconds']:.1f} s"
    if metrics["elbo"] is not None:
        summary += f", ELBO {metrics['elbo']:.2f} +- {metrics['elbo_standard_error']:.2f} nats"
    parts = {part: metrics[part] for part in ("train", "validation", "test")}
    _answer(options, {"run": str(run.path), **metrics}, f"{scores_table(parts)}\n{summary}\n{picture}run: {run.path}")
    return 0


def _draw(run: "Run") -> str:
    """Draws what there is to see of a run; returns a line that names the picture, or nothing."""
    if run.preprocessing.input_shape != (1,) or run.preprocessing.task == "classification":
        return ""
    from bnn_symm.experiments.run_directory import disk_errors
    from bnn_symm.report.plots.regression_bands import plot_regression_bands

    path = run.path / "figures" / "regression_bands.png"
    with disk_errors(path, "the posterior and its scores are kept"):
        path.parent.mkdir(exist_ok=True)
        plot_regression_bands(run.posterior, run.dataset(), path)
    return f"picture: {path}\n"


def _evaluate(options: argparse.Namespace) -> int:
    from bnn_symm.data import load_points, parse_shift, shift
    from bnn_symm.diagnostics import score
    from bnn_symm.experiments import load_run
    from bnn_symm.experiments.run_directory import disk_errors
    from bnn_symm.files import write_json
    from bnn_symm.report.tables import scores_table
    from bnn_symm.threads import use_threads

    run = _open(options, load_run)
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
    _answer(options, content, f"{scores_table({name: scores})}\nwritten: {path}")
    return 0


def _predict(options: argparse.Namespace) -> int:
    from bnn_symm.experiments import load_run
    from bnn_symm.experiments.predictions import check_output, predict_file

    levels = _levels(options.quantiles)
    output = Path(options.output)
    check_output(output)
    run = _open(options, load_run)
    rows = predict_file(run, Path(options.input), output, levels)
    _answer(options, {"run": str(run.path), "output": str(output), "points": rows}, f"{rows} predictions: {output}")
    return 0


def _data_list(options: argparse.Namespace) -> int:
    from bnn_symm.data import list_datasets
    from bnn_symm.report.tables import table

    infos = list_datasets()
    rows = []
    for info in infos:
        here = "yes" if info.available else f"bnn-symm data fetch {info.name}"
        rows.append([info.name, here, info.description])
    content = {"datasets": [vars(info) for info in infos]}
    _answer(options, content, table(["name", "on this machine", "what it is"], rows))
    return 0


def _data_fetch(options: argparse.Namespace) -> int:
    from bnn_symm.data import fetch

    path = fetch(options.name)
    _answer(options, {"name": options.name, "path": str(path)}, f"{options.name}: {path}")
    return 0


def _open(options: argparse.Namespace, load_run: Any) -> "Run":
    run = load_run(options.run, module=options.module)
    if run.status != "complete":
        print(f"bnn-symm: note: {run.path} is {run.status}; this uses what it has reached", file=sys.stderr)
    return run


def _levels(text: str) -> list[float]:
    from bnn_symm.errors import ConfigError

    try:
        levels = [float(part) for part in text.split(",")]
    except ValueError:
        levels = []
    if not levels or not all(0 < level < 1 for level in levels):
        raise ConfigError(f"--quantiles {text!r}: wanted numbers between 0 and 1, such as 0.05,0.5,0.95")
    return levels


def _answer(options: argparse.Namespace, content: dict[str, Any], text: str) -> None:
    from bnn_symm.files import json_text

    if options.json:
        print(json_text(content))
    elif not options.quiet:
        print(text)


if __name__ == "__main__":
    sys.exit(main())
