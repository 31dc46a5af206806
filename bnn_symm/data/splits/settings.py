"""Settings of the split: which fit together, and how many folds there are."""

from bnn_symm.advice import advise_setting
from bnn_symm.data.config import DataConfig
from bnn_symm.errors import ConfigError

# Settings of which each determines the split, so that at most one of a pair is given.
_CONFLICTS = (
    ("gap_feature", ("fold", "group", "time", "test_file", "validation_file")),
    ("test_file", ("fold", "group", "time")),
    ("validation_file", ("fold", "group", "time")),
    ("group", ("time",)),
)
# Settings that have no effect beside another one.
_UNUSED = (
    ("fold", "test_fraction"),
    ("test_file", "test_fraction"),
    ("validation_file", "validation_fraction"),
    ("time", "split_seed"),
)
_NUM_FOLDS = 5


def num_folds(config: DataConfig) -> int:
    """Return the number of folds of data without folds of their own.

    Args:
        config: the configuration.
    """
    return config.num_folds or _NUM_FOLDS


def check_split_settings(config: DataConfig) -> None:
    """Check that the settings of the split fit together.

    Args:
        config: the configuration.

    Raises:
        ConfigError: naming two settings of which one is to be removed.
    """
    for first, others in _CONFLICTS:
        for second in others:
            if getattr(config, first) is not None and getattr(config, second) is not None:
                raise ConfigError(
                    f"data.{first} and data.{second} both determine the split, expected one of "
                    "them; remove the other"
                )
    default = DataConfig()
    for used, unused in _UNUSED:
        if getattr(config, used) is not None:
            value = getattr(config, unused)
            if value != getattr(default, unused):
                raise ConfigError(
                    f"data.{unused}={value:g} has no effect with data.{used}; remove it"
                )
    if config.num_folds is not None and config.fold is None:
        raise ConfigError(
            f"data.num_folds={config.num_folds} has no effect without data.fold; add "
            f"{advise_setting('data.fold=N')}, or compare all folds with "
            "study.vary={data.fold: all}"
        )


def check_fold(fold: int, count: int) -> None:
    """Check that there is a fold of a number.

    Args:
        fold: the number.
        count: the number of folds.

    Raises:
        ConfigError: if there is none.
    """
    if fold >= count:
        raise ConfigError(
            f"data.fold: got {fold}, expected 0 to {count - 1}, since there are {count} folds"
        )
