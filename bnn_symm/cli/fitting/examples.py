"""Provide `bnn-symm examples`: the configurations that ship with the package."""

import argparse
from typing import Any

from bnn_symm.cli.command import add_command, answer


def add(commands: Any) -> None:
    """Add the command to the parser.

    Args:
        commands: the subparsers of the program.
    """
    parser = add_command(
        commands,
        "examples",
        _examples,
        "list the configurations that ship with the package, or print one",
        details="Commands that take a CONFIG take such a name too: bnn-symm compare quickstart.",
        example="bnn-symm examples quickstart > my_study.yaml",
    )
    parser.add_argument("name", nargs="?", metavar="NAME", help="print the file of this example")


def _examples(options: argparse.Namespace) -> int:
    from bnn_symm.runs.configuration.examples import find_example, list_examples

    if options.name:
        example = find_example(options.name)
        text = example.path.read_text(encoding="utf-8")
        answer(options, {**example.to_dict(), "text": text}, text.rstrip())
        return 0
    examples = list_examples()
    lines = [f"{example.command}\n    {example.description}" for example in examples]
    answer(options, {"examples": [example.to_dict() for example in examples]}, "\n".join(lines))
    return 0
