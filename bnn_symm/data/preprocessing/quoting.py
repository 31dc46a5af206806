"""How messages quote values, names and lists of data: in one printable line of bounded length."""

from typing import Any

from bnn_symm.data.preprocessing.labels import plain_label
from bnn_symm.errors import one_line


def quoted(value: Any, width: int = 40) -> str:
    """A value or a name as a message quotes it: as JSON has it in type, in one line of bounded
    length.
    """
    label = plain_label(value)
    return repr(one_line(label, width)) if isinstance(label, str) else one_line(label, width)


def short_list(words: Any, most: int = 10, width: int = 120) -> str:
    """At most `most` words in one line of about `width` characters."""
    texts = [one_line(word, 40) for word in words]
    shown: list[str] = []
    for text in texts[:most]:
        if shown and sum(map(len, shown)) + len(text) > width:
            break
        shown.append(text)
    more = len(texts) > len(shown)
    return ", ".join(shown) + (f", ... ({len(texts)} in all)" if more else "")
