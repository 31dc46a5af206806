"""The text of `bnn-symm symmetry`."""

from typing import Any

from bnn_symm.report.tables import format_number, table

# Lines of interchangeable units that are printed; the JSON has more.
_LISTED = 6
_TENSORS = 3


def symmetry_text(content: dict[str, Any]) -> str:
    """Groups, what is fixed, what is left and its proof, from `experiments.symmetry_report`."""
    lines = []
    if content["groups"]:
        lines += [_groups(content), ""]
    lines.append(
        f"equivalent modes: 10^{content['log10_order']:.1f}, of 10^{content['log10_order_if_nothing_fixed']:.1f} if "
        f"nothing were fixed"
    )
    lines.append(
        f"parameters: {content['free_parameters']:,} free of {content['network_parameters']:,}; "
        f"{content['fixed_parameters']:,} fixed"
    )
    lines += [f"  {_fixed(entry)}" for entry in content["fixed"]]
    lines.append(f"certificate: {content['certificate']}")
    lines += _left(content)
    for tensor, rows in content["duplicate_mask_rows"].items():
        units = "; ".join(", ".join(map(str, row)) for row in rows[:_LISTED])
        lines.append(f"equal mask rows of {tensor}: units {units}{'; ...' if len(rows) > _LISTED else ''}")
    lines += _continuous(content["continuous"])
    lines.append(_defect(content["defect"]))
    lines.append(f"mask fingerprint: {content['fingerprint'] or 'none, nothing is fixed at random'}")
    return "\n".join(lines)


def _groups(content: dict[str, Any]) -> str:
    rows = []
    for group in content["groups"]:
        tensors = group["tensors"]
        touched = ", ".join(tensors[:_TENSORS]) + (f" and {len(tensors) - _TENSORS} more" if tensors[_TENSORS:] else "")
        units = f"{group['size']}{', may flip' if group['signed'] else ''}"
        if group["parent"]:
            units += f" in {group['blocks']} blocks of {group['parent']}"
        rows.append([group["name"], units, f"10^{group['log10_order']:.1f}", group["units_that_move"], touched])
    return table(["group", "units", "orders", "still move", "parameters"], rows)


def _fixed(entry: dict[str, Any]) -> str:
    what = f"{entry['fixed']:,} of {entry['entries']:,} entries" if entry["trainable"] else "a fixed matrix"
    return f"{entry['tensor']}: {what}, of size {format_number(entry['standard_deviation'])}"


def _left(content: dict[str, Any]) -> list[str]:
    if content["log10_order"] == content["log10_order_if_nothing_fixed"]:
        return []
    lines = []
    for component in content["components"][:_LISTED]:
        units = "; ".join(f"{name} units {_some(own)}" for name, own in component["units"].items())
        lines.append(f"  {component['kind']}: {units}")
    if content["num_components"] > len(lines):
        lines.append(f"  and {content['num_components'] - len(lines)} more such sets")
    return lines


def _some(units: list[int]) -> str:
    return ", ".join(map(str, units[:8])) + (f", ... ({len(units)})" if len(units) > 8 else "")


def _continuous(found: list[dict[str, Any]]) -> list[str]:
    """One line a kind, of what is left and what fixed entries removed."""
    lines = []
    for kind in dict.fromkeys(entry["kind"] for entry in found):
        own = [entry for entry in found if entry["kind"] == kind]
        left, removed = (sum(entry[key] for entry in own) for key in ("dimensions", "removed"))
        where = ", ".join(entry["where"] for entry in own if entry["dimensions"]) or "-"
        where = where if len(where) <= 60 else where[:57] + "..."
        lines.append(f"  {kind}: {left} directions left, {removed} removed; {where}")
    return ["continuous symmetries, which no permutation removes:", *lines] if lines else []


def _defect(defect: dict[str, Any] | None) -> str:
    if defect is None:
        return "symmetry defect: there are no two units to swap"
    return (
        f"symmetry defect at {defect['at']}: the best of {defect['swaps']} swaps, put back onto the mask, changes the "
        f"log density by {format_number(defect['best'])} nats over {defect['points']} points (median "
        f"{format_number(defect['median'])}; scrambling two units {format_number(defect['reference'])})"
    )
