"""Run the command line as `python -m bnn_symm.cli`, without the installed script."""

import sys

from bnn_symm.cli.program import main

if __name__ == "__main__":
    sys.exit(main())
