"""Run experiments, judge claims and write the page of the ledger."""

import argparse
import contextlib
import json
import os
import platform
import sys
from pathlib import Path

from bnn_symm.errors import BnnSymmError
from claims import page
from claims.claim import load_claim, load_claims
from claims.judgement import judge
from claims.rows import check_settings, measured_rows, run_experiment

_RUNS = Path(__file__).parent.parent / "runs" / "claims"


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit status.

    Args:
        arguments: of the command line.

    Returns:
        0, or 2 for an error of the user.
    """
    parser = argparse.ArgumentParser(prog="python -m claims", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="list all claims with their verdicts")
    commands.add_parser("page", help="write docs/claims.md from the results")
    run = commands.add_parser("run", help="run what is missing, and judge")
    run.add_argument("names", nargs="*", metavar="NAME")
    run.add_argument("--all", action="store_true", help="all claims")
    run.add_argument(
        "--measured", action="store_true", help="run nothing; judge from what was measured so far"
    )
    run.add_argument("--runs", type=Path, default=_RUNS, help="directory of the experiments")
    options = parser.parse_args(arguments)
    try:
        if options.command == "list":
            _list()
        elif options.command == "page":
            page.write(load_claims())
        elif options.all == bool(options.names):
            parser.error("name claims, or use --all")
        else:
            names = [claim.name for claim in load_claims()] if options.all else options.names
            return max(_judge(name, options.runs, options.measured) for name in names)
    except BnnSymmError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _list() -> None:
    for claim in load_claims():
        result = page.result_of(claim)
        verdict = result["verdict"] if result else "not judged"
        print(f"{claim.name:44} {claim.paper:10} {claim.size:8} {verdict}")


def _judge(name: str, runs: Path, measured: bool) -> int:
    """Judge a claim and store the result; return 2 if it cannot be judged."""
    try:
        _run(name, runs, measured)
    except BnnSymmError as error:
        print(f"{name}: error: {error}", file=sys.stderr)
        return 2
    return 0


def _run(name: str, runs: Path, measured: bool) -> None:
    claim = load_claim(name)
    check_settings(claim.experiment, claim.setting_labels)
    rows = (measured_rows if measured else run_experiment)(claim.experiment, runs)
    found = judge(claim, rows)
    machine = f"{os.cpu_count()} cores, {platform.machine()}"
    content = {**found.to_dict(), "seconds": round(rows.seconds), "machine": machine}
    path = page.RESULTS / f"{name}.json"
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    print(f"{name}: {found.verdict} ({found.mean:.3g}, {found.low:.3g} to {found.high:.3g})")


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):  # the reader of a list is gone, as after `| head`
        sys.exit(main())
