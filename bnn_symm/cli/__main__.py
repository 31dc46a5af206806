"""`python -m bnn_symm.cli`, for environments without the script."""

import sys

from bnn_symm.cli.program import main

if __name__ == "__main__":
    sys.exit(main())
