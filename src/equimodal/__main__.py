"""`python -m equimodal` is the `equimodal` command."""

import sys

from equimodal.cli import main

if __name__ == "__main__":
    sys.exit(main())
