"""How a process ends: every failure as one message on stderr and an exit code."""

from __future__ import annotations

import io
import os
import sys
import traceback
from collections.abc import Callable

from distill_cli.base import stopping, ui
from distill_cli.base.errors import DistillError, Terminated, exit_code_of, translated


def guarded(work: Callable[[], int]) -> int:
    """Do the work, listening to signals; returns its exit code, or the one that tells what stopped it."""
    stopping.listen()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that cannot show α shows a question mark
    try:
        with translated():
            return work()
    except DistillError as error:
        ui.fail(str(error))
        return error.exit_code
    except KeyboardInterrupt as stopped:
        ui.fail("terminated" if isinstance(stopped, Terminated) else "interrupted")
        return exit_code_of(stopped)
    except Exception:
        if os.environ.get("DISTILL_DEBUG"):
            raise
        ui.fail("this is a bug in distill; the traceback:")
        traceback.print_exc()
        return 1
