"""Shares of a barrier sum to it, and a planted cause has the whole of it."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bnn_symm.alignment import align, align_continuous
from bnn_symm.alignment.transport import Transport, transport_posterior
from bnn_symm.architectures import MLPConfig, SymmetryConfig, build_network, freeze_batch_norm
from bnn_symm.diagnostics.barriers.barriers import barrier
from bnn_symm.diagnostics.barriers.decomposition import (
    REMAINDER,
    BarrierDecomposition,
    BarrierShare,
    decompose_barrier,
    mean_decomposition,
)
from bnn_symm.errors import ConfigError
from bnn_symm.models import BayesianModel, Categorical, Gaussian, Prior
from bnn_symm.posteriors import Posterior, SamplePosterior
from bnn_symm.symmetry import symmetry_group
from tests.diagnostics.barriers.test_barriers import dataset, gaussian, model_of
from tests.diagnostics.barriers.test_temperature_scaled import DATA, data_of, linear_classifier
from tests.models.cases import normal


class Residual(nn.Module):
    """A residual network with batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.inner, self.outer = nn.Linear(3, 4), nn.Linear(4, 5), nn.Linear(5, 4)
        self.norm, self.head = nn.BatchNorm1d(5), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        stream = self.stem(x)
        return self.head(stream + self.outer(self.norm(self.inner(stream)).relu()))


def point(model: BayesianModel, seed: int) -> SamplePosterior:
    return SamplePosterior.from_draws(model, 3 * normal(1, 1, model.num_parameters, seed=seed))


def asymmetric(kind: str) -> BayesianModel:
    keys = {"fixed_per_row": (1, 0)} if kind == "weight_asymmetric" else {}
    config = MLPConfig(widths=(3,), symmetry=SymmetryConfig(kind=kind, **keys))
    net = build_network(config, input_shape=(3,), num_outputs=3)
    return BayesianModel(net.double(), Prior(), Categorical())


def residual() -> BayesianModel:
    net = freeze_batch_norm(Residual().double(), DATA.train.x)
    return BayesianModel(net, Prior(), Categorical())


SETTINGS = {
    "tanh": lambda: [gaussian(model_of("tanh"), seed, size=3.0) for seed in (1, 2)],
    "relu": lambda: [gaussian(model_of("relu"), seed, size=3.0) for seed in (1, 2)],
    "W-asymmetric": lambda: [
        gaussian(asymmetric("weight_asymmetric"), seed, size=3.0) for seed in (1, 2)
    ],
    "sigma-asymmetric": lambda: [
        gaussian(asymmetric("sigma_asymmetric"), seed, size=3.0) for seed in (1, 2)
    ],
    "residual": lambda: [point(model, seed) for model in [residual()] for seed in (1, 2)],
    "points": lambda: [point(model_of(), seed) for seed in (1, 2)],
}


def aligned_to(first: Posterior, second: Posterior) -> Posterior:
    group = symmetry_group(first.model.net, move_statistics=True)
    return align(first, second, group=group, restarts=0).apply(second)


def decomposed(first: Posterior, second: Posterior, data=DATA, **keys) -> BarrierDecomposition:
    ways = {"naive": (first, second), "permutation": (first, aligned_to(first, second))}
    return decompose_barrier(ways, data, num_draws=20, **keys)


@pytest.mark.thorough
@pytest.mark.parametrize("name", SETTINGS)
def test_shares_sum_to_the_naive_barrier(name) -> None:
    first, second = SETTINGS[name]()
    own = decomposed(first, second)
    assert sum(share.value for share in own.shares.values()) == pytest.approx(
        own.barrier.value, abs=1e-9
    )
    # The barrier itself, measured at the same position with the same draws, and with other draws.
    for seed in (0, 1):
        curve = barrier(first, second, DATA, num_draws=20, seed=seed).test
        nll = np.interp(own.tau, curve.tau, curve.marginal_nll)
        naive = nll - (1 - own.tau) * curve.marginal_nll[0] - own.tau * curve.marginal_nll[-1]
        if seed == 0:
            assert own.barrier.value == pytest.approx(naive, abs=1e-9)
        error = np.hypot(own.barrier.standard_error, curve.standard_error)
        assert abs(sum(share.value for share in own.shares.values()) - naive) <= 2 * error
    is_point = name in ("residual", "points")
    assert ("spread" in own.left_out) == is_point
    assert ("statistics" in own.shares) == (name == "residual")
    assert list(own.shares)[-1] == "remainder"
    if "asymmetric" in name:  # nothing is left to permute
        assert own.shares["permutation"].value == pytest.approx(0, abs=1e-9)


def assert_all_in(own: BarrierDecomposition, cause: str) -> None:
    assert abs(own.barrier.value) > 0.01
    for name, share in own.shares.items():
        expected = own.barrier.value if name == cause else 0.0
        assert share.value == pytest.approx(expected, abs=1e-5), name


def test_a_permuted_copy_has_a_barrier_of_permutation_only() -> None:
    first = gaussian(model_of("relu"), 0, size=3.0)
    data = data_of(lambda x: first.model.outputs(first.loc, x))
    permuted = first.permute(symmetry_group(first.model.net).random("plant"))
    assert_all_in(decomposed(first, permuted, data), "permutation")


def test_a_rescaled_copy_has_a_barrier_of_scales_only() -> None:
    first = point(model_of("relu"), 0)
    data = data_of(lambda x: first.model.outputs(first.mean(), x))
    group = symmetry_group(first.model.net)
    name, units = next(iter(group.spec.groups.items()))
    factors = {name: torch.linspace(2.0, 4.0, units.size, dtype=torch.float64)}
    second = transport_posterior(first, Transport(group.spec, factors))
    found = align_continuous(
        first, second, ["permutation", "scale"], first=group.spec.identity(), group=group
    )
    ways = {
        "naive": (first, second),
        "permutation": (first, second.permute(found.permutation)),
        "scale": (first, found.apply(second)),
    }
    assert found.permutation.is_identity
    assert_all_in(decompose_barrier(ways, data), "scale")


def test_a_larger_last_layer_has_a_barrier_of_confidence_only() -> None:
    """Below the chord, since the NLL is convex in the scale of the logits."""
    own = decompose_barrier({"naive": (linear_classifier(), linear_classifier(4.0))}, DATA)
    assert own.tau == 0.5  # where nothing is above the chord
    assert own.barrier.value < 0
    assert_all_in(own, "confidence")
    factors = [temperature / own.temperatures[0] for temperature in own.temperatures]
    assert factors == pytest.approx([1, 2.5, 4], rel=1e-3)


def test_equal_runs_have_no_shares() -> None:
    first = gaussian(model_of(), 1)
    own = decomposed(first, first)
    assert own.tau == 0.5
    for share in (own.barrier, *own.shares.values()):
        assert (share.value, share.standard_error) == pytest.approx((0, 0), abs=1e-9)


def test_what_a_common_start_removes_is_the_share_of_the_initialization() -> None:
    """A control that is the first posterior again leaves nothing; one that is the second, all."""
    first, second = gaussian(model_of(), 1), gaussian(model_of(), 2)
    plain, aligned = decomposed(first, second), aligned_to(first, second)
    for control, share in ((first, "initialization"), (aligned, REMAINDER)):
        own = decomposed(first, second, control=(first, control))
        assert list(own.shares) == [*list(plain.shares)[:-1], "initialization", REMAINDER]
        assert "initialization" not in own.left_out
        assert sum(each.value for each in own.shares.values()) == pytest.approx(own.barrier.value)
        other = "initialization" if share == REMAINDER else REMAINDER
        assert own.shares[other].value == pytest.approx(0, abs=1e-9)
        assert own.shares[share].value == pytest.approx(plain.shares[REMAINDER].value)
        assert own.shares[share].standard_error == pytest.approx(
            plain.shares[REMAINDER].standard_error
        )


@pytest.mark.thorough
def test_steps_that_do_not_apply_are_left_out_with_their_reasons() -> None:
    model = model_of(likelihood=Gaussian(noise=0.1), outputs=1)
    data = dataset(normal(9, 3), normal(9), task="regression")
    own = decomposed(gaussian(model, 1), gaussian(model, 2), data)
    assert list(own.shares) == ["permutation", "spread", "remainder"]
    assert set(own.left_out) == {"initialization", "statistics", "confidence"}
    assert set(own.to_dict()) == {"tau", "barrier", "shares", "left_out", "temperatures"}
    with_statistics = decomposed(gaussian(model, 1), gaussian(model, 2), data, repair=True)
    assert list(with_statistics.shares) == ["permutation", "statistics", "spread", "remainder"]
    with pytest.raises(ConfigError, match="no hidden layer"):
        decompose_barrier({"naive": (linear_classifier(), linear_classifier())}, DATA, repair=True)


def test_standard_errors_over_runs_are_those_of_the_jackknife() -> None:
    """If each run adds a number of its own, the mean is twice that of the runs."""
    own = np.array([0.1, 0.5, 0.4, 0.9])
    pairs = {
        (i, j): BarrierDecomposition(
            tau=0.5,
            barrier=BarrierShare(value=own[i] + own[j], standard_error=0.0),
            shares={"remainder": BarrierShare(value=own[i] + own[j], standard_error=0.0)},
            left_out={},
        )
        for i in range(4)
        for j in range(i)
    }
    mean = mean_decomposition(pairs)
    expected = (2 * own.mean(), 2 * own.std(ddof=1) / 2)
    for share in (mean.barrier, mean.shares["remainder"]):
        assert (share.value, share.standard_error) == pytest.approx(expected)
