"""Invalid settings raise one sentence that names the setting, in every settings class."""

import dataclasses
import inspect
import pydoc

import pytest

from bnn_symm.architectures import CNNConfig, MLPConfig, ModuleConfig, SymmetryConfig
from bnn_symm.data import DataConfig
from bnn_symm.errors import ConfigError
from bnn_symm.inference import HMC, DeepEnsemble, MeanFieldVI
from bnn_symm.models import Gaussian, Prior
from bnn_symm.runs.configuration.config import CheckpointConfig, Config


@pytest.mark.parametrize(
    ("cls", "keywords", "words"),
    [
        (MeanFieldVI, {"num_step": 1}, ("num_step", "'num_steps'")),
        (HMC, {"num_drawz": 1}, ("'num_draws'",)),
        (DeepEnsemble, {"members": 3}, ("'num_members'",)),
        (Prior, {"scal": 1.0}, ("'scale'",)),
        (MeanFieldVI, {"num_steps": -3}, ("num_steps", "-3", "greater")),
        (MeanFieldVI, {"temperature": float("nan")}, ("temperature", "finite")),
        (Gaussian, {"noise": "learnt"}, ("noise", "'learned'")),
        (MLPConfig, {"widths": (64, 0)}, ("widths", "0")),
        (MLPConfig, {"widths": (True,)}, ("widths", "True", "number")),
        (MeanFieldVI, {"num_steps": True}, ("num_steps", "True", "number")),
        (MLPConfig, {"activation": "Relu"}, ("activation", "'relu'")),
        (CNNConfig, {"symmetry": "weight_asymmetric"}, ("symmetry", "SymmetryConfig")),
        (SymmetryConfig, {"kind": "asymmetric"}, ("kind", "weight_asymmetric")),
        (ModuleConfig, {}, ("factory", "missing")),
        (DataConfig, {"test_fraction": 2}, ("test_fraction", "less")),
        (CheckpointConfig, {"every": "often"}, ("every", "often", "seconds")),
        (Config, {"inference": 3}, ("inference", "3")),
    ],
)
def test_wrong_settings(cls, keywords, words) -> None:
    with pytest.raises(ConfigError) as caught:
        cls(**keywords)
    message = str(caught.value)
    assert message.startswith(cls.__name__)
    assert all(word in message for word in words), message
    assert len(message) <= 300
    assert "\n" not in message
    assert "pydantic" not in message


def test_settings_go_by_name() -> None:
    with pytest.raises(ConfigError, match=r"MLPConfig: got \(3,\) without a name"):
        MLPConfig((3,))  # pyright: ignore[reportCallIssue]


def test_a_changed_copy_is_checked_too() -> None:
    with pytest.raises(ConfigError, match="num_steps"):
        dataclasses.replace(MeanFieldVI(), num_steps=0)


def test_a_long_value_is_cut() -> None:
    with pytest.raises(ConfigError) as caught:
        MLPConfig(activation="relu" * 10_000)  # pyright: ignore[reportArgumentType]
    assert len(str(caught.value)) <= 300


def test_help_shows_all_settings_with_their_defaults_and_nothing_of_pydantic():
    text = pydoc.plain(pydoc.render_doc(MeanFieldVI))
    assert "num_steps: int = 4000" in text
    assert "pydantic" not in text
    described = inspect.getdoc(MeanFieldVI)
    for field in dataclasses.fields(MeanFieldVI):
        assert field.name == "name" or f"    {field.name}: " in described
