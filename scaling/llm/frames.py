"""Requests that differ from an earlier one only in the texts of their messages: its frame is used again.

DSPy reads the messages of each call into types of its own and writes them out as JSON again. For OpenAI's chat API what
comes out is what went in, and all around it stays the same as long as the settings do. So the first request of each
kind is DSPy's. Where putting its own messages into its frame gives the same bytes, later ones are made of the frame.
Everything after that, from sending to the errors, is DSPy's own code.
"""

from __future__ import annotations

import copy
import json
import threading
from dataclasses import dataclass, replace
from operator import itemgetter
from typing import Any

from dspy._vendor.lm15.providers.common import json_dumps
from dspy._vendor.lm15.providers.openai_chat import OpenAIChatLM
from dspy._vendor.lm15.transports import TransportRequest

MOST_KEPT = 256
# Settings that differ from call to call, or that change how DSPy sends a request.
UNFRAMED = ("rollout_id", "seed", "prompt_cache", "n", "stop")
SIMPLE = (str, int, float, bool, type(None), type)


@dataclass(frozen=True)
class Frame:
    """The first request of its kind: as DSPy's type, as it was sent, and its JSON.

    adaptations: DSPy's notes on what the provider does not take. logprobs: whether the settings ask for them.
    """

    request: Any
    sent: TransportRequest
    payload: dict[str, Any]
    adaptations: tuple[Any, ...]
    logprobs: bool

    def filled(self, messages: list[dict[str, Any]]) -> TransportRequest:
        """The request with these messages."""
        texts = [{"role": message["role"], "content": message["content"]} for message in messages]
        return replace(self.sent, headers=list(self.sent.headers), body=json_dumps(self.payload | {"messages": texts}))


class Frames:
    """The frames of one model's requests. Thread-safe."""

    def __init__(self) -> None:
        self._frames: dict[Any, Frame] = {}
        self._provider: Any = None
        self._building = threading.local()

    def find(self, lm: Any, messages: Any, kwargs: dict[str, Any]) -> Frame | None:
        """The frame of a call; None for the first of its kind, and where it may not have one."""
        return self._frames.get(_kind(lm, messages, kwargs))

    def complete(self, frame: Frame, messages: list[dict[str, Any]]) -> Any:
        """DSPy's response to a call that has a frame."""
        self._building.built = frame.filled(messages), frame.adaptations
        return self._provider.complete(frame.request)

    def keep(self, lm: Any, messages: Any, kwargs: dict[str, Any], provider: Any, request: Any) -> None:
        """Keep the frame of a call that DSPy has made, where one can be used again."""
        kind = _kind(lm, messages, kwargs)
        if kind is None or not isinstance(provider, OpenAIChatLM):
            return
        sent, adaptations = provider._build(request, stream=False)
        frame = Frame(request, sent, json.loads(sent.body), adaptations, bool(kwargs.get("logprobs")))
        if frame.filled(messages).body != sent.body:
            return
        if self._provider is None:
            self._provider = copy.copy(provider)
            self._provider._build = lambda request, stream: self._building.built
        if len(self._frames) >= MOST_KEPT:
            self._frames.clear()
        self._frames[kind] = frame


def _kind(lm: Any, messages: Any, kwargs: dict[str, Any]) -> Any:
    """What must be equal for requests of one frame; None for a call that can have none."""
    settings = {**lm.kwargs, **kwargs}
    if any(settings.get(name) is not None for name in UNFRAMED) or not isinstance(messages, list):
        return None
    if not all(isinstance(value, SIMPLE) for value in settings.values()):
        return None
    if not all(message.keys() == {"role", "content"} and _is_text(message["content"]) for message in messages):
        return None
    values = tuple((name, type(value), value) for name, value in sorted(settings.items(), key=itemgetter(0)))
    return lm.model, tuple(message["role"] for message in messages), values


def _is_text(content: Any) -> bool:
    """Whether a message is a text as any provider takes it: DSPy has words of its own for what is none."""
    if not isinstance(content, str) or not content.strip():
        return False
    try:
        content.encode()
    except UnicodeEncodeError:
        return False
    return True
