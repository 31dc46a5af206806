"""Every plot draws what is finite, and states that the rest is missing."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.text import Text

from bnn_symm.data import load_dataset
from bnn_symm.diagnostics.calibration.pit import pit_histogram
from bnn_symm.diagnostics.scores.score_intervals import Scores
from bnn_symm.diagnostics.scores.shift_curves import ShiftCurve
from bnn_symm.diagnostics.statistics.bootstrap import Score
from bnn_symm.report.plots.comparisons.barriers import plot_barrier_curves, plot_simplex
from bnn_symm.report.plots.comparisons.distances import plot_distances
from bnn_symm.report.plots.comparisons.matrices import barrier_matrix_figure
from bnn_symm.report.plots.comparisons.merge import plot_merge
from bnn_symm.report.plots.comparisons.monotonicity import plot_line_shapes
from bnn_symm.report.plots.convergence import plot_convergence
from bnn_symm.report.plots.ecdf import plot_ecdf_differences
from bnn_symm.report.plots.figures.png import save_png
from bnn_symm.report.plots.posterior_scales import plot_posterior_scales
from bnn_symm.report.plots.predictions.confusion import confusion_figure
from bnn_symm.report.plots.predictions.observed import observed_figure
from bnn_symm.report.plots.predictions.pit import pit_figure
from bnn_symm.report.plots.predictions.regression_bands import plot_regression_bands
from bnn_symm.report.plots.predictions.reliability import plot_reliability
from bnn_symm.report.plots.predictions.shift_curves import plot_shift_curve
from bnn_symm.report.plots.prior_predictive import plot_prior_predictive
from bnn_symm.report.plots.rhat import plot_rhat_views, study_rhat_figure
from bnn_symm.report.plots.studies.barriers import barrier_curves_figure
from bnn_symm.report.plots.studies.effects import effects_figure
from bnn_symm.report.plots.studies.gains import gains_figure
from bnn_symm.report.plots.studies.measures import measures_figure
from bnn_symm.report.plots.studies.styles import styles_of
from bnn_symm.report.plots.traces import plot_traces

STYLES = styles_of([("standard", ""), ("weight_asymmetric", "")])
# Positions, which a program chooses, are always finite.
POSITIONS = {
    "times",
    "tau",
    "alpha",
    "left",
    "right",
    "nominal",
    "x",
    "data_x",
    "data_y",
    "weights",
}
POSITIONS |= {"severities", "points", "level", "threshold", "quantiles", "p_value", "prior.scale"}
POSITIONS |= {"prior_sd", "told_from_zero", "target", "speed"}
CURVE = {"tau": [0.0, 0.5, 1.0], "marginal_nll": [0.3, 0.9, 0.4], "band": [0.01, 0.02, 0.01]}
CURVE |= {"mixture_nll": [0.3, 0.31, 0.4], "height": 0.55, "standard_error": 0.02}
ESTIMATE = {"mean": 1.3, "low": 1.1, "high": 1.6}
SCORES = ("accuracy", "overconfidence", "nll", "ece", "entropy", "mutual_information")
VALUE = {"value": 0.4, "low": 0.3, "high": 0.5}
RHAT = {"rhat_max": 1.4, "rhat_median": 1.1}
AIM = {"kind": "fraction", "value": 2.5, "level": 2.0, "start": 12.0, "half_width": None}
MEDIAN = {"value": 20.0, "low": 10.0, "high": None}
GROUP = {
    "label": "vi",
    "runs": [0],
    "differences": {},
    "target": AIM,
    "bands": {"seconds": {"times": [1.0, 2.0, 4.0], "median": [12.0, 5.0, 2.1]}},
    "speed": {"seconds": {"median": MEDIAN}},
}
GROUP["bands"]["seconds"] |= {"low": [11.0, 4.0, 2.0], "high": [13.0, 6.0, 2.2]}
FUNCTIONS = {"confidence": [0.5, 0.9], "classes": [1.0, 2.0]}
VARIATION = {"variation": [0.1, 2.0], "targets": [0.5, 3.0]}
PRIOR = {"prior": "normal", "draws": 2, "data": "iris", "num_outputs": 3, "curves": None}


class Predictive:
    """A predictive distribution with given means and standard deviations."""

    def __init__(self, content):
        self.content, self.info = content, {}

    def predict(self, points):
        self.num_points = len(points)
        return self

    def _spread(self, key):
        return torch.tensor(self.content[key]).repeat(self.num_points)[: self.num_points]

    def mean(self):
        return self._spread("mean")

    def epistemic_sd(self):
        return self._spread("sd")

    def standard_deviation(self):
        return self._spread("sd")


def prior_content(task, functions, curves=None):
    own = {"prior.scale": 1.0, "functions": functions}
    of_data = {name: values[0] for name, values in functions.items()}
    return PRIOR | {
        "task": task,
        "own": own,
        "others": [],
        "of_data": of_data,
        "curves": curves,
    }


def ranks(content):
    """Return the result of SBC with one quantity."""
    band = SimpleNamespace(**content["band"])
    quantities = tuple(SimpleNamespace(**own) for own in content["quantities"])
    own = content | {"band": band, "worst_first": quantities, "quantities": quantities}
    return SimpleNamespace(**own | {"values": np.array(content["values"])})


def shift_curve(content):
    """Return a curve whose scores are the same at every severity."""
    values = {name: Score(**own[0]) for name, own in content["scores"].items()}
    scores = [Scores(values=values, points=9, resamples=9, level=0.95)]
    severities = tuple(content["severities"])
    return ShiftCurve(name="noise", severities=severities, scores=tuple(scores * len(severities)))


def attributes(content):
    """Return a dictionary whose values have their keys as attributes."""
    return {name: SimpleNamespace(**own) for name, own in content.items()}


def convergence(content, path):
    assert plot_convergence(content, path)


CASES = {
    "regression bands": (
        {"mean": [0.5, 0.7, 0.1], "sd": [0.1, 0.2, 0.1]},
        lambda c, path: plot_regression_bands(Predictive(c), load_dataset("gap"), path),
    ),
    "barrier curves": (
        {"naive": CURVE, "aligned": CURVE},
        lambda c, path: plot_barrier_curves(attributes(c), path, title="pair"),
    ),
    "barrier simplex": (
        {
            "naive": {
                "weights": [[1, 0, 0], [0, 1, 0], [0, 0, 1], [1 / 3, 1 / 3, 1 / 3], [0.5, 0.5, 0]],
                "marginal_nll": [0.3, 0.4, 0.5, 1.2, 1.0],
                "height": 0.8,
                "centroid": 0.8,
            }
        },
        lambda c, path: plot_simplex(attributes(c), ["a", "b", "c"], path, title="three"),
    ),
    "barrier matrix": (
        {"naive": [1.2, 0.7], "aligned": [0.3, 0.1]},
        lambda c, path: save_png(
            barrier_matrix_figure(
                [
                    {
                        "label": "standard",
                        "seeds": [4, 5, 6],
                        "naive": [(4, 5, c["naive"][0]), (5, 6, c["naive"][1])],
                        "aligned": [(4, 5, c["aligned"][0]), (4, 6, c["aligned"][1])],
                    }
                ]
            ),
            path,
        ),
    ),
    "distances": (
        [{"distance_random": 3.1, "distance_before": 2.9, "distance_after": 0.4}] * 2,
        lambda c, path: plot_distances(
            [SimpleNamespace(alignment=SimpleNamespace(**own)) for own in c], ["a", "b"], path
        ),
    ),
    "merge": ({"merged": {"nll": 0.4}, "naive": {"nll": 1.9}, "parts": None}, plot_merge),
    "line shapes": (
        {
            "line": {
                "test": {"alpha": [0.0, 0.5, 1.0], "loss": [2.0, 1.0, 0.5], "is_monotone": True}
            }
        },
        lambda c, path: plot_line_shapes({"line": attributes(c["line"])}, path, title="lines"),
    ),
    "convergence, fraction": (
        {"groups": [GROUP], "quantity": "nll", "reference": "own"},
        convergence,
    ),
    "convergence, value": (
        {
            "groups": [GROUP | {"target": AIM | {"kind": "value", "level": None, "start": None}}],
            "quantity": "nll",
        },
        convergence,
    ),
    "ecdf": (
        {
            "band": {"points": [0.5], "lower": [0.2], "upper": [0.8]},
            "names": ["w"],
            "level": 0.05,
            "quantities": [{"name": "w", "p_value": 0.3, "shape": "calibrated"}],
            "values": [[0.2], [0.7], [0.4]],
        },
        lambda c, path: plot_ecdf_differences(ranks(c), ranks(c).band, path, title="ranks"),
    ),
    "posterior scales": (
        {
            "quantiles": [0.05, 0.25, 0.5, 0.75, 0.95],
            "note": None,
            "layers": {
                "0": {
                    "sd": [0.1, 0.2, 0.3, 0.4, 0.5],
                    "signal_to_noise": [0.1, 0.5, 1.0, 2.0, 5.0],
                    "prior_sd": [0.5, 1.0],
                    "told_from_zero": 0.5,
                    "num_parameters": 7,
                }
            },
        },
        lambda c, path: plot_posterior_scales(c, path, title="scales"),
    ),
    "prior, classes": (prior_content("classification", FUNCTIONS), plot_prior_predictive),
    "prior, numbers": (prior_content("regression", VARIATION), plot_prior_predictive),
    "prior, curves": (
        prior_content(
            "regression",
            VARIATION,
            {
                **{"input": "x", "target": "y", "x": [0.0, 1.0], "data_x": [0.5]},
                **{"data_y": [0.3], "y": [[0.1, 0.2], [0.4, -0.3]]},
            },
        ),
        plot_prior_predictive,
    ),
    "reliability of classes": (
        {
            **{"kind": "classes", "left": [0.0, 0.5], "right": [0.5, 1.0], "count": [3, 9]},
            **{"confidence": [0.4, 0.8], "accuracy": [0.3, 0.1], "low": [0.2, 0.6]},
            **{"high": [0.6, 0.9], "level": 0.95},
        },
        lambda c, path: plot_reliability(c, path, title="classes"),
    ),
    "predicted against observed": (
        {"target": [1.0, 2.0], "mean": [1.1, 2.4], "low": [0.5, 2.1], "high": [1.5, 2.9]},
        lambda c, path: save_png(observed_figure(**c, level=0.9, name="y"), path),
    ),
    "reliability of numbers": (
        {
            **{"kind": "numbers", "nominal": [0.25, 0.75], "observed": [0.1, 0.7]},
            **{"low": [0.2, 0.6], "high": [0.3, 0.9], "level": 0.95, "num_points": 12},
        },
        lambda c, path: plot_reliability(c, path, title="numbers"),
    ),
    "R-hat of a run": (
        {
            "raw": {"by_layer": {"0": RHAT, "2": RHAT}},
            "function": {
                "by_kind": dict.fromkeys(("outputs", "points", "log_likelihood"), RHAT),
                "threshold": 1.01,
            },
        },
        lambda c, path: plot_rhat_views(c, path, title="views"),
    ),
    "R-hat of a study": (
        {view: [ESTIMATE, None] for view in ("raw", "aligned", "function")},
        lambda c, path: save_png(
            study_rhat_figure([{"title": "R-hat", **c}], ["standard", "other"]), path
        ),
    ),
    "shift": (
        {
            "severities": [0, 1],
            "level": 0.95,
            "scores": {score: [VALUE, VALUE] for score in SCORES},
        },
        lambda c, path: plot_shift_curve(shift_curve(c), path, name="noise", title="shift"),
    ),
    "traces": (
        {"values": [[0.1, 0.2, 0.3, 0.2, 0.4], [0.3, 0.1, 0.2, 0.5, 0.1]]},
        lambda c, path: plot_traces([{"title": "w", **c}], path, title="traces"),
    ),
    "study barriers": (
        {
            "tau": [0.0, 0.5, 1.0],
            "mean": [0.0, 1.0, 0.0],
            "low": [0.0, 0.5, 0.0],
            "high": [0.0, 2.0, 0.0],
        },
        lambda c, path: save_png(
            barrier_curves_figure({"naive": [c, None]}, ["a", "b"], STYLES), path
        ),
    ),
    "gains of a study": (
        [dict(ESTIMATE), dict(ESTIMATE)],
        lambda c, path: save_png(
            gains_figure(
                [{"title": "NLL", "verdict": "supported", "unit": "nats", "gains": c}],
                ["a", "b"],
                STYLES,
            ),
            path,
        ),
    ),
    "study effects": (
        [ESTIMATE, None],
        lambda c, path: save_png(
            effects_figure(
                [
                    {
                        "title": "NLL",
                        "unit": "nats",
                        "lines": [{"label": "a", "style": STYLES[1], "points": c}],
                    }
                ],
                ["8", "16"],
                name="width",
            ),
            path,
        ),
    ),
    "study measures": (
        [
            {**ESTIMATE, "values": [1.2, 1.4]},
            {"mean": None, "low": None, "high": None, "values": []},
        ],
        lambda c, path: save_png(
            measures_figure([{"title": "NLL", "rows": c}], ["a", "b"], STYLES), path
        ),
    ),
}


def poisoned(content, value, most, key=""):
    """Return the content with its first numbers replaced, at most so many in a list."""
    if isinstance(content, dict):
        return {
            name: own if name in POSITIONS else poisoned(own, value, most, name)
            for name, own in content.items()
        }
    if isinstance(content, list | tuple):
        return [poisoned(own, value, most) if i < most else own for i, own in enumerate(content)]
    return value if isinstance(content, float) else content


@pytest.fixture
def figures(monkeypatch):
    """Return the figures that are saved."""
    saved, savefig = [], Figure.savefig

    def remember(figure, *arguments, **options):
        saved.append(figure)
        savefig(figure, *arguments, **(options | {"dpi": 20}))

    monkeypatch.setattr(Figure, "savefig", remember)
    return saved


@pytest.mark.parametrize(
    ("value", "most"),
    [
        (math.nan, 1),
        *(
            pytest.param(value, most, marks=pytest.mark.thorough)
            for value, most in ((-math.inf, 1), (math.inf, 9), (1e300, 9))
        ),
    ],
)
@pytest.mark.parametrize("name", CASES)
def test_a_plot_leaves_gaps_at_values_that_are_not_finite(name, value, most, tmp_path, figures):
    content, plot = CASES[name]
    plot(poisoned(content, value, most), tmp_path / "figure.png")
    (figure,) = figures
    texts = {text.get_text() for text in figure.findobj(Text)}
    noted = "values that are not finite are not drawn" in texts
    assert noted or name in ("barrier matrix", "R-hat of a run", "R-hat of a study")
    assert (tmp_path / "figure.png").stat().st_size > 500


@pytest.mark.parametrize("name", CASES)
def test_a_plot_of_finite_values_has_no_note(name, tmp_path, figures):
    content, plot = CASES[name]
    plot(content, tmp_path / "figure.png")
    limits = [axes.get_ylim() for axes in figures[0].axes]
    assert np.isfinite(limits).all()
    assert not any("not finite" in text.get_text() for text in figures[0].findobj(Text))


@pytest.mark.parametrize("classes", [1, 3, 13, 100])
def test_a_confusion_matrix_of_any_size_is_drawn(classes):
    counts = np.diag(np.arange(classes))
    figure = confusion_figure(counts, [f"class {number} {{$" for number in range(classes)])
    texts = {text.get_text() for text in figure.axes[0].texts}
    assert texts == ({str(own) for own in range(1, classes)} if classes <= 12 else set())
    assert max(figure.get_size_inches()) <= 6.1


def test_bins_of_the_pit_outside_of_the_band_are_marked():
    flat, narrow = (pit_histogram(pit) for pit in (np.linspace(0, 1, 99), np.full(99, 0.5)))
    labels = [
        {text.get_text() for text in pit_figure(own).legends[0].get_texts()}
        for own in (flat, narrow)
    ]
    assert "points, outside the band" not in labels[0]
    assert "points, outside the band" in labels[1]
