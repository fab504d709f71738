"""The scripted server with the rules of models that reason: what each maker's API refuses, in its own form.

The rules are those of the makers' documents. A refusal has status 400; an answer that the limit leaves no room for is
cut, or refused where the maker refuses it. What a request says to the real API it says here: the same path and body.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from scaling.testing.server import Body, Fault, ScriptedServer, message_text

REASONING_TOKENS = {"none": 0, "minimal": 20, "low": 60, "medium": 240, "high": 900, "xhigh": 2000, "max": 4000}
THOUGHT = "The text is read once more before the answer."


@dataclass(frozen=True)
class Maker:
    """How a maker's models are spoken to.

    refusal: what its API says to a request that it does not take; None for one that it takes. effort: the effort of a
    request. read: the request as a chat completion, from its path and body. write: the response in the maker's form,
    from a chat completion whose message may have `reasoning`.
    """

    refusal: Callable[[Body], str | None]
    effort: Callable[[Body], str]
    read: Callable[[Body], Body]
    write: Callable[[dict[str, Any]], dict[str, Any]]
    limit: Callable[[Body], int]
    refuses_no_room: bool = False  # in place of an answer that is cut
    marks_cache: bool = False  # requests mark what is to be cached


class StrictServer(ScriptedServer):
    """The scripted server as a maker's API, while the `with` block runs.

    thinks: tokens of reasoning before each answer, in place of those of the effort. Other arguments: those of
    ScriptedServer.
    """

    def __init__(self, maker: Maker, thinks: int | None = None, **options: Any):
        super().__init__(**options)
        self.maker, self.thinks = maker, thinks
        self.reasoning_tokens = 0
        self._cached: set[str] = set()  # what has been marked for the prompt cache

    def read(self, body: Body) -> Body:
        return self.maker.read(body) | {"native": body}

    def refusal(self, body: Body) -> Fault:
        message = self.maker.refusal(body["native"])
        if message is None and self.maker.refuses_no_room and self._room(body) < 1:
            message = "Could not finish the message because max_tokens or model output limit was reached."
        return None if message is None else ("status", 400, {}, message, "invalid_request_error")

    def complete(self, body: Body) -> dict[str, Any]:
        response = super().complete(body)
        reasoning, room = self._reasoning(body), self._room(body)
        choice, usage = response["choices"][0], response["usage"]
        if usage["completion_tokens"] > room:
            choice["message"]["content"] = choice["message"]["content"][: 4 * max(room, 0)]
            choice["finish_reason"] = "length"
            reasoning, answer = min(reasoning, self.maker.limit(body["native"])), max(room, 0)
        else:
            answer = usage["completion_tokens"]
        if reasoning:
            choice["message"]["reasoning"] = THOUGHT
        with self._lock:
            self.completion_tokens += reasoning + answer - usage["completion_tokens"]
            self.reasoning_tokens += reasoning
        usage["completion_tokens"] = reasoning + answer
        usage["completion_tokens_details"] = {"reasoning_tokens": reasoning}
        usage["prompt_tokens_details"] = usage.get("prompt_tokens_details") or self._cache_use(body["native"])
        return self.maker.write(response)

    def _cache_use(self, body: Body) -> dict[str, int]:
        """Tokens that are read from the prompt cache, or written into it."""
        beginning = marked_beginning(body) if self.maker.marks_cache else ""
        with self._lock:
            kind = "cached_tokens" if beginning in self._cached else "cache_creation_tokens"
            self._cached.add(beginning)
        return {kind: len(beginning.encode()) // 4} if beginning else {}

    def _reasoning(self, body: Body) -> int:
        return REASONING_TOKENS[self.maker.effort(body["native"])] if self.thinks is None else self.thinks

    def _room(self, body: Body) -> int:
        """Tokens that are left for the answer."""
        return self.maker.limit(body["native"]) - self._reasoning(body)


def _refuse_openai(body: Body) -> str | None:
    if "max_tokens" in body:
        return "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens'."
    if body.get("temperature", 1) != 1:
        return f"Unsupported value: 'temperature' does not support {body['temperature']} with this model."
    return _unknown_effort(body.get("reasoning_effort"), ("none", "minimal", "low", "medium", "high", "xhigh"))


def _refuse_groq(body: Body) -> str | None:
    return _unknown_effort(body.get("reasoning_effort"), ("low", "medium", "high"))


def _refuse_claude(body: Body) -> str | None:
    """Of the models whose thinking is adaptive: the newer ones, which think unless they are told not to."""
    thinking, output = body.get("thinking", {}), body.get("output_config", {})
    if "temperature" in body:
        return "temperature: this model does not take sampling parameters"
    if thinking.get("type") == "enabled":
        return "thinking.type.enabled: not supported for this model; use thinking.type.adaptive"
    return _unknown_effort(output.get("effort"), ("low", "medium", "high", "xhigh", "max"))


def _refuse_budget_claude(body: Body) -> str | None:
    """Of the models whose thinking has a budget: they think when they are asked to."""
    thinking = body.get("thinking", {})
    if thinking.get("type") == "adaptive" or "effort" in body.get("output_config", {}):
        return "adaptive thinking is not supported for this model"
    if thinking.get("type") != "enabled":
        return None
    if body.get("temperature", 1) != 1:
        return "`temperature` may only be set to 1 when thinking is enabled"
    if thinking["budget_tokens"] < 1024:
        return "thinking.budget_tokens: Input should be greater than or equal to 1024"
    if body["max_tokens"] <= thinking["budget_tokens"]:
        return "`max_tokens` must be greater than `thinking.budget_tokens`"
    return None


def _refuse_gemini(body: Body) -> str | None:
    config = body.get("generationConfig", {})
    thinking = config.get("thinkingConfig", {})
    if "temperature" in config:
        return "Sampling parameters are not supported for this model."
    if {"thinkingBudget", "thinkingLevel"} <= thinking.keys():
        return "You can only set only one of thinking budget and thinking level."
    return _unknown_effort(thinking.get("thinkingLevel"), ("low", "medium", "high"))


def _unknown_effort(effort: str | None, possible: tuple[str, ...]) -> str | None:
    return None if effort in (None, *possible) else f"unsupported reasoning effort '{effort}'; use {possible}"


def _read_claude(body: Body) -> Body:
    """Marks for the prompt cache change no answer, so they are left out."""
    system = [{"role": "system", "content": body["system"]}] if "system" in body else []
    messages = [m | {"content": message_text(m)} for m in (*system, *body["messages"])]
    return {"model": body["model"], "messages": messages}


def marked_beginning(body: Body) -> str:
    """The text of a request to Claude up to its last mark for the prompt cache."""
    contents = [body.get("system", ""), *(message["content"] for message in body["messages"])]
    blocks = [block for content in contents for block in ([{"text": content}] if isinstance(content, str) else content)]
    last = max((place for place, block in enumerate(blocks) if "cache_control" in block), default=-1)
    return "".join(block.get("text", "") for block in blocks[: last + 1])


def _write_claude(response: dict[str, Any]) -> dict[str, Any]:
    (choice,), usage = response["choices"], response["usage"]
    message = choice["message"]
    content = []
    if "reasoning" in message:
        content.append({"type": "thinking", "thinking": message["reasoning"], "signature": "scripted"})
    if message["content"]:
        content.append({"type": "text", "text": message["content"]})
    return {
        "id": response["id"],
        "type": "message",
        "role": "assistant",
        "model": response["model"],
        "content": content,
        "stop_reason": "max_tokens" if choice["finish_reason"] == "length" else "end_turn",
        "usage": {
            "input_tokens": usage["prompt_tokens"] - sum(usage["prompt_tokens_details"].values()),
            "cache_read_input_tokens": usage["prompt_tokens_details"].get("cached_tokens", 0),
            "cache_creation_input_tokens": usage["prompt_tokens_details"].get("cache_creation_tokens", 0),
            "output_tokens": usage["completion_tokens"],
            "output_tokens_details": {"thinking_tokens": usage["completion_tokens_details"]["reasoning_tokens"]},
        },
    }


def _read_gemini(body: Body) -> Body:
    def message(role: str, content: Body) -> Body:
        return {"role": role, "content": "".join(part["text"] for part in content["parts"])}

    system = [message("system", body["systemInstruction"])] if "systemInstruction" in body else []
    roles = {"user": "user", "model": "assistant"}
    return {"model": "gemini", "messages": [*system, *(message(roles[c["role"]], c) for c in body["contents"])]}


def _write_gemini(response: dict[str, Any]) -> dict[str, Any]:
    (choice,), usage = response["choices"], response["usage"]
    reasoning = usage["completion_tokens_details"]["reasoning_tokens"]
    text = choice["message"]["content"]
    return {
        "candidates": [
            {
                "content": {"role": "model", "parts": [{"text": text}] if text else []},
                "finishReason": "MAX_TOKENS" if choice["finish_reason"] == "length" else "STOP",
                "index": 0,
            }
        ],
        "usageMetadata": {
            "promptTokenCount": usage["prompt_tokens"],
            "candidatesTokenCount": usage["completion_tokens"] - reasoning,
            "thoughtsTokenCount": reasoning,
            "totalTokenCount": usage["prompt_tokens"] + usage["completion_tokens"],
        },
        "modelVersion": response["model"],
    }


def _same(value: dict[str, Any]) -> dict[str, Any]:
    return value


OPENAI = Maker(
    refusal=_refuse_openai,
    effort=lambda body: body.get("reasoning_effort") or "medium",
    read=_same,
    write=_same,
    limit=lambda body: body.get("max_completion_tokens") or 128_000,
    refuses_no_room=True,
)
GROQ = Maker(
    refusal=_refuse_groq,
    effort=lambda body: body.get("reasoning_effort") or "medium",
    read=_same,
    write=_same,
    limit=lambda body: body.get("max_completion_tokens") or body.get("max_tokens") or 65_536,
)
CLAUDE = Maker(
    refusal=_refuse_claude,
    effort=lambda body: body.get("output_config", {}).get("effort") or "medium",
    read=_read_claude,
    write=_write_claude,
    limit=lambda body: int(body["max_tokens"]),
    marks_cache=True,
)
BUDGET_CLAUDE = Maker(
    refusal=_refuse_budget_claude,
    effort=lambda body: "medium" if body.get("thinking", {}).get("type") == "enabled" else "none",
    read=_read_claude,
    write=_write_claude,
    limit=lambda body: int(body["max_tokens"]),
    marks_cache=True,
)
GEMINI = Maker(
    refusal=_refuse_gemini,
    effort=lambda body: body.get("generationConfig", {}).get("thinkingConfig", {}).get("thinkingLevel") or "medium",
    read=_read_gemini,
    write=_write_gemini,
    limit=lambda body: body.get("generationConfig", {}).get("maxOutputTokens") or 65_536,
)
