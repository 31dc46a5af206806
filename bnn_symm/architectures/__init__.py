"""Define the networks: maps from (point, *input_shape) to (point, num_outputs).

In: a configuration, or a module of the user's. Out: an initialized `torch.nn.Module`. Networks know
nothing of data, priors and likelihoods. Reading order: `config`, `build`, `mlp`, `cnn`, `resnet`,
`gnn`, `layers`, `asymmetric`, `modules`, `module_checks`, `initial_values`, `input_shapes`,
`sequence`, `flops`.
"""

from bnn_symm.architectures.asymmetric.asymmetrize import asymmetrize
from bnn_symm.architectures.asymmetric.figlu import FiGLU
from bnn_symm.architectures.asymmetric.fingerprint import (
    fingerprint,
    fingerprint_of,
    fixed_buffers,
    load_fixed_buffers,
    short_fingerprint,
)
from bnn_symm.architectures.asymmetric.fixed_entries import (
    effective_parameters,
    effective_scales,
    free_parameters,
    weight_shapes,
)
from bnn_symm.architectures.build import build_network
from bnn_symm.architectures.config import (
    ArchitectureConfig,
    CNNConfig,
    GNNConfig,
    MLPConfig,
    ModuleConfig,
    ResNetConfig,
    SymmetryConfig,
)
from bnn_symm.architectures.flops import count_flops
from bnn_symm.architectures.initial_values import initialize
from bnn_symm.architectures.layers.batch_norm import FrozenBatchNorm
from bnn_symm.architectures.layers.dropout import drop_inputs
from bnn_symm.architectures.layers.neighbors import Neighborhood
from bnn_symm.architectures.module_checks import (
    check_function,
    outputs_agree,
    preserve_global_state,
)
from bnn_symm.architectures.modules.batch_norm import (
    BatchNormReport,
    convert_batch_norm,
    estimate_statistics,
    first_inputs,
    freeze_batch_norm,
    frozen_layers,
)
from bnn_symm.architectures.modules.private_copy import (
    constants_differ,
    fix_parameters,
    fixed_parameters,
    private_copy,
)
from bnn_symm.architectures.modules.structure import check_structure
from bnn_symm.architectures.sequence import is_linear, module_sequence

__all__ = [
    "ArchitectureConfig",
    "BatchNormReport",
    "CNNConfig",
    "FiGLU",
    "FrozenBatchNorm",
    "GNNConfig",
    "MLPConfig",
    "ModuleConfig",
    "Neighborhood",
    "ResNetConfig",
    "SymmetryConfig",
    "asymmetrize",
    "build_network",
    "check_function",
    "check_structure",
    "constants_differ",
    "convert_batch_norm",
    "count_flops",
    "drop_inputs",
    "effective_parameters",
    "effective_scales",
    "estimate_statistics",
    "fingerprint",
    "fingerprint_of",
    "first_inputs",
    "fix_parameters",
    "fixed_buffers",
    "fixed_parameters",
    "free_parameters",
    "freeze_batch_norm",
    "frozen_layers",
    "initialize",
    "is_linear",
    "load_fixed_buffers",
    "module_sequence",
    "outputs_agree",
    "preserve_global_state",
    "private_copy",
    "short_fingerprint",
    "weight_shapes",
]
