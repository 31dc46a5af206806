"""Random tables with many kinds of columns, notations, quoting, separators and damage."""

import csv
import io

import numpy as np

_GAPS = ["?", "-", "N/A", "NA", "nan", "None", "null", "missing", "", " "]
_WORDS = [
    "red",
    "blue",
    "green",
    "yes",
    "no",
    "None",
    "NA",
    "true",
    "3+",
    "=1+1",
    "a b",
    "Öl",
    "名",
    "x,y",
    'q"q',
    "1e",
    "A",
]
_NOTATIONS = [
    lambda v: f"{v:.2f}".replace(".", ","),
    lambda v: f"{int(v * 1000):,}",
    lambda v: f"{int(v * 1000):,}".replace(",", " "),
    lambda v: f"{int(v * 1000):,}".replace(",", "'"),
    lambda v: f"{int(v * 1000):,}".replace(",", "\u202f"),
    lambda v: f"{v:.1f}%",
    lambda v: f"${v:.2f}",
    lambda v: f"{v:.1f} kg",
    lambda v: f"{v:.2f}".replace("-", "\u2212"),
    lambda v: f"{int(v)}/7",
    lambda v: hex(abs(int(v * 10))),
    lambda v: "".join(chr(0x0660 + int(c)) if c.isdigit() else c for c in f"{v:.1f}"),
    lambda v: "".join(chr(0xFF10 + int(c)) if c.isdigit() else c for c in f"{v:.1f}"),
    lambda v: f"{v:.1f}d0",
    lambda v: f"<{v:.1f}",
    lambda v: f"({abs(v):.1f})",
]
_KINDS = [
    *(
        "float",
        "integer",
        "words",
        "codes",
        "boolean",
        "zero_one",
        "counter",
        "notation",
        "gaps",
        "big",
        "dates",
    ),
    *("exponents", "few_integers", "extreme", "unique", "mix"),
]


def random_column(random: np.random.Generator, rows: int, kind: str | None = None) -> list[str]:
    """Return the texts of one random column."""
    kind = kind or _KINDS[random.integers(len(_KINDS))]
    values = random.normal(size=rows) * 10.0 ** random.integers(-2, 3)
    if kind == "words":
        return list(random.choice(random.choice(_WORDS, random.integers(2, 5)), rows))
    if kind == "codes":
        return list(random.choice(["01", "1", "A", "007", "7", "10", "3+"], rows))
    if kind == "boolean":
        return list(random.choice(["true", "false", "True", "FALSE"], rows))
    if kind == "notation":
        write = _NOTATIONS[random.integers(len(_NOTATIONS))]
        return [write(value) for value in values]
    if kind == "gaps":
        gap = _GAPS[random.integers(len(_GAPS))]
        return [gap if random.random() < 0.1 else f"{value:.3f}" for value in values]
    if kind == "mix":
        return list(
            random.choice(["1", "2", "2.0", "2.5", "True", "0", "x", "1e5", "-0", "NA"], rows)
        )
    writers = {
        "float": lambda i: repr(float(values[i])),
        "integer": lambda i: str(int(values[i])),
        "few_integers": lambda i: str(i * i % 4),
        "zero_one": lambda i: f"{i * i % 3 % 2:.1f}",
        "counter": lambda i: str(i + 1),
        "big": lambda i: str(2**63 + i % 2 * int(random.integers(1, 2**12))),
        "dates": lambda i: f"2024-01-{i % 28 + 1:02}",
        "exponents": lambda i: f"{values[i]:.3e}",
        "extreme": lambda i: ["1e308", "-1e308", "1e-320", "0", "1e400", "inf", "NaN"][
            int(random.integers(7))
        ],
        "unique": lambda i: f"n{i}",
    }
    return [writers[kind](i) for i in range(rows)]


def random_table(random: np.random.Generator) -> tuple[list[str], list[list[str]]]:
    """Return the names and rows of a table of 14 to 60 rows with the target last."""
    rows, width = int(random.integers(14, 61)), int(random.integers(1, 5))
    plain = random.random() < 0.6  # else nearly every table would be refused
    usual = ["float", "integer", "words", "codes", "boolean", "exponents", "few_integers"]
    columns = [
        random_column(random, rows, str(random.choice(usual)) if plain else None)
        for _ in range(width)
    ]
    target = (
        str(random.choice(["float", "few_integers", "words", "boolean", "zero_one"]))
        if plain
        else None
    )
    columns.append(random_column(random, rows, target))
    names = [f"c{index}" for index in range(width)]
    if random.random() < 0.1:
        names[0] = str(random.choice(["id", " a ", "名", "1", "x" * 500, "=cmd", "a\nb", ""]))
    return [*names, "y"], [list(row) for row in zip(*columns, strict=True)]


def write_table(random: np.random.Generator, names: list[str], rows: list[list[str]]) -> bytes:
    """Return a table as a file with random separator and quoting, sometimes damaged."""
    text = io.StringIO()
    separator = str(random.choice([",", ";", "\t", "|"], p=[0.7, 0.1, 0.15, 0.05]))
    quoting = int(random.choice([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]))
    writer = csv.writer(
        text,
        delimiter=separator,
        quoting=quoting,
        lineterminator=str(random.choice(["\n", "\r\n"])),
    )
    if random.random() < 0.95:
        writer.writerow(names)
    writer.writerows(rows)
    content = text.getvalue().encode("utf-8-sig" if random.random() < 0.1 else "utf-8")
    damage = random.random()
    if damage < 0.04:
        return content[: random.integers(len(content))]
    if damage < 0.08:
        position = int(random.integers(len(content)))
        return (
            content[:position]
            + bytes(random.integers(0, 256, 3, dtype=np.uint8))
            + content[position + 1 :]
        )
    if damage < 0.1:
        return content.decode().encode("utf-16")
    return content
