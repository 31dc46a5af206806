"""Provide `bnn-symm fit`: fit a posterior from a configuration, and save it as a run."""

import argparse
import sys
import warnings
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from bnn_symm.cli.command import INTERRUPTED, add_command, answer, file_line, warn
from bnn_symm.cli.torchrun import only_first_process_prints

if TYPE_CHECKING:
    from bnn_symm.inference.parallel.process_group import ProcessGroup
    from bnn_symm.runs import Config, Run
    from bnn_symm.runs.configuration.prepare import Prepared


def add(commands: Any) -> None:
    """Add the command to the parser.

    Args:
        commands: the subparsers of the program.
    """
    parser = add_command(
        commands,
        "fit",
        _fit,
        "fit a posterior to data and save it as a run",
        details="Without CONFIG: digits, an MLP 64-64, a Normal(0, 1) prior and mean-field VI at "
        "temperature 1. For a table in a file, method, prior and likelihood are chosen unless they "
        "are given (inference.name=auto). If CONFIG names the factory of a custom network, it is "
        "imported and called: only fit configurations that you trust.",
        example="bnn-symm fit --set data.name=gap inference.name=nuts inference.num_draws=1000 "
        "--out runs/gap",
        module=True,
        several_processes=True,
    )
    add_config(parser)
    parser.add_argument(
        "--out", metavar="DIR", help="the run directory, which must not exist (default: runs/...)"
    )
    parser.add_argument(
        "--resume", metavar="DIR", help="resume a run that was killed or interrupted"
    )
    parser.add_argument(
        "--allow-changes",
        action="store_true",
        help="with --resume: resume although the engine, threads, processes, versions, dtype or "
        "device have changed; the result is then not bitwise identical, and run.json records it",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="print what would be fitted and estimate its cost; fit and write nothing",
    )
    # The former name of --allow-changes.
    parser.add_argument("--insist", action="store_true", help=argparse.SUPPRESS)


def add_config(
    parser: argparse.ArgumentParser,
    metavar: str = "CONFIG",
    text: str = "a YAML file; every key has a default",
) -> None:
    """Add CONFIG and --set, the arguments of commands that start from a configuration.

    Args:
        parser: of the command.
        metavar: name of the positional argument.
        text: its help text.
    """
    parser.add_argument("config", nargs="?", metavar=metavar, help=text)
    add_overrides(parser)


def add_overrides(parser: argparse.ArgumentParser) -> None:
    """Add --set.

    Args:
        parser: of the command.
    """
    parser.add_argument(
        "--set",
        action="extend",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="override keys of the configuration; values are YAML, except for text keys such as "
        "data.target, which are used literally; KEY= unsets a text key",
    )


def take_config_from_overrides(options: argparse.Namespace) -> None:
    """Take the last word of --set for CONFIG if it is no override: `--set KEY=VALUE CONFIG`.

    Args:
        options: of the command line, which are changed.
    """
    if options.config is None and options.set and "=" not in options.set[-1]:
        options.config = options.set.pop()


def config_of(options: argparse.Namespace, *, choose: bool = True) -> "Config":
    """Return the configuration that CONFIG, --set and --module define.

    Args:
        options: of the command line.
        choose: whether the method of a table is chosen if it is left out.

    Returns:
        The resolved configuration.
    """
    from bnn_symm.runs import load_config
    from bnn_symm.runs.configuration.factories import check_configuration, factories_of

    overrides = overrides_of(options)
    config = load_config(options.config, overrides, choose=choose)
    if options.config:
        check_configuration(options.config, factories_of([config]), options.module)
    return config


def overrides_of(options: argparse.Namespace) -> list[str]:
    """Return the overrides of --set, and those that name the factory of --module.

    Args:
        options: of the command line; a CONFIG after --set is taken from it.
    """
    from bnn_symm.errors import ConfigError
    from bnn_symm.runs.configuration.config import read_raw

    take_config_from_overrides(options)
    raw = read_raw(options.config, options.set)
    sections = (raw.get("likelihood"), raw.get("prior"))
    classes = [section.get("name") for section in sections if isinstance(section, dict)]
    factories = [name for name in options.module if name not in classes]
    if len(factories) > 1:
        raise ConfigError(
            f"--module names {' and '.join(factories)}, and a network has one factory; the classes "
            "of a likelihood and a prior are likelihood.name and prior.name"
        )
    overrides = list(options.set)
    for name in factories:
        overrides += ["architecture.name=module", f"architecture.factory={name}"]
    return overrides


def _fit(options: argparse.Namespace) -> int:
    from bnn_symm.inference.parallel.process_group import join_process_group
    from bnn_symm.runs.distributed_fit import run_worker

    with join_process_group() as group, only_first_process_prints(group):
        if group.is_first:
            return _fit_as_first(options, group)
        warnings.simplefilter("ignore")  # the first process shows the same warnings
        return INTERRUPTED if run_worker(group) else 0


def _fit_as_first(options: argparse.Namespace, group: "ProcessGroup") -> int:
    from bnn_symm.errors import one_line, printable
    from bnn_symm.report.progress import ProgressBars
    from bnn_symm.runs import fit_run, resume_run
    from bnn_symm.runs.configuration.unused_settings import unused_setting_notes
    from bnn_symm.runs.fit_runner import resume_command
    from bnn_symm.runs.run import code_of

    if options.insist:
        warn(["--insist is now called --allow-changes"])
        options.allow_changes = True
    config = _config_to_fit(options)
    warn(unused_setting_notes(config))
    if options.dry_run:
        return _dry_run(options, config)
    with ExitStack() as stack:
        bars = []
        if not options.quiet:
            bars.append(stack.enter_context(ProgressBars(config.inference, config.warm_start)))

        def show_methods(prepared: "Prepared") -> None:
            for bar in bars:
                bar.set_methods(prepared.config.inference, prepared.config.warm_start)

        if options.resume:
            run = resume_run(
                options.resume,
                module=options.module,
                allow_changes=options.allow_changes,
                on_note=lambda line: warn([line]),
                callbacks=bars,
                group=group,
            )
        else:
            run = fit_run(
                config,
                options.out,
                on_note=lambda line: warn([line]),
                callbacks=bars,
                group=group,
                check=show_methods,
            )
    if run.metrics is None:
        print(
            f"bnn-symm: interrupted; the last state is saved in {one_line(run.path, 100)}; "
            f"resume with: {printable(resume_command(run.path, group, code_of(run.config)))}",
            file=sys.stderr,
        )
        return INTERRUPTED
    picture = _draw(run)
    answer(options, {"run": str(run.path), **run.metrics}, _text(run, picture))
    return 0


def _config_to_fit(options: argparse.Namespace) -> "Config":
    """Return the configuration of a new fit, or that of the run that is resumed."""
    from bnn_symm.errors import ConfigError
    from bnn_symm.runs import load_run

    if options.resume:
        if options.config or options.set or options.out or options.dry_run:
            raise ConfigError(
                "--resume uses the configuration of the run; it takes no CONFIG, --set, --out or "
                "--dry-run"
            )
        return load_run(options.resume, module=options.module).config
    if options.allow_changes:
        raise ConfigError(
            "--allow-changes applies to a run that is resumed; name the run with --resume DIR"
        )
    return config_of(options)


def _text(run: "Run", picture: str) -> str:
    """Return the scores of a complete run, its cost, and where its files are."""
    from bnn_symm.errors import one_line
    from bnn_symm.report.text.tables import scores_table

    metrics = run.metrics
    assert metrics is not None
    data_name = one_line(run.record["dataset"]["name"], 100)
    summary = f"{run.config.inference.name} on {data_name}: {run.record['seconds']:.1f} s"
    if metrics["elbo"] is not None:
        summary += f", ELBO {metrics['elbo']:.2f} +- {metrics['elbo_standard_error']:.2f} nats"
    if metrics.get("log_evidence") is not None:
        summary += f", log evidence {metrics['log_evidence']:.2f} nats"
    if metrics.get("prior_scale") is not None:
        summary += f", prior.scale {metrics['prior_scale']:.4g}"
    parts = {part: metrics[part] for part in ("train", "validation", "test")}
    if run.record.get("gain_test"):
        summary += f"\n{one_line(run.record['gain_test']['sentence'], 400)}"
    if run.record.get("data_summary"):
        summary += f"\ndata: {one_line(run.record['data_summary'])}"
    for note in metrics.get("notes", []):
        summary += f"\nnote: {one_line(note)}"
    return f"{scores_table(parts)}\n{summary}\n{picture}{file_line('run', run.path)}"


def _dry_run(options: argparse.Namespace, config: "Config") -> int:
    from bnn_symm.errors import one_line
    from bnn_symm.formatting import number
    from bnn_symm.report.text.tables import table
    from bnn_symm.runs.dry_run import estimate_fit

    estimate = estimate_fit(config)
    warn(estimate.notes)
    shape = " x ".join(map(str, estimate.features))
    parameters = f"{estimate.parameters} parameters"
    if estimate.fixed_parameters:
        every = estimate.parameters + estimate.fixed_parameters
        parameters = f"{estimate.parameters} stochastic of {every} parameters"
    rows = [
        [
            stage.method,
            stage.num_chains,
            stage.points_per_gradient,
            stage.gradient_evaluations,
            1000 * stage.seconds_per_gradient,
            f"{'at least ' if stage.is_lower_bound else 'about '}{number(stage.seconds)}",
            stage.draws_bytes / 1e6,
        ]
        for stage in estimate.stages
    ]
    columns = ""
    if estimate.columns:
        decided = [
            [one_line(each.column, 30), one_line(each.type, 70), each.features, each.missing or "-"]
            for each in estimate.columns
        ]
        columns = f"{table(['column', 'type', 'features', 'missing values'], decided)}\n"
    header = ["method", "chains", "points", "gradients", "ms each", "seconds", "draws, MB"]
    text = (
        f"{one_line(estimate.dataset, 100)}, {estimate.task}: {estimate.train} training, "
        f"{estimate.validation} validation and {estimate.test} test points of {shape} features\n"
        f"split: {one_line(estimate.split)}\n"
        f"{config.architecture.name}: {parameters}, "
        f"{estimate.outputs} outputs, {estimate.threads} threads; one gradient keeps "
        f"{number(estimate.gradient_bytes / 1e6)} MB\n"
        f"{table(header, rows)}\n{columns}nothing was fitted or written"
    )
    answer(options, estimate.to_dict(), text)
    return 0


def _draw(run: "Run") -> str:
    """Draw the bands of a one-dimensional regression, and return a line that names the figure."""
    if run.preprocessing.input_shape != (1,) or run.preprocessing.task in (
        "classification",
        "survival",
    ):
        return ""
    from bnn_symm.report.plots.predictions.regression_bands import plot_regression_bands
    from bnn_symm.runs.directory.output_directory import disk_errors

    path = run.path / "figures" / "regression_bands.png"
    with disk_errors(path, "the posterior and its scores are kept"):
        path.parent.mkdir(exist_ok=True)
        plot_regression_bands(run.posterior, run.dataset(), path)
    return f"{file_line('figure', path)}\n"
