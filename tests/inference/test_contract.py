"""What every method promises, whatever it computes: one battery for all."""

from typing import get_args

import pytest

from bnn_symm.architectures import CNNConfig, MLPConfig, SymmetryConfig, build_network
from bnn_symm.data import load_dataset
from bnn_symm.errors import FitDiverged
from bnn_symm.inference import (
    HMC,
    IVON,
    MAP,
    MCLMC,
    NUTS,
    SGHMC,
    SGLD,
    SGMCLMC,
    SWAG,
    AnyMethod,
    Automatic,
    ChEESHMC,
    CyclicalSGHMC,
    DeepEnsemble,
    IterativePruning,
    LaplaceApproximation,
    LowRankVI,
    MCDropout,
    MeanFieldVI,
    Mixture,
    PermutationTraining,
    RMSprop,
    SymmetrizedVI,
)
from bnn_symm.models import BayesianModel, Categorical, Prior
from bnn_symm.testing import MethodContract

CHAINS = {"num_chains": 2, "num_warmup": 12, "num_draws": 10}
PARTS = {"num_chains": 2, "chain_method": "sequential", "log_every": 7}
SEQUENTIAL = {"learning_rate": 0.01, **PARTS}
EVENLY_SPACED = {"num_warmup": 12, "num_draws": 6, "thinning": 2}
MINIBATCHES = {**EVENLY_SPACED, **SEQUENTIAL}
PYRO = {**CHAINS, "engine": "pyro", "chain_method": "sequential"}
STEPS = {"num_steps": 24, "log_every": 7}
GAUSSIAN = {**STEPS, "num_draws": 5}
MEMBERS = {"num_members": 2, "chain_method": "sequential"}
METHODS = [
    MeanFieldVI(**GAUSSIAN),
    MeanFieldVI(estimator="weight", num_samples=3, **GAUSSIAN),
    MeanFieldVI(estimator="flipout", num_samples=3, **GAUSSIAN),
    LowRankVI(**GAUSSIAN),
    LowRankVI(estimator="flipout", num_samples=3, learn_diagonal=False, **GAUSSIAN),
    SymmetrizedVI(exact_up_to=3, num_information_samples=2, **GAUSSIAN),
    IVON(**GAUSSIAN),
    IVON(estimator="weight", num_samples=1, beta_2=0.9, **GAUSSIAN),
    MAP(**STEPS),
    DeepEnsemble(num_members=2, chain_method="sequential", **STEPS),
    IterativePruning(num_levels=2, rewind_step=5, batch_size=32, **STEPS),
    LaplaceApproximation(**GAUSSIAN),
    LaplaceApproximation(predictive="sampled", **GAUSSIAN),
    LaplaceApproximation(structure="last_layer", **GAUSSIAN),
    LaplaceApproximation(structure="last_layer", predictive="sampled", **GAUSSIAN),
    LaplaceApproximation(structure="kronecker", **GAUSSIAN),
    LaplaceApproximation(structure="kronecker", predictive="sampled", **GAUSSIAN),
    LaplaceApproximation(structure="subnetwork", subnetwork_size=20, **GAUSSIAN),
    LaplaceApproximation(
        structure="subnetwork", subnetwork_size=20, predictive="sampled", **GAUSSIAN
    ),
    LaplaceApproximation(structure="full", **GAUSSIAN),
    LaplaceApproximation(structure="full", predictive="sampled", **GAUSSIAN),
    SWAG(rank=3, **GAUSSIAN),
    MCDropout(**GAUSSIAN),
    PermutationTraining(period=5, chain_method="sequential", **STEPS),
    Mixture(member=MeanFieldVI(**GAUSSIAN), **MEMBERS),
    Mixture(member=SWAG(rank=3, **GAUSSIAN), **MEMBERS),
    HMC(max_num_steps=5, **CHAINS),
    NUTS(max_tree_depth=3, **CHAINS),
    NUTS(max_tree_depth=2, adaptation="per_chain", mass_matrix="dense", **CHAINS),
    ChEESHMC(max_num_steps=5, **CHAINS | {"num_chains": 4}),
    MCLMC(steps_per_draw=3, **CHAINS),
    MCLMC(adjusted=True, max_num_steps=4, **CHAINS),
    SGLD(preconditioner=RMSprop(), schedule="polynomial", **MINIBATCHES),
    SGHMC(batch_size=32, **MINIBATCHES),
    SGMCLMC(batch_size=32, **EVENLY_SPACED, **PARTS),
    CyclicalSGHMC(num_cycles=2, cycle_steps=20, exploration=0.5, draws_per_cycle=3, **SEQUENTIAL),
    HMC(max_num_steps=3, **PYRO),
    NUTS(max_tree_depth=2, **PYRO),
]


def name_of(method) -> str:
    variants = ("estimator", "structure", "predictive", "adaptation", "engine")
    parts = [method.name, *(getattr(method, name, "") for name in variants)]
    parts.append(getattr(getattr(method, "member", None), "name", ""))
    parts.append("adjusted" if getattr(method, "adjusted", False) else "")
    return "-".join(part for part in parts if part)


class Contract(MethodContract):
    # In the warm-up, after it, and in the second chain where chains run one after another.
    stops = (3, 14, 13)

    # A residual network with fixed entries, which has convolutions, is fitted in the fast tests.
    @pytest.mark.thorough
    def test_asymmetric_convolutions(self):
        super().test_asymmetric_convolutions()

    @pytest.mark.thorough
    @pytest.mark.parametrize(
        ("architecture", "kind"),
        [(MLPConfig, "sigma_asymmetric"), (CNNConfig, "weight_asymmetric")],
    )
    def test_further_asymmetric_networks(self, architecture, kind):
        symmetry = SymmetryConfig(kind=kind)
        self.check_asymmetric_network(architecture(widths=(4, 3), dropout=0.2, symmetry=symmetry))


# One class for each method, so that the checks of a method, which share a fit, run in succession.
# Of the variants of a method, the first one is in the fast tests.
seen = set()
for method in METHODS:
    name = "Test_" + name_of(method).replace("-", "_")
    globals()[name] = type(
        name,
        (Contract,),
        {
            "method": method,
            "pytestmark": [
                # A warning on purpose, which is tested with the method.
                pytest.mark.filterwarnings("ignore:laplace with structure=diagonal"),
                *([pytest.mark.thorough] if type(method) in seen else []),
            ],
            # From the network's initial values with all data, nothing in a mode is random.
            "is_random": method.name != "map",
            # The first row of these is the end of the warm-up.
            "history_shows_start": method.name not in ("hmc", "nuts", "mclmc"),
        },
    )
    seen.add(type(method))


def test_every_method_is_in_this_battery():
    every = set(get_args(get_args(AnyMethod)[0]))
    assert {type(method) for method in METHODS} == every - {Automatic}  # it stands for others


@pytest.mark.parametrize("method", METHODS[-2:], ids=name_of)
def test_a_start_of_density_zero_is_an_error(method):
    broken = load_dataset("iris")
    broken.train.x[0] = 1e38  # finite, but no output of the network is
    net = MLPConfig(widths=(4,), norm="layer")
    model = BayesianModel(
        build_network(net, input_shape=broken.input_shape, num_outputs=3), Prior(), Categorical()
    )
    with pytest.raises(FitDiverged, match="log density is not finite where chain 0 starts"):
        method.fit(model, broken, seed=0)
