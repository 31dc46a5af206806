"""Expected texts of reports, one for each."""

from pathlib import Path


def golden(name: str) -> str:
    """Return an expected text."""
    return (Path(__file__).parent / f"{name}.txt").read_text(encoding="utf-8")
