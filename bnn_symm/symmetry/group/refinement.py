"""Refine the colors of a structure, and find what color refinement leaves unresolved.

Vertices start with their own colors. In each round they are distinguished by the colors of the
vertices that they are related to, until nothing changes (the 1-dimensional Weisfeiler-Leman
algorithm). No automorphism exchanges vertices of different colors. For random fixed values one or
two rounds give every unit a color of its own, which proves that no symmetry is left.

References:
    Weisfeiler and Leman (1968); Berkholz, Bonsma and Grohe (2017), doi:10.1007/s00224-016-9686-0.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from bnn_symm.symmetry.group.relations import Relation, Structure


@dataclass(frozen=True)
class Coloring:
    """A stable coloring, which another round does not change.

    Attributes:
        colors: (vertex,), numbered from 0.
        rounds: number of rounds until it was stable.
    """

    colors: np.ndarray
    rounds: int

    def cells(self) -> Iterator[np.ndarray]:
        """Yield the sets of several vertices of equal color."""
        order = np.argsort(self.colors, kind="stable")
        for cell in np.split(order, np.flatnonzero(np.diff(self.colors[order])) + 1):
            if len(cell) > 1:
                yield cell


def refine(structure: Structure) -> Coloring:
    """Refine the colors of a structure until they are stable.

    Neighborhoods are compared by a 64-bit hash of their multiset. A collision could only leave two
    vertices in one cell, where every later step compares the colors themselves.

    Args:
        structure: vertices with colors, and relations between them.

    Returns:
        The stable coloring.
    """
    colors = _combine([structure.group, *structure.colors])
    count, rounds = _count(colors), 0
    while count < len(colors):
        signatures = [colors]
        for relation in structure.relations:
            rows = np.zeros(len(colors), dtype=np.uint64)
            columns = np.zeros(len(colors), dtype=np.uint64)
            rows[relation.rows] = _hash_pairs(
                relation.colors, colors[relation.columns][None, :]
            ).sum(1, dtype=np.uint64)
            columns[relation.columns] = _hash_pairs(
                relation.colors, colors[relation.rows][:, None]
            ).sum(0, dtype=np.uint64)
            signatures += [rows, columns]
        colors = _combine(signatures)
        rounds += 1
        before, count = count, _count(colors)
        if count == before:
            break
    return Coloring(colors, rounds)


def entangled_cells(relation: Relation, cell_of: np.ndarray) -> set[tuple[int, int]]:
    """Return the pairs of cells in which a relation does not color all pairs of vertices alike.

    Args:
        relation: a relation of a stable structure.
        cell_of: (vertex,) number of the cell, -1 for a vertex that is alone in its cell.
    """
    rows, row_cells, row_starts = _sort_by_cell(relation.rows, cell_of)
    columns, column_cells, column_starts = _sort_by_cell(relation.columns, cell_of)
    if not len(rows) or not len(columns):
        return set()
    colors = relation.colors[np.ix_(rows, columns)]
    low, high = colors, colors
    if relation.is_square:  # the diagonal is not a pair; its colors are part of the vertices' cells
        low, high = colors.copy(), colors.copy()
        np.fill_diagonal(low, np.iinfo(low.dtype).max)
        np.fill_diagonal(high, np.iinfo(high.dtype).min)
    low = np.minimum.reduceat(np.minimum.reduceat(low, row_starts, axis=0), column_starts, axis=1)
    high = np.maximum.reduceat(np.maximum.reduceat(high, row_starts, axis=0), column_starts, axis=1)
    return {(int(row_cells[i]), int(column_cells[j])) for i, j in np.argwhere(low < high)}


def _sort_by_cell(
    vertices: np.ndarray, cell_of: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return positions of vertices that share a cell, sorted by cell; the cells; their starts."""
    cells = cell_of[vertices]
    order = np.argsort(cells, kind="stable")
    order = order[cells[order] >= 0]
    distinct, starts = np.unique(cells[order], return_index=True)
    return order, distinct, starts


def restrict(relation: Relation, vertices: np.ndarray) -> Relation:
    """Return the part of a relation between the given vertices."""
    rows, columns = (np.intersect1d(side, vertices) for side in (relation.rows, relation.columns))
    colors = relation.colors[
        np.ix_(_places(relation.rows, rows), _places(relation.columns, columns))
    ]
    return Relation(relation.name, rows, columns, colors)


def _places(vertices: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Return positions of some vertices in an ascending array that contains them."""
    return np.searchsorted(vertices, wanted)


def _hash_pairs(colors: np.ndarray, neighbors: np.ndarray) -> np.ndarray:
    """Return 64-bit hashes of (color of the pair, color of the neighbor), as in splitmix64."""
    with np.errstate(over="ignore"):
        z = colors.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + neighbors.astype(np.uint64)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def _combine(arrays: list[np.ndarray]) -> np.ndarray:
    """Assign one number to each distinct combination of colors."""
    combined = np.zeros(len(arrays[0]), dtype=np.int64)
    for array in arrays:
        code = np.unique(array, return_inverse=True)[1]
        pairs = combined * (int(code.max(initial=0)) + 1) + code
        combined = np.unique(pairs, return_inverse=True)[1]
    return combined


def _count(colors: np.ndarray) -> int:
    return int(colors.max(initial=-1)) + 1
