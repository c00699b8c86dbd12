"""`python -m distill_cli` is the same command line as `distill`."""

import sys

from distill_cli.cli import main

if __name__ == "__main__":  # not where a process of a run over several imports it again
    sys.exit(main())
