"""Networks: (point, *input_shape) in, (point, num_outputs) out; no data, no prior, no likelihood."""

from bnn_symm.architectures.build import build_network
from bnn_symm.architectures.config import (
    ArchitectureConfig,
    CNNConfig,
    MLPConfig,
    ModuleConfig,
    ResNetConfig,
)
from bnn_symm.architectures.flops import count_flops
from bnn_symm.architectures.initial import initialise

__all__ = [
    "ArchitectureConfig",
    "CNNConfig",
    "MLPConfig",
    "ModuleConfig",
    "ResNetConfig",
    "build_network",
    "count_flops",
    "initialise",
]
