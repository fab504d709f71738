"""Which beginnings of prompts are marked for a provider that caches only what is marked (Anthropic's `cache_control`).

OpenAI, Google and most others cache by themselves. Where a mark is needed, writing costs a quarter more than plain
input and reading a tenth of it. So a beginning is marked once it has come back a few times. One call then writes. The
calls beside it are sent plain, as they would all write. From its answer on every call reads, as long as the provider
keeps it.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from dspy.lm15 import CacheConfig

# Providers cache no beginning below 1,024 tokens (some models: 4,096).
LEAST_BYTES = 4 * 1024
# GEPA tries most of its candidates on three rows: their prompts do not come back.
USES_BEFORE = 4
# Anthropic keeps a beginning for five minutes after its last use.
KEPT_SECONDS = 270.0


@dataclass
class _Beginning:
    uses: int = 0
    is_written_now: bool = False
    kept_until: float = 0.0


class PromptCache:
    """What a provider is believed to have cached, of one model's prompts. Thread-safe."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._beginnings: dict[bytes, _Beginning] = {}
        self._lock = threading.Lock()

    @contextmanager
    def marking(self, messages: Any) -> Iterator[dict[str, Any]]:
        """Settings of `dspy.LM` that mark the beginning of a prompt for the call in the block; {} for no mark."""
        beginning = stable_messages(messages)
        if sum(len(message["content"]) for message in beginning) < LEAST_BYTES:
            yield {}
            return
        key = hashlib.sha256(json.dumps(beginning).encode()).digest()[:16]
        if not self._is_to_mark(key):
            yield {}
            return
        kept_until = 0.0
        try:
            yield {"prompt_cache": _mark(beginning)}
            kept_until = self._clock() + KEPT_SECONDS
        finally:
            with self._lock:
                state = self._beginnings[key]
                state.is_written_now, state.kept_until = False, max(state.kept_until, kept_until)

    def _is_to_mark(self, key: bytes) -> bool:
        with self._lock:
            state = self._beginnings.setdefault(key, _Beginning())
            state.uses += 1
            if state.kept_until > self._clock():
                return True
            if state.is_written_now or state.uses <= USES_BEFORE:
                return False
            state.is_written_now = True
            return True


def stable_messages(messages: Any) -> list[dict[str, Any]]:
    """The messages before the row's, which is the last: instruction, labels and demos. [] where they are no text."""
    beginning = list(messages or [])[:-1]
    return beginning if all(isinstance(message.get("content"), str) for message in beginning) else []


def _mark(beginning: list[dict[str, Any]]) -> CacheConfig:
    """A mark at the end of the demos, and at the end of the instruction."""
    demos = sum(message["role"] not in ("system", "developer") for message in beginning)
    return CacheConfig(prefix_until_index=demos - 1) if demos else CacheConfig(prefix="stable")
