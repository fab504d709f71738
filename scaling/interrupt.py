"""Ctrl-C at a command: the first one ends it in order and within ten seconds, a second one at once.

A command that has not begun yet, or that has nothing to put in order, ends at the first one. Only the standard library
is imported here, as this comes before all other imports. Nothing happens in a process that is not a command's own.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

EXIT_INTERRUPTED = 130
# What is not in order by then is left as a crash would leave it, which loses nothing that is paid for.
PATIENCE_SECONDS = 9.0
_commands: list[int] = []  # the process, once it is known to be a command's


def end_at_once(script: str) -> None:
    """Let Ctrl-C end the process at once, if `script` (its `__name__`) runs as a command and is not imported."""
    is_command = script == "__main__" or Path(sys.argv[0]).name == script.replace("_", "-")
    if is_command and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        _commands.append(os.getpid())
        signal.signal(signal.SIGINT, _exit)


def end_in_order() -> None:
    """From now on the first Ctrl-C raises KeyboardInterrupt, in a process for which `end_at_once` was called."""
    if os.getpid() in _commands:
        signal.signal(signal.SIGINT, _interrupt)


def _interrupt(*_: Any) -> None:
    signal.signal(signal.SIGINT, _exit)
    late = threading.Timer(PATIENCE_SECONDS, _exit)
    late.daemon = True
    late.start()
    raise KeyboardInterrupt


def _exit(*_: Any) -> None:
    if os.getpid() in _commands:  # a process that was forked says nothing
        os.write(2, b"\ninterrupted. Type the same command again.\n")
    os._exit(EXIT_INTERRUPTED)
