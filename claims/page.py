"""The page of the ledger, `docs/claims.md`, from the claims and their results."""

import json
from collections import Counter
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from bnn_symm.formatting import number
from claims.claim import PAPERS, Claim
from claims.judgement import VERDICTS

RESULTS = Path(__file__).parent / "results"
PAGE = Path(__file__).parent.parent / "docs" / "claims.md"
_HEAD = """# Claims of papers, judged

Which claims about the symmetries of weight space hold, which does a control explain, and which
fail? Every row is one claim in our words. It **holds** if the 95 % interval of its effect lies in
the range that it predicts, **fails** if the interval lies outside, and is **inconclusive**
otherwise. A claim that holds is **explained by a control** if a network that keeps the symmetry has
at least half of the effect, or if one that provably has no symmetry has less than half of it.
Intervals are over seeds, or over pairs of seeds by the jackknife
(`bnn_symm.diagnostics.statistics.paired_comparison`). The rule of each claim is in its file in
`claims/ledger`, and a verdict counts only if it was reached by the rule as it is there now.

```bash
python -m claims list
make claim NAME={example}
```

Experiments are smaller than those of the papers unless a row says otherwise, so a verdict is about
the effect in these networks, not about the tables of a paper. With five seeds an effect has to be
large to be conclusive.
"""


def result_of(claim: Claim) -> dict[str, Any] | None:
    """Return the stored result of a claim; None if there is none of its present rule.

    Args:
        claim: the claim.

    Returns:
        The content of its file.
    """
    path = RESULTS / f"{claim.name}.json"
    if not path.exists():
        return None
    content = json.loads(path.read_text(encoding="utf-8"))
    return content if content["digest"] == claim.digest else None


def text(claims: Sequence[Claim]) -> str:
    """Return the page.

    Args:
        claims: by paper.

    Returns:
        Markdown.
    """
    results = {claim.name: result_of(claim) for claim in claims}
    counts = Counter(result["verdict"] for result in results.values() if result)
    parts = [_HEAD.format(example=claims[0].name), _summary(counts, len(claims))]
    parts += [
        _section(paper, list(own), results)
        for paper, own in groupby(claims, key=lambda claim: claim.paper)
    ]
    return "\n".join([*parts, _experiments(claims, results)])


def write(claims: Sequence[Claim]) -> None:
    """Write the page.

    Args:
        claims: by paper.
    """
    PAGE.write_text(text(claims), encoding="utf-8")
    print(f"wrote {PAGE}")


def _summary(counts: Counter[str], number_of_claims: int) -> str:
    rows = "\n".join(f"| {verdict} | {counts[verdict]} |" for verdict in VERDICTS)
    open_claims = number_of_claims - counts.total()
    rest = f"\n| not judged yet | {open_claims} |" if open_claims else ""
    return f"| verdict | claims |\n| --- | --- |\n{rows}{rest}\n"


def _section(paper: str, claims: Sequence[Claim], results: dict[str, Any]) -> str:
    lines = [
        f"## {paper}\n\n{PAPERS[paper]}\n",
        "| claim | verdict | effect (95 % interval) | expected | controls |",
        "| --- | --- | --- | --- | --- |",
    ]
    lines += [_row(claim, results[claim.name]) for claim in claims]
    notes = [f"- `{claim.name}`: {claim.note}" for claim in claims if claim.note]
    return "\n".join([*lines, "", *notes, ""] if notes else [*lines, ""])


def _experiments(claims: Sequence[Claim], results: dict[str, Any]) -> str:
    """Return the table of experiments, with the time and the machine of each."""
    lines = [
        "## Experiments\n",
        "Files in `claims/experiments`: studies (`bnn-symm compare`) and modules. Minutes are of "
        "the clock, on a machine with other load.\n",
        "| experiment | claims | minutes | machine |",
        "| --- | --- | --- | --- |",
    ]
    for name in sorted({claim.experiment for claim in claims}):
        own = [claim for claim in claims if claim.experiment == name]
        found = next((results[claim.name] for claim in own if results[claim.name]), None)
        cost = f"{found['seconds'] / 60:.0f} | {found['machine']}" if found else "not run | "
        lines.append(f"| `{name}` | {len(own)} | {cost} |")
    return "\n".join([*lines, ""])


def _row(claim: Claim, result: dict[str, Any] | None) -> str:
    size = " (at the paper's size)" if claim.size == "paper" else ""
    source = f"{claim.sentence}{size} `{claim.name}`"
    if result is None:
        return f"| {source} | not judged yet | | {_expected(claim)} | |"
    verdict = result["verdict"]
    return (
        f"| {source} | **{verdict}** | {_effect(claim, result)} | {_expected(claim)} | "
        f"{_controls(result)} |"
    )


def _effect(claim: Claim, result: dict[str, Any]) -> str:
    mean, low, high = (number(result[key], 3) for key in ("mean", "low", "high"))
    times = "x " if claim.effect.over else ""
    unit = f" {claim.unit}" if claim.unit else ""
    seeds = {"seeds": "seeds", "pairs": "pairs of fits", "pairs of seeds": "seeds, in pairs"}
    return f"{times}{mean} ({low} to {high}){unit}; {result['n']} {seeds[result['kind']]}"


def _expected(claim: Claim) -> str:
    ends = [("above", claim.expected.above), ("below", claim.expected.below)]
    return " and ".join(f"{word} {number(end, 3)}" for word, end in ends if end is not None)


def _controls(result: dict[str, Any]) -> str:
    return "; ".join(
        f"{own['name']}: no share"
        if own["share"] is None
        else f"{own['name']}: {own['share']:.0%} ({own['low']:.0%} to {own['high']:.0%})"
        for own in result["controls"]
    )
