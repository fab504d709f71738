"""A progress bar in a Jupyter notebook. Each sweep has its own, under the cell that started it."""

from __future__ import annotations

import html
import sys
from typing import Any


def in_notebook() -> bool:
    """Whether this process is a notebook's kernel."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return hasattr(shell, "kernel")


class NotebookBar:
    """A bar with a line of text. May be updated from any thread."""

    def __init__(self, text: str):
        from IPython import display

        show: Any = display.display
        self._handle = show(_content(0.0, text), raw=True, display_id=True)

    def update(self, share: float, text: str) -> None:
        """share: of the work that is done, 0 to 1."""
        self._handle.update(_content(share, text), raw=True)


def _content(share: float, text: str) -> dict[str, str]:
    share = min(1.0, max(0.0, share))
    bar = f'<progress value="{share:.3f}" max="1" style="width: 20em"></progress> {html.escape(text)}'
    return {"text/plain": f"{100 * share:.0f} % {text}", "text/html": bar}
