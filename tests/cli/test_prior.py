"""Test the table, the JSON, the figure and the advice of `bnn-symm prior`."""

import json

import pytest

from bnn_symm.cli import main

pytestmark = pytest.mark.thorough

GAP = ["--set", "data.name=gap", "architecture.widths=[16]", "architecture.activation=tanh"]


def run(capsys, *arguments):
    assert main(["prior", *arguments]) == 0
    return capsys.readouterr().out


def test_advice_for_a_too_wide_prior_brings_functions_closer_to_the_data(tmp_path, capsys):
    arguments = [*GAP, "prior.scale=10"]
    text = run(capsys, *arguments, "--draws", "50", "-o", str(tmp_path / "a"))
    assert "functions vary more than the data" in text
    assert (tmp_path / "a" / "figures" / "prior_predictive.png").read_bytes().startswith(b"\x89PNG")
    advice = next(line for line in text.splitlines() if line.startswith("next: "))
    change = advice.split()[2]
    content = json.loads((tmp_path / "a" / "prior.json").read_text())
    again = json.loads(
        run(capsys, *GAP, change, "--draws", "50", "--json", "-o", str(tmp_path / "b"))
    )
    factors = [
        one["own"]["quantiles"]["variation"][2] / one["of_data"]["variation"]
        for one in (content, again)
    ]
    assert factors[0] > 3
    assert f"functions that vary {factors[1]:.3g} times as much" in advice
    assert max(factors[1], 1 / factors[1]) < factors[0]
    assert len(content["curves"]["y"]) == 20


def test_classes(tmp_path, capsys):
    where = ["data.name=iris", "architecture.widths=[8]"]
    wide = run(
        capsys, "--set", *where, "prior.scale=30", "--draws", "20", "-o", str(tmp_path / "a")
    )
    assert "functions are certain about classes before they see data" in wide
    assert "next: --set prior.scale=fan_in gives a mean largest probability of" in wide
    narrow = run(
        capsys, "--set", *where, "prior.scale=0.1", "--draws", "20", "-o", str(tmp_path / "b")
    )
    assert "functions are uncertain about the class of a point" in narrow
    assert "next:" not in narrow


def test_several_inputs_and_reproducible_numbers(tmp_path, capsys):
    arguments = [
        "--set",
        "data.name=diabetes",
        "architecture.widths=[4]",
        "--draws",
        "20",
        "--json",
        "-o",
    ]
    first, second = (json.loads(run(capsys, *arguments, str(tmp_path / name))) for name in "ab")
    assert first.pop("directory") != second.pop("directory")
    assert first == second
    assert first["curves"] is None
    assert len(first["sd_at_points"]) == len(first["levels"])


@pytest.mark.parametrize("number", ["1", "-3"])
def test_too_few_draws(number, capsys):
    assert main(["prior", "--draws", number]) == 2
    assert f"--draws {number}: expected two functions or more" in capsys.readouterr().err
