"""Score predicted distributions of times, some of which are right-censored.

- `nll`: the log density of events and the log probability of a later event of censored times, a
  proper score if censoring does not depend on the time of the event, given the features.
- `concordance`: of pairs of points whose events have a known order, the fraction that predicted
  medians order alike, ties counted as a half (Harrell et al. 1982,
  doi:10.1001/jama.1982.03320430047030).
- `qce`, `pit_distance` and `pit_mean`: of the probability integral transform, in which a censored
  time stands for a random one after it (Haider et al. 2020, arXiv:1811.11347).

RMSE, CRPS and coverage need the times of all events, which are not known, and are not computed. The
integrated Brier score needs a model of the censoring, which is not fitted here.
"""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

from bnn_symm.diagnostics.scores.point_predictions import TimePredictions
from bnn_symm.diagnostics.scores.regression import distance_to_uniform, quantile_calibration_error
from bnn_symm.diagnostics.statistics.bootstrap import Statistics, weighted_mean


def concordance(
    time: Float[np.ndarray, " point"],
    event: Float[np.ndarray, " point"],
    predicted: Float[np.ndarray, " point"],
    weights: Float[np.ndarray, "resample point"],
) -> Float[np.ndarray, " resample"]:
    """Return Harrell's index of concordance for several sets of weights.

    A pair is comparable if the earlier time is an event; at one time, an event is before a censored
    one. Times are inserted from the last to the first into a binary indexed tree over the ranks of
    the predictions, so that n points take n log n operations on all resamples at once.

    Args:
        time: Times of events or of censoring.
        event: 1 for events, 0 for censored times.
        predicted: Predicted times; any increasing function of them gives the same value.
        weights: A point of weight w counts as w points.

    Returns:
        Values between 0 and 1, 0.5 without skill; NaN where no pair is comparable.

    Example:
        >>> time, event = np.array([1.0, 2.0, 3.0]), np.array([1.0, 0.0, 1.0])
        >>> concordance(time, event, np.array([5.0, 9.0, 2.0]), np.ones((1, 3))).tolist()
        [0.5]
    """
    _, rank = np.unique(predicted, return_inverse=True)
    columns = np.ascontiguousarray(weights.T)
    tree = np.zeros((int(rank.max()) + 2, len(weights)))
    at_rank = np.zeros_like(tree)
    inserted, concordant, comparable = np.zeros((3, len(weights)))

    def insert(points: np.ndarray) -> None:
        for point in points.tolist():
            inserted[:] += columns[point]
            at_rank[rank[point]] += columns[point]
            place = int(rank[point]) + 1
            while place < len(tree):
                tree[place] += columns[point]
                place += place & -place

    order = np.argsort(-time, kind="stable")
    for tied in np.split(order, np.flatnonzero(np.diff(time[order])) + 1):
        seen = event[tied] > 0
        insert(tied[~seen])
        for point in tied[seen].tolist():
            not_above, place = np.zeros(len(weights)), int(rank[point]) + 1
            while place > 0:
                not_above += tree[place]
                place -= place & -place
            # Points with a later time are concordant if their prediction is above this one's.
            above = inserted - not_above + 0.5 * at_rank[rank[point]]
            concordant += columns[point] * above
            comparable += columns[point] * inserted
        insert(tied[seen])
    return np.divide(
        concordant, comparable, out=np.full(len(weights), np.nan), where=comparable > 0
    )


def time_statistics(predictions: TimePredictions) -> Statistics:
    """Return a function from counts (resample, point) to every score of each resample, by name.

    The scores are `nll` (nats per point), `concordance` of the medians, and `qce`, `pit_distance`
    and `pit_mean` as those of numbers.

    Args:
        predictions: Predictions at the points.

    Returns:
        The function.
    """
    log_loss = -predictions.log_prob[:, None]

    def statistics(
        weights: Float[np.ndarray, "resample point"],
    ) -> Mapping[str, Float[np.ndarray, " resample"]]:
        return {
            "nll": weighted_mean(weights, log_loss)[:, 0],
            "concordance": concordance(
                predictions.time, predictions.event, predictions.median, weights
            ),
            "qce": quantile_calibration_error(weights, predictions.pit),
            "pit_distance": distance_to_uniform(weights, predictions.pit),
            "pit_mean": weighted_mean(weights, predictions.pit[:, None])[:, 0],
        }

    return statistics


def time_notes(predictions: TimePredictions) -> list[str]:
    """Return notes on censored times and their effect on the scores.

    Args:
        predictions: Predictions at the points.

    Returns:
        Notes, empty if nothing is unusual.
    """
    notes = []
    censored = int((predictions.event == 0).sum())
    if censored:
        notes.append(
            f"{censored} of {len(predictions)} times are censored: scores that need the time of "
            "every event (RMSE, CRPS, coverage) are not computed, and calibration takes a random "
            "later time for a censored one"
        )
    impossible = int(np.isinf(predictions.log_prob).sum())
    if impossible:
        notes.append(f"nll is infinite: the times of {impossible} points have density 0")
    return notes
