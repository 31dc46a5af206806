"""Match arrays of other software to the parameters of a network, by name and then by shape.

Nothing is guessed: an ambiguous match is an error that shows the entry to add to the user's name
mapping (`name_mapping`), and every transposition is recorded in the `Matching`. Weights with fixed
entries accept whole weights if these hold the network's fixed values. A learned noise is paired by
the mapping or by its own name only: no array shows whether it is a standard deviation, a variance
or a precision.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import yaml
from jaxtyping import Float
from torch import Tensor

from bnn_symm.architectures import effective_parameters, free_parameters
from bnn_symm.arguments import checked
from bnn_symm.errors import IncompatiblePosteriors, one_line
from bnn_symm.formatting import number
from bnn_symm.models import BayesianModel
from bnn_symm.posteriors.external.name_mapping import TRANSFORMS, NameMapping, checked_names
from bnn_symm.posteriors.external.parameter_names import (
    looks_like_parameter,
    pair_names,
    suggestions,
)
from bnn_symm.posteriors.external.tensor_layouts import (
    Axes,
    Layout,
    Shape,
    choose_axes,
    choose_inputs,
)

# Fixed values are multiples of 2^-16; other software may hold them in float32.
_SAME_VALUE = 1e-5
# Largest length of a message, and of the name mapping at its end.
_LONGEST = 300
_LONGEST_MAP = 140


@dataclass(frozen=True, kw_only=True)
class Match:
    """Describe one parameter and the array that holds it.

    Attributes:
        parameter: of the network, or a latent variable of the likelihood.
        name: of the array.
        rule: how the two names were paired.
        shape: of the array, without chain and draw.
        axes: axis of the array for each axis of the parameter; None for an unchanged order.
        inputs: for each input the one of the array; None for an unchanged order.
        restricted: whether the array is a whole weight, of which the free entries are used.
        transform: conversion of the values, or None.
    """

    parameter: str
    name: str
    rule: str
    shape: Shape
    axes: Axes = None
    inputs: Tensor | None = field(default=None, repr=False)
    restricted: bool = False
    transform: str | None = None

    @property
    def changes(self) -> list[str]:
        """Return a description of each conversion of the array."""
        changes = []
        if self.axes is not None:
            changes.append(
                "transposed" if len(self.axes) == 2 else "kernel turned to (out, in, *positions)"
            )
        if self.inputs is not None:
            changes.append("inputs reordered from channels last to channels first")
        if self.restricted:
            changes.append("restricted to the free entries")
        if self.transform is not None:
            changes.append(f"{self.transform} of {TRANSFORMS[self.transform][0]}")
        return changes


@dataclass(frozen=True, kw_only=True)
class Matching:
    """Describe which array is which parameter.

    Attributes:
        model: the model of the parameters.
        matches: in the order of the flat vector.
        unused: names of arrays that are not used.
    """

    model: BayesianModel
    matches: tuple[Match, ...]
    unused: tuple[str, ...]

    def rows(self) -> list[dict[str, Any]]:
        """Return one row per parameter, as plain data.

        Returns:
            Rows with parameter, name, shape of the array, rule and changes.
        """
        return [
            {
                "parameter": match.parameter,
                "name": match.name,
                "shape": list(match.shape),
                "rule": match.rule,
                "changes": match.changes,
            }
            for match in self.matches
        ]

    def flatten(
        self, arrays: Mapping[str, np.ndarray | Tensor]
    ) -> Float[Tensor, "chain draw parameter"]:
        """Return draws as flat vectors of the model, in its dtype.

        Args:
            arrays: name -> (chain, draw, *shape).

        Returns:
            The flat vectors.

        Raises:
            IncompatiblePosteriors: if (chain, draw) differ between names, values are not finite, a
                whole weight does not hold the fixed values, or a logarithm is taken of a value that
                is not positive.
        """
        leading = {match.name: tuple(arrays[match.name].shape[:2]) for match in self.matches}
        if len(set(leading.values())) > 1:
            raise IncompatiblePosteriors(f"(chain, draw) differ between names: {leading}")
        values = {match.parameter: _read(match, arrays[match.name]) for match in self.matches}
        whole = {
            match.parameter: values[match.parameter] for match in self.matches if match.restricted
        }
        free = free_parameters(self.model.net, whole)
        for name, expected in effective_parameters(self.model.net, free).items():
            _check_fixed(name, whole[name], expected)
        return self.model.flatten({**values, **free}).to(self.model.dtype)


def _read(match: Match, array: np.ndarray | Tensor) -> Tensor:
    value = (
        torch.from_numpy(np.asarray(array))
        if isinstance(array, np.ndarray)
        else array.detach().cpu()
    )
    value = value.to(torch.promote_types(value.dtype, torch.float32))
    finite = torch.isfinite(value)
    if not bool(finite.all()):
        chain, draw = finite.logical_not().nonzero()[0, :2].tolist()
        raise IncompatiblePosteriors(
            f"{match.name} holds values that are not finite, first in chain {chain}, draw {draw}: "
            "the chain diverged, or chains of unequal length were stacked; cut the chains to "
            "finite draws"
        )
    if match.axes is not None:
        value = value.permute(0, 1, *(2 + axis for axis in match.axes))
    if match.inputs is not None:
        value = value[..., match.inputs]
    if match.transform is not None:
        quantity, function = TRANSFORMS[match.transform]
        if not bool((value > 0).all()):
            raise IncompatiblePosteriors(
                f"{match.name} is read as {quantity} (transform: {match.transform}), but holds "
                f"{number(float(value.min()))}; correct the name mapping"
            )
        value = function(value)
    return value


def _check_fixed(name: str, got: Tensor, expected: Tensor) -> None:
    """Refuse whole weights that do not hold the network's values at its fixed entries."""
    difference = (got - expected).abs() / (1 + expected.abs())
    if float(difference.max()) > _SAME_VALUE:
        chain, draw, *entry = (difference == difference.max()).nonzero()[0].tolist()
        where = (chain, draw, *entry)
        raise IncompatiblePosteriors(
            f"{name} holds {number(float(got[where]), 6)} at {entry} in chain {chain}, draw "
            f"{draw}, where the network has the fixed value {number(float(expected[where]), 6)}; "
            "build the network with the architecture.symmetry of the draws, its seed included"
        )


@checked
def match_names(
    arrays: Mapping[str, np.ndarray | Tensor],
    model: BayesianModel,
    names: NameMapping | None = None,
    *,
    strict: bool = False,
) -> Matching:
    """Match arrays to parameters.

    Args:
        arrays: name -> (chain, draw, *shape).
        model: the model of the parameters.
        names: the user's name mapping; it can omit what other rules match.
        strict: whether every array has to be a parameter. Otherwise unmatched arrays are listed in
            `Matching.unused`; they are refused only if their names look like those of weights and
            the mapping does not list every parameter.

    Returns:
        The matching.

    Raises:
        ConfigError: if the mapping lists unknown parameters or arrays.
        IncompatiblePosteriors: if arrays do not fit; the message lists shapes of both sides, and
            the mapping to write.
    """
    layout = Layout(model)
    shapes = {name: tuple(int(size) for size in array.shape[2:]) for name, array in arrays.items()}
    entries = checked_names(names or {}, model.shapes, layout.latents, shapes)
    pairs = {parameter: (entry["name"], "map") for parameter, entry in entries.items()}
    left = [name for name in shapes if name not in {name for name, _ in pairs.values()}]
    unpaired = [name for name in layout.network if name not in pairs]
    paired = pair_names(
        unpaired, left, lambda parameter, name: bool(layout.readings(parameter, shapes[name]))
    )
    if paired is not None:
        pairs |= {parameter: (name, paired[1]) for parameter, name in paired[0].items()}
    elif strict:  # identical names are still compared, so that one message lists all problems
        pairs |= {name: (name, "same name") for name in unpaired if name in left}
    pairs |= {
        name: (name, "same name") for name in layout.latents if name not in pairs and name in left
    }
    unused = tuple(name for name in shapes if name not in {name for name, _ in pairs.values()})
    mapped = set(layout.network) <= set(entries)
    like = [name for name in unused if looks_like_parameter(name) and shapes[name]]
    _check_pairs(
        layout, shapes, pairs, entries, unused, list(unused) if strict else [] if mapped else like
    )
    axes = choose_axes(layout, shapes, pairs, entries)
    inputs = choose_inputs(layout, pairs, axes, entries)
    matches = []
    for parameter in model.shapes:
        name, rule = pairs[parameter]
        match = Match(
            parameter=parameter,
            name=name,
            rule=rule,
            shape=shapes[name],
            axes=axes[parameter],
            inputs=inputs.get(parameter),
            restricted=layout.restricts(parameter, shapes[name]),
            transform=entries.get(parameter, {}).get("transform"),
        )
        matches.append(match)
    return Matching(model=model, matches=tuple(matches), unused=unused)


def _check_pairs(
    layout: Layout,
    shapes: Mapping[str, Shape],
    pairs: Mapping[str, tuple[str, str]],
    entries: Mapping[str, Mapping[str, Any]],
    unused: tuple[str, ...],
    refused: list[str],
) -> None:
    """Refuse pairs that leave a parameter without a compatible array."""
    missing = [name for name in layout.model.shapes if name not in pairs]
    problems = [f"{name} is missing" for name in missing] + [
        f"{name} is unknown" for name in refused
    ]
    for parameter, (name, _) in pairs.items():
        # A mapping with `transpose` is checked where the array is transposed.
        if not layout.readings(parameter, shapes[name]) and "transpose" not in entries.get(
            parameter, {}
        ):
            called = "" if name == parameter else f", here {name},"
            problems.append(
                f"{parameter}{called} has shape {shapes[name]}, expected {layout.shape(parameter)}"
            )
    if not problems:
        return
    few = 3 if len(missing) <= 4 else 1  # the mapping below lists all that are missing
    message = "the draws do not fit the network: " + "; ".join(
        one_line(problem, 100) for problem in problems[:few]
    )
    message += f"; and {len(problems) - few} more" if len(problems) > few else ""
    unmatched = [name for name in missing if name in layout.network]
    latents = {name: _noise(unused, shapes) for name in missing if name in layout.latents}
    if unmatched and unused:
        fitting = {
            p: [name for name in unused if layout.readings(p, shapes[name])] for p in unmatched
        }
        entries = {name: {"name": noise, "transform": "log"} for name, noise in latents.items()}
        written = _written({**suggestions(unmatched, unused, fitting), **entries})
        ours = _listed({p: layout.shape(p) for p in unmatched}, 30)
        room = max(40, _LONGEST - len(message) - len(written) - len(ours) - 50)
        theirs = _listed({name: shapes[name] for name in unused}, room)
        message += f"; expected {ours}; got {theirs}; write a name mapping, such as {written}"
    else:
        if refused and not missing:
            message += (
                "; if they are not part of the network, drop them, or list every parameter in a "
                "name mapping"
            )
        for latent, noise in latents.items():
            written = _written({latent: {"name": noise, "transform": "log"}})
            message += f"; {latent} is never guessed: if {one_line(noise, 40)} is "
            message += (
                f"the noise, add {written} to a name mapping (variance: log_sqrt), or fix the "
                "noise with likelihood.noise=VALUE"
                if latent.endswith("log_noise")
                else f"its exponential, add {written} to a name mapping"
            )
    raise IncompatiblePosteriors(message)


def _noise(unused: Sequence[str], shapes: Mapping[str, Shape]) -> str:
    """Return the likely name of the noise: that of an unmatched scalar."""
    return next((name for name in unused if shapes[name] == ()), "sigma")


def _written(entries: Mapping[str, Any]) -> str:
    """Return a name mapping as one line of YAML, shortened to its first entries if long."""
    whole = " ".join(yaml.safe_dump(dict(entries), default_flow_style=True, width=math.inf).split())
    if len(whole) <= _LONGEST_MAP:
        return whole
    names = sorted(entries)
    for shown in range(len(names) - 1, 1, -1):
        first = yaml.safe_dump(
            {n: entries[n] for n in names[:shown]}, default_flow_style=True, width=math.inf
        )
        if len(first) <= _LONGEST_MAP - 20:
            break
    else:
        return one_line(whole, _LONGEST_MAP)
    return f"{' '.join(first.split())[:-1]}, ... and {len(names) - shown} more}}"


def _listed(shapes: Mapping[str, Shape], width: int) -> str:
    """Return names with their shapes, as many as fit a width but at least one."""
    texts = [one_line(f"{name} {shape}", 60) for name, shape in shapes.items()]
    shown = 1
    while shown < len(texts) and len(", ".join(texts[: shown + 1])) <= width:
        shown += 1
    return ", ".join(texts[:shown]) + (", ..." if shown < len(texts) else "")
