import matplotlib
import numpy as np
import pytest

matplotlib.use("Agg")

from matplotlib import pyplot

from bnn_symm import align, barrier, load_dataset, plots
from bnn_symm.errors import ConfigError
from bnn_symm.runs import fit_run, load_config

pytestmark = pytest.mark.thorough

KEYS = ["architecture.widths=[4]", "threads=1"]
MAP = ["inference.name=map", "inference.num_steps=40"]
VI = ["inference.num_steps=40", "inference.num_draws=10"]


@pytest.fixture(scope="module")
def fits(tmp_path_factory):
    """Fit and cache runs by their keys."""
    folder, known = tmp_path_factory.mktemp("runs"), {}

    def fit(*keys: str):
        if keys not in known:
            known[keys] = fit_run(load_config(None, [*KEYS, *keys]), folder / str(len(known)))
        return known[keys]

    yield fit
    pyplot.close("all")


def labels(axes) -> list[str]:
    return [text.get_text() for text in axes.get_legend().get_texts()]


def test_convergence_of_two_kinds_has_two_curves(fits):
    kinds = ["standard", "weight_asymmetric"]
    runs = [fits("data.name=iris", *MAP, f"architecture.symmetry.kind={kind}") for kind in kinds]
    axes = plots.convergence(runs)
    assert axes.figure in map(pyplot.figure, pyplot.get_fignums())
    assert [kind for kind in kinds if any(kind in label for label in labels(axes))] == kinds
    given = pyplot.subplots()[1]
    assert plots.convergence(runs[0], clock="seconds", ax=given) is given
    assert given.get_xlabel() == "seconds"


def test_the_curve_of_a_barrier_is_the_barrier(fits):
    first, second = (fits("data.name=iris", *VI, f"seed={seed}").posterior for seed in (0, 1))
    data = load_dataset("iris")
    naive = barrier(first, second, data)
    aligned = barrier(first, align(first, second).apply(second), data)
    axes = plots.barrier(naive, aligned)
    curves = {line.get_label().partition(":")[0]: line for line in axes.get_lines()}
    assert {"naive", "aligned", "chord"} <= set(curves)
    np.testing.assert_allclose(curves["naive"].get_ydata(), naive.test.marginal_nll)
    chords = [line.get_ydata() for line in axes.get_lines() if line.get_linestyle() == ":"]
    ends = [[own.test.marginal_nll[end] for end in (0, -1)] for own in (naive, aligned)]
    np.testing.assert_allclose(chords, ends)
    assert "aligned" not in " ".join(labels(plots.barrier(naive)))


def test_rhat_has_every_view(fits):
    keys = ["inference.name=hmc", "inference.num_warmup=20", "inference.num_draws=20"]
    run = fits("data.name=iris", *keys, "inference.compile=false")
    axes = plots.rhat(run.posterior, run.dataset(), per_draw=False)
    assert {"raw weights", "functions"} <= set(labels(axes))
    with pytest.raises(ConfigError, match="chains"):
        plots.rhat(fits("data.name=iris", *VI).posterior, run.dataset())


def test_predictions_of_a_regression_on_one_input(fits):
    run = fits("data.name=gap", *VI)
    axes = plots.predictions(run.posterior, run.dataset())
    assert "predictive mean" in labels(axes)
    with pytest.raises(ConfigError, match="one input"):
        plots.predictions(fits("data.name=iris", *VI).posterior, load_dataset("iris"))


@pytest.mark.parametrize("data", ["iris", "gap"])
def test_reliability_of_classes_and_of_numbers(fits, data):
    run = fits(f"data.name={data}", *VI)
    axes = plots.reliability(run.posterior, run.dataset().test)
    assert any("calibrated model" in label for label in labels(axes))
