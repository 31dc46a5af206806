"""State what weakens the guarantee of conformal regions that the validation split calibrates."""

from bnn_symm.runs.configuration.config import Config

# Settings by which a fit reads the validation split.
_STOPPING = ("early_stopping", "gain_test")
OTHER_POINTS = (
    "the guarantee of conformal regions is for points of the distribution of the validation points"
)
"""A note on points that are not those of the test split."""


def conformal_notes(config: Config) -> list[str]:
    """Return why the validation split and new points may not be exchangeable.

    Args:
        config: the configuration of the fit.
    """
    notes = []
    methods = (*config.warm_start, config.inference)
    used = [name for name in _STOPPING if any(getattr(own, name, None) for own in methods)]
    if used:
        notes.append(
            f"the fit was stopped by the validation split (inference.{used[0]}), from which its "
            "scores may be a little too small: the guarantee is approximate"
        )
    data = config.data
    if data.group is not None:
        notes.append(
            f"points of one {data.group} depend on each other, and the guarantee is for points "
            "that are exchangeable: coverage varies more from group to group"
        )
    if data.time is not None:
        notes.append(
            f"the test points are later in {data.time} than the validation points: the guarantee "
            "holds only if the distribution does not change"
        )
    if data.gap_feature is not None:
        notes.append(
            f"the test points are within a gap of {data.gap_feature}, and the validation points "
            "outside: the guarantee does not hold for them"
        )
    return notes
