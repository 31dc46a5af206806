"""Bayesian neural network inference that takes weight-space symmetry seriously.

The names below are the public interface; each is imported from its own module when it is first
used, so that `import bnn_symm` costs nothing. Functions check the types of their arguments
(`arguments.checked`).
"""

from importlib import import_module
from inspect import isfunction
from typing import Any

_PUBLIC = {
    "bnn_symm.errors": ("BnnSymmError",),
    "bnn_symm.data": ("Dataset", "load_dataset"),
    "bnn_symm.architectures": (
        "CNNConfig",
        "MLPConfig",
        "ModuleConfig",
        "ResNetConfig",
        "SymmetryConfig",
        "asymmetrize",
        "build_network",
    ),
    "bnn_symm.symmetry": (
        "Permutation",
        "PermutationSpec",
        "SymmetryGroup",
        "permutation_spec",
        "symmetry_group",
    ),
    "bnn_symm.models": (
        "BayesianModel",
        "Bernoulli",
        "Categorical",
        "Gaussian",
        "HeteroscedasticGaussian",
        "Poisson",
        "Prior",
        "PriorMean",
    ),
    "bnn_symm.posteriors": (
        "GaussianPosterior",
        "LowRankGaussianPosterior",
        "Posterior",
        "Predictive",
        "SamplePosterior",
        "match_names",
        "read_netcdf",
    ),
    "bnn_symm.inference": (
        "HMC",
        "MAP",
        "NUTS",
        "SGHMC",
        "SGLD",
        "SWAG",
        "ChEESHMC",
        "CyclicalSGHMC",
        "DeepEnsemble",
        "LaplaceApproximation",
        "LowRankVI",
        "MCDropout",
        "MeanFieldVI",
        "SymmetrizedVI",
    ),
    "bnn_symm.alignment": (
        "align",
        "align_samples",
        "align_sequences",
        "canonicalize",
        "merge",
        "synchronize",
    ),
    "bnn_symm.diagnostics": (
        "barrier",
        "chain_statistics",
        "elbo",
        "mixing",
        "out_of_distribution",
        "reliability",
        "score",
        "scores_with_intervals",
        "shift_curve",
        "simplex_barrier",
        "simulation_based_calibration",
        "symmetrized_elbo",
        "symmetry_defect",
        "verdicts",
    ),
    "bnn_symm.runs": (
        "Config",
        "Run",
        "fit_run",
        "foreign_run",
        "import_run",
        "load_config",
        "load_run",
        "parse_config",
        "resume_run",
    ),
    "bnn_symm.studies": ("load_study", "run_study"),
    "bnn_symm.estimators": ("BNNClassifier", "BNNRegressor"),
}
_MODULE_OF = {name: module for module, names in _PUBLIC.items() for name in names}

__all__ = sorted(_MODULE_OF)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'bnn_symm' has no attribute {name!r}")
    value = getattr(import_module(_MODULE_OF[name]), name)
    if isfunction(value):
        from bnn_symm.arguments import checked

        value = checked(value)
        value.__module__, value.__qualname__ = (
            __name__,
            name,
        )  # so that it can be pickled by this name
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
