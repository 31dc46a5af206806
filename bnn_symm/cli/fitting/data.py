"""Provide `bnn-symm data`: list the data sets, and download one."""

import argparse
from typing import Any

from bnn_symm.cli.command import HelpFormatter, add_command, answer, file_line


def add(commands: Any) -> None:
    """Add the command and its two actions to the parser.

    Args:
        commands: the subparsers of the program.
    """
    data = commands.add_parser(
        "data",
        help="list the data sets, or fetch one",
        description="List the data sets, or fetch one.",
        epilog="example: bnn-symm data list",
        formatter_class=HelpFormatter,
    )
    actions = data.add_subparsers(metavar="ACTION", required=True)
    add_command(
        actions,
        "list",
        _data_list,
        "list the data sets and whether they are on this machine",
        example="bnn-symm data list",
    )
    fetch = add_command(
        actions,
        "fetch",
        _data_fetch,
        "download a data set into the cache",
        example="bnn-symm data fetch fashion_mnist",
    )
    fetch.add_argument("name", metavar="NAME", help="a name from `bnn-symm data list`")


def _data_list(options: argparse.Namespace) -> int:
    from bnn_symm.data import list_datasets
    from bnn_symm.report.text.tables import table

    infos = list_datasets()
    rows = []
    for info in infos:
        available = "yes" if info.available else f"bnn-symm data fetch {info.name}"
        rows.append([info.name, available, info.description])
    content = {"datasets": [vars(info) for info in infos]}
    answer(options, content, table(["name", "on this machine", "description"], rows))
    return 0


def _data_fetch(options: argparse.Namespace) -> int:
    from bnn_symm.data import fetch

    path = fetch(options.name)
    answer(options, {"name": options.name, "path": str(path)}, file_line(options.name, path))
    return 0
