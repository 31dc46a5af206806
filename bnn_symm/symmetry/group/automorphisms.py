"""Compute automorphisms of the entangled part of a structure by BLISS through igraph.

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
    """Return the group of the permutations that preserve colors of vertices and all relations.

    BLISS takes graphs with colored vertices and plain edges. Colors of pairs are therefore written
    in binary: each binary digit of each relation gets a copy of its row vertices and one of its
    column vertices, joined where the digit is 1. The color of a copy encodes the relation, the side
    and the digit, so that no automorphism exchanges their roles.

    Args:
        vertices: (vertex,), ascending.
        colors: (vertex,).
        relations: relations between these vertices only.

    Returns:
        The exact order of the group, and its generators: each (vertex,), the position in `vertices`
        that each one is mapped to.
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
    """Renumber the colors so that the most frequent one is 0, which needs no edges."""
    rank = np.argsort(np.argsort(-np.bincount(numbers.ravel()), kind="stable"), kind="stable")
    return rank[numbers]
