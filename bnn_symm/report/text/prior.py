"""Format the result of `bnn-symm prior`."""

from typing import Any

from bnn_symm.diagnostics.measures import measure_of
from bnn_symm.formatting import percent
from bnn_symm.report.tables import cell
from bnn_symm.report.text.tables import table

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
        [measure_of(name).title, *values, content["of_data"][name]]
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
            cell(one["prior.scale"]).text,
            *("overflows" if "error" in one else one["quantiles"][n][middle] for n in names),
        ]
        for one in (own, *content["others"])
    ]
    medians[0][0] += " (this prior)"
    lines += [
        "",
        table(["prior.scale", *(f"{measure_of(name).label}, median" for name in names)], medians),
    ]
    if content["next"]:
        lines += ["", f"next: {content['next']}"]
    return "\n".join(lines)
