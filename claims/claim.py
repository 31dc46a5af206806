"""A claim: what a paper says, what would show it, and which controls may explain it."""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Literal

import yaml
from pydantic import Field

from bnn_symm.errors import ConfigError
from bnn_symm.settings import Positive, settings

FOLDER = Path(__file__).parent / "ledger"
PAPERS = {
    "Ainsworth": "Ainsworth, Hayase and Srinivasa 2023, arXiv:2209.04836",
    "Entezari": "Entezari, Sedghi, Saukh and Neyshabur 2022, arXiv:2110.06296",
    "Gelberg": "Gelberg, van der Ouderaa, van der Wilk and Gal 2024, arXiv:2408.05496",
    "Ito 2024": "Ito, Yamada and Kumagai 2024, arXiv:2402.04051",
    "Ito 2025": "Ito, Yamada, Chijiwa and Kumagai 2025, arXiv:2510.08023",
    "Izmailov": "Izmailov, Vikram, Hoffman and Wilson 2021, arXiv:2104.14421",
    "Kurle": "Kurle, Herbrich, Januschowski, Wang and Gasthaus 2022, arXiv:2209.07157",
    "Lim": "Lim, Putterman, Walters, Maron and Jegelka 2024, arXiv:2405.20231",
    "Rossi": "Rossi, Singh and Hannagan 2023, arXiv:2310.10171",
    "Sharma": "Sharma, Kwok, Denton, Roy, Rolnick and Dziugaite 2024, arXiv:2404.06498",
}
"""Papers whose claims are judged, by the name that the ledger uses."""


@settings
class Term:
    """Values of one measure of one setting, a value for each seed or pair of seeds.

    Attributes:
        setting: label of the setting in the rows.
        measure: column of the rows.
        times: factor of the values.
    """

    setting: str
    measure: str
    times: Positive = 1.0


@settings
class Contrast:
    """A quantity for each seed or pair of seeds: a term, or one term relative to another.

    Attributes:
        of: the term.
        minus: a term that is subtracted, seed by seed.
        over: a term that divides, seed by seed; means are of logarithms then, and the effect is the
            geometric mean of the ratios.
    """

    of: Term
    minus: Term | None = None
    over: Term | None = None

    def __post_init__(self) -> None:
        """Check that at most one other term is named."""
        if self.minus and self.over:
            raise ConfigError("a contrast has `minus` or `over`, not both")


@settings
class Expected:
    """The range of an effect that the claim predicts; an end that is None is open.

    Attributes:
        above: lower end.
        below: upper end.
    """

    above: float | None = None
    below: float | None = None

    def __post_init__(self) -> None:
        """Check that the range excludes something."""
        if self.above is None and self.below is None:
            raise ConfigError("`expected` needs `above`, `below` or both")
        if self.above is not None and self.below is not None and self.above >= self.below:
            raise ConfigError(f"`above` {self.above:g} is not less than `below` {self.below:g}")


@settings
class Control:
    """A contrast that tells what causes the effect.

    Attributes:
        name: of the control, in the page.
        contrast: with the same units of values as the effect.
        symmetry: `kept`: the control keeps the symmetry and has a side effect of breaking it; it
            explains the effect if it has at least half of it. `removed`: it removes the symmetry
            without that side effect; it shows that something else is the cause if it has less than
            half of the effect.
    """

    name: str
    contrast: Contrast
    symmetry: Literal["kept", "removed"] = "kept"


@settings
class Claim:
    """One claim of the ledger.

    Attributes:
        name: of its file.
        paper: key of `PAPERS`.
        sentence: the claim, in our words.
        experiment: name of a file in `experiments`.
        size: `paper`: networks and data of the size of the paper; `reduced`: smaller.
        effect: what is measured.
        expected: the range in which the claim says it lies.
        unit: of the effect.
        controls: what else may cause it.
        note: what a reader has to know: differences from the paper, or why there is no control.
    """

    name: str
    paper: str
    sentence: str
    experiment: str
    size: Literal["paper", "reduced"] = "reduced"
    effect: Contrast
    expected: Expected
    unit: str = ""
    controls: tuple[Control, ...] = ()
    note: str = Field(default="")

    def __post_init__(self) -> None:
        """Check the name of the paper."""
        if self.paper not in PAPERS:
            raise ConfigError(f"unknown paper {self.paper!r}, expected one of {', '.join(PAPERS)}")

    @property
    def setting_labels(self) -> set[str]:
        """Return the labels of all settings that the claim compares."""
        contrasts = [self.effect, *(control.contrast for control in self.controls)]
        terms = [term for each in contrasts for term in (each.of, each.minus, each.over)]
        return {term.setting for term in terms if term is not None}

    @property
    def digest(self) -> str:
        """Return a hash of everything that decides the verdict."""
        rule = {
            key: value for key, value in asdict(self).items() if key not in ("sentence", "note")
        }
        return hashlib.sha256(json.dumps(rule, sort_keys=True).encode()).hexdigest()[:16]


def load_claim(name: str, folder: Path = FOLDER) -> Claim:
    """Return the claim of a file.

    Args:
        name: of the file, without its ending.
        folder: of the ledger.

    Returns:
        The claim.

    Raises:
        ConfigError: if there is no such file, or it is invalid.
    """
    path = folder / f"{name}.yaml"
    if not path.exists():
        raise ConfigError(f"no claim {name!r} in {folder}; `python -m claims list` lists them")
    try:
        return Claim(name=name, **yaml.safe_load(path.read_text(encoding="utf-8")))
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def load_claims(folder: Path = FOLDER) -> list[Claim]:
    """Return all claims of the ledger, by paper and name.

    Args:
        folder: of the ledger.

    Returns:
        The claims.
    """
    claims = [load_claim(path.stem, folder) for path in sorted(folder.glob("*.yaml"))]
    return sorted(claims, key=lambda claim: (claim.paper, claim.name))
