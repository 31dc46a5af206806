"""Quoting of values, names and lists of data in messages."""

from typing import Any

from bnn_symm.data.preprocessing.labels import plain_label
from bnn_symm.errors import one_line


def quoted(value: Any, width: int = 40) -> str:
    """Return a value or name as messages quote it, in one line of bounded length.

    Texts are in quotation marks; numbers and booleans are not.

    Args:
        value: value or name.
        width: largest number of characters.
    """
    label = plain_label(value)
    return repr(one_line(label, width)) if isinstance(label, str) else one_line(label, width)


def short_list(words: Any, most: int = 10, width: int = 120) -> str:
    """Return the first words of a list in one line.

    Args:
        words: values or names.
        most: largest number of words.
        width: approximate number of characters.
    """
    texts = [one_line(word, 40) for word in words]
    shown: list[str] = []
    for text in texts[:most]:
        if shown and sum(map(len, shown)) + len(text) > width:
            break
        shown.append(text)
    more = len(texts) > len(shown)
    return ", ".join(shown) + (f", ... ({len(texts)} in total)" if more else "")
