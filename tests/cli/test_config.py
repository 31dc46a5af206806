import json
import subprocess

import jsonschema
import pytest
import yaml

from bnn_symm.runs.configuration.config import dump_config, load_config
from bnn_symm.runs.configuration.examples import list_examples
from bnn_symm.runs.configuration.reference import config_keys, config_schema
from bnn_symm.studies.config import StudyConfig
from bnn_symm.studies.study import load_study
from bnn_symm.zoo.config import ZooConfig

SCHEMA = config_schema({"study": StudyConfig, "zoo": ZooConfig})


def is_valid(content) -> bool:
    return jsonschema.Draft202012Validator(SCHEMA).is_valid(content)


def test_every_key_has_a_meaning():
    keys = config_keys(SCHEMA)
    assert len(keys) > 100
    assert [key.key for key in keys if not key.meaning] == []


def test_every_default_is_the_one_of_an_empty_configuration():
    resolved = yaml.safe_load(dump_config(load_config(None, ["likelihood.name=gaussian"])))
    for key in config_keys(SCHEMA):
        section, _, rest = key.key.partition(".")
        kind = {"architecture": "mlp", "inference": "mean_field_vi", "likelihood": "gaussian"}
        if (key.names and kind[section] not in key.names) or section in ("study", "zoo"):
            continue
        value = resolved[section]
        for part in rest.split(".") if rest else ():
            value = value.get(part, "absent") if isinstance(value, dict) else "absent"
        if key.key != "likelihood.name" and value != "absent":
            assert value == key.default, key.key


@pytest.mark.parametrize("example", list_examples(), ids=lambda example: example.name)
def test_the_schema_accepts_every_example(example):
    assert is_valid(yaml.safe_load(example.path.read_text()))


@pytest.mark.parametrize(
    "content",
    [
        {"sed": 0},
        {"seed": -1},
        {"inference": {"name": "nut"}},
        {"inference": {"name": "nuts", "num_steps": 5}},
        {"inference": {"num_chains": 4}},  # of mean-field VI, which has no chains
        {"data": {"test_fraction": 1.0}},
        {"study": {"seed": 3}},
    ],
)
def test_the_schema_refuses_what_the_program_refuses(content):
    assert not is_valid(content)


def test_sections_without_a_name_are_valid():
    assert is_valid({"architecture": {"widths": [8]}, "inference": {"num_steps": 10}})


def test_keys_are_listed_and_selected(cli, refused):
    status, out, err = cli("config", "inference.num_steps")
    assert (status, err) == (0, "")
    assert out.startswith("inference.num_steps: 4000    (integer >= 1)\n    Number of gradient")
    keys = json.loads(cli("config", "nuts", "--json")[1])["keys"]
    names = {key["key"] for key in keys}
    assert {"inference.max_tree_depth", "inference.temperature"} <= names
    assert "inference.num_steps" not in names
    assert "data.name" not in names
    assert "did you mean 'inference'?" in refused("config", "inferense")
    assert "config show" in refused("config", "--set", "seed=1")


def test_the_schema_is_printed(cli):
    assert json.loads(cli("config", "--schema")[1]) == SCHEMA


def test_resolved_configurations_are_shown(cli, tmp_path):
    (tmp_path / "own.yaml").write_text("inference: {name: map}")
    status, out, err = cli("config", "show", "own.yaml", "--set", "seed=3")
    assert (status, err) == (0, "")
    assert out == dump_config(load_config(tmp_path / "own.yaml", ["seed=3"]))
    shown = cli("config", "show", "quickstart")[1]
    (tmp_path / "shown.yaml").write_text(shown)
    assert load_study(tmp_path / "shown.yaml").configs() == load_study("quickstart").configs()


def test_examples_are_listed_and_printed(cli, refused):
    names = [example["name"] for example in json.loads(cli("examples", "--json")[1])["examples"]]
    assert names == [example.name for example in list_examples()]
    assert names[-1].startswith("papers/")
    status, out, _ = cli("examples", "gap_nuts")
    assert (status, yaml.safe_load(out)["inference"]["name"]) == (0, "nuts")
    assert "did you mean 'quickstart'?" in refused("examples", "quickstat")
    assert "bnn-symm examples" in refused("fit", "quickstat")


def test_a_file_takes_precedence_over_an_example(cli, tmp_path):
    (tmp_path / "gap_nuts").write_text("seed: 5")
    assert yaml.safe_load(cli("config", "show", "gap_nuts")[1])["seed"] == 5


def test_a_dry_run_writes_nothing(cli, tmp_path):
    keys = ["data.name=iris", "architecture.widths=[4]", "inference.name=map"]
    status, out, err = cli("fit", "--dry-run", "--set", *keys)
    assert (status, err) == (0, "")
    assert "35 parameters" in out
    content = json.loads(cli("fit", "--dry-run", "--json", "--set", *keys)[1])
    assert content["stages"][0]["gradient_evaluations"] == 4000
    assert list(tmp_path.iterdir()) == []


def test_the_program_alone_prints_its_help(cli):
    assert cli() == cli("--help")
    assert cli()[0] == 0


def test_bash_completes_commands_and_options(cli, refused, tmp_path):
    (tmp_path / "runs").mkdir()
    status, script, _ = cli("--print-completion", "bash")
    assert status == 0
    for words, expected in [
        (["exam"], "examples"),
        (["diagnose", "--js"], "--json"),
        (["diagnose", "run"], "runs"),
    ]:
        line = f"COMP_WORDS=(bnn-symm {' '.join(words)}); COMP_CWORD={len(words)}; _shtab_bnn_symm"
        code = f"{script}\n{line}\necho ${{COMPREPLY[@]}}"
        done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, cwd=tmp_path)
        assert done.stdout.strip() == expected
    assert "expected one of bash" in refused("--print-completion", "ksh")
