"""`python -m iadr1` is the command `iadr1`."""

import sys

from iadr1.cli import main

if __name__ == "__main__":
    sys.exit(main())
