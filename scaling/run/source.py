"""The source text of classes, read once: MIPROv2 shows the program's source to its proposer.

`inspect` parses whole files, and parsing in two threads can fail ("AST constructor recursion depth mismatch",
Python 3.11). A proposer that does not see the program proposes something else.
"""

from __future__ import annotations

import contextlib
import inspect
from typing import Any

from scaling.definitions import parsing

_sources: dict[tuple[str, str], str | OSError] = {}


def source_of(kind: Any) -> str:
    """As `inspect.getsource` of a class, read once; raises OSError, also from then on, where it has no source."""
    name = (kind.__module__, kind.__qualname__)
    with parsing:
        if name not in _sources:
            try:
                _sources[name] = inspect.getsource(kind)
            except OSError as error:
                _sources[name] = error
        source = _sources[name]
    if isinstance(source, OSError):
        raise source
    return source


def source_or_none(kind: Any) -> str | None:
    """The source text of a class; None where it has none."""
    with contextlib.suppress(OSError, TypeError):
        return source_of(kind)
    return None


def remember_source(kind: Any, source: str | None) -> None:
    """Set what `source_of` gives for a class that came here without its file; None changes nothing."""
    if source is not None:
        with parsing:
            _sources.setdefault((kind.__module__, kind.__qualname__), source)
