"""Format the result of `bnn-symm symmetry`."""

from typing import Any

from bnn_symm.formatting import count, first_lines, number
from bnn_symm.report.text.tables import table

# Maximum number of printed sets of interchangeable units; the JSON has more.
_LISTED = 6
_TENSORS = 3


def symmetry_text(content: dict[str, Any]) -> str:
    """Return the groups, the fixed entries, the remaining symmetries and their certificate.

    Args:
        content: of `analyses.symmetry.describe_symmetry`.

    Returns:
        The text.
    """
    lines = []
    if content["groups"]:
        lines += [_groups(content), ""]
    at_least = "at least " if _is_lower_bound(content) else ""
    lines.append(
        f"equivalent modes: {at_least}{_power(content['log10_order'])}"
        + (
            f", of {_power(content['log10_order_if_nothing_fixed'])} without fixed entries"
            if content["fixed"]
            else ""
        )
    )
    if content["log10_order_if_statistics_move"] is not None:
        lines.append(
            f"permutations of the function: {_power(content['log10_order_if_statistics_move'])}, "
            "if the statistics of batch norm move with their units, as in align and barrier"
        )
    lines.append(
        f"parameters: {content['free_parameters']:,} free of {content['network_parameters']:,}; "
        f"{content['fixed_parameters']:,} fixed"
    )
    fixed = [_fixed(entry) for entry in content["fixed"]]
    lines += [f"  {line}" for line in first_lines(fixed, _LISTED, "tensors")]
    lines.append(f"certificate: {content['certificate']}")
    lines += _remaining(content)
    lines += _equal_rows(content["duplicate_mask_rows"])
    lines += _continuous(content["continuous"])
    lines += _dimension(content["functional_dimension"])
    lines.append(_defect(content["defect"], bool(content["fixed"]), content["held_units"]))
    without = (
        "none; buffers of custom networks are not part of it"
        if content["fixed"]
        else "none, no entries are fixed at random"
    )
    lines.append(f"mask fingerprint: {content['fingerprint'] or without}")
    return "\n".join(lines)


def _is_lower_bound(content: dict[str, Any]) -> bool:
    """Return whether there may be further symmetries that were not searched for."""
    return bool(content["held_units"] or content["unsearched_flips"])


def _power(log10: float) -> str:
    """Return a small number in full, and a large one as a power of ten."""
    return f"{round(10**log10):,}" if log10 < 6 else f"10^{log10:.1f}"


def _equal_rows(duplicates: dict[str, list[list[int]]]) -> list[str]:
    if len(duplicates) > _TENSORS:
        return [
            f"equal mask rows: {sum(map(len, duplicates.values()))} sets of units in "
            f"{len(duplicates)} weights"
        ]
    lines = []
    for tensor, rows in duplicates.items():
        units = "; ".join(", ".join(map(str, row)) for row in rows[:_LISTED])
        lines.append(
            f"equal mask rows of {tensor}: units {units}{'; ...' if len(rows) > _LISTED else ''}"
        )
    return lines


def _groups(content: dict[str, Any]) -> str:
    rows = []
    for group in content["groups"]:
        tensors = group["tensors"]
        parameters = ", ".join(tensors[:_TENSORS]) + (
            f" and {len(tensors) - _TENSORS} more" if tensors[_TENSORS:] else ""
        )
        units = f"{group['size']}{', may flip' if group['signed'] else ''}"
        if group["parent"]:
            units += f" in {group['blocks']} blocks of {group['parent']}"
        order, moving = _power(group["log10_order"]), group["units_that_move"]
        rows.append([group["name"], units, order, moving, parameters])
    return table(["group", "units", "order", "movable", "parameters"], rows)


def _fixed(entry: dict[str, Any]) -> str:
    entries = (
        f"{entry['fixed']:,} of {entry['entries']:,} entries"
        if entry["trainable"]
        else "fixed as a whole"
    )
    scale = number(entry["root_mean_square"], 4)
    return f"{entry['tensor']}: {entries}, root mean square {scale}"


def _remaining(content: dict[str, Any]) -> list[str]:
    if not content["fixed"]:
        return []
    lines = []
    for component in content["components"][:_LISTED]:
        units = "; ".join(
            f"{name} units {_first_units(own)}" for name, own in component["units"].items()
        )
        lines.append(f"  {component['kind']}: {units}")
    if content["num_components"] > len(lines):
        lines.append(f"  and {content['num_components'] - len(lines)} more such sets")
    return lines


def _first_units(units: list[int]) -> str:
    return ", ".join(map(str, units[:8])) + (f", ... ({len(units)})" if len(units) > 8 else "")


def _continuous(symmetries: list[dict[str, Any]]) -> list[str]:
    """Return one line per kind, with the remaining and the removed directions."""
    lines = []
    for kind in dict.fromkeys(entry["kind"] for entry in symmetries):
        entries = [entry for entry in symmetries if entry["kind"] == kind]
        left, removed = (sum(entry[key] for entry in entries) for key in ("dimensions", "removed"))
        where = ", ".join(entry["where"] for entry in entries if entry["dimensions"]) or "-"
        where = where if len(where) <= 60 else where[:57] + "..."
        lines.append(f"  {kind}: {count(left, 'direction')} remaining, {removed} removed; {where}")
    return ["continuous symmetries, which no permutation removes:", *lines] if lines else []


def _dimension(found: dict[str, Any] | None) -> list[str]:
    """Return how many directions of the parameters have an effect, for a small network."""
    if found is None:
        return []
    without = found["parameters"] - found["dimension"]
    line = (
        f"functional dimension: {found['dimension']:,} of {found['parameters']:,} parameters; "
        f"{count(without, 'direction')} without an effect"
    )
    if found["hidden"] > 0:
        line += f", {found['hidden']} more than known: hidden symmetries at these values"
    elif found["hidden"] < 0:
        line += f", although {found['known']} are known"
    else:
        line += ", as known"
    return [line]


def _defect(defect: dict[str, Any] | None, projected: bool, frozen: int) -> str:
    if defect is None and frozen:
        return (
            "symmetry defect: not measured, no two of the units that are not frozen can be swapped"
        )
    if defect is None:
        return "symmetry defect: there are no two units to swap"
    back = ", projected onto the fixed entries," if projected else ""
    best, median, reference = (_nats(defect[key]) for key in ("best", "median", "reference"))
    scrambled = (
        "no reference, since swapping the incoming weights alone changes nothing"
        if reference == "0"
        else f"scrambling two units {reference}"
    )
    return (
        f"symmetry defect at {defect['at']}: the best of {defect['swaps']} swaps{back} changes the "
        f"log density by {best} nats over {defect['points']} points (median {median}; {scrambled})"
    )


def _nats(value: float) -> str:
    """Return a change in nats, with rounding errors of float64 as zero."""
    return "0" if value < 1e-9 else number(value, 4)
