"""Statistics that samplers record of their chains."""

import arviz
import numpy as np
import pytest

from bnn_symm.diagnostics.mixing.sampler_statistics import sampler_statistics


def stats(**changes: np.ndarray) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    return {
        "diverging": np.zeros((2, 100), dtype=bool),
        "energy": random.standard_normal((2, 100)),
        "acceptance_rate": np.full((2, 100), 0.8),
        "n_steps": np.full((2, 100), 7),
        "step_size": np.full((2, 100), 0.1),
        **changes,
    }


def test_a_healthy_sampler_has_no_problems():
    found = sampler_statistics(stats(), max_tree_depth=10, target=0.8)
    assert found is not None
    assert found.problems == ()
    assert found.divergences == [0, 0]
    np.testing.assert_allclose(found.ebfmi, arviz.bfmi(stats()["energy"]))
    assert found.tree_depth == [3.0, 3.0]
    assert found.at_max_depth == [0.0, 0.0]
    assert found.step_size == [0.1, 0.1]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"diverging": np.eye(2, 100, dtype=bool)}, "2 of 200 draws diverged"),
        (
            {"energy": np.random.default_rng(0).standard_normal((2, 100)).cumsum(1)},
            "E-BFMI of chain 0, 1",
        ),
        ({"n_steps": np.full((2, 100), 1023)}, "ended at the largest depth"),
        (
            {"acceptance_rate": np.array([[0.8], [0.3]]) * np.ones((2, 100))},
            "chain 1 accepts 0.30, the target is 0.8",
        ),
    ],
)
def test_problems_are_named(changes, expected):
    found = sampler_statistics(stats(**changes), max_tree_depth=10, target=0.8)
    assert found is not None
    assert any(expected in problem for problem in found.problems)


def test_what_was_not_recorded_is_none():
    assert sampler_statistics({}) is None
    found = sampler_statistics({"lp": np.zeros((2, 5))})
    assert found is not None
    assert found.divergences is None
    assert found.ebfmi is None
    assert found.num_draws == 5
    still = sampler_statistics({"energy": np.zeros((1, 5))})
    assert still is not None
    assert still.ebfmi == [None]
