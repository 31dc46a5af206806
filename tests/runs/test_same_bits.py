import pytest

from bnn_symm.runs import load_run

from .fits import GAP, METHODS, fit, history, overrides, same_bits

pytestmark = pytest.mark.thorough


@pytest.mark.parametrize("method", METHODS)
def test_the_same_config_gives_the_same_bits(tmp_path, method):
    first = fit(tmp_path / "a", overrides(method))
    second = fit(tmp_path / "b", overrides(method))
    other = fit(tmp_path / "c", [*overrides(method), "seed=1"])
    assert first.status == "complete"
    assert same_bits(first, second)
    assert history(first) == history(second)
    assert first.metrics == second.metrics
    assert not same_bits(first, other)


@pytest.mark.parametrize(
    "method", ["nuts", "deep_ensemble", pytest.param("hmc", marks=pytest.mark.slow)]
)
def test_parallel_chains_draw_what_sequential_ones_do(tmp_path, method):
    one = fit(tmp_path / "a", overrides(method, "sequential"))
    other = fit(tmp_path / "b", overrides(method, "parallel"))
    assert same_bits(one, other)
    assert history(one) == history(other)


def test_minibatches_and_early_stopping_too(tmp_path):
    keys = [
        *GAP,
        "inference.num_steps=60",
        "inference.batch_size=16",
        "inference.early_stopping.patience=2",
    ]
    first, second = fit(tmp_path / "a", keys), fit(tmp_path / "b", keys)
    assert same_bits(first, second)
    assert same_bits(first, load_run(tmp_path / "a"))
