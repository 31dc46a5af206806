"""Pair the names of other software with the parameters of a network, by the names alone.

Rules are tried in this order. Each applies to all parameters or to none, so that two halves of a
network are never paired by different readings of the names:

1. identical names;
2. equal up to separators, case and the terms of other libraries: `layers.0.weight`,
   `layers_0_kernel`;
3. the same within one scope: `model.layers.0.weight`, `nn/layers_0.kernel`;
4. numbered in order: `w1, b1, w2, b2`, or `Dense_0/kernel, Dense_1/kernel`, if there are as many
   weights and as many biases as the network has, under one stem each, and the shapes fit.
"""

import re
from collections.abc import Callable, Collection, Mapping, Sequence

# Terms of flax, haiku, Keras and others for a weight and a bias; those of `_LAST_WORDS` count only
# at the end of a name.
_WORDS = {"weights": "weight", "kernel": "weight", "w": "weight", "biases": "bias", "b": "bias"}
_LAST_WORDS = {"scale": "weight", "embedding": "weight", "offset": "bias"}
_KINDS = ("weight", "bias")

Tokens = tuple[str, ...]


def pair_names(
    parameters: Sequence[str], names: Sequence[str], fits: Callable[[str, str], bool]
) -> tuple[dict[str, str], str] | None:
    """Pair all parameters by the first rule that applies.

    Args:
        parameters: of the network, in its order.
        names: of the other software.
        fits: whether the shapes of a parameter and of an array are compatible.

    Returns:
        Parameter -> name, and the rule; None if no rule pairs all parameters.
    """
    if set(parameters) <= set(names):
        return {name: name for name in parameters}, "same name"
    for rule, pair in (
        ("same name up to separators", _by_words),
        ("same name in a scope", _in_scope),
    ):
        pairs = pair(parameters, names)
        if pairs is not None:
            return pairs, rule
    pairs = _by_number(parameters, names)
    if pairs is not None and all(fits(parameter, name) for parameter, name in pairs.items()):
        return pairs, "numbered in order"
    return None


def looks_like_parameter(name: str) -> bool:
    """Return whether a name contains a term for a weight or a bias.

    Args:
        name: of an array.
    """
    return any(_WORDS.get(word, word) in _KINDS for word in _split(name))


def name_tokens(name: str) -> Tokens:
    """Return the words and numbers of a name in lower case, with torch's terms for weight and bias.

    Args:
        name: of an array or a parameter.
    """
    *first, last = _split(name) or ("",)
    return tuple(_WORDS.get(word, word) for word in (*first, _LAST_WORDS.get(last, last)))


def _split(name: str) -> Tokens:
    return tuple(re.findall(r"[a-z]+|\d+", name.lower()))


def _index(names: Collection[str]) -> dict[Tokens, str] | None:
    """Return tokens -> name; None if two names have the same tokens."""
    index = {name_tokens(name): name for name in names}
    return index if len(index) == len(names) else None


def _by_words(parameters: Sequence[str], names: Sequence[str]) -> dict[str, str] | None:
    ours, theirs = _index(parameters), _index(names)
    if ours is None or theirs is None or not set(ours) <= set(theirs):
        return None
    return {parameter: theirs[key] for key, parameter in ours.items()}


def _in_scope(parameters: Sequence[str], names: Sequence[str]) -> dict[str, str] | None:
    """Pair names within one scope that holds nothing else; or drop one scope of all parameters."""
    ours, theirs = _index(parameters), _index(names)
    if not ours or theirs is None:
        return None
    key = next(iter(ours))
    for other in theirs:
        scope = other[: len(other) - len(key)]
        inside = {
            tokens[len(scope) :]: name
            for tokens, name in theirs.items()
            if tokens[: len(scope)] == scope
        }
        if scope and other[len(scope) :] == key and set(inside) == set(ours):
            return {parameter: inside[tokens] for tokens, parameter in ours.items()}
    for length in range(1, len(key)):
        if len({tokens[:length] for tokens in ours}) == 1 and all(
            tokens[length:] in theirs for tokens in ours
        ):
            return {parameter: theirs[tokens[length:]] for tokens, parameter in ours.items()}
    return None


def _by_number(parameters: Sequence[str], names: Sequence[str]) -> dict[str, str] | None:
    stems: dict[str, dict[Tokens, dict[int, str]]] = {kind: {} for kind in _KINDS}
    for name in names:
        tokens = name_tokens(name)
        kinds, numbers = (
            [word for word in tokens if word in _KINDS],
            [word for word in tokens if word.isdigit()],
        )
        if len(kinds) == len(numbers) == 1:
            stem = tuple(word for word in tokens if not word.isdigit())
            numbered = stems[kinds[0]].setdefault(stem, {})
            if int(numbers[0]) in numbered:
                return None
            numbered[int(numbers[0])] = name
    pairs: dict[str, str] = {}
    for kind in _KINDS:
        ours = [parameter for parameter in parameters if name_tokens(parameter)[-1] == kind]
        if not ours:
            continue
        groups = list(stems[kind].values())
        if len(groups) != 1 or len(groups[0]) != len(ours):
            return None
        pairs |= dict(zip(ours, (groups[0][number] for number in sorted(groups[0])), strict=True))
    return pairs if len(pairs) == len(parameters) else None


def suggestions(
    parameters: Sequence[str], names: Sequence[str], shapes_fit: Mapping[str, Collection[str]]
) -> dict[str, str]:
    """Suggest a name for every parameter.

    Args:
        parameters: of the network.
        names: of the other software.
        shapes_fit: parameter -> names whose shapes are compatible.

    Returns:
        Parameter -> the only compatible name that no other parameter could have, or FILL_IN.
    """
    free = set(names)
    suggested: dict[str, str] = {}
    for parameter in parameters:
        candidates = [name for name in shapes_fit[parameter] if name in free]
        rivals = [
            other
            for other in parameters
            if other != parameter and set(shapes_fit[other]) & set(candidates)
        ]
        suggested[parameter] = candidates[0] if len(candidates) == 1 and not rivals else "FILL_IN"
    return suggested
