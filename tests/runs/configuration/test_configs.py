"""Every shipped configuration is valid, has a description, and names existing data."""

import re
from pathlib import Path

import pytest
import yaml

from bnn_symm.architectures import build_network, fingerprint
from bnn_symm.data.registry import dataset_names
from bnn_symm.inference.optimization.optimizer import OptimizationMethod
from bnn_symm.runs.configuration.config import Config, load_config
from bnn_symm.runs.configuration.examples import find_example
from bnn_symm.studies.study import Study, load_study
from bnn_symm.zoo import load_zoo_plan

FOLDER = Path(__file__).parents[3] / "configs"
CONFIGS = sorted(FOLDER.rglob("*.yaml"))
PAPERS = sorted((FOLDER / "papers").glob("*.yaml"))
# Files that a comment describes how to create.
FILES = {"mnist.npz"}
# Sets that users copy to their folder of data.
UCI = {"uci/energy"}
SHAPES = {"mnist.npz": (1, 28, 28), "fashion_mnist": (1, 28, 28), "cifar10": (3, 32, 32)}


def name_of(path):
    return str(path.relative_to(FOLDER).with_suffix(""))


def is_study(path):
    return "study" in (yaml.safe_load(path.read_text(encoding="utf-8")) or {})


def configs_of(path) -> list[Config]:
    """Return all fits that a file describes, or the settings that all networks of a zoo share."""
    if "zoo" in yaml.safe_load(path.read_text(encoding="utf-8")):
        return [load_zoo_plan(path).base]
    if not is_study(path):
        return [load_config(path)]
    study = load_study(path)
    assert isinstance(study, Study)
    return [config for setting in study.settings() for config in setting.configs]


@pytest.mark.parametrize("path", CONFIGS, ids=name_of)
def test_it_parses_and_its_data_are_known(path):
    configs = configs_of(path)
    assert configs
    for config in configs:
        assert config.data.name in {*dataset_names(), *FILES, *UCI}


@pytest.mark.parametrize("path", CONFIGS, ids=name_of)
def test_its_first_line_is_a_description(path):
    first = path.read_text(encoding="utf-8").splitlines()[0]
    assert first.startswith("# ")
    assert len(first) > 30


@pytest.mark.parametrize("path", CONFIGS, ids=name_of)
def test_commands_in_its_comments_name_configurations_that_exist(path):
    text = path.read_text(encoding="utf-8")
    for name in re.findall(r"bnn-symm (?:fit|compare) (\w\S*)", text):
        assert find_example(name).path.exists(), name


def test_configurations_that_were_not_run_state_their_cost():
    assert len(PAPERS) >= 6
    for path in PAPERS:
        text = path.read_text(encoding="utf-8")
        first = text.splitlines()[0]
        assert first.startswith("# Not run here: ")
        assert "GPU hours" in first
        assert "parameters" in text
        assert "differs" in text or "are ours" in text
        assert is_study(path)
        # The number of fits in the first line is the study's.
        assert f" {len(configs_of(path))} fits" in first, path


@pytest.mark.parametrize("path", PAPERS, ids=name_of)
def test_the_epochs_in_comments_are_those_of_the_steps(path):
    config = configs_of(path)[0]
    method = config.inference
    assert isinstance(method, OptimizationMethod)
    assert isinstance(method.batch_size, int)
    # 60,000 or 50,000 training points, less the validation split.
    points = {"cifar10": 45_000, "fashion_mnist": 54_000, "mnist.npz": 54_000}[config.data.name]
    per_epoch = -(-points // method.batch_size)
    epochs = method.num_steps / per_epoch
    assert epochs == int(epochs)
    assert f"{int(epochs)} epochs of {per_epoch}" in path.read_text(encoding="utf-8")


@pytest.mark.thorough
@pytest.mark.parametrize("path", PAPERS, ids=name_of)
def test_their_networks_can_be_built(path):
    """Masks fit the layers, and patterns of the prior name parameters."""
    seen = set()
    for setting in load_study(path).settings():
        config = setting.configs[0]
        # Wider ones take seconds each and have the same layers; width 8 is built below.
        if getattr(config.architecture, "width_multiplier", 1) > 2 or config.architecture in seen:
            continue
        seen.add(config.architecture)
        net = build_network(
            config.architecture, input_shape=SHAPES[config.data.name], num_outputs=10
        )
        sizes = {key: value.numel() for key, value in net.named_parameters()}
        config.prior.bind(dict.fromkeys(sizes, 1), sizes)
        has_fixed = config.architecture.symmetry.kind not in (
            "standard",
            "init_matched",
            "parameter_matched",
        )
        assert (fingerprint(net) is not None) == has_fixed


@pytest.mark.thorough
def test_fixed_entries_at_width_8_are_those_of_the_paper():
    """Three times those of width 1 a row, but for the first layer.

    By hand: 12 x 128 + 6 x 108 x 128 + 6 x 162 x 256 + 18 x 256 + 6 x 216 x 512 + 24 x 512 + 24 x
        10 = 1,014,000.
    """
    study = load_study(FOLDER / "papers" / "lim2024_resnet20_width8_cifar10.yaml")
    kinds = {setting.kind: setting.configs[0].architecture for setting in study.settings()}
    counts = {}
    for kind in ("standard", "weight_asymmetric"):
        net = build_network(kinds[kind], input_shape=SHAPES["cifar10"], num_outputs=10)
        counts[kind] = sum(parameter.numel() for parameter in net.parameters())
    assert counts["standard"] == 17_289_866
    assert counts["standard"] - counts["weight_asymmetric"] == 1_014_000
