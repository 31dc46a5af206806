"""Write the pages of the reference: commands, configuration keys, terms and names."""

import json
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from bnn_symm import likelihoods
from bnn_symm.cli.program import all_parsers, build_parser
from bnn_symm.report.glossary import GLOSSARY
from bnn_symm.runs.configuration.examples import list_examples
from bnn_symm.runs.configuration.reference import ConfigKey, config_keys, config_schema
from bnn_symm.studies.config import StudyConfig
from bnn_symm.zoo.config import ZooConfig

NAMESPACES = (
    "data",
    "architectures",
    "symmetry",
    "models",
    "likelihoods",
    "posteriors",
    "inference",
    "alignment",
    "diagnostics",
    "runs",
    "studies",
    "zoo",
    "estimators",
    "plots",
    "testing",
)
"""The public namespaces, in the order of the layers."""

_EXCLUDED = {
    # They have a namespace of their own.
    "models": likelihoods.__all__,
    # scikit-learn adds them; their docstrings refer to its glossary.
    "estimators": ("set_fit_request", "set_predict_request", "set_score_request"),
}


def write(folder: Path) -> None:
    """Write the generated pages into a folder.

    Args:
        folder: of the pages.
    """
    pages = {
        "command_line.md": "\n".join(_commands()),
        "configuration.md": "\n".join(_configuration()),
        "examples.md": "\n".join(_examples()),
        "glossary.md": "\n".join(_glossary()),
        **{f"api/{name}.md": _namespace(name) for name in NAMESPACES},
    }
    for name, text in pages.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def _commands() -> Iterator[str]:
    yield "# Command line\n"
    yield "The texts are those of `--help`.\n"
    for parser in all_parsers(build_parser()):
        yield f"## {parser.prog}\n\n```text\n{parser.format_help().strip()}\n```\n"


def _configuration() -> Iterator[str]:
    keys = config_keys(config_schema({"study": StudyConfig, "zoo": ZooConfig}))
    yield "# Configuration\n"
    yield "Every key has a default, so that an empty file is valid. `bnn-symm config` prints this"
    yield "list, and `bnn-symm config --schema` a JSON Schema, by which editors complete and check"
    yield "YAML files: for the language server of YAML, write the schema to a file and begin the"
    yield "configuration with `# yaml-language-server: $schema=FILE`.\n"
    for section, group in groupby(sorted(keys, key=_order), key=_section):
        yield f"## {section}\n"
        yield "| key | default | allowed values | meaning |\n| --- | --- | --- | --- |"
        for key in group:
            default = "required" if key.is_required else f"`{json.dumps(key.default)}`"
            kinds = f" For {', '.join(f'`{name}`' for name in key.names)}." if key.names else ""
            cells = (
                f"`{key.key}`",
                default,
                key.allowed,
                f"{key.meaning.removesuffix('.')}.{kinds}",
            )
            yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
        yield ""


def _section(key: ConfigKey) -> str:
    return key.key.partition(".")[0] if "." in key.key else "top level"


def _order(key: ConfigKey) -> int:
    return 0 if "." not in key.key else 1


def _examples() -> Iterator[str]:
    yield "# Example configurations\n"
    yield "They are part of the package. `bnn-symm examples NAME` prints one.\n"
    for example in list_examples():
        text = example.path.read_text(encoding="utf-8")
        yield f"## {example.name}\n\n```yaml\n{text.strip()}\n```\n"


def _glossary() -> Iterator[str]:
    yield "# Glossary\n"
    yield "The terms of reports, where they are explained in the same words.\n"
    yield "```{glossary}"
    for term in sorted(GLOSSARY, key=lambda term: term.name.lower()):
        yield f"{term.name}\n  {term.meaning}\n"
    yield "```\n"


def _namespace(name: str) -> str:
    return (
        f"# bnn_symm.{name}\n\n```{{eval-rst}}\n.. automodule:: bnn_symm.{name}\n"
        f"   :imported-members:\n   :exclude-members: {', '.join(_EXCLUDED.get(name, ('none',)))}\n"
        "```\n"
    )
