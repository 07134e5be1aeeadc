"""`python -m sleighexec`: the command line."""

import sys

from sleighexec.cli import main

if __name__ == "__main__":
    sys.exit(main())
