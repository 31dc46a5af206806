"""The gap to the symmetrized ELBO, against enumerating the group, and at its two ends."""

import itertools
import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bnn_symm.architectures import CNNConfig, MLPConfig, SymmetryConfig, build_network
from bnn_symm.data import Scaling
from bnn_symm.diagnostics.elbo.elbo import Elbo
from bnn_symm.diagnostics.elbo.symmetrized_elbo import SymmetrizedElbo, symmetrized_elbo
from bnn_symm.errors import ConfigError, SymmetryError
from bnn_symm.models import BayesianModel, Categorical, Gaussian, Prior
from bnn_symm.posteriors import GaussianPosterior
from bnn_symm.symmetry import Permutation, PermutationSpec, permutation_spec, symmetry_group
from tests.models.cases import normal
from tests.symmetry.networks import Attention, Transformer

SCALING = Scaling(x_mean=np.zeros(2), x_scale=np.ones(2), y_mean=0.0, y_scale=1.0)
PLAIN = Elbo(
    value=-100.0,
    standard_error=0.3,
    expected_log_likelihood=-90.0,
    kl=10.0,
    num_samples=50,
    by_tensor={},
)


def model_of(config=None, shape=(3,), likelihood=None, **keys) -> BayesianModel:
    config = config or MLPConfig(**keys)
    likelihood = likelihood or Categorical()
    outputs = 2 if isinstance(likelihood, Categorical) else 1
    net = build_network(config, input_shape=shape, num_outputs=outputs).double()
    return BayesianModel(net, Prior(), likelihood)


def posterior_of(model: BayesianModel, apart: float, seed: int = 0) -> GaussianPosterior:
    """Standard deviations about 1, means `apart`."""
    loc = apart * normal(model.num_parameters, seed=seed)
    scale = (0.2 * normal(model.num_parameters, seed=seed + 1)).exp()
    return GaussianPosterior(model, SCALING, loc=loc, scale=scale)


def elements(spec: PermutationSpec) -> Iterator[Permutation]:
    """The whole group of a spec without blocks."""
    orders = [list(itertools.permutations(range(group.size))) for group in spec.groups.values()]
    signed = [name for name, group in spec.groups.items() if group.signed]
    flips = [list(itertools.product((1, -1), repeat=spec.groups[name].size)) for name in signed]
    for chosen in itertools.product(*orders):
        indices = {
            name: torch.tensor(order) for name, order in zip(spec.groups, chosen, strict=True)
        }
        for signs in itertools.product(*flips):
            yield spec.permutation(
                indices,
                {name: torch.tensor(sign) for name, sign in zip(signed, signs, strict=True)},
            )


def enumerated(posterior: GaussianPosterior, num_samples: int) -> tuple[float, float]:
    """The mutual information and its standard error, from the density of q^G as it is defined."""
    spec = permutation_spec(posterior.model.net)
    theta = posterior.draws(num_samples, seed=12345)

    def density(loc: Tensor, scale: Tensor) -> Tensor:
        return torch.distributions.Normal(loc, scale).log_prob(theta).sum(-1)

    copies = [posterior.permute(element) for element in elements(spec)]
    mixture = torch.stack([density(copy.loc, copy.scale) for copy in copies]).logsumexp(
        0
    ) - math.log(len(copies))
    values = density(posterior.loc, posterior.scale) - mixture
    return float(values.mean()), float(values.std()) / math.sqrt(num_samples)


def check_against(found: SymmetrizedElbo, wanted: float, error: float) -> None:
    """Within four standard errors of the difference; a bound may be below."""
    tolerance = 4 * math.hypot(found.mutual_information_standard_error, error) + 1e-9
    assert found.mutual_information < wanted + tolerance
    if found.kind == "exact":
        assert found.mutual_information > wanted - tolerance


@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize("apart", [0.1, 0.7, 2.0])
def test_one_hidden_layer_is_exact(activation, apart):
    units = 4 if activation == "relu" else 3
    model = model_of(widths=(units,), activation=activation, likelihood=Gaussian())
    posterior = posterior_of(model, apart)
    found = symmetrized_elbo(posterior, PLAIN)
    assert found.kind == "exact"
    most = math.factorial(units) * (2**units if activation == "tanh" else 1)
    assert found.log_order == pytest.approx(math.log(most))
    check_against(found, *enumerated(posterior, 1000))
    assert found.value == -100.0 + found.mutual_information
    assert found.standard_error == pytest.approx(
        math.hypot(0.3, found.mutual_information_standard_error)
    )


@pytest.mark.thorough
@pytest.mark.parametrize(
    "keys", [{"widths": (3, 3)}, {"widths": (2, 2), "activation": "tanh"}, {"widths": (2, 3, 2)}]
)
@pytest.mark.parametrize("apart", [0.3, 1.0])
def test_several_layers_are_bounded_from_below_and_not_by_much(keys, apart):
    posterior = posterior_of(model_of(**keys), apart)
    found = symmetrized_elbo(posterior, PLAIN)
    assert found.kind == "lower bound"
    wanted, error = enumerated(posterior, 500)
    check_against(found, wanted, error)
    assert found.mutual_information > 0.4 * wanted
    assert math.fsum(
        share.mutual_information for share in found.by_group.values()
    ) == pytest.approx(found.mutual_information)


@pytest.mark.thorough
def test_over_many_posteriors_no_bound_exceeds_the_exact_value():
    """The mean of 24 standardized differences, of which none should be above 0: 4 standard errors
    of it are allowed."""
    scores = []
    for seed in range(24):
        model = model_of(widths=(6,))
        posterior = posterior_of(model, (0.2, 0.6, 1.5)[seed % 3], seed)
        exact = symmetrized_elbo(posterior, PLAIN, seed=seed)
        bound = symmetrized_elbo(
            posterior, PLAIN, exact_up_to=(2, 3, 5)[seed // 3 % 3], seed=seed + 1000
        )
        assert (exact.kind, bound.kind) == ("exact", "lower bound")
        error = math.hypot(
            exact.mutual_information_standard_error, bound.mutual_information_standard_error
        )
        scores.append((bound.mutual_information - exact.mutual_information) / error)
        assert scores[-1] < 4.5
        assert exact.mutual_information < exact.log_order + 1e-9
    assert np.mean(scores) < 4 / math.sqrt(len(scores))


@pytest.mark.parametrize("keys", [{"widths": (8,)}, {"widths": (20,)}, {"widths": (5, 14)}])
def test_units_that_coincide_have_no_gap(keys):
    """Every unit has the same distribution; at any size this is exact, or a bound that is not above
    0."""
    model = model_of(**keys)
    posterior = GaussianPosterior(
        model,
        SCALING,
        loc=torch.zeros(model.num_parameters).double(),
        scale=torch.full((model.num_parameters,), 0.7).double(),
    )
    found = symmetrized_elbo(posterior, PLAIN)
    assert found.mutual_information == pytest.approx(0, abs=1e-9)
    assert found.mutual_information_standard_error == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(
    ("config", "shape"),
    [
        (MLPConfig(widths=(8,)), (3,)),
        (MLPConfig(widths=(30,), activation="tanh"), (3,)),
        (MLPConfig(widths=(16, 5, 16), norm="layer"), (3,)),
        (CNNConfig(widths=(4, 14), norm="frn"), (1, 4, 4)),
    ],
)
def test_units_far_apart_have_the_largest_gap(config, shape):
    found = symmetrized_elbo(posterior_of(model_of(config, shape), 100.0), PLAIN)
    assert found.mutual_information == pytest.approx(found.log_order, abs=1e-6)
    for share in found.by_group.values():
        assert share.mutual_information == pytest.approx(share.log_order, abs=1e-6)


@pytest.mark.thorough
def test_permuting_a_posterior_changes_nothing():
    for keys in ({"widths": (5,)}, {"widths": (14, 4), "activation": "tanh"}):
        model = model_of(**keys)
        posterior = posterior_of(model, 0.5)
        permuted = posterior.permute(permutation_spec(model.net).random(3))
        before, after = symmetrized_elbo(posterior, PLAIN), symmetrized_elbo(permuted, PLAIN)
        # The permuted posterior has the permuted draws, so that there is no Monte Carlo error
        # between them.
        assert after.mutual_information == pytest.approx(before.mutual_information, abs=1e-9)
        assert after.kind == before.kind


def test_what_no_permutation_moves_plays_no_part():
    model = model_of(widths=(4,), likelihood=Gaussian())
    posterior = posterior_of(model, 0.6)
    loc, scale = posterior.loc.clone(), posterior.scale.clone()
    for name in ("head.bias", "likelihood.log_noise"):
        loc[model.slices()[name]], scale[model.slices()[name]] = 7.0, 0.01
    other = GaussianPosterior(model, SCALING, loc=loc, scale=scale)
    first, second = symmetrized_elbo(posterior, PLAIN), symmetrized_elbo(other, PLAIN)
    assert second.mutual_information == pytest.approx(first.mutual_information, abs=1e-9)


def test_an_asymmetric_network_has_no_gap_and_blocks_have_their_own():
    sparse = SymmetryConfig(kind="weight_asymmetric", fixed_per_row=(2, 2, 0), kappa=1.0)
    found = symmetrized_elbo(
        posterior_of(model_of(MLPConfig(widths=(5, 5), symmetry=sparse), (4,)), 1.0), PLAIN
    )
    assert (found.kind, found.mutual_information, found.log_order, found.value) == (
        "exact",
        0.0,
        0.0,
        -100.0,
    )
    assert found.standard_error == 0.3
    assert "nothing can be permuted" in found.method
    blocks = SymmetryConfig(kind="block_fixed", block=3, fixed_per_row=(2, 0), kappa=1.0)
    posterior = posterior_of(model_of(MLPConfig(widths=(6,), symmetry=blocks), (4,)), 100.0)
    found = symmetrized_elbo(posterior, PLAIN)
    assert found.kind == "exact"
    assert found.log_order == pytest.approx(2 * math.log(6))
    assert found.mutual_information == pytest.approx(2 * math.log(6), abs=1e-6)


def test_heads_that_only_move_together_count_as_fixed():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net: nn.Module = Transformer(lambda width: Attention(width, 2), width=4).double()
    model = BayesianModel(net, Prior(), Categorical())
    spec = permutation_spec(net, (4, 3))
    found = symmetrized_elbo(posterior_of(model, 100.0), PLAIN, group=symmetry_group(net, spec))
    assert found.kind == "lower bound"
    assert 0 < found.mutual_information < found.log_order
    assert "jointly permuted" in found.method


class OneScaleAUnit(BayesianModel):
    """A prior that is narrower for some units of a layer than for others."""

    def log_prior(self, flat):
        return (
            super().log_prior(flat)
            - flat[self.slices()["layers.0.bias"]] @ torch.arange(4).double()
        )


def test_a_prior_that_tells_units_apart_is_refused():
    model = model_of(widths=(4,))
    own = OneScaleAUnit(model.net, model.prior, model.likelihood)
    with pytest.raises(SymmetryError, match="the prior differs between units that can be permuted"):
        symmetrized_elbo(posterior_of(own, 1.0), PLAIN)
    layers = BayesianModel(model.net, Prior(scale="fan_in"), model.likelihood)
    assert symmetrized_elbo(posterior_of(layers, 1.0), PLAIN).kind == "exact"


def test_no_units_at_all_is_refused():
    with pytest.raises(ConfigError, match="exact_up_to: got 0"):
        symmetrized_elbo(posterior_of(model_of(widths=(4,)), 1.0), PLAIN, exact_up_to=0)


@pytest.mark.thorough
def test_more_seeds_agree_within_their_errors():
    posterior = posterior_of(model_of(widths=(5,)), 0.5)
    found = [symmetrized_elbo(posterior, PLAIN, seed=seed) for seed in range(12)]
    values = np.array([one.mutual_information for one in found])
    errors = np.array([one.mutual_information_standard_error for one in found])
    chi_square = (((values - values.mean()) / errors) ** 2).sum()
    # 11 degrees of freedom: 99.9 % are below 31.3, 0.1 % below 1.5.
    assert 1.5 < chi_square < 31.3
