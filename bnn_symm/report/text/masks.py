"""Format the result of `bnn-symm masks`."""

from collections.abc import Sequence

from bnn_symm.analyses.mask_transport import KINDS, MaskScore
from bnn_symm.formatting import number, percent
from bnn_symm.report.text.tables import table


def masks_text(rows: Sequence[MaskScore], *, error: str) -> str:
    """Return a table for each source: test scores and overlaps by level and mask.

    Args:
        rows: of `transport_masks`.
        error: what the error is, such as `error rate`.

    Returns:
        The text.
    """
    lines = [f"test NLL ({error}) of the networks trained with each mask"]
    for source in dict.fromkeys(row.source for row in rows):
        found = {(row.level, row.mask): row for row in rows if row.source == source}
        scores, shared = [], []
        for level in dict.fromkeys(level for level, _ in found):
            start = [level, percent(found[level, "transported"].weights_left, 1)]
            scores.append([*start, *(_score(found[level, kind]) for kind in KINDS)])
            shared.append([*start, *(percent(found[level, kind].overlap) for kind in KINDS[1:])])
        header = ["level", "weights left"]
        lines += ["", f"masks of {source}", table([*header, *KINDS], scores)]
        lines += ["share of the weights in the mask that the own mask has"]
        lines += [table([*header, *KINDS[1:]], shared)]
    return "\n".join(lines)


def _score(row: MaskScore) -> str:
    return f"{number(row.nll, 3)} ({number(row.error, 3)})"
