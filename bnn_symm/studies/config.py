"""The section `study` of a configuration."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from bnn_symm.architectures.config import SymmetryKind
from bnn_symm.settings import NonNegativeInt, PositiveInt, settings

ALL = "all"
"""Value of `study.vary` that stands for every fold."""


@settings
class PairsConfig:
    """The pairs of fits between which barriers are measured, without and with alignment.

    Attributes:
        across_seeds: pairs within a setting: `all` pairs of seeds; `disjoint` pairs (first and
            second seed, third and fourth seed, ...), which are independent; or `none`.
        within_seed: whether to also pair settings that share a seed, where their weights have the
            same meaning: a standard network and its `init_matched` control, methods, temperatures.
        num_draws: number of draws of each posterior at every position of the path.
        matching: the cost that the alignment minimizes.
    """

    across_seeds: Literal["all", "disjoint", "none"] = "all"
    within_seed: bool = False
    num_draws: PositiveInt = 50
    matching: Literal["w2", "means", "precision", "activations"] = "w2"


_Values = Annotated[list[Any], Field(min_length=1)]
_Input = _Values | Literal["all"]


def _all(value: Any) -> Any:
    """Return `all` as a list, whose meaning depends on the key."""
    return [ALL] if value == ALL else value


@settings
class StudyConfig:
    """The section `study` of a configuration.

    Attributes:
        vary: dotted keys or sections, each with the list of its values. `data.fold: all`, or a list
            of folds or of values of `data.split_seed`, are replicates: results are means over folds
            of the means over seeds.
        seeds: the number of seeds (0, 1, ...), or a list of seeds.
        controls: kinds of symmetry, or keys of `architecture.symmetry`, added to the kinds in
            `vary`.
        pairs: the pairs of fits between which barriers are measured.
    """

    vary: dict[str, Annotated[_Values, BeforeValidator(_all, json_schema_input_type=_Input)]] = (
        Field(default_factory=dict)
    )
    seeds: PositiveInt | Annotated[tuple[NonNegativeInt, ...], Field(min_length=1)] = 3
    controls: list[SymmetryKind | dict[str, Any]] = Field(default_factory=list)
    pairs: PairsConfig = Field(default_factory=PairsConfig)

    @property
    def seed_numbers(self) -> tuple[int, ...]:
        """Return the distinct seeds in the order given."""
        return (
            tuple(range(self.seeds))
            if isinstance(self.seeds, int)
            else tuple(dict.fromkeys(self.seeds))
        )
