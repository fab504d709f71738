"""What a provider says that a call used: token counts that are possible, or none at all.

A call whose counts are not known is billed at its highest cost. So a provider that counts nonsense costs its user too
much in the books, and never passes the cap.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec


@dataclass(frozen=True)
class TokenCounts:
    """Tokens of a call, None for what is not known.

    cached, written: parts of the prompt, read from and written into the provider's cache. reasoning: of the completion.
    """

    prompt: int | None = None
    completion: int | None = None
    cached: int | None = None
    reasoning: int | None = None
    written: int | None = None


UNKNOWN = TokenCounts()


def read_usage(usage: Mapping[str, Any], most_tokens: int, has_answer: bool) -> TokenCounts:
    """The counts of a provider's `usage`; UNKNOWN where they are missing or cannot be.

    most_tokens: a prompt or an answer cannot have more. has_answer: whether anything was answered, which takes a token.
    """
    prompt, completion = _count(usage, "prompt_tokens"), _count(usage, "completion_tokens")
    if prompt is None or completion is None:
        return UNKNOWN
    cached = _count(usage.get("prompt_tokens_details"), "cached_tokens")
    written = _count(usage.get("prompt_tokens_details"), "cache_creation_tokens")
    reasoning = _count(usage.get("completion_tokens_details"), "reasoning_tokens")
    # Some providers count their model's thinking in the total only.
    generated = max(completion, (_count(usage, "total_tokens") or 0) - prompt)
    can_be = (
        prompt <= most_tokens
        and prompt + completion > 0
        and has_answer <= completion
        and generated <= most_tokens
        and (cached or 0) + (written or 0) <= prompt
        and (reasoning or 0) <= generated
    )
    return TokenCounts(prompt, generated, cached, reasoning, written) if can_be else UNKNOWN


class _Usage(msgspec.Struct):
    """What is read of an answer's body, much faster than all of it."""

    usage: Any = None


def without_bad_usage(body: bytes) -> bytes:
    """The body of an answer without a `usage` that holds something else than counts: the answer itself is paid for."""
    try:
        if _holds_counts(msgspec.json.decode(body, type=_Usage).usage):
            return body
    except (msgspec.DecodeError, RecursionError):
        pass  # it is no object, or a number that JSON does not have
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return body  # whoever reads it next says what is wrong
    if not isinstance(answer, dict) or _holds_counts(answer.get("usage")):
        return body
    del answer["usage"]
    return json.dumps(answer).encode()


def _holds_counts(usage: Any) -> bool:
    """Whether all that is called tokens in a usage is a count; other fields may be anything."""
    if usage is None:
        return True
    if not isinstance(usage, dict):
        return False
    counts = [value for name, value in usage.items() if name.endswith("_tokens")]
    parts = [value for name, value in usage.items() if name.endswith("_details")]
    return all(value is None or _is_count(value) for value in counts) and all(_holds_counts(part) for part in parts)


def _is_count(value: Any) -> bool:
    is_whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    return is_whole and not isinstance(value, bool) and value >= 0


def _count(usage: Any, name: str) -> int | None:
    """A count of a usage or of its details; None for anything else."""
    value = usage.get(name) if isinstance(usage, Mapping) else None
    return int(value) if value is not None and _is_count(value) else None
