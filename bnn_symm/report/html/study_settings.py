"""The settings of one context of a study, in the order in which they are shown, with their names,
roles and styles.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from bnn_symm.report.html.page import said
from bnn_symm.report.plots.studies.styles import Style, styles_of

_SYMMETRY = "architecture.symmetry."
# What stands first.
_ORDER = ("baseline", "asymmetric", "keeps_symmetry", "breaks_symmetry")
_CONTROLS = {
    "init_matched": "control: the same initial values, all trainable; the symmetry is intact",
    "parameter_matched": "control: a narrower standard network with as many free parameters; the "
    "symmetry is intact",
    "block_fixed": "control: as many fixed entries of the same size, alike in blocks; intact "
    "within blocks",
}
_ROLES = {
    "baseline": "the standard network",
    "asymmetric": "without the symmetry",
    "keeps_symmetry": "control: the symmetry is intact",
    "breaks_symmetry": "control: without the symmetry, and without something else",
}


@dataclass(frozen=True, kw_only=True)
class ContextView:
    """One context.

    Attributes:
        number: of the context.
        title: its label, or what stands for it where there is only one.
        context: of the summary.
        numbers: of its settings: baseline, asymmetric ones, controls.
        names: setting -> what it is called here.
        settings: all settings of the study.
        styles: all styles, by setting.
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
        """The settings of the context, in order."""
        return [self.settings[number] for number in self.numbers]

    @property
    def labels(self) -> list[str]:
        """Their names."""
        return [self.names[number] for number in self.numbers]

    @property
    def own_styles(self) -> list[Style]:
        """Their styles."""
        return [self.styles[number] for number in self.numbers]

    @property
    def baseline(self) -> int | None:
        """Number of the standard network."""
        return self.context.get("baseline")


def context_views(summary: Mapping[str, Any]) -> list[ContextView]:
    """The contexts of a study, each with its settings."""
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
    """One view of all settings, where no context has two to compare: methods on one kind of
    network, say; else None.
    """
    if len(views) < 2 or any(len(view.own) != 1 for view in views):
        return None
    names = {number: view.title for view in views for number in view.numbers}
    return replace(views[0], title="All settings", context={}, numbers=list(names), names=names)


def role_text(setting: Mapping[str, Any]) -> str:
    """What a setting is for, in words."""
    if setting["role"] == "keeps_symmetry":
        return _CONTROLS.get(setting["kind"], _ROLES["keeps_symmetry"])
    kappa = setting["differences"].get(f"{_SYMMETRY}kappa")
    if setting["role"] == "breaks_symmetry" and isinstance(kappa, int | float):
        size = "that are all zero" if kappa == 0 else f"of size {kappa:g}"
        return f"control: without the symmetry, with fixed entries {size}"
    return _ROLES[setting["role"]]


def differences_text(setting: Mapping[str, Any]) -> str:
    """Keys that differ between settings, with their values."""
    return "; ".join(f"{name} = {said(value)}" for name, value in setting["differences"].items())


def _kind(setting: Mapping[str, Any]) -> tuple[str, str]:
    """What is done about the symmetry: the same in every context."""
    keys = {
        name: value for name, value in setting["differences"].items() if name.startswith(_SYMMETRY)
    }
    keys.pop(f"{_SYMMETRY}kind", None)
    return str(setting["kind"]), repr(sorted(keys.items()))
