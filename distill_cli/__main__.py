"""`python -m distill_cli` is the same command line as `distill`."""

import sys

from distill_cli.cli import main

sys.exit(main())
