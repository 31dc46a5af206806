"""Check that the settings of a class survive a configuration file."""

import dataclasses
from typing import Any

from bnn_symm.io.documents import dump_yaml, parse_yaml


def check_settings(instance: Any) -> None:
    """Check that an instance is frozen and hashable, and equals one that is built from YAML.

    Args:
        instance: of a likelihood or a family of priors.

    Raises:
        AssertionError: if its settings cannot be written, or make another instance.

    Example:
        >>> from bnn_symm.likelihoods import Gaussian
        >>> check_settings(Gaussian(noise=0.5))
    """
    cls = type(instance)
    if not dataclasses.is_dataclass(cls):
        assert not vars(instance), (
            f"{cls.__name__} has attributes {', '.join(vars(instance))}, which a configuration "
            "cannot set; declare them as fields of a settings class"
        )
        return
    raw = dataclasses.asdict(instance)
    try:
        again = cls(**parse_yaml(dump_yaml({"settings": raw}), "the settings")["settings"])
    except Exception as error:
        raise AssertionError(f"{cls.__name__}: settings {raw} do not survive YAML") from error
    assert again == instance, f"{cls.__name__}: from YAML, {instance} becomes {again}"
    assert hash(again) == hash(instance), f"{cls.__name__}: equal instances have different hashes"
