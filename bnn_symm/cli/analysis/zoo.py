"""Provide `bnn-symm zoo`: train many small networks, and predict their scores from weights."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bnn_symm.cli.command import HelpFormatter, add_command, answer, file_line
from bnn_symm.cli.fitting.fit import add_config, overrides_of, take_config_from_overrides

if TYPE_CHECKING:
    from bnn_symm.zoo import ZooRun

_NETWORKS, _SEEDS = 200, 3


def add(commands: Any) -> None:
    """Add the command and its two actions to the parser.

    Args:
        commands: the subparsers of the program.
    """
    zoo = commands.add_parser(
        "zoo",
        help="train many small networks, and predict their scores from their weights",
        description="Train many small networks, and predict their scores from their weights.",
        epilog="example: bnn-symm zoo train zoo_digits --networks 300 -o runs/zoo",
        formatter_class=HelpFormatter,
    )
    actions = zoo.add_subparsers(metavar="ACTION", required=True)
    _add_train(actions)
    _add_predict(actions)


def _add_train(actions: Any) -> None:
    parser = add_command(
        actions,
        "train",
        _train,
        "train networks that differ in their hyper-parameters, and score them on the test split",
        details="CONFIG has data, architecture, prior and likelihood, and a section `zoo` with the "
        "ranges of learning rate, prior weight, number of steps, fraction of the training split "
        "and label noise; every key has a default. Networks are trained in batches, which are "
        "stored when they are complete. Writes networks.npz (weights, hyper-parameters, scores) "
        "and zoo.json into the output directory.",
        example="bnn-symm zoo train --set architecture.widths=[16] zoo.label_noise=0 "
        "--networks 300 -o runs/zoo",
        module=True,
    )
    add_config(parser)
    parser.add_argument(
        "--networks", type=int, metavar="N", help=f"number of networks (default: {_NETWORKS})"
    )
    parser.add_argument(
        "--jobs", type=int, metavar="N", help="number of processes (default: one per core)"
    )
    parser.add_argument(
        "-o", "--out", metavar="DIR", help="a new directory (default: runs/zoo-1, -2, ...)"
    )
    parser.add_argument(
        "--resume",
        metavar="DIR",
        help="resume a zoo; with a larger --networks, add networks to it",
    )


def _add_predict(actions: Any) -> None:
    parser = add_command(
        actions,
        "predict",
        _predict,
        "predict scores of held-out networks from their weights",
        details="Predictors: statistics of each tensor (ridge, boosting), an MLP on the flat "
        "weights, a network that is invariant under the symmetry group of the architecture, and, "
        "for reference, boosting on the hyper-parameters. Kendall's tau and R2 are means over "
        "seeds, with 95 %% intervals over held-out networks. Several zoos give one table. Writes "
        "predictors.json into the output directory.",
        example="bnn-symm zoo predict runs/zoo-1 runs/zoo-2 -o runs/predictors",
        module=True,
    )
    parser.add_argument("zoos", nargs="+", metavar="DIR", help="directories of trained zoos")
    parser.add_argument(
        "--seeds",
        type=int,
        default=_SEEDS,
        metavar="N",
        help="number of seeds of the predictors (default: %(default)s)",
    )
    parser.add_argument(
        "--jobs", type=int, metavar="N", help="number of processes (default: one per core)"
    )
    parser.add_argument(
        "-o", "--out", metavar="DIR", help="a new directory (default: runs/predictors-1, -2, ...)"
    )


def _check_numbers(options: argparse.Namespace, *names: str) -> None:
    from bnn_symm.errors import ConfigError

    for name in names:
        value = getattr(options, name)
        if value is not None and value < 1:
            raise ConfigError(f"--{name} {value}: expected 1 or more")


def _train(options: argparse.Namespace) -> int:
    from bnn_symm.report.progress import CountBar
    from bnn_symm.report.text.zoo import zoo_text
    from bnn_symm.threads import available_cores

    _check_numbers(options, "networks", "jobs")
    zoo = _zoo_run(options)
    bar = CountBar("networks", total=zoo.num_networks, done=zoo.num_done, quiet=options.quiet)
    with bar:
        content = zoo.run(jobs=options.jobs or available_cores(), on_networks=bar.advance)
    text = f"{zoo_text(content)}\n{file_line('written', zoo.path / 'networks.npz')}"
    answer(options, {**content, "directory": str(zoo.path)}, text)
    return 0


def _zoo_run(options: argparse.Namespace) -> "ZooRun":
    """Create or resume the zoo that the options describe."""
    from bnn_symm.errors import ConfigError
    from bnn_symm.runs.configuration.factories import check_configuration, factories_of
    from bnn_symm.runs.directory.output_directory import check_free
    from bnn_symm.zoo import create_zoo, load_zoo_plan, resume_zoo

    take_config_from_overrides(options)
    if options.resume:
        if options.config or options.set or options.out:
            raise ConfigError(
                "--resume uses the configuration of the zoo; it takes no CONFIG, --set or --out"
            )
        path = Path(options.resume)
        return resume_zoo(path, num_networks=options.networks, module=options.module)
    out = Path(options.out) if options.out else None
    if out is not None:
        check_free(out)
    plan = load_zoo_plan(options.config, overrides_of(options))
    if options.config:
        check_configuration(options.config, factories_of([plan.base]), options.module)
    return create_zoo(plan, out, num_networks=options.networks or _NETWORKS)


def _predict(options: argparse.Namespace) -> int:
    from bnn_symm.io.atomic import write_json
    from bnn_symm.report.progress import CountBar
    from bnn_symm.report.text.zoo import predictors_text
    from bnn_symm.runs.directory.output_directory import check_free, disk_errors, new_directory
    from bnn_symm.summaries import plain
    from bnn_symm.threads import available_cores
    from bnn_symm.zoo import compare_predictors, load_zoo

    _check_numbers(options, "seeds", "jobs")
    if options.out:
        check_free(Path(options.out))
    zoos = [load_zoo(path, module=options.module) for path in options.zoos]
    seeds = range(options.seeds)
    bar = CountBar("fits", total=len(zoos) * len(seeds), quiet=options.quiet)
    with bar:
        jobs = options.jobs or available_cores()
        results = compare_predictors(zoos, seeds=seeds, jobs=jobs, on_fit=bar.advance)
    content = {"level": 0.95, "seeds": list(seeds), "zoos": plain(results)}
    out = new_directory(Path(options.out) if options.out else None, "predictors")
    with disk_errors(out, "free some space, then predict again"):
        write_json(out / "predictors.json", content)
    text = f"{predictors_text(content)}\n{file_line('written', out / 'predictors.json')}"
    answer(options, content, text)
    return 0
