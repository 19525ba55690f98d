"""`python -m datarax` is the `datarax` command."""

import sys

from datarax.cli import main

if __name__ == "__main__":
    sys.exit(main())
