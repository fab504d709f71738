"""What the headers of an answer say of a provider's limits: how much of a bucket is left, and when it is full again.

OpenAI, Groq and most servers that speak as OpenAI does send `x-ratelimit-{limit,remaining,reset}-{requests,tokens}`,
with a reset as `6m0s`, `12ms` or seconds. Anthropic sends `anthropic-ratelimit-{requests,tokens}-{...}`, with a reset
as a time (RFC 3339). Whatever cannot be read says nothing.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

KINDS = ("requests", "tokens")
UNITS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
PART = re.compile(r"(\d+(?:\.\d+)?)(ms|us|µs|ns|d|h|m|s)")
LONGEST_SECONDS = 366 * 86400.0


@dataclass(frozen=True)
class BucketState:
    """A provider's bucket of requests or tokens: what it holds when full, what is left, seconds until it is full."""

    limit: float
    remaining: float
    reset_seconds: float


def bucket_states(headers: Mapping[str, str], now: datetime | None = None) -> dict[str, BucketState]:
    """The buckets that headers (lower-case names) tell of, by kind: requests, tokens."""
    states = {}
    for kind in KINDS:
        parts = [
            headers.get(f"x-ratelimit-{part}-{kind}") or headers.get(f"anthropic-ratelimit-{kind}-{part}")
            for part in ("limit", "remaining", "reset")
        ]
        limit, remaining = _number(parts[0]), _number(parts[1])
        reset = reset_seconds(parts[2] or "", now)
        if limit and remaining is not None and reset is not None and remaining <= limit:
            states[kind] = BucketState(limit, remaining, reset)
    return states


def reset_seconds(text: str, now: datetime | None = None) -> float | None:
    """The seconds of a reset, from 0; None for what is none."""
    text = text.strip()
    if (seconds := _number(text)) is not None:
        return seconds if seconds <= LONGEST_SECONDS else None
    if PART.sub("", text) == "" and text:
        return sum(float(amount) * UNITS[unit] for amount, unit in PART.findall(text))
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return max(0.0, (moment - (now or datetime.now(UTC))).total_seconds())


def _number(text: str | None) -> float | None:
    """A number from 0; None for anything else."""
    if not text or not re.fullmatch(r"\d{1,15}(\.\d{1,15})?", text.strip()):
        return None
    value = float(text)
    return value if math.isfinite(value) else None
