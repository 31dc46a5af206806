"""Automorphisms of the part of a structure that color refinement leaves entangled, by BLISS through
igraph.

References:
    Junttila and Kaski (2007), Engineering an efficient canonical labeling tool,
    doi:10.1137/1.9781611972870.13.
"""

from collections.abc import Sequence

import numpy as np

from bnn_symm.symmetry.group.relations import Relation


def automorphisms(
    vertices: np.ndarray, colors: np.ndarray, relations: Sequence[Relation]
) -> tuple[int, list[np.ndarray]]:
    """The group of the permutations of vertices that keep their colors and every relation.

    BLISS takes graphs with colored vertices and plain edges. Colors of pairs are written in binary:
        for each
    binary digit of each relation there is a copy of its row vertices and one of its column
    vertices, joined where the digit is 1; the copies carry what digit of what they stand for in
    their color, so that none changes roles.

    Args:
        vertices: (vertex,), ascending.
        colors: (vertex,).
        relations: between these vertices only.

    Returns:
        The order, exactly, and generators: each (vertex,), the position in `vertices` that each one
            goes to.
    """
    import igraph

    edges: list[np.ndarray] = []
    labels: list[np.ndarray] = [colors - colors.min()]
    total, next_label = len(vertices), int(np.ptp(colors)) + 1
    for relation in relations:
        kinds, numbers = np.unique(relation.colors, return_inverse=True)
        numbers = _rank_by_frequency(numbers.reshape(relation.colors.shape))
        places = [np.searchsorted(vertices, side) for side in (relation.rows, relation.columns)]
        for digit in range(max(1, (len(kinds) - 1).bit_length())):
            copies = []
            for side in places:
                copy = np.arange(total, total + len(side))
                edges.append(np.stack([side, copy], axis=1))
                labels.append(np.full(len(side), next_label))
                copies.append(copy)
                total, next_label = total + len(side), next_label + 1
            i, j = np.nonzero((numbers >> digit) & 1)
            edges.append(np.stack([copies[0][i], copies[1][j]], axis=1))
    graph = igraph.Graph(n=total, edges=np.concatenate(edges) if edges else [])
    label = np.concatenate(labels).tolist()
    order = int(graph.count_automorphisms(color=label))
    generators = [np.asarray(g[: len(vertices)]) for g in graph.automorphism_group(color=label)]
    return order, generators


def _rank_by_frequency(numbers: np.ndarray) -> np.ndarray:
    """Renumbers so that the commonest color is 0, which needs no edges."""
    rank = np.argsort(np.argsort(-np.bincount(numbers.ravel()), kind="stable"), kind="stable")
    return rank[numbers]
