"""The four views, on chains whose modes are known."""

import numpy as np
import pytest
import torch
from torch import nn

from bnn_symm.alignment.samples import prior_draws
from bnn_symm.architectures import MLPConfig, SymmetryConfig, build_network
from bnn_symm.data import Split
from bnn_symm.diagnostics.mixing.chain_statistics import independent_rhat
from bnn_symm.diagnostics.mixing.interpretation import MixingVerdict, ViewVerdict, verdicts
from bnn_symm.diagnostics.mixing.mixing import Mixing, mixing
from bnn_symm.diagnostics.mixing.parameter_index import ParameterIndex
from bnn_symm.diagnostics.mixing.sampler_statistics import sampler_statistics
from bnn_symm.inference import NUTS
from bnn_symm.models import BayesianModel, Categorical, Gaussian, Poisson, Prior
from bnn_symm.posteriors import SamplePosterior
from bnn_symm.symmetry import permutation_spec

CHAINS, DRAWS = 4, 200


def model_of(widths=(6, 5), activation="relu", symmetry=None, outputs=3) -> BayesianModel:
    config = MLPConfig(widths=widths, activation=activation, symmetry=symmetry or SymmetryConfig())
    net = build_network(config, input_shape=(4,), num_outputs=outputs, seed=0)
    likelihood = Categorical() if outputs > 1 else Gaussian(noise=0.5)
    return BayesianModel(net.double(), Prior(), likelihood)


def points(classes: int = 3) -> Split:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(20, 4, generator=generator, dtype=torch.float64)
    return Split(x=x, y=torch.arange(20) % classes)


def around(
    model: BayesianModel, centers: torch.Tensor, seed: int = 2, spread: float = 0.05
) -> SamplePosterior:
    """Independent draws around a center a chain."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(
        len(centers), DRAWS, model.num_parameters, generator=generator, dtype=torch.float64
    )
    return SamplePosterior.from_draws(model, centers[:, None] + spread * noise)


def one_mode(model: BayesianModel, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(model.num_parameters, generator=generator, dtype=torch.float64)


def statuses(found: Mixing) -> dict[str, str]:
    return {name: view.status for name, view in found.views.items()}


@pytest.mark.thorough
def test_independent_draws_of_one_mode_pass_everywhere():
    model = model_of(widths=(4,))
    found = mixing(around(model, one_mode(model).expand(CHAINS, -1)), points())
    assert repr(found).startswith(f"Mixing(chains={CHAINS}, draws=")
    for whole in (found, found.aligned, found.values, found.aligned.agreement):
        assert "array" not in repr(whole)
        assert len(repr(whole)) < 1000
    assert set(statuses(found).values()) == {"pass"}
    assert list(statuses(found)) == ["raw", "aligned", "aligned_per_draw", "chainwise", "function"]
    assert [
        modes.count for modes in (found.raw_modes, found.aligned_modes, found.function_modes)
    ] == [1, 1, 1]
    verdict = verdicts(found)
    assert verdict.usable is True
    assert verdict.next is None


@pytest.mark.thorough
def test_autocorrelated_chains_of_one_mode_are_held_against_their_effective_draws():
    """Dependent draws reach an R-hat that independent ones would not; ESS decides about them."""
    model, length = model_of(widths=(4,)), 500
    noise = torch.randn(
        CHAINS, length, model.num_parameters, generator=torch.Generator().manual_seed(2)
    ).double()
    for t in range(1, length):
        noise[:, t] = 0.5 * noise[:, t - 1] + 0.75**0.5 * noise[:, t]
    draws = one_mode(model) + 0.05 * noise
    found = mixing(SamplePosterior.from_draws(model, draws), points(), per_draw=False)
    assert found.raw.rhat_max is not None
    assert found.raw.rhat_max > independent_rhat(CHAINS, length, len(found.raw.rhat))
    assert "fail" not in statuses(found).values()
    assert verdicts(found).usable is True


@pytest.mark.parametrize("activation", ["relu", pytest.param("tanh", marks=pytest.mark.thorough)])
def test_permuted_chains_fail_raw_and_are_as_they_were_once_aligned(activation):
    model = model_of(activation=activation)
    before = around(model, one_mode(model).expand(CHAINS, -1))
    spec = permutation_spec(model.net)
    after = before.permute_chains([spec.random(seed) for seed in range(CHAINS)])
    original, permuted = (mixing(each, points(), per_draw=False) for each in (before, after))
    assert permuted.raw.rhat_max is not None
    assert permuted.raw.rhat_max > 2
    assert statuses(permuted) == {**statuses(original), "raw": "fail"}
    assert permuted.aligned is not None
    # Aligned chains share a numbering, which need not be that of the chains before: the values are
    # the same ones.
    np.testing.assert_allclose(
        np.sort(permuted.aligned.view.rhat), np.sort(original.raw.rhat), atol=1e-10
    )
    np.testing.assert_allclose(permuted.function.rhat, original.function.rhat, atol=1e-10)
    np.testing.assert_allclose(permuted.function.ess_bulk, original.function.ess_bulk, rtol=1e-10)
    assert permuted.raw_modes is not None
    assert permuted.aligned_modes is not None
    assert (permuted.raw_modes.count, permuted.aligned_modes.count) == (CHAINS, 1)
    assert verdicts(permuted).views["raw"].kind is ViewVerdict.NUMBERING
    assert verdicts(permuted).usable is True


@pytest.mark.thorough
def test_function_view_of_float32_chains_is_unchanged_by_permuting():
    model = model_of()
    model = BayesianModel(model.net.float(), Prior(), Categorical())
    center = one_mode(model).float()
    noise = 0.05 * torch.randn(
        2, 60, model.num_parameters, generator=torch.Generator().manual_seed(0)
    )
    before = SamplePosterior.from_draws(model, center + noise)
    spec = permutation_spec(model.net)
    part = Split(x=points().x.float(), y=points().y)
    after = before.permute_chains([spec.identity(), spec.random(3)])
    one, other = (mixing(each, part, per_draw=False) for each in (before, after))
    np.testing.assert_allclose(one.function.rhat, other.function.rhat, atol=1e-10)


@pytest.mark.thorough
def test_different_true_modes_fail_all_but_chainwise_and_the_verdict_says_why():
    model = model_of()
    centers = torch.stack([one_mode(model, seed) for seed in range(CHAINS)])
    found = mixing(around(model, centers), points(), per_draw=False)
    assert statuses(found) == {
        "raw": "fail",
        "aligned": "fail",
        "chainwise": "pass",
        "function": "fail",
    }
    assert found.aligned is not None
    for view in (found.raw, found.aligned.view, found.function):
        assert view.rhat_max is not None
        assert view.rhat_max > 2
    assert found.chainwise.rhat_max is not None
    assert found.chainwise.rhat_max < 1.06
    assert found.aligned_modes is not None
    assert found.aligned_modes.count == CHAINS
    verdict = verdicts(found)
    assert verdict.usable is False
    assert verdict.kind is MixingVerdict.DIFFERENT_MODES


def test_weights_that_do_not_matter_differ_while_functions_agree():
    """A relu unit's incoming weights doubled and its outgoing ones halved: no permutation, and the
    same function."""
    model = model_of(widths=(6,))
    posterior = around(model, one_mode(model).expand(2, -1))
    values = model.unflatten(torch.stack([posterior.read(c, 0, DRAWS) for c in range(2)]))
    values = {name: value.clone() for name, value in values.items()}
    names = list(values)
    for name, factor in zip(names, (2.0, 2.0, 0.5), strict=False):
        values[name][1] *= factor
    found = mixing(SamplePosterior.from_draws(model, values), points(), per_draw=False)
    assert (found.raw.status, found.function.status) == ("fail", "pass")
    assert found.aligned is not None
    assert found.aligned.view.status == "fail"
    verdict = verdicts(found)
    assert verdict.usable is True
    assert verdict.kind is MixingVerdict.AGREE
    assert verdict.views["raw"].kind is ViewVerdict.DIFFER


@pytest.mark.thorough
def test_a_drifting_chain_is_named():
    model = model_of()
    posterior = around(model, one_mode(model).expand(CHAINS, -1))
    draws = torch.stack([posterior.read(c, 0, DRAWS) for c in range(CHAINS)])
    draws[2] += torch.linspace(0, 1, DRAWS, dtype=torch.float64)[:, None]
    found = mixing(SamplePosterior.from_draws(model, draws), points(), per_draw=False)
    assert found.chainwise.status == "fail"
    assert found.by_chain[2] is not None
    assert found.by_chain[2] > 1.5
    assert all(
        rhat is not None and rhat < found.chainwise.threshold
        for rhat in np.delete(found.by_chain, 2)
    )
    assert verdicts(found).kind is MixingVerdict.NOT_STATIONARY
    assert verdicts(found).views["chainwise"].kind is ViewVerdict.DIFFER


def test_a_single_chain_that_drifts_is_reported():
    model = model_of(widths=(4,))
    draws = around(model, one_mode(model)[None]).read(0, 0, DRAWS)[None]
    drifting = draws + torch.linspace(0, 1, DRAWS, dtype=torch.float64)[:, None]
    for values, drifts in ((draws, False), (drifting, True)):
        verdict = verdicts(
            mixing(SamplePosterior.from_draws(model, values), points(), per_draw=False)
        )
        assert verdict.usable is None
        assert verdict.kind is MixingVerdict.UNDEFINED
        kind = ViewVerdict.DIFFER if drifts else ViewVerdict.AGREE
        assert verdict.views["chainwise"].kind is kind


@pytest.mark.thorough
def test_a_frozen_chain_is_named():
    model = model_of()
    posterior = around(model, one_mode(model).expand(CHAINS, -1))
    draws = torch.stack([posterior.read(c, 0, DRAWS) for c in range(CHAINS)])
    draws[1] = draws[1, :1]
    found = mixing(SamplePosterior.from_draws(model, draws), points(), per_draw=False)
    assert found.frozen == (1,)
    assert found.by_chain[1] is None
    verdict = verdicts(found)
    assert verdict.usable is False
    assert verdict.kind is MixingVerdict.FROZEN
    everywhere = mixing(
        SamplePosterior.from_draws(model, draws[1:2].expand(2, -1, -1)), points(), per_draw=False
    )
    assert everywhere.raw.status == "undefined"
    assert everywhere.raw.reason == "nothing changes: every chain is frozen at the same value"
    apart = mixing(
        SamplePosterior.from_draws(model, draws[:2, :1].expand(2, 50, -1).clone()),
        points(),
        per_draw=False,
    )
    assert apart.frozen == (0, 1)
    assert (apart.raw.rhat_max, apart.function.rhat_max) == (np.inf, np.inf)
    assert (apart.raw.status, apart.function.status) == ("fail", "fail")


def test_a_draw_that_is_not_finite_is_never_a_pass():
    model = model_of(widths=(4,))
    posterior = around(model, one_mode(model).expand(CHAINS, -1))
    draws = torch.stack([posterior.read(c, 0, DRAWS) for c in range(CHAINS)])
    draws[0, 3, 5] = torch.nan
    found = mixing(SamplePosterior.from_draws(model, draws), points())
    assert set(statuses(found).values()) == {"undefined"}
    assert found.raw.reason == f"values are not finite in 1 of {model.num_parameters} quantities"
    assert (found.aligned, found.aligned_reason) == (None, "values are not finite")
    verdict = verdicts(found)
    assert verdict.usable is False
    assert verdict.kind is MixingVerdict.NOT_FINITE


def test_log_likelihoods_that_float32_cannot_hold_are_ranked_all_the_same():
    net = build_network(MLPConfig(widths=(4,)), input_shape=(4,), num_outputs=1, seed=0)
    model = BayesianModel(net.double(), Prior(), Poisson())
    part = Split(x=points().x, y=points().y.double())
    found = mixing(
        around(model, 5 * one_mode(model).expand(2, -1), spread=2.0), part, per_draw=False
    )
    assert found.values.log_likelihood.min() < -1e39
    assert np.isfinite(found.function.rhat).all()


@pytest.mark.thorough
def test_chains_that_mix_slowly_in_one_mode_are_not_said_to_be_in_different_modes():
    model = model_of(widths=(4,))
    posterior = around(model, one_mode(model).expand(CHAINS, -1))
    draws = torch.stack([posterior.read(c, 0, DRAWS) for c in range(CHAINS)])
    draws += (
        0.04
        * torch.linspace(-1, 1, CHAINS, dtype=torch.float64)[:, None, None]
        * one_mode(model).sign()
    )
    found = mixing(SamplePosterior.from_draws(model, draws), points(), per_draw=False)
    assert (found.function.status, found.chainwise.status) == ("fail", "pass")
    assert found.function_modes is not None
    assert found.function_modes.count == 1
    verdict = verdicts(found)
    assert verdict.usable is False
    assert verdict.kind is MixingVerdict.SLOW_IN_ONE_MODE


@pytest.mark.thorough
def test_agreement_of_a_handful_of_draws_is_no_evidence():
    model = model_of(widths=(4,))
    posterior = around(model, one_mode(model).expand(CHAINS, -1))
    draws = torch.stack([posterior.read(c, 0, 6) for c in range(CHAINS)])
    found = mixing(SamplePosterior.from_draws(model, draws), points(), per_draw=False)
    assert found.function.status == "too few draws"
    verdict = verdicts(found)
    assert verdict.usable is None
    assert verdict.kind is MixingVerdict.WEAK_AGREEMENT
    centers = torch.stack([one_mode(model, seed) for seed in range(CHAINS)])
    draws = 0.01 * (draws - one_mode(model)) + centers[:, None]
    verdict = verdicts(mixing(SamplePosterior.from_draws(model, draws), points(), per_draw=False))
    assert verdict.usable is False
    assert verdict.kind is MixingVerdict.STATIONARITY_UNCLEAR
    assert verdict.next == "draw more (1000 draws per chain)"
    around_each = around(model, centers)
    draws = torch.stack([around_each.read(c, 0, 12) for c in range(CHAINS)])
    found = mixing(SamplePosterior.from_draws(model, draws), points(), per_draw=False)
    assert found.chainwise.status == "pass"
    assert verdicts(found).kind is MixingVerdict.STATIONARITY_UNCLEAR


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("chains", "draws", "reason", "following"),
    [
        (4, 1, "1 draw per chain; R-hat needs at least 4", None),
        (4, 3, "3 draws per chain", "draw more (num_draws=1000)"),
        (1, 100, "one chain: R-hat between chains is undefined", "4 chains"),
        (1, 1, "1 draw per chain", "several seeds"),
    ],
)
def test_too_little_is_said_and_never_nan_without_a_reason(chains, draws, reason, following):
    model = model_of()
    posterior = around(model, one_mode(model).expand(chains, -1))
    values = torch.stack([posterior.read(c, 0, draws) for c in range(chains)])
    found = mixing(SamplePosterior.from_draws(model, values), points())
    assert found.raw.status == "undefined"
    assert found.raw.rhat_max is None
    assert reason in (found.raw.reason or "")
    assert reason in (found.function.reason or "")
    verdict = verdicts(found, method=NUTS())
    assert verdict.usable is None
    assert verdict.next is None if following is None else following in (verdict.next or "")
    if chains == 1 and draws > 1:
        assert found.chainwise.status == "pass"


@pytest.mark.thorough
def test_draws_of_the_prior_do_not_pass_as_aligned():
    model = model_of(widths=(12,))
    found = mixing(prior_draws(model, CHAINS, DRAWS, seed=7), points())
    assert found.raw.status == "pass"
    assert found.aligned is not None
    assert found.per_draw is not None
    assert found.aligned.view.status == "no evidence"
    assert found.per_draw.view.status == "no evidence"
    # Aligned one by one, draws of the prior have a tenth and more in common: agreement that was
    # manufactured.
    assert found.per_draw.null_common > 10 * found.aligned.null_common
    assert found.per_draw.common == pytest.approx(found.per_draw.null_common, rel=0.1)


@pytest.mark.thorough
def test_an_asymmetric_network_has_nothing_to_align():
    symmetry = SymmetryConfig(kind="weight_asymmetric", fixed_per_row=2, kappa=1.0)
    model = model_of(symmetry=symmetry)
    found = mixing(around(model, one_mode(model).expand(CHAINS, -1)), points(), per_draw=False)
    assert found.aligned is not None
    np.testing.assert_array_equal(found.aligned.view.rhat, found.raw.rhat)
    assert verdicts(found).views["aligned"].kind is ViewVerdict.NO_PERMUTATION
    # Of (4, 6, 5, 3) units the last layer's biases alone touch no hidden unit; fixed entries are
    # not in the vector.
    owned = np.unique(
        np.concatenate([own for units in found.parameter_index.units.values() for own in units])
    )
    output_biases = np.arange(model.num_parameters - 3, model.num_parameters)
    assert owned.tolist() == np.setdiff1d(np.arange(model.num_parameters), output_biases).tolist()


class Untraceable(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 4, dtype=torch.float64))

    def forward(self, x):
        return torch.special.i1(x @ self.weight.T)


def test_without_symmetries_the_other_views_remain_and_the_reason_is_said():
    model = BayesianModel(Untraceable(), Prior(), Categorical())
    found = mixing(around(model, one_mode(model).expand(CHAINS, -1)), points())
    assert found.aligned is None
    assert "cannot be derived" in (found.aligned_reason or "")
    assert found.function.status == "pass"
    assert verdicts(found).views["aligned"].kind is ViewVerdict.NOT_COMPUTED


def test_units_own_what_makes_them_and_what_reads_them():
    model = model_of(widths=(3, 2))
    places = ParameterIndex(model, permutation_spec(model.net))
    where = model.slices()
    (first, second) = places.units.values()
    names = list(where)
    assert len(first) == 3
    assert len(second) == 2
    # 4 incoming weights, a bias, 2 outgoing weights; 3 incoming, a bias, 3 outgoing.
    assert [len(own) for own in first] == [7, 7, 7]
    assert [len(own) for own in second] == [7, 7]
    start = where[names[0]].start
    assert set(first[1]) >= set(range(start + 4, start + 8))
    values = np.zeros(model.num_parameters)
    values[start + 5] = 2.0
    assert places.largest(values)[next(iter(places.units))].tolist() == [0.0, 2.0, 0.0]


class Funnel(BayesianModel):
    """Neal's funnel, centered: v ~ Normal(0, 3), x_i ~ Normal(0, exp(v / 2)); the data play no
    part."""

    def log_likelihood(self, flat, x, y):
        return flat.new_zeros(len(x))

    def log_prior(self, flat):
        v, rest = flat[0], flat[1:]
        return -(v**2 / 18 + 0.5 * (rest**2 * torch.exp(-v)).sum() + 0.5 * len(rest) * v)


@pytest.mark.thorough
def test_the_centred_funnel_has_divergences_and_a_bad_verdict():
    from bnn_symm.data import load_dataset

    dataset = load_dataset("diabetes", dtype=torch.float64, limit=50)
    model = Funnel(nn.Linear(10, 1, bias=False).double(), Prior(), Gaussian(noise=1.0))
    # A step that stays, and is too large for the neck: over five seeds 100 to 180 of the 400
    # transitions diverge. Adapted steps need longer chains to meet the neck at all.
    method = NUTS(
        num_chains=4,
        num_warmup=30,
        num_draws=100,
        max_tree_depth=5,
        adapt_step_size=False,
        initial_step_size=1.0,
        adapt_mass_matrix=False,
    )
    posterior = method.fit(model, dataset, seed=0)
    assert isinstance(posterior, SamplePosterior)
    found = mixing(posterior, dataset.test, per_draw=False)
    sampler = sampler_statistics(posterior.sample_stats, max_tree_depth=5, target=0.8)
    assert sampler is not None
    assert sum(sampler.divergences or ()) > 20
    assert sampler.biased
    verdict = verdicts(found, sampler)
    assert verdict.usable is False
    # Which trajectories diverge depends on rounding: on some machines a chain is stuck, and the
    # conclusion is about that chain.
    assert found.frozen or found.copies or verdict.kind is MixingVerdict.BIASED
