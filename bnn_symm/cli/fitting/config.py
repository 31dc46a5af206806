"""Provide `bnn-symm config`: every key of a configuration, its schema, and resolved values."""

import argparse
import json
import textwrap
from typing import TYPE_CHECKING, Any

from bnn_symm.cli.command import add_command, answer
from bnn_symm.cli.fitting.fit import add_overrides, config_of, take_config_from_overrides

if TYPE_CHECKING:
    from bnn_symm.runs.configuration.reference import ConfigKey

_INDENT = " " * 4


def add(commands: Any) -> None:
    """Add the command to the parser.

    Args:
        commands: the subparsers of the program.
    """
    parser = add_command(
        commands,
        "config",
        _config,
        "list the keys of configurations, or show a resolved configuration",
        details="Without arguments, every key is listed with its default, its allowed values and "
        "its meaning. KEY selects a key (inference.num_steps), a section (data) or a kind (nuts). "
        "`show` prints the configuration that a file and overrides define, with all defaults. "
        "--schema prints a JSON Schema, by which editors complete and check YAML files.",
        example="bnn-symm config nuts",
        module=True,
    )
    parser.add_argument(
        "key", nargs="?", metavar="KEY|show", help="a key, a section or a kind; or the word `show`"
    )
    parser.add_argument("config", nargs="?", metavar="CONFIG", help="after `show`: a YAML file")
    add_overrides(parser)
    parser.add_argument("--schema", action="store_true", help="print the JSON Schema")


def _config(options: argparse.Namespace) -> int:
    from bnn_symm.errors import ConfigError
    from bnn_symm.runs.configuration.reference import config_keys, config_schema
    from bnn_symm.studies.config import StudyConfig
    from bnn_symm.zoo.config import ZooConfig

    if options.key == "show":
        return _show(options)
    if options.config or options.set:
        raise ConfigError(
            "a CONFIG and --set are for showing a resolved configuration; type: bnn-symm config "
            "show CONFIG --set KEY=VALUE"
        )
    schema = config_schema({"study": StudyConfig, "zoo": ZooConfig})
    if options.schema:
        print(json.dumps(schema, indent=2))
        return 0
    keys = config_keys(schema, options.key)
    content = {"keys": [key.to_dict() for key in keys]}
    answer(options, content, "\n".join(_describe(key) for key in keys))
    return 0


def _show(options: argparse.Namespace) -> int:
    from bnn_symm.io.documents import parse_yaml
    from bnn_symm.runs.configuration.config import dump_config, parse_config, read_raw
    from bnn_symm.studies.study import Study, load_study
    from bnn_symm.zoo.config import load_zoo_plan

    take_config_from_overrides(options)
    raw = read_raw(options.config, options.set)
    if "zoo" in raw:
        text = load_zoo_plan(options.config, options.set).to_yaml()
    elif "study" in raw:
        study = load_study(options.config, options.set)
        base = parse_yaml(dump_config(parse_config(study.base)), "the configuration")
        del base["seed"]  # a study has its own seeds
        text = Study(base=base, config=study.config).to_yaml()
    else:
        text = dump_config(config_of(options))
    answer(options, parse_yaml(text, "the configuration"), text.rstrip())
    return 0


def _describe(key: "ConfigKey") -> str:
    """Return the description of a key: its values, and below them its meaning."""
    default = "(required)" if key.is_required else json.dumps(key.default).strip('"')
    kinds = f" For {', '.join(key.names)}." if key.names else ""
    meaning = f"{key.meaning[:1].upper()}{key.meaning[1:].removesuffix('.')}."
    return "\n".join(
        [
            f"{key.key}: {default}    ({key.allowed})",
            *textwrap.wrap(meaning + kinds, 100, initial_indent=_INDENT, subsequent_indent=_INDENT),
        ]
    )
