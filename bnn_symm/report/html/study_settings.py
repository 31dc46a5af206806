"""Describe the settings of each context of a study: their order, names, roles and styles."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from bnn_symm.diagnostics.measures import Measure
from bnn_symm.formatting import count
from bnn_symm.report.html.page import value_as_text
from bnn_symm.report.plots.studies.styles import Style, styles_of
from bnn_symm.report.tables import Cell
from bnn_symm.studies.results.narrative import Answer

_SYMMETRY = "architecture.symmetry."
_ORDER = ("baseline", "asymmetric", "keeps_symmetry", "breaks_symmetry")
_CONTROLS = {
    "init_matched": "control: the same initial values, all trainable; keeps the symmetry",
    "parameter_matched": "control: a narrower standard network with as many free parameters; keeps "
    "the symmetry",
    "block_fixed": "control: as many fixed entries of the same size, equal within blocks; keeps "
    "the symmetry within blocks",
}
_ROLES = {
    "baseline": "the standard network",
    "asymmetric": "without the symmetry",
    "keeps_symmetry": "control: keeps the symmetry",
    "breaks_symmetry": "control: breaks the symmetry in another way",
}
# Style classes of the stored values of `answer`.
_MARKS: Mapping[str, str] = {
    Answer.SUPPORTED: "yes",
    Answer.OPPOSITE: "other",
    Answer.NOT_SUPPORTED: "no",
    Answer.INCONCLUSIVE: "open",
}


@dataclass(frozen=True, kw_only=True)
class ContextView:
    """One context of a study and its settings.

    Attributes:
        number: of the context.
        title: its label, or `All fits` if it is the only context.
        context: of the summary.
        numbers: of its settings: baseline, asymmetric settings, controls.
        names: of its settings, by number, without the label of the context.
        settings: all settings of the study.
        styles: of all settings.
    """

    number: int
    title: str
    context: Mapping[str, Any]
    numbers: Sequence[int]
    names: Mapping[int, str]
    settings: Sequence[Mapping[str, Any]]
    styles: Sequence[Style]

    @property
    def own(self) -> list[Mapping[str, Any]]:
        """Return the settings of the context in order."""
        return [self.settings[number] for number in self.numbers]

    @property
    def labels(self) -> list[str]:
        """Return the names of the settings in order."""
        return [self.names[number] for number in self.numbers]

    @property
    def own_styles(self) -> list[Style]:
        """Return the styles of the settings in order."""
        return [self.styles[number] for number in self.numbers]

    @property
    def baseline(self) -> int | None:
        """Return the number of the standard network, if there is one."""
        return self.context.get("baseline")


def context_views(summary: Mapping[str, Any]) -> list[ContextView]:
    """Return the contexts of a study, each with its settings.

    Args:
        summary: content of `summary.json`.

    Returns:
        One view per context.
    """
    settings: Sequence[Mapping[str, Any]] = summary["settings"]
    styles = styles_of([_kind(setting) for setting in settings])
    views = []
    for number, context in enumerate(summary["contexts"]):
        label = str(context["label"])
        own = [i for i, setting in enumerate(settings) if setting["context"] == number]
        own.sort(key=lambda i: (_ORDER.index(settings[i]["role"]), i))
        names = {
            i: str(settings[i]["label"]).removeprefix(f"{label}, ").removesuffix(f", {label}")
            for i in own
        }
        views.append(
            ContextView(
                number=number,
                title=label if label != "all runs" else "All fits",
                context=context,
                numbers=own,
                names=names,
                settings=settings,
                styles=styles,
            )
        )
    return views


def side_by_side(views: Sequence[ContextView]) -> ContextView | None:
    """Return one view of all settings if every context has a single setting, else None.

    This is the case, for example, for a comparison of methods on one kind of network.

    Args:
        views: of the contexts.

    Returns:
        The joint view.
    """
    if len(views) < 2 or any(len(view.own) != 1 for view in views):
        return None
    names = {number: view.title for view in views for number in view.numbers}
    return replace(views[0], title="All settings", context={}, numbers=list(names), names=names)


def role_text(setting: Mapping[str, Any]) -> str:
    """Return a description of the role of a setting.

    Args:
        setting: of the summary.

    Returns:
        A phrase.
    """
    if setting["role"] == "keeps_symmetry":
        return _CONTROLS.get(setting["kind"], _ROLES["keeps_symmetry"])
    kappa = setting["differences"].get(f"{_SYMMETRY}kappa")
    if setting["role"] == "breaks_symmetry" and isinstance(kappa, int | float):
        size = "that are all zero" if kappa == 0 else f"of size {kappa:g}"
        return f"control: breaks the symmetry, with fixed entries {size}"
    return _ROLES[setting["role"]]


def differences_text(setting: Mapping[str, Any]) -> str:
    """Return the keys that differ between settings, with their values.

    Args:
        setting: of the summary.

    Returns:
        The text.
    """
    differences = setting["differences"].items()
    return "; ".join(f"{name} = {value_as_text(value)}" for name, value in differences)


def verdict_cell(answer: str, small: str = "") -> Cell:
    """Return a cell with the verdict of a conclusion.

    Args:
        answer: the stored value.
        small: the second line.

    Returns:
        The cell.
    """
    text, _, more = answer.partition(", ")
    small = "; ".join(filter(None, (more, small)))
    return Cell(text=text, small=small, mark=_MARKS.get(answer, ""))


def estimate_of(setting: Mapping[str, Any], measure: Measure) -> Mapping[str, Any] | None:
    """Return the estimate of a measure; None if the setting has none.

    Args:
        setting: of the summary.
        measure: the measure.

    Returns:
        The mean with its interval.
    """
    estimate = (setting.get("measures") or {}).get(measure.key)
    return estimate if estimate is not None and estimate.get("mean") is not None else None


def present(settings: Sequence[Mapping[str, Any]], measures: Sequence[Measure]) -> list[Measure]:
    """Return the measures that at least one of the settings has.

    Args:
        settings: of the summary.
        measures: to choose from.

    Returns:
        The measures.
    """
    return [own for own in measures if any(estimate_of(setting, own) for setting in settings)]


def unit_of_replicates(settings: Sequence[Mapping[str, Any]]) -> str:
    """Return what the results are means over: `fold` in a study of folds, else `seed`.

    Args:
        settings: of the summary.
    """
    return "fold" if any(setting.get("folds") for setting in settings) else "seed"


def intervals_note(settings: Sequence[Mapping[str, Any]]) -> str:
    """Return a note on the intervals of a table.

    Args:
        settings: of the summary.
    """
    if unit_of_replicates(settings) == "seed":
        return "Small type: 95 % confidence intervals over seeds."
    return (
        "+-: standard errors over folds; small type: 95 % confidence intervals. Folds share "
        "training points, so that both are optimistic."
    )


def num_fits(setting: Mapping[str, Any]) -> int:
    """Return the number of fits of a setting.

    Args:
        setting: of the summary.
    """
    return len(setting["seeds"]) * max(1, len(setting.get("folds") or ()))


def replicates_text(settings: Sequence[Mapping[str, Any]]) -> str:
    """Return the number of folds and seeds of each setting; empty if it differs.

    Args:
        settings: of the summary.
    """
    counts = {(len(one.get("folds") or ()), len(one["seeds"])) for one in settings}
    if len(counts) != 1:
        return ""
    folds, seeds = counts.pop()
    if not folds:
        return f"{count(seeds, 'seed')} each"
    of_seeds = f" with {count(seeds, 'seed')}" if seeds > 1 else ""
    return f"{count(folds, 'fold')}{of_seeds} each"


def reasons(
    settings: Sequence[Mapping[str, Any]], labels: Sequence[str], measures: Sequence[Measure]
) -> list[str]:
    """Return the reasons for missing means or intervals, each with its settings and measures.

    Args:
        settings: of the summary.
        labels: of the settings.
        measures: to look at.

    Returns:
        One note per reason.
    """
    affected: dict[str, tuple[dict[str, None], dict[str, None]]] = {}
    for setting, label in zip(settings, labels, strict=True):
        for own in measures:
            reason = ((setting.get("measures") or {}).get(own.key) or {}).get("reason")
            if reason:
                names, titles = affected.setdefault(str(reason), ({}, {}))
                names[label] = titles[own.title] = None
    notes = []
    for reason, (names, titles) in affected.items():
        who = "all settings" if len(names) == len(settings) else ", ".join(names)
        what = "" if len(titles) == len(measures) else f"{'; '.join(titles)}, "
        notes.append(f"{what}{who}: {reason}")
    return notes


def _kind(setting: Mapping[str, Any]) -> tuple[str, str]:
    """Return the symmetry settings, which define the style in every context."""
    keys = {
        name: value for name, value in setting["differences"].items() if name.startswith(_SYMMETRY)
    }
    keys.pop(f"{_SYMMETRY}kind", None)
    return str(setting["kind"]), repr(sorted(keys.items()))
