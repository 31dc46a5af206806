import dataclasses

import pytest

from bnn_symm.architectures import (
    CNNConfig,
    MLPConfig,
    ModuleConfig,
    ResNetConfig,
    SymmetryConfig,
    build_network,
    fingerprint,
)
from bnn_symm.architectures.asymmetric.parameter_matched import nearest_widths
from bnn_symm.errors import ConfigError

MATCHED = SymmetryConfig(kind="parameter_matched")


def number(config, input_shape, kind):
    config = dataclasses.replace(config, symmetry=dataclasses.replace(config.symmetry, kind=kind))
    net = build_network(config, input_shape=input_shape, num_outputs=10)
    return sum(parameter.numel() for parameter in net.parameters()), net


@pytest.mark.parametrize(
    ("config", "input_shape"),
    [
        (MLPConfig(), (64,)),
        (MLPConfig(widths=(100, 30, 50), norm="layer"), (20,)),
        (CNNConfig(), (1, 8, 8)),
        (ResNetConfig(), (3, 8, 8)),
        (MLPConfig(symmetry=SymmetryConfig(fixed_per_row=20)), (64,)),
    ],
)
def test_parameters_are_as_many_as_the_free_ones(config, input_shape):
    free, _ = number(config, input_shape, "weight_asymmetric")
    matched, net = number(config, input_shape, "parameter_matched")
    whole, _ = number(config, input_shape, "standard")
    # The step of a width is far above the last single parameter, but all widths may serve: within 2
    # %.
    assert abs(matched - free) <= 0.02 * free
    assert abs(matched - free) < abs(whole - free)
    assert fingerprint(net) is None
    assert not list(net.buffers())


def test_no_step_of_one_width_comes_nearer():
    def count(widths):
        return 5 * widths[0] + widths[0] * widths[1] + 3 * widths[1]

    for wanted in (50, 333, 700):
        best = nearest_widths((30, 20), wanted, count)
        for i in range(2):
            for step in (-1, 1):
                other = list(best)
                other[i] += step
                assert abs(count(tuple(other)) - wanted) >= abs(count(best) - wanted)
    assert nearest_widths((30, 20), count((30, 20)), count) == (30, 20)
    assert nearest_widths((3, 2), 0, count) == (1, 1)


def test_what_cannot_be_narrowed_is_said():
    with pytest.raises(ConfigError, match=r"has none; set architecture.widths"):
        build_network(MLPConfig(widths=(), symmetry=MATCHED), input_shape=(4,), num_outputs=2)
    config = ModuleConfig(
        factory="torch.nn:Linear", keywords={"in_features": 4, "out_features": 2}, symmetry=MATCHED
    )
    with pytest.raises(ConfigError, match="parameter_matched changes the widths of a network"):
        build_network(config, input_shape=(4,), num_outputs=2)
