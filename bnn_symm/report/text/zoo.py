"""Format the results of `bnn-symm zoo`."""

from typing import Any

from bnn_symm.formatting import count, number
from bnn_symm.report.text.tables import table


def zoo_text(content: dict[str, Any]) -> str:
    """Return the quantiles of hyper-parameters and scores of a zoo.

    Args:
        content: of `zoo.json`.

    Returns:
        The text.
    """
    symmetry = content["symmetry"]
    header = [
        "",
        *(
            f"{level:.0%}" if 0 < level < 1 else ("lowest", "highest")[int(level)]
            for level in content["quantiles"]
        ),
    ]
    rows = [
        [name.replace("_", " "), *values]
        for name, values in (content["hyperparameters"] | content["scores"]).items()
    ]
    lines = [
        f"{count(content['num_networks'], 'network')} of "
        f"{count(content['run']['num_parameters'], 'parameter')}, {symmetry['kind']}: "
        f"{_equivalent(symmetry['log10_order'])}",
        "quantiles of hyper-parameters and of scores on the test split",
        table(header, rows),
        "barrier: test NLL in the middle of the line to the network of the lowest NLL, minus the "
        "mean of the ends",
    ]
    return "\n".join(lines)


def predictors_text(content: dict[str, Any]) -> str:
    """Return a table of predictors for each predicted score.

    Args:
        content: of `predictors.json`.

    Returns:
        The text.
    """
    zoos = content["zoos"]
    rows = [
        [
            own["label"],
            own["num_networks"],
            own["num_held_out"],
            own["num_excluded"],
            own["num_parameters"],
            _equivalent(own["log10_order"]),
        ]
        for own in zoos
    ]
    header = ["zoo", "networks", "held out", "left out", "parameters", "symmetry group"]
    lines = [
        table(header, rows),
        f"means over {count(len(content['seeds']), 'seed')} of the predictors; in parentheses "
        f"{content['level']:.0%} intervals over held-out networks",
    ]
    for target in dict.fromkeys(own["target"] for zoo in zoos for own in zoo["scores"]):
        rows = [
            [zoo["label"], own["predictor"].replace("_", " "), own["tau"], own["r2"]]
            for zoo in zoos
            for own in zoo["scores"]
            if own["target"] == target
        ]
        lines += ["", table([target, "predictor", "Kendall tau", "R2"], rows)]
    return "\n".join(lines)


def _equivalent(log10_order: float) -> str:
    """Return the number of weights that compute the same function."""
    return "trivial" if log10_order == 0 else f"10^{number(log10_order)} elements"
