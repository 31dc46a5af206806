"""Describe the symmetries of a model: the content of `bnn-symm symmetry --json`."""

from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from bnn_symm.architectures import fingerprint, weight_shapes
from bnn_symm.data import Split
from bnn_symm.diagnostics import symmetry_defect
from bnn_symm.models import BayesianModel, Categorical
from bnn_symm.symmetry import SymmetryGroup, continuous_symmetries, duplicate_rows, symmetry_group
from bnn_symm.symmetry.functional_dimension import MAX_PARAMETERS, functional_dimension

# Largest number of components of interchangeable units that are listed.
_COMPONENTS = 20


def describe_symmetry(
    model: BayesianModel,
    part: Split,
    flat: Float[Tensor, " parameter"],
    *,
    where: str,
    kind: str,
    hold: bool = False,
) -> dict[str, Any]:
    """Describe the groups, fixed entries, remaining symmetry, certificate and symmetry defect.

    Args:
        model: a model whose network consists of operations with rules.
        part: points of the data, for the defect.
        flat: the flat vector at which the defect is measured.
        where: the name of that vector in the report.
        kind: the kind of the architecture's symmetry settings.
        hold: see `permutation_spec`.

    Returns:
        The content of `bnn-symm symmetry --json`.

    Raises:
        SymmetryError: if the symmetries cannot be derived.
    """
    net, shape = model.net, tuple(part.x.shape[1:])
    group = symmetry_group(net, input_shape=shape, hold=hold)
    softmax = isinstance(model.likelihood, Categorical)
    defect = symmetry_defect(model, part, flat, spec=group.spec)
    total = sum(size.numel() for size in weight_shapes(net, constants=True).values())
    continuous = continuous_symmetries(
        net, group.spec, group.fixed, input_shape=shape, softmax=softmax
    )
    rank = None
    if model.num_net_parameters <= MAX_PARAMETERS:
        known = sum(own.dimensions for own in continuous)
        rank = functional_dimension(net, known, input_shape=shape, softmax=softmax)
    return {
        "kind": kind,
        "log10_order": group.log10_order,
        "log10_order_if_nothing_fixed": group.spec.log10_order,
        "log10_order_if_statistics_move": symmetry_group(
            net, group.spec, move_statistics=True
        ).log10_order
        if model.statistics
        else None,
        "order": str(group.order) if group.log10_order < 30 else None,
        "certificate": group.certificate,
        "held_units": group.spec.num_frozen_units,
        "held_at": group.spec.frozen_at,
        "unsearched_flips": group.num_unsearched_flips,
        "fingerprint": fingerprint(net),
        "free_parameters": model.num_net_parameters,
        "network_parameters": total,
        "fixed_parameters": total - model.num_net_parameters,
        "groups": [_group(group, name) for name in group.spec.groups],
        "components": [
            {
                "kind": component.kind,
                "order": str(component.order) if component.order < 10**30 else None,
                "units": {name: list(units) for name, units in component.units.items()},
            }
            for component in group.components[:_COMPONENTS]
        ],
        "num_components": len(group.components),
        "duplicate_mask_rows": duplicate_rows(group.fixed),
        "fixed": [
            _fixed(net, name, entry)
            for name, entry in group.fixed.items()
            if not bool(entry.free.all())
        ],
        "continuous": [
            {"kind": c.kind, "where": c.where, "dimensions": c.dimensions, "removed": c.removed}
            for c in continuous
        ],
        "functional_dimension": None if rank is None else rank.to_dict(),
        "defect": None
        if defect is None
        else {
            "best": defect.best,
            "median": defect.median,
            "reference": defect.reference,
            "relative": defect.relative,
            "group": defect.group,
            "units": list(defect.units),
            "swaps": defect.num_swaps,
            "points": defect.num_points,
            "at": where,
        },
    }


def _group(group: SymmetryGroup, name: str) -> dict[str, Any]:
    """Return the numbers of one group of units."""
    spec = group.spec.groups[name]
    # The tensors of a head are those of its units; a head has no axis of its own.
    family = [name, *(child.name for child in group.spec.groups.values() if child.parent == name)]
    moving = {unit for component in group.components for unit in component.units.get(name, ())}
    return {
        "name": name,
        "size": spec.size,
        "signed": spec.signed,
        "parent": spec.parent,
        "blocks": spec.blocks,
        "tensors": [tensor for member in family for tensor in group.spec.tensors_of(member)],
        "log10_order": spec.log10_order,
        "log10_order_left": group.log10_order_of(name),
        "units_that_move": len(moving),
    }


def _fixed(net: nn.Module, name: str, entry: Any) -> dict[str, Any]:
    """Return the numbers of the fixed entries of one tensor."""
    values = entry.values[~entry.free]
    return {
        "tensor": name,
        "trainable": name in dict(net.named_parameters()),
        "fixed": int((~entry.free).sum()),
        "entries": entry.free.numel(),
        "root_mean_square": float(values.square().mean().sqrt()),
    }
