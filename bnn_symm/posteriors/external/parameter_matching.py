"""Pairs arrays of other software with the parameters of a network: by name (`names`), then by shape
(`layouts`).

Nothing is guessed: what cannot be told is an error that says what to write into the user's map of
    names (`name_map`),
and what was turned on the way is said in the `Matching`. Weights with fixed entries take whole
weights of others, if these hold the fixed values where the network has them. A learned noise is
paired by the map or by its own name only: no array says whether it is a standard deviation, a
variance or a precision.
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
from bnn_symm.models import BayesianModel
from bnn_symm.posteriors.external.name_mapping import TRANSFORMS, Names, checked_names
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
# Characters of a message, and of the map of names in it, which stands at its end.
_LONGEST = 300
_LONGEST_MAP = 140


@dataclass(frozen=True, kw_only=True)
class Match:
    """One parameter and the array that holds it.

    Attributes:
        parameter: of the network, or a latent variable of the likelihood.
        name: of theirs.
        rule: how the two names were paired.
        shape: of theirs, without chain and draw.
        axes: which axis of theirs is each of ours; None for all as they are.
        inputs: for each of our inputs the one of theirs; None for all as they are.
        restricted: whether theirs is a whole weight, of which the free entries are taken.
        transform: of their values, or None.
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
        """What is done to their array, in words."""
        said = []
        if self.axes is not None:
            said.append(
                "transposed" if len(self.axes) == 2 else "kernel turned to (out, in, *positions)"
            )
        if self.inputs is not None:
            said.append("inputs reordered from channels last to channels first")
        if self.restricted:
            said.append("restricted to the free entries")
        if self.transform is not None:
            said.append(f"{self.transform} of {TRANSFORMS[self.transform][0]}")
        return said


@dataclass(frozen=True, kw_only=True)
class Matching:
    """Which array of theirs is which parameter.

    Attributes:
        model: whose parameters they are.
        matches: in the order of the flat vector.
        unused: names of theirs that no parameter is read from.
    """

    model: BayesianModel
    matches: tuple[Match, ...]
    unused: tuple[str, ...]

    def rows(self) -> list[dict[str, Any]]:
        """One row a parameter, as plain data: parameter, name, shape of theirs, rule, changes."""
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
        """Their draws as flat vectors of the model, in its dtype.

        Args:
            arrays: name -> (chain, draw, *shape).

        Raises:
            IncompatiblePosteriors: if (chain, draw) differ from name to name, values are not
                finite, a whole weight does not hold the fixed values, or what a logarithm is taken
                of is not positive.
        """
        leading = {match.name: tuple(arrays[match.name].shape[:2]) for match in self.matches}
        if len(set(leading.values())) > 1:
            raise IncompatiblePosteriors(f"(chain, draw) differ from name to name: {leading}")
        values = {match.parameter: _read(match, arrays[match.name]) for match in self.matches}
        whole = {
            match.parameter: values[match.parameter] for match in self.matches if match.restricted
        }
        free = free_parameters(self.model.net, whole)
        for name, wanted in effective_parameters(self.model.net, free).items():
            _check_fixed(name, whole[name], wanted)
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
            "that chain went "
            "astray, or chains of unequal length were put together; cut the chains to what is "
            "finite"
        )
    if match.axes is not None:
        value = value.permute(0, 1, *(2 + axis for axis in match.axes))
    if match.inputs is not None:
        value = value[..., match.inputs]
    if match.transform is not None:
        what, function = TRANSFORMS[match.transform]
        if not bool((value > 0).all()):
            raise IncompatiblePosteriors(
                f"{match.name} is read as {what} (transform: {match.transform}), but holds "
                f"{float(value.min()):g}; correct the map of names"
            )
        value = function(value)
    return value


def _check_fixed(name: str, got: Tensor, wanted: Tensor) -> None:
    """Raises IncompatiblePosteriors unless whole weights hold the network's values at its fixed
    entries.
    """
    apart = (got - wanted).abs() / (1 + wanted.abs())
    if float(apart.max()) > _SAME_VALUE:
        chain, draw, *place = (apart == apart.max()).nonzero()[0].tolist()
        where = (chain, draw, *place)
        raise IncompatiblePosteriors(
            f"{name} holds {float(got[where]):.6g} at {place} in chain {chain}, draw {draw}, where "
            "the network has the "
            f"fixed value {float(wanted[where]):.6g}; build the network with the "
            "architecture.symmetry that they were "
            f"drawn with, its seed included"
        )


@checked
def match_names(
    arrays: Mapping[str, np.ndarray | Tensor],
    model: BayesianModel,
    names: Names | None = None,
    *,
    strict: bool = False,
) -> Matching:
    """Pairs arrays with parameters.

    Args:
        arrays: name -> (chain, draw, *shape).
        model: whose network and likelihood they are of.
        names: the user's map of names; it may leave out what other rules find.
        strict: whether every array has to be a parameter. Otherwise what is left over is in
            `Matching.unused`, and is refused only if it goes by the name of a weight and the map
            does not name every parameter.

    Raises:
        ConfigError: if the map names what is not there.
        IncompatiblePosteriors: naming what does not fit with the shapes of both sides, and the map
            to write.
    """
    layout = Layout(model)
    shapes = {name: tuple(int(size) for size in array.shape[2:]) for name, array in arrays.items()}
    entries = checked_names(names or {}, model.shapes, layout.latents, shapes)
    pairs = {parameter: (entry["name"], "map") for parameter, entry in entries.items()}
    left = [name for name in shapes if name not in {name for name, _ in pairs.values()}]
    wanted = [name for name in layout.network if name not in pairs]
    found = pair_names(
        wanted, left, lambda parameter, name: bool(layout.readings(parameter, shapes[name]))
    )
    if found is not None:
        pairs |= {parameter: (name, found[1]) for parameter, name in found[0].items()}
    elif strict:  # those that go by the same name are compared all the same, so that one message says everything
        pairs |= {name: (name, "same name") for name in wanted if name in left}
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
    """Raises IncompatiblePosteriors, with the map to write, unless every parameter has an array
    that fits.
    """
    missing = [name for name in layout.model.shapes if name not in pairs]
    problems = [f"{name} is missing" for name in missing] + [
        f"{name} is unknown" for name in refused
    ]
    for parameter, (name, _) in pairs.items():
        # A map that says how to turn an array is checked for that where it is turned.
        if not layout.readings(parameter, shapes[name]) and "transpose" not in entries.get(
            parameter, {}
        ):
            called = "" if name == parameter else f", here {name},"
            problems.append(
                f"{parameter}{called} has shape {shapes[name]}, wanted {layout.shape(parameter)}"
            )
    if not problems:
        return
    few = 3 if len(missing) <= 4 else 1  # the map below names all that are missing
    message = "the draws do not fit the network: " + "; ".join(
        one_line(problem, 100) for problem in problems[:few]
    )
    message += f"; and {len(problems) - few} more" if len(problems) > few else ""
    open_ones = [name for name in missing if name in layout.network]
    latents = {name: _noise(unused, shapes) for name in missing if name in layout.latents}
    if open_ones and unused:
        fitting = {
            p: [name for name in unused if layout.readings(p, shapes[name])] for p in open_ones
        }
        entries = {name: {"name": noise, "transform": "log"} for name, noise in latents.items()}
        written = _written({**suggestions(open_ones, unused, fitting), **entries})
        ours = _listed({p: layout.shape(p) for p in open_ones}, 30)
        room = max(40, _LONGEST - len(message) - len(written) - len(ours) - 50)
        theirs = _listed({name: shapes[name] for name in unused}, room)
        message += f"; wanted {ours}; theirs {theirs}; write a map of names, such as {written}"
    else:
        if refused and not missing:
            message += (
                "; if they are no part of the network, drop them, or name every parameter in a map "
                "of names"
            )
        for latent, noise in latents.items():
            written = _written({latent: {"name": noise, "transform": "log"}})
            message += (
                f"; {latent} is never guessed: where {one_line(noise, 40)} is the noise, say {written} "
                f"in a map of names (variance: log_sqrt), or fix the noise with likelihood.noise=VALUE"
            )
    raise IncompatiblePosteriors(message)


def _noise(unused: Sequence[str], shapes: Mapping[str, Shape]) -> str:
    """Return the name that the noise may have: that of a scalar that is left."""
    return next((name for name in unused if shapes[name] == ()), "sigma")


def _written(entries: Mapping[str, Any]) -> str:
    """Return a map of names as one line of YAML; of a long one, the first entries."""
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
    """Return names with their shapes, as many as a width holds but at least one."""
    texts = [one_line(f"{name} {shape}", 60) for name, shape in shapes.items()]
    shown = 1
    while shown < len(texts) and len(", ".join(texts[: shown + 1])) <= width:
        shown += 1
    return ", ".join(texts[:shown]) + (", ..." if shown < len(texts) else "")
