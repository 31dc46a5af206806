"""Format the result of `bnn-symm prior`."""

from typing import Any

from bnn_symm.formatting import number, percent
from bnn_symm.report.text.tables import table

_NAMES = {
    "variation": "sd of a function over points",
    "range": "range of a function over points",
    "level": "mean of a function over points",
    "noise": "sd of the noise",
    "targets": "sd of simulated targets",
    "confidence": "mean largest probability",
    "entropy": "mean entropy, nats",
    "certain": "share of points above 0.99",
    "classes": "classes in use",
}
_VERDICTS = {
    "open": "functions are uncertain about the class of a point",
    "decided": "functions are certain about classes before they see data",
    "of their size": "functions have the scale of the data",
    "too flat": "functions vary less than the data",
    "too wild": "functions vary more than the data",
}


def prior_text(content: dict[str, Any]) -> str:
    """Return quantities of functions and of the data, a verdict, other scales and advice.

    Args:
        content: of `describe_prior`.

    Returns:
        The text.
    """
    header = ["over functions", *(percent(level) for level in content["levels"]), "data"]
    own = content["own"]
    rows = [
        [_NAMES[name], *values, content["of_data"][name]]
        for name, values in own["quantiles"].items()
    ]
    lines = [table(header, rows), ""]
    lines.append(f"{_VERDICTS[content['verdict']]}: {content['said']}")
    if own["overflowing"]:
        lines.append(f"{percent(own['overflowing'])} of the functions overflow and are left out")
    names = (
        ("confidence", "classes") if "confidence" in own["quantiles"] else ("variation", "targets")
    )
    middle = content["levels"].index(0.5)
    medians = [
        [
            number(one["prior.scale"], 4),
            *(
                "overflows" if "error" in one else number(one["quantiles"][n][middle], 4)
                for n in names
            ),
        ]
        for one in (own, *content["others"])
    ]
    medians[0][0] += " (this prior)"
    lines += ["", table(["prior.scale", *(f"{_NAMES[name]}, median" for name in names)], medians)]
    if content["next"]:
        lines += ["", f"next: {content['next']}"]
    return "\n".join(lines)
