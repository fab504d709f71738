"""The process that tells a tracker of cells while a sweep runs.

It reads an `Order` and then the path of a record on each line of standard input, and ends when that ends. Whatever it
does or imports takes nothing from the process that runs the cells: it has an interpreter of its own and the lowest
priority. Its last line on standard error says why it failed.
"""

from __future__ import annotations

import os
import pkgutil
import signal
import sys
from pathlib import Path

from msgspec import Struct

from scaling.export.cells import read_cell
from scaling.export.texts import Texts
from scaling.export.tracked import Tracker, tracked
from scaling.records.codec import decode

NICENESS = 19


class Order(Struct):
    """What is to be told to whom. function: makes the tracker, as 'module:function'. licences: by benchmark."""

    function: str
    sweep: str
    licences: dict[str, str | None]


def main() -> int:
    """Returns 1 where the tracker failed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the sweep's Ctrl-C: standard input ends then
    if hasattr(os, "nice"):
        os.nice(NICENESS)
    try:
        _follow(decode(sys.stdin.buffer.readline(), Order))
    except Exception as error:  # whatever it is, it is the tracker's
        print(f"{type(error).__name__}: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    return 0


def _follow(order: Order) -> None:
    tracker: Tracker = pkgutil.resolve_name(order.function)(order.sweep, None)
    entries = {name: {"licence": licence} for name, licence in order.licences.items()}
    for line in sys.stdin.buffer:
        cell = read_cell(Path(decode(line, str)), entries, Texts(), lambda said: None)
        tracker.log(tracked(cell))
    tracker.close()


if __name__ == "__main__":
    sys.exit(main())
