"""R-hat and ESS against ArviZ."""

import sys
import warnings

import arviz
import numpy as np
import pytest
import torch

from bnn_symm.diagnostics.mixing.chain_statistics import (
    chain_statistics,
    independent_rhat,
    iter_columns,
)


def autoregressive(
    chains: int, draws: int, columns: int, correlation: float, seed: int = 0
) -> np.ndarray:
    noise = np.random.default_rng(seed).standard_normal((chains, draws, columns))
    values = noise.copy()
    for t in range(1, draws):
        values[:, t] = correlation * values[:, t - 1] + np.sqrt(1 - correlation**2) * noise[:, t]
    return values


def of_arviz(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # ArviZ divides by zero for constants
        columns = np.moveaxis(values, 2, 0)
        rhat = np.array([arviz.rhat(own) for own in columns])
        bulk = np.array([arviz.ess(own) for own in columns])
        tail = np.array([arviz.ess(own, method="tail") for own in columns])
    return rhat, bulk, tail


@pytest.mark.parametrize(
    ("chains", "draws", "correlation"),
    [
        (4, 500, 0.9),
        (4, 100, 0.0),
        (2, 51, 0.5),
        (2, 200, -0.7),
        (4, 300, 0.99),
        (3, 6, -0.9),
        (4, 7, 0.3),
        (4, 4, 0.0),
    ],
)
def test_equal_to_arviz(chains, draws, correlation):
    values = autoregressive(chains, draws, 12, correlation)
    values[:, :, 1] = np.round(values[:, :, 1])  # ties
    values[:, :, 2] = values[:, :, 2] > 1  # many
    values[0, :, 3] = 0.0  # one chain stands still
    values[:, :, 4] += 3 * np.arange(chains)[:, None]  # chains in different places
    values[:, :, 5] = np.repeat(values[:, ::2, 5], 2, axis=1)[:, :draws]  # rejected proposals
    values[:, :, 6] *= np.linspace(1, 4, chains)[
        :, None
    ]  # only the spread differs: R-hat of distances to the median
    found = chain_statistics(values)
    for own, theirs in zip(
        (found.rhat, found.ess_bulk, found.ess_tail), of_arviz(values), strict=True
    ):
        np.testing.assert_allclose(own, theirs, rtol=1e-8)
    np.testing.assert_allclose(found.mean, values.mean((0, 1)), atol=1e-12)
    np.testing.assert_allclose(found.sd, values.std((0, 1), ddof=1), rtol=1e-12)


def test_one_chain_has_ess_and_no_rhat():
    values = autoregressive(1, 200, 3, 0.5)
    found = chain_statistics(values)
    assert np.isnan(found.rhat).all()
    np.testing.assert_allclose(found.ess_bulk, of_arviz(values)[1], rtol=1e-8)


def test_constants_have_no_rhat_and_chains_that_stand_apart_an_infinite_one():
    values = np.zeros((3, 20, 2))
    values[:, :, 1] = np.arange(3)[:, None]
    found = chain_statistics(values)
    assert np.isnan(found.rhat[0])
    assert np.isinf(found.rhat[1])
    assert found.sd[0] == 0


@pytest.mark.parametrize(
    ("chains", "draws"), [(2, 20), (2, 333), (3, 7), (4, 20), (4, 333), (5, 100)]
)
def test_r_hat_of_chains_that_stand_apart_is_infinite_whatever_rounding_does(chains, draws):
    """Of two chains all distances to the median are equal, and have no R-hat of their own."""
    values = np.zeros((chains, draws, 3))
    values[:, :, 1] = 0.1 * np.arange(chains)[:, None]
    values[1:, :, 2] = 1.0
    found = chain_statistics(values)
    assert np.isnan(found.rhat[0])
    assert np.isinf(found.rhat[1:]).all()


def test_draws_that_are_not_finite_and_too_few_draws_are_undefined():
    values = autoregressive(2, 50, 2, 0.0)
    values[1, 7, 0] = np.inf
    found = chain_statistics(values)
    assert np.isnan([found.rhat[0], found.ess_bulk[0], found.ess_tail[0]]).all()
    assert np.isfinite([found.rhat[1], found.ess_bulk[1], found.ess_tail[1]]).all()
    few = chain_statistics(values[:, :3])
    assert np.isnan(few.rhat).all()
    assert np.isnan(few.ess_bulk).all()


def test_float32_draws_are_ranked_as_they_are():
    values = autoregressive(4, 100, 5, 0.5).astype(np.float32)
    np.testing.assert_array_equal(
        chain_statistics(values).rhat, chain_statistics(values.astype(np.float64)).rhat
    )


def test_chunks_of_columns_and_of_draws_join_to_the_same(monkeypatch):
    values = autoregressive(3, 40, 30, 0.3)
    whole = chain_statistics(values)
    monkeypatch.setattr(
        sys.modules["bnn_symm.diagnostics.mixing.chain_statistics"], "_NUMBERS_AT_ONCE", 700
    )
    chunked = chain_statistics(values)
    np.testing.assert_array_equal(whole.rhat, chunked.rhat)
    np.testing.assert_array_equal(whole.ess_tail, chunked.ess_tail)
    tensor = torch.from_numpy(values)
    parts = list(
        iter_columns(
            lambda chain, start, stop: tensor[chain, start:stop], values.shape, megabytes=0.01
        )
    )
    assert len(parts) > 2
    np.testing.assert_array_equal(np.concatenate(parts, axis=2), values)


def test_independent_draws_rarely_exceed_what_is_said_of_them():
    """At level 0.05, of 200 tables of 20 columns at most 20 exceed it: 10 are expected, the 0.999
    quantile is 20."""
    bound = independent_rhat(4, 60, 20, level=0.05)
    values = np.random.default_rng(1).standard_normal((4, 60, 200 * 20))
    exceeded = (chain_statistics(values).rhat.reshape(200, 20).max(1) > bound).sum()
    assert 1 <= exceeded <= 20
