"""The examples of a problem's docstring, and checks made of them: what self-correction may be told."""

from __future__ import annotations

import ast
import doctest
from contextlib import suppress

EXAMPLES_CHECK = """
def check(candidate):
    import ast

    def same(got, wanted):
        try:
            return got == ast.literal_eval(wanted)
        except (ValueError, SyntaxError):
            return repr(got) == wanted

    for source, wanted in {examples!r}:
        got = eval(source, globals())
        if not same(got, wanted):
            raise AssertionError(f"{{source}} gave {{repr(got)[:200]}}, the docstring says {{wanted}}")
"""


def examples(prompt: str, entry_point: str) -> list[tuple[str, str]]:
    """The docstring's own `>>>` examples of the function: (expression, value as it is written)."""
    pairs = []
    for node in ast.parse(prompt + "\n    pass\n").body:
        if isinstance(node, ast.FunctionDef) and node.name == entry_point:
            with suppress(ValueError):  # it only looks like a session
                shown = doctest.DocTestParser().get_examples(ast.get_docstring(node) or "")
                pairs += [(e.source.strip(), e.want.strip()) for e in shown if e.want and _is_expression(e.source)]
    return pairs


def examples_check(shown: list[tuple[str, str]]) -> str:
    """Python that defines check(candidate) over those examples and nothing else."""
    return EXAMPLES_CHECK.format(examples=shown)


def _is_expression(source: str) -> bool:
    try:
        ast.parse(source.strip(), mode="eval")
    except (SyntaxError, ValueError):
        return False
    return True
