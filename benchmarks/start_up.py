"""Measure seconds of `import bnn_symm` and of `bnn-symm --help`, each in a separate process.

python -m benchmarks.start_up [--quick]
"""

import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.timing import Ratio, interleaved, print_rows, row

_TARGETS = {"import bnn_symm": 0.3, "bnn-symm --help": 0.5}


def measure(*, quick: bool = False) -> list[dict[str, Any]]:
    """Return the rows of the table: seconds against the allowed seconds."""
    commands = {
        "import bnn_symm": [sys.executable, "-c", "import bnn_symm"],
        "bnn-symm --help": [str(Path(sys.executable).parent / "bnn-symm"), "--help"],
        "python": [sys.executable, "-c", "pass"],
    }
    calls = {
        name: lambda command=command: subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        for name, command in commands.items()
    }
    found = interleaved(calls, repeats=3 if quick else 10)
    return [
        row(
            name,
            ours=found[name].median,
            peer="the allowed time",
            theirs=allowed,
            unit="s",
            ratio=Ratio(
                median=found[name].median / allowed,
                low=found[name].low / allowed,
                high=found[name].high / allowed,
            ),
            target=1.0,
            limit=f"the interpreter alone {found['python'].median:.3f} s",
        )
        for name, allowed in _TARGETS.items()
    ]


if __name__ == "__main__":
    print_rows(measure, __doc__)
