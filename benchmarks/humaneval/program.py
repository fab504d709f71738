"""From a model's answer to the program in it.

The text of this file runs inside the sandbox, because a hostile answer can take any time to parse, or end the process
that does. So it needs nothing but the standard library.
"""

from __future__ import annotations

import ast
import re
import textwrap

FENCE = re.compile(r"```[^\n`]*\n(.*?)(?:```|\Z)", re.DOTALL)
LONGEST_ANSWER = 2000  # lines that are looked at


def program_of(answer: str, prompt: str, entry_point: str) -> str | None:
    """The prompt with the answer's function after it; None where the answer holds no such function.

    The answer may be the whole function, in Markdown fences or with prose around it, or the function's body alone.
    The prompt comes first because answers leave out its imports and helpers.
    """
    blocks = FENCE.findall(answer)
    texts = ["\n\n".join(blocks), *reversed(blocks), answer]  # one block may need another's helper
    for text in filter(str.strip, texts):
        if (code := _with_function(text, entry_point)) is not None:
            return f"{prompt}\n    pass\n\n{code}\n"
    for text in filter(str.strip, texts):
        for body in (text, textwrap.indent(textwrap.dedent(text), "    ")):
            if _is_body(prompt + body, entry_point):
                return prompt + body + "\n"
    return None


def _with_function(text: str, entry_point: str) -> str | None:
    """The longest run of lines that is Python and defines the function."""
    lines = text.splitlines()[:LONGEST_ANSWER]
    own = next((i for i, line in enumerate(lines) if re.match(rf"(async )?def {re.escape(entry_point)}\b", line)), None)
    if own is None:
        return None
    starts = [i for i in range(own + 1) if re.match(r"(import|from|def|class|async|@|#|\w+\s*[:=])", lines[i])]
    for start in starts:
        code, tree = _python_from(lines[start:])
        if any(node.name == entry_point for node in _functions(tree)):
            return code
    return None


def _python_from(lines: list[str]) -> tuple[str, ast.Module]:
    """The lines up to the first that is no Python any more, and their tree."""
    while lines:
        code = "\n".join(lines)
        try:
            return code, ast.parse(code)
        except SyntaxError as error:
            lines = lines[: max(0, min(len(lines), error.lineno or 1) - 1)]
        except (ValueError, RecursionError, MemoryError):
            break
    return "", ast.Module([], [])


def _is_body(text: str, entry_point: str) -> bool:
    """Whether the prompt and these lines are the function: prose parses now and then, but it returns nothing."""
    tree = _parsed(text)
    own = [node for node in _functions(tree) if node.name == entry_point] if tree else []
    return any(_returns(node) for function in own[-1:] for node in function.body)


def _returns(node: ast.AST) -> bool:
    """Whether a statement returns or yields in its own function, not in one that it defines."""
    if isinstance(node, ast.Return | ast.Yield | ast.YieldFrom):
        return True
    inner = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ClassDef)
    return not inner and any(_returns(child) for child in ast.iter_child_nodes(node))


def _functions(tree: ast.Module) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    return [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def _parsed(text: str) -> ast.Module | None:
    try:
        return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
