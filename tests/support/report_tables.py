"""The tables of a report, read back from its page and from its LaTeX."""

from __future__ import annotations

import re
from html import unescape

MARKS = " (sample data)"  # what the captions of these tables add


def tables(page: str) -> dict[str, list[list[str]]]:
    """Title -> rows of cells' text."""
    found = {}
    for title, body in re.findall(r'<h2 id="t\d+">(.*?)</h2>.*?<tbody>(.*?)</tbody>', page, re.S):
        rows = re.findall(r"<tr>(.*?)</tr>", body, re.S)
        found[unescape(title)] = [[unescape(cell) for cell in re.findall(r"<td>(.*?)</td>", row, re.S)] for row in rows]
    return found


def unescaped(tex: str) -> str:
    for command, meaning in ((r"\textbar{}", "|"), (r"\textless{}", "<"), (r"\textgreater{}", ">"), ("---", "—"),
                             (r"\textasciicircum{}", "^"), (r"\textasciitilde{}", "~")):  # fmt: skip
        tex = tex.replace(command, meaning)
    return re.sub(r"\\([{}&%$#_])", r"\1", tex)


def latex_tables(tex: str) -> dict[str, list[list[str]]]:
    """Title, without the marks behind it -> rows of cells' text, the heads first."""
    found = {}
    for title, body in re.findall(r"\\caption\{(.*?)\}\\label.*?\\toprule\n(.*?)\\bottomrule", tex, re.S):
        rows = [line.removesuffix(r" \\") for line in body.splitlines() if line.endswith(r"\\")]
        cells = [[unescaped(cell) for cell in re.split(r"(?<!\\)& ?", row)] for row in rows]
        found[unescaped(title).removesuffix(MARKS)] = cells
    return found
