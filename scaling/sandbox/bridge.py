"""How values cross between a model-written program and its checks: as JSON, and nothing else.

The text of this file runs inside both sandboxes; this process imports `cleaned` from it. So it needs nothing but the
standard library. Lists, numbers, strings, True, False and None are themselves in JSON; every other value is an object
with one key, which names its type. Iterators are told apart from lists, so that `== [...]` is as false as it would be
without a sandbox.
"""

from __future__ import annotations

import builtins
import json
import random
from collections.abc import Callable
from typing import Any

# Answers beyond these are no answers. Real ones are below a hundredth of them; the checks' process holds 40 MB more
# at the most.
LONGEST_ANSWER = 1_000_000
DEEPEST_ANSWER = 200
LONGEST_ERROR = 300


def encode(value: Any) -> Any:
    """What json.dumps writes for a value. Raises TypeError for one that is no plain value."""
    for kind in (bool, int, float, str):
        if isinstance(value, kind):
            return kind(value)
    if value is None:
        return None
    if isinstance(value, list):
        return [encode(item) for item in value]
    if isinstance(value, tuple):
        return {"tuple": [encode(item) for item in value]}
    if isinstance(value, dict):
        return {"dict": [[encode(key), encode(item)] for key, item in value.items()]}
    if isinstance(value, set | frozenset):
        return {"set": [encode(item) for item in value]}
    if isinstance(value, complex):
        return {"complex": [value.real, value.imag]}
    if isinstance(value, bytes):
        return {"bytes": value.hex()}
    raise TypeError(f"the answer is a {type(value).__name__}, which is no plain value")


def decode(plain: Any) -> Any:
    """The value that `encode` wrote. Raises an exception for what it did not write."""
    if isinstance(plain, list):
        return [decode(item) for item in plain]
    if not isinstance(plain, dict):
        return plain
    ((kind, inner),) = plain.items()
    if kind == "tuple":
        return tuple(decode(item) for item in inner)
    if kind == "dict":
        return {decode(key): decode(item) for key, item in inner}
    if kind == "set":
        return {decode(item) for item in inner}
    return complex(*inner) if kind == "complex" else bytes.fromhex(inner)


def call(function: Callable[..., Any], arguments: str) -> str:
    """In the program's sandbox: one call, and its reply: 'value JSON', 'iter JSON' or 'error NAME MESSAGE'."""
    args, kwargs = decode(json.loads(arguments))
    try:
        value = function(*args, **kwargs)
        if hasattr(value, "__iter__") and not isinstance(value, str | bytes | dict | list | tuple | set | frozenset):
            return "iter " + json.dumps(encode(list(value)))
        return "value " + json.dumps(encode(value))
    except Exception as error:
        return f"error {type(error).__name__} {str(error)[:LONGEST_ERROR]}"


def cleaned(reply: Any) -> str:
    """In this process: the program's reply as the checks may read it; an error where it is no plain value.

    The program can send whatever it likes. Deep nesting ends a Pyodide process for good, and a long answer fills it.
    """
    if not isinstance(reply, str):
        return "error RuntimeError the program ended early"
    kind, _, text = reply.partition(" ")
    if kind == "error":
        return reply[: 2 * LONGEST_ERROR]
    if kind not in ("value", "iter"):
        return "error RuntimeError the program sent no answer"
    if len(text) > LONGEST_ANSWER:
        return f"error ValueError the answer is longer than {LONGEST_ANSWER} characters"
    try:
        deep = _deeper_than(json.loads(text), DEEPEST_ANSWER)
    except (ValueError, RecursionError, MemoryError):
        deep = True
    return "error ValueError the answer is no plain value" if deep else reply


def judge(ask: Callable[..., str], entry_point: str, prelude: str, checks: str, word: str) -> str:
    """In the checks' sandbox: run the checks on a function that asks the program; `word` when they end.

    Checks that draw numbers draw the same ones each time, however far those before them came.
    """
    random.seed(0)
    names: dict[str, Any] = {"__name__": "checks"}
    exec(prelude, names)
    exec(checks, names)
    names[entry_point] = _candidate(ask)
    names["check"](names[entry_point])
    return word


def _candidate(ask: Callable[..., str]) -> Callable[..., Any]:
    """The program's function as its checks see it."""

    def candidate(*args: Any, **kwargs: Any) -> Any:
        kind, _, text = ask(args=json.dumps(encode((args, kwargs)))).partition(" ")
        if kind == "error":
            name, _, message = text.partition(" ")
            raise _exception(name, message)
        value = decode(json.loads(text))
        return iter(value) if kind == "iter" else value

    return candidate


def _exception(name: str, message: str) -> Exception:
    """The program's exception, where Python has one of that name."""
    kind = getattr(builtins, name, None)
    if isinstance(kind, type) and issubclass(kind, Exception):
        return kind(message)
    return RuntimeError(f"{name} {message}")


def _deeper_than(plain: Any, limit: int) -> bool:
    """Whether lists and objects are nested more than `limit` deep. It does not recurse itself."""
    level = [plain]
    for _ in range(limit):
        level = [
            child
            for node in level
            if isinstance(node, list | dict)
            for child in (node if isinstance(node, list) else node.values())
        ]
        if not level:
            return False
    return True
