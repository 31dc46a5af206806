"""Name every measure once: its key in files, label, unit, direction, digits, and use in studies.

To add a score, compute it in `scores/scores.py` and add a line to `SCORES`, or add it to
`FURTHER_SCORES` if studies do not compare fits by it. To add a measure of a
study, add a line to `FIT_MEASURES` or `PAIR_MEASURES` with its place in the files of a fit or a
pair. Metrics, tables, summaries, comparisons, sentences, pages and figures follow.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from bnn_symm.formatting import number

Direction = Literal["lower", "higher"]
"""Which values of a measure are better."""

_SPLITS = {"train": "training", "validation": "validation", "test": "test"}
_NATS = "nats per point"


@dataclass(frozen=True)
class Measure:
    """A measured quantity.

    Attributes:
        key: in files.
        label: in texts, pages and figures.
        unit: of its values; empty for a number without one, or in the units of the data.
        better: which values are better; None if neither are.
        digits: significant digits in sentences: two estimates of one accuracy or R-hat differ in
            the fourth.
        source: in a study, the file of a fit or a pair and the keys in it, joined by dots.
        is_compared: whether studies compare their settings by it.
        sections: of the page of a study that have a column for it; it is drawn in the first.
    """

    key: str
    label: str
    unit: str = ""
    better: Direction | None = None
    digits: int = 3
    source: str = ""
    is_compared: bool = False
    sections: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """Return the label and the unit."""
        return f"{self.label}, {self.unit}" if self.unit else self.label

    def text(self, value: float | None) -> str:
        """Return a value with the digits of this measure.

        Args:
            value: of the measure, or None.

        Returns:
            The text.
        """
        return number(value, self.digits)

    def on_split(self, split: str) -> "Measure":
        """Return this score on one split of the data, as studies read it from the metrics of a fit.

        Args:
            split: `train`, `validation` or `test`.

        Returns:
            The measure.
        """
        is_test = split == "test"
        return replace(
            self,
            key=f"{split}_{self.key}",
            label=f"{_SPLITS[split]} {self.label}",
            source=f"metrics.{split}.{self.key}",
            is_compared=is_test and self.better is not None,
            sections=self.sections if is_test else (),
        )


def _by_key(measures: Iterable[Measure]) -> Mapping[str, Measure]:
    return {own.key: own for own in measures}


_SCORES, _CALIBRATION, _COST = ("Scores",), ("Calibration",), ("Cost",)
VIEWS = {
    "raw": "raw weights",
    "aligned": "aligned weights",
    "aligned_per_draw": "aligned per draw",
    "chainwise": "chain by chain",
    "function": "functions",
}
"""Views in which chains are compared."""
_STUDY_VIEWS = ("raw", "aligned", "function")

SCORES = _by_key(
    [
        Measure("nll", "NLL", _NATS, "lower", sections=_SCORES),
        Measure("accuracy", "accuracy", "", "higher", 4, sections=_SCORES),
        Measure("rmse", "RMSE", "", "lower", sections=_SCORES),
        Measure("concordance", "concordance", "", "higher", 4, sections=_SCORES),
        Measure("ece", "ECE", "", "lower", sections=(*_CALIBRATION, *_SCORES)),
        Measure("brier", "Brier score", "", "lower", sections=_CALIBRATION),
        Measure("rps", "RPS", "", "lower", sections=_CALIBRATION),
        Measure("crps", "CRPS", "", "lower", sections=_CALIBRATION),
        Measure("coverage_90", "coverage of 90 % intervals", sections=_CALIBRATION),
    ]
)
"""Scores of `metrics.json`; the tables of a study have those of the test split."""

FURTHER_SCORES = ("r2", "auc", "balanced_accuracy", "expected_nll")
"""Further scores of `metrics.json`, which rank fits to the same data much as others do."""

FIT_MEASURES = _by_key(
    [
        *(score.on_split("test") for score in SCORES.values()),
        replace(SCORES["nll"].on_split("train"), sections=_SCORES),
        SCORES["nll"].on_split("validation"),
        Measure("elbo", "ELBO", "nats", "higher", 3, "metrics.elbo", True, _SCORES),
        Measure("kl", "KL to the prior", "nats", source="metrics.kl"),
        Measure(
            *("expected_log_likelihood", "expected log likelihood", "nats"),
            source="metrics.expected_log_likelihood",
        ),
        Measure(
            "gradients_to_target",
            "time to the target",
            "gradients",
            "lower",
            source="times.gradients_to_target",
        ),
        Measure(
            *("gradient_evaluations", "gradient evaluations", "", "lower"),
            source="record.gradient_evaluations",
            sections=_COST,
        ),
        Measure("seconds", "seconds", "", "lower", source="record.seconds", sections=_COST),
        *(
            Measure(
                *(f"rhat_{view}_max", f"R-hat of {VIEWS[view]}", "", "lower", 4),
                source=f"measures.mixing.{view}.rhat_max",
                is_compared=True,
            )
            for view in _STUDY_VIEWS
        ),
        Measure(
            *("ess_function_min", "smallest ESS of functions", "", "higher"),
            source="measures.mixing.function.ess_bulk_min",
        ),
    ]
)
"""Measures of a fit of a study: of its metrics, record, `measures.json` or times to the target."""


def _barrier(key: str, label: str, source: str, unit: str, is_compared: bool) -> list[Measure]:
    """Return the height without and with alignment."""
    ways = {"naive": (" without alignment", "naive."), "aligned": (" after alignment", "")}
    return [
        Measure(
            *(f"{way}{key}", f"{label}{words}", unit, "lower"),
            source=f"{prefix}{source}",
            is_compared=is_compared,
        )
        for way, (words, prefix) in ways.items()
    ]


PAIR_MEASURES = _by_key(
    [
        *_barrier("", "barrier", "test.height", _NATS, True),
        *_barrier("_error", "error-rate barrier", "test.error_height", "", True),
        *_barrier("_midpoint", "barrier at the midpoint", "test.midpoint", _NATS, False),
        *_barrier("_train", "training barrier", "train.height", _NATS, False),
        Measure("distance_before", "unaligned distance", source="alignment.distance_before"),
        Measure("distance_after", "aligned distance", source="alignment.distance_after"),
        *(
            Measure(
                *(f"rhat_{view}", f"R-hat of {VIEWS[view]} of two seeds", "", "lower", 4),
                source=f"rhat.{view}",
                is_compared=True,
            )
            for view in _STUDY_VIEWS
        ),
    ]
)
"""Measures of a pair of fits of a study, from its file."""

_OTHERS = _by_key(
    [
        Measure("objective", "objective", "nats", "lower"),
        Measure("aligned_less_naive", "barrier", _NATS, "lower"),
        Measure("rhat_max", "R-hat max", "", "lower", 4),
        Measure("rhat_median", "R-hat median", "", "lower", 4),
        Measure("ess_bulk_min", "bulk ESS min", "", "higher"),
        Measure("ess_tail_min", "tail ESS min", "", "higher"),
        Measure("share_above", "share above"),
        Measure("num_parameters", "free parameters"),
        Measure("log10_order", "log10 of the symmetry group's order"),
        # Further scores of one fit.
        Measure("r2", "R2", "", "higher"),
        Measure("auc", "AUC", "", "higher", 4),
        Measure("balanced_accuracy", "balanced accuracy", "", "higher", 4),
        Measure("expected_nll", "expected NLL", _NATS, "lower"),
        Measure("aece", "ECE, equal mass", "", "lower"),
        Measure("cwce", "ECE, class-wise", "", "lower"),
        Measure("mce", "MCE", "", "lower"),
        Measure("overconfidence", "confidence - accuracy"),
        Measure("auroc_errors", "AUROC of errors", "", "higher"),
        Measure("aupr_errors", "AUPR of errors", "", "higher"),
        Measure("aurc", "AURC", "", "lower"),
        Measure("entropy", "entropy", "nats"),
        Measure("mutual_information", "mutual information", "nats"),
        Measure("mae", "MAE", "", "lower"),
        *(Measure(f"coverage_{x}", f"coverage of {x} % intervals") for x in (50, 95)),
        *(Measure(f"width_{x}", f"width of {x} % intervals") for x in (50, 90, 95)),
        Measure("qce", "quantile calibration error", "", "lower"),
        Measure("pit_distance", "PIT, distance to uniform", "", "lower"),
        Measure("pit_mean", "PIT, mean (0.5 if unshifted)"),
        Measure("sd", "predictive sd"),
        Measure("epistemic_sd", "epistemic sd"),
        # Of predictions, compared with those of a reference.
        Measure("agreement", "agreement", "", "higher", 4),
        Measure("total_variation", "total variation", "", "lower"),
        Measure("w1", "W1", "", "lower"),
        Measure("w1_relative", "W1 in predictive sd", "", "lower"),
        Measure("nll_difference", "NLL - reference's", _NATS, "lower"),
        # Of functions of the prior.
        Measure("variation", "sd of a function over points"),
        Measure("range", "range of a function over points"),
        Measure("level", "mean of a function over points"),
        Measure("noise", "sd of the noise"),
        Measure("targets", "sd of simulated targets"),
        Measure("confidence", "mean largest probability"),
        Measure("certain", "share of points above 0.99"),
        Measure("classes", "classes in use"),
    ]
)
_EVERY = {**_OTHERS, **SCORES, **FIT_MEASURES, **PAIR_MEASURES}


def measure_of(key: str) -> Measure:
    """Return the measure with a key; a key that is not registered is its own label.

    Args:
        key: in a file, such as `nll` or `test_nll`.

    Returns:
        The measure.

    Example:
        >>> measure_of("validation_nll").title
        'validation NLL, nats per point'
    """
    name, bracket, column = key.partition("[")
    if bracket and name in _EVERY:
        own = _EVERY[name]
        return replace(own, key=key, label=f"{own.label} of {column.removesuffix(']')}")
    split, _, score = key.partition("_")
    if key not in _EVERY and split in _SPLITS and score in _EVERY:
        return _EVERY[score].on_split(split)
    return _EVERY.get(key) or Measure(key, key.replace("_", " "))
