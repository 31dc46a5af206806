"""Name a class of the user's own code in a configuration: `package.module:Class`."""

import dataclasses
import inspect
from typing import Annotated, Any, TypeVar

from pydantic import Field

from bnn_symm.errors import ConfigError, nearest, one_line
from bnn_symm.settings import settings
from bnn_symm.user_code import import_named

T = TypeVar("T")


@settings
class Imported:
    """Name a class of the user's own code, with its settings.

    The class is imported when a model is built, not before.

    Attributes:
        name: `package.module:Class`.
        settings: of the class; in a configuration they are keys of the section.

    Example:
        >>> Imported(name="noise:LaplaceNoise", settings={"scale": 0.5}).name
        'noise:LaplaceNoise'
    """

    name: Annotated[str, Field(pattern=":")]
    settings: dict[str, Any] = Field(default_factory=dict)

    def build(self, section: str, base: type[T], example: str) -> T:
        """Import the class and return an instance of it.

        Args:
            section: of the configuration, for messages.
            base: the class from which it must derive.
            example: what could be written as the name.

        Raises:
            ConfigError: if the class cannot be imported, is not derived from the base, lacks
                methods, or refuses the settings; the message names the key and the class.
        """
        key = f"{section}.name"
        cls = import_named(self.name, key, example)
        if not isinstance(cls, type) or not issubclass(cls, base):
            what = "a class" if isinstance(cls, type) else f"of type {type(cls).__name__}"
            raise ConfigError(
                f"{key}={self.name} is {what}, want a class that derives from "
                f"{base.__module__}.{base.__name__}"
            )
        if inspect.isabstract(cls):
            members = inspect.getmembers(
                cls, lambda own: getattr(own, "__isabstractmethod__", False)
            )
            missing = ", ".join(name for name, _ in members)
            raise ConfigError(f"{key}={self.name} lacks {missing}; write these methods")
        fields = dataclasses.fields(cls) if dataclasses.is_dataclass(cls) else ()
        known = [field.name for field in fields if field.init and field.name != "name"]
        for setting in self.settings:
            if setting not in known:
                hint = (
                    nearest(str(setting), known)
                    if known
                    else "it has no settings; declare them as fields, with the decorator "
                    "bnn_symm.settings.settings"
                )
                raise ConfigError(
                    f"unknown key {section}.{one_line(setting, 60)} for {key}={self.name}; {hint}"
                )
        try:
            return cls(**self.settings)
        except Exception as error:
            raise ConfigError(
                f"{key}={self.name}: {one_line(error, 250) or type(error).__name__}"
            ) from error

    def resolved(self, instance: Any) -> "Imported":
        """Return the same class with all settings of an instance, defaults included.

        Args:
            instance: of the class.
        """
        own = dataclasses.asdict(instance) if dataclasses.is_dataclass(type(instance)) else {}
        own.pop("name", None)
        return Imported(name=self.name, settings=own)


def is_class_name(name: object) -> bool:
    """Return whether the name of a kind is that of a class of the user's own code.

    Args:
        name: in a configuration.
    """
    return isinstance(name, str) and ":" in name
