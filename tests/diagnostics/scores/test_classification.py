import json
import math
import time
import warnings

import numpy as np
import pytest
import torch
from sklearn import metrics

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    from torchmetrics.functional import classification as torchmetrics

from bnn_symm.architectures import MLPConfig, build_network
from bnn_symm.data import Split
from bnn_symm.diagnostics import score
from bnn_symm.diagnostics.scores.class_averages import confusion_matrix
from bnn_symm.diagnostics.scores.classification import class_statistics
from bnn_symm.diagnostics.scores.point_predictions import ClassPredictions, predict_points
from bnn_symm.diagnostics.scores.score_intervals import score_predictions, scores_with_intervals
from bnn_symm.io.atomic import json_text
from bnn_symm.models import BayesianModel, Bernoulli, Categorical, Prior
from bnn_symm.posteriors import SamplePosterior
from bnn_symm.randomness import numpy_generator, torch_generator


def predictions_of(probabilities, y):
    probabilities = np.asarray(probabilities, dtype=np.float64)
    y = np.asarray(y)
    with np.errstate(divide="ignore"):
        log_prob = np.log(probabilities[np.arange(len(y)), y])
    entropy = torch.special.entr(torch.from_numpy(probabilities)).sum(-1).numpy()
    return ClassPredictions(
        probabilities=probabilities,
        y=y,
        log_prob=log_prob,
        entropy=entropy,
        mutual_information=0.1 * entropy,
    )


def random_predictions(points, classes, *, sharpness=2.0, key="classes"):
    random = numpy_generator(0, key)
    logits = sharpness * random.normal(size=(points, classes))
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    y = (probabilities.cumsum(1) < random.uniform(size=(points, 1))).sum(1).clip(max=classes - 1)
    return predictions_of(probabilities, y)


CERTAIN = predictions_of(np.eye(3)[[0, 1, 1, 2, 0, 0]], [0, 1, 1, 2, 0, 0])
CERTAIN_AND_WRONG = predictions_of(np.eye(3)[[0, 1, 1, 2, 0, 0]], [0, 1, 2, 2, 1, 0])
CASES = {
    "random": random_predictions(200, 4),
    "two classes": random_predictions(90, 2),
    "a class absent": predictions_of(random_predictions(50, 3).probabilities, np.arange(50) % 2),
    "probabilities 0 and 1": CERTAIN_AND_WRONG,
    "constant": predictions_of(np.full((40, 4), 0.25), np.arange(40) % 4),
    "all right": CERTAIN,
    "one point": random_predictions(1, 3),
}


def values_of(predictions):
    ones = np.ones((1, len(predictions)))
    return {name: float(value[0]) for name, value in class_statistics(predictions)(ones).items()}


@pytest.mark.parametrize("name", CASES)
def test_scores_equal_those_of_reference_libraries(name):
    predictions = CASES[name]
    p, y = predictions.probabilities, predictions.y
    classes = p.shape[1]
    found = values_of(predictions)
    # Less than 1: for confidences of exactly 1 torchmetrics has a bin of their own.
    preds, target = torch.from_numpy(p.clip(max=1 - 1e-7)), torch.from_numpy(y)
    assert found["accuracy"] == pytest.approx(metrics.accuracy_score(y, p.argmax(1)), abs=1e-12)
    assert found["brier"] == pytest.approx(
        np.square(p - np.eye(classes)[y]).sum(1).mean(), abs=1e-12
    )
    if np.isfinite(predictions.log_prob).all():
        assert found["nll"] == pytest.approx(
            metrics.log_loss(y, p, labels=range(classes)), abs=1e-9
        )
    keywords = {"num_classes": classes, "n_bins": 15}
    for own, norm in (("ece", "l1"), ("mce", "max")):
        wanted = torchmetrics.multiclass_calibration_error(preds, target, norm=norm, **keywords)
        assert found[own] == pytest.approx(float(wanted), abs=1e-6)
    by_class = [
        float(
            torchmetrics.binary_calibration_error(
                preds[:, k].float(), (target == k).long(), n_bins=15
            )
        )
        for k in range(classes)
    ]
    assert found["cwce"] == pytest.approx(np.mean(by_class), abs=1e-6)
    present = np.unique(y)
    recalls = metrics.recall_score(y, p.argmax(1), average=None, labels=present, zero_division=0)
    assert found["balanced_accuracy"] == pytest.approx(recalls.mean(), abs=1e-12)
    ranked = [1] if classes == 2 else [k for k in present if 0 < (y == k).sum() < len(y)]
    if ranked:
        areas = [metrics.roc_auc_score(y == k, p[:, k]) for k in ranked]
        assert found["auc"] == pytest.approx(np.mean(areas), abs=1e-9)
    else:
        assert np.isnan(found["auc"])
    wrong = p.argmax(1) != y
    if 0 < wrong.sum() < len(y):
        doubt = 1 - p.max(1)
        assert found["auroc_errors"] == pytest.approx(metrics.roc_auc_score(wrong, doubt), abs=1e-9)
        assert found["aupr_errors"] == pytest.approx(
            metrics.average_precision_score(wrong, doubt), abs=1e-9
        )
    assert found["overconfidence"] == pytest.approx(p.max(1).mean() - (~wrong).mean(), abs=1e-12)


def test_the_area_under_the_curve_is_scikit_learns_macro_average():
    predictions = CASES["random"]
    wanted = metrics.roc_auc_score(predictions.y, predictions.probabilities, multi_class="ovr")
    assert values_of(predictions)["auc"] == pytest.approx(wanted, abs=1e-9)
    # Of probabilities that differ by less than single precision near 1, the order counts.
    sure = 1 - np.array([1e-9, 2e-9, 3e-9, 4e-9])
    own = predictions_of(np.stack([1 - sure, sure], axis=1), [1, 0, 1, 0])
    assert values_of(own)["auc"] == 0.75


def test_the_confusion_matrix_is_scikit_learns():
    predictions = CASES["a class absent"]
    wanted = metrics.confusion_matrix(
        predictions.y, predictions.probabilities.argmax(1), labels=range(3)
    )
    found = confusion_matrix(predictions.probabilities, predictions.y)
    np.testing.assert_array_equal(found, wanted)


def test_equal_mass_error_by_hand():
    # 17 points in 15 bins: the first two hold two each, the others one.
    confidence = np.linspace(0.55, 0.95, 17)
    right = np.arange(17) % 3 > 0
    p = np.stack([confidence, 1 - confidence], 1)
    found = values_of(predictions_of(p, np.where(right, 0, 1)))["aece"]
    residual = right - confidence
    wanted = sum(abs(part.sum()) for part in np.array_split(residual, 15)) / 17
    assert found == pytest.approx(wanted, abs=1e-12)


def test_equal_mass_error_shares_ties_out():
    # Every point has the same confidence, so that every bin has the same accuracy, whatever the
    # order.
    p = np.tile([0.7, 0.3], (30, 1))
    y = np.where(np.arange(30) < 12, 0, 1)
    for order in (np.arange(30), numpy_generator(0, "order").permutation(30)):
        assert values_of(predictions_of(p, y[order]))["aece"] == pytest.approx(0.7 - 0.4, abs=1e-12)


def test_resamples_are_repetitions():
    predictions = random_predictions(70, 3)
    counts = numpy_generator(1, "counts").multinomial(70, np.full(70, 1 / 70), size=4)
    resampled = class_statistics(predictions)(counts.astype(np.float64))
    for i, own in enumerate(counts):
        rows = np.repeat(np.arange(70), own)
        repeated = ClassPredictions(
            **{
                name: value[rows]
                for name, value in vars(predictions).items()
                if isinstance(value, np.ndarray)
            }
        )
        for name, value in values_of(repeated).items():
            assert resampled[name][i] == pytest.approx(value, abs=1e-12), name


@pytest.mark.parametrize(
    "likelihood", [Categorical(), Bernoulli()], ids=["categorical", "bernoulli"]
)
def test_the_front_door_agrees_with_the_metrics_of_a_run(likelihood):
    net = build_network(
        MLPConfig(widths=()), input_shape=(2,), num_outputs=likelihood.num_net_outputs(2)
    ).double()
    model = BayesianModel(net, Prior(), likelihood)
    generator = torch_generator(0, "front door")
    flat = torch.randn(2, 5, model.num_parameters, generator=generator, dtype=torch.float64)
    posterior = SamplePosterior.from_draws(model, flat)
    part = Split(
        x=torch.randn(80, 2, generator=generator, dtype=torch.float64), y=torch.arange(80) % 2
    )
    scores, short = scores_with_intervals(posterior, part, num_resamples=50), score(posterior, part)
    for name in ("nll", "accuracy", "brier", "ece"):
        assert scores[name].value == pytest.approx(short[name], abs=1e-6)
    assert scores["mutual_information"].value > 0
    assert all(
        own.low <= own.value <= own.high
        for own in (scores[name] for name in ("accuracy", "nll", "ece"))
    )
    json.loads(json_text(scores.to_dict()))
    predictions = predict_points(posterior, part)
    assert predictions.doubt == pytest.approx(1 - predictions.probabilities.max(1), abs=1e-12)


def test_what_is_not_defined_has_a_reason():
    scores = score_predictions(CERTAIN, num_resamples=50)
    for name in ("auroc_errors", "aupr_errors"):
        assert scores[name].value is None
        assert "every point is right" in scores[name].note
    one_class = predictions_of(CERTAIN.probabilities, np.zeros(6, dtype=int))
    assert score_predictions(one_class, num_resamples=0)["auc"].value is None
    assert scores["aurc"].value == 0
    scores = score_predictions(CERTAIN_AND_WRONG, num_resamples=50)
    assert scores["nll"].value == math.inf
    assert scores["nll"].note == "infinite"
    assert "the class of 2 points has probability 0" in scores.notes[0]
    assert json.loads(json_text(scores.to_dict()))["values"]["nll"] == {
        "value": None,
        "low": None,
        "high": None,
        "note": "infinite",
    }
    assert any(
        "no point has class 2" in note
        for note in score_predictions(CASES["a class absent"], num_resamples=0).notes
    )
    assert any(
        "same confidence, 0.25" in note
        for note in score_predictions(CASES["constant"], num_resamples=0).notes
    )


def test_one_point_has_scores_and_no_intervals():
    scores = score_predictions(CASES["one point"])
    for name, own in scores.values.items():
        assert own.low is own.high is None, name
        assert own.note
    assert scores["nll"].value == pytest.approx(-CASES["one point"].log_prob[0])


def test_a_part_without_points_has_no_scores():
    net = build_network(MLPConfig(widths=()), input_shape=(2,), num_outputs=3).double()
    model = BayesianModel(net, Prior(), Categorical())
    posterior = SamplePosterior.from_draws(
        model, torch.zeros(1, 1, model.num_parameters, dtype=torch.float64)
    )
    empty = Split(x=torch.zeros(0, 2).double(), y=torch.zeros(0).long())
    scores = scores_with_intervals(posterior, empty)
    assert (dict(scores.values), scores.points, scores.notes) == (
        {},
        0,
        ("there are no points",),
    )
    with pytest.raises(ValueError, match="no points to predict"):
        predict_points(posterior, empty)


@pytest.mark.thorough
def test_a_thousand_resamples_of_ten_thousand_points_take_seconds():
    predictions = random_predictions(10_000, 10)
    start = time.process_time()
    score_predictions(predictions)
    # Two seconds on one core; what it guards against is a minute and more, one resample at a time.
    assert time.process_time() - start < 20
