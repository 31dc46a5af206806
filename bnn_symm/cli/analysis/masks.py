"""Provide `bnn-symm masks`: train a pruned network with the masks of other networks."""

import argparse
from pathlib import Path
from typing import Any

from bnn_symm.cli.command import add_command, answer, file_line, open_comparable, warn


def add(commands: Any) -> None:
    """Add the command to the parser.

    Args:
        commands: the subparsers of the program.
    """
    parser = add_command(
        commands,
        "masks",
        _masks,
        "train a pruned network with the masks of other networks, permuted to it",
        details="All runs are of iterative pruning. The weights to which TARGET was rewound are "
        "trained with the masks of each SOURCE, with and without the permutation that aligns the "
        "networks, and with random masks. Writes masks.json, row by row, and a figure.",
        example="bnn-symm masks runs/a runs/b --levels 3 6 10 -o runs/masks-a-b",
        module=True,
    )
    parser.add_argument("target", metavar="TARGET", help="the run whose network is trained")
    parser.add_argument(
        "sources", nargs="+", metavar="SOURCE", help="runs of other seeds, which have the masks"
    )
    parser.add_argument("-o", "--out", metavar="DIR", required=True, help="a new directory")
    parser.add_argument(
        "--levels",
        type=int,
        nargs="+",
        default=[],
        metavar="N",
        help="levels of the masks, each with three fits for each source (default: all)",
    )
    parser.add_argument(
        "--point",
        default="first",
        metavar="NAME",
        help="the level whose networks are aligned: first, before pruning, last, the step of its "
        "end, or joint for all levels together (default: %(default)s)",
    )
    parser.add_argument(
        "--matching",
        choices=["w2", "means"],
        default="w2",
        help="the matching cost (default: %(default)s)",
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        metavar="N",
        help="seed of the alignment and of random masks (default: %(default)s)",
    )


def _masks(options: argparse.Namespace) -> int:
    from bnn_symm.analyses.mask_transport import KINDS, MaskScore, check_transport, transport_masks
    from bnn_symm.io.atomic import write_json
    from bnn_symm.report.plots.comparisons.masks import plot_masks
    from bnn_symm.report.progress import CountBar
    from bnn_symm.report.text.masks import masks_text
    from bnn_symm.runs.directory.output_directory import check_free, disk_errors, new_directory

    (target, *sources), warnings = open_comparable(options, [options.target, *options.sources])
    method = check_transport(target, sources, options.levels)
    warn(warnings)
    error = "error rate" if target.dataset().task == "classification" else "RMSE"
    out = Path(options.out)
    check_free(out)
    rows: list[MaskScore] = []
    content = {
        "target": str(target.path),
        "sources": [str(run.path) for run in sources],
        "point": options.point,
        "matching": options.matching,
        "warnings": warnings,
    }
    num_networks = len(KINDS) * len(sources) * (len(options.levels) or method.num_levels)
    with CountBar("networks", total=num_networks, quiet=options.quiet) as bar:

        def keep(row: MaskScore) -> None:
            if not rows:
                new_directory(out, "masks")
            rows.append(row)
            content["masks"] = [own.to_dict() for own in rows]
            with disk_errors(out, "free some space, then run the command again"):
                write_json(out / "masks.json", content)
            bar.advance()

        transport_masks(
            target,
            sources,
            levels=options.levels,
            point=options.point,
            matching=options.matching,
            seed=options.seed,
            on_score=keep,
        )
    with disk_errors(out, "masks.json is written"):
        (out / "figures").mkdir()
        plot_masks(rows, out / "figures" / "masks.png", error=error)
    lines = [masks_text(rows, error=error), file_line("figure", out / "figures" / "masks.png")]
    answer(options, content, "\n".join([*lines, file_line("written", out / "masks.json")]))
    return 0
