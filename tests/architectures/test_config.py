import pytest
from pydantic import TypeAdapter, ValidationError

from bnn_symm.architectures import (
    ArchitectureConfig,
    CNNConfig,
    MLPConfig,
    ModuleConfig,
    ResNetConfig,
)

ADAPTER = TypeAdapter(ArchitectureConfig)


@pytest.mark.parametrize(
    ("section", "config"),
    [
        ({"name": "mlp"}, MLPConfig()),
        ({"name": "mlp", "widths": []}, MLPConfig(widths=())),
        ({"name": "cnn", "widths": [8], "norm": "frn"}, CNNConfig(widths=(8,), norm="frn")),
        ({"name": "resnet", "depth": 32}, ResNetConfig(depth=32)),
        (
            {"name": "module", "factory": "a:b", "keywords": {"width": 3}},
            ModuleConfig(factory="a:b", keywords={"width": 3}),
        ),
    ],
)
def test_the_name_chooses_the_class_and_a_section_survives_a_round_trip(
    section: dict, config: object
) -> None:
    assert ADAPTER.validate_python(section) == config
    assert ADAPTER.validate_json(ADAPTER.dump_json(config)) == config


@pytest.mark.parametrize(
    "section",
    [
        {"name": "transformer"},
        {"name": "mlp", "widths": [0]},
        {"name": "mlp", "depth": 20},
        {"name": "mlp", "norm": "frn"},
        {"name": "resnet", "depth": 21},
        {"name": "resnet", "norm": "none"},
        {"name": "module"},
        {"name": "module", "factory": "a:b", "keywords": {"not a name": 1}},
    ],
)
def test_wrong_sections_are_refused(section: dict) -> None:
    with pytest.raises(ValidationError):
        ADAPTER.validate_python(section)
