"""`python -m stargz` is the same as the `stargz` command."""

import sys

from stargz.cli import main

if __name__ == "__main__":
    sys.exit(main())
