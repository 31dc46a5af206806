"""Short representations of results: one informative line, and a small table in notebooks."""

import html
from abc import abstractmethod
from typing import Any

from bnn_symm.formatting import number


class Summarized:
    """Represent an object by the few facts that identify it, not by its arrays.

    A dataclass that derives from this one is declared with `repr=False`.

    Example:
        >>> class Point(Summarized):
        ...     def _facts(self):
        ...         return {"x": 1 / 3, "label": "a"}
        >>> Point()
        Point(x=0.3333, label='a')
    """

    @abstractmethod
    def _facts(self) -> dict[str, Any]:
        """Return name -> value of the facts that are shown."""

    def __repr__(self) -> str:
        facts = ", ".join(f"{name}={_text(value)}" for name, value in self._facts().items())
        return f"{type(self).__name__}({facts})"

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th>{html.escape(name)}</th><td>{html.escape(_text(value))}</td></tr>"
            for name, value in self._facts().items()
        )
        return f"<table><caption>{type(self).__name__}</caption>{rows}</table>"


def _text(value: object) -> str:
    return number(value, 4) if isinstance(value, float) else repr(value)
