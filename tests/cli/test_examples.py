"""Test the commands that help texts and errors give as examples."""

import re
import shlex

import pytest

from bnn_symm.cli import main
from bnn_symm.runs import load_config
from bnn_symm.studies.study import load_study


def example_of(command, capsys):
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    found = re.search(r"^example: bnn-symm (.*)$", capsys.readouterr().out, re.MULTILINE)
    assert found is not None
    return shlex.split(found[1])


def settings_of(words):
    after = words[words.index("--set") + 1 :]
    return after[
        : next((place for place, word in enumerate(after) if word.startswith("-")), len(after))
    ]


@pytest.mark.parametrize("command", ["fit", "prior", "symmetry", "compare"])
def test_the_example_is_a_configuration_without_a_file(command, capsys):
    words = example_of(command, capsys)
    assert words[0] == command
    settings = settings_of(words)
    assert settings
    if command == "compare":
        kinds = [
            config.architecture.symmetry.kind for config in load_study(None, settings).configs()
        ]
        assert set(kinds) == {"standard", "weight_asymmetric"}
    else:
        assert load_config(None, settings) != load_config(None)
    assert not any(word.endswith(".yaml") for word in words)


def test_compare_without_a_study_suggests_a_command(capsys):
    assert main(["compare"]) == 2
    err = capsys.readouterr().err
    assert shlex.split(err[err.index("bnn-symm compare") + len("bnn-symm ") :]) == example_of(
        "compare", capsys
    )
