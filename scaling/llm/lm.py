"""The `dspy.LM` that programs and optimizers see: its calls go through the gateway and are counted by the meter."""

from __future__ import annotations

import asyncio
import json
import os
from typing import Any

import dspy
import pydantic
from dspy.clients.capabilities import Capabilities, capabilities
from dspy.utils import exceptions as lm_errors

from scaling.llm.client import ModelClient
from scaling.llm.errors import CallFailed
from scaling.llm.gateway import Call, CellGateway
from scaling.llm.meter import Meter
from scaling.models import Model
from scaling.records.record import Answer, CallRecord
from scaling.redact import remember, remember_url
from scaling.types import CellStopped, digest


class MeteredLM(dspy.LM):
    """A `dspy.LM` whose calls go through the gateway.

    Copies (`lm.copy(role=..., draw=...)`) share gateway and meter. `draw` tells apart the samples of one
    request (votes, redraws); `record` is a list that gets this LM's calls, for whoever scores one example.
    """

    def __init__(self, model: Model, gateway: CellGateway, meter: Meter, run: int, temperature: float, **options: Any):
        self.spec, self.gateway, self.meter, self.run = model, gateway, meter, run
        self.phase = options.pop("phase", "optimize")
        self.role, self.draw = options.pop("role", "task"), 0
        self.record: list[CallRecord] | None = None
        self.timeout_seconds = options.pop("timeout", 120.0)
        remember(os.environ.get(model.key_env or ""))
        remember_url(model.api_base)
        client: dict[str, Any] = {"timeout": self.timeout_seconds}
        if model.api_base:
            client |= {"api_base": model.api_base, "api_key": os.environ.get(model.key_env or "") or "none"}
        super().__init__(
            model=model.route,
            temperature=temperature,
            max_tokens=options.pop("max_tokens", model.max_output_tokens),
            cache=False,
            num_retries=0,
            **client,
            **options,
        )

    @property
    def supports_function_calling(self) -> bool:
        return bool(self._capabilities.function_calling)

    @property
    def supports_reasoning(self) -> bool:
        return bool(self._capabilities.reasoning)

    @property
    def supports_response_schema(self) -> bool:
        return self.spec.adapter == "json" or self._capabilities.response_schema

    @property
    def supported_params(self) -> set[str]:
        extra = {"response_format"} if self.spec.adapter == "json" else set()
        return set(self._capabilities.params) | extra

    @property
    def client(self) -> ModelClient | None:
        """The model's own client; None where only LiteLLM can reach it."""
        connections = self.spec.concurrency(self.gateway.max_concurrency)
        return self.gateway.clients.get(self, self.spec, self.timeout_seconds, connections)

    @property
    def _capabilities(self) -> Capabilities:
        client = self.client
        return capabilities(self) if client is None else client.capabilities

    def __deepcopy__(self, memo: dict[int, Any]) -> MeteredLM:
        copied: MeteredLM = self.copy()
        return copied

    def __call__(self, prompt: Any = None, *, messages: Any = None, **kwargs: Any) -> list[Any]:
        request = self._request(prompt, messages, kwargs)
        key = digest([self.spec.id, request, self.run, self.draw])
        if self.spec.sends_seed:
            kwargs["seed"] = int(key[:7], 16)
        call = Call(
            key=key,
            model=self.spec,
            cell_id=self.meter.cell_id,
            rank=self.meter.rank,
            phase=self.phase,
            highest_cost=self._highest_cost(request),
            send=lambda: self._send(prompt, messages, kwargs),
        )
        try:
            answer = self.gateway.answer(call)
        except lm_errors.ContextWindowExceededError:
            self._note(None, "the prompt is longer than the model's context")
            raise
        except CallFailed as error:
            self._note(None, str(error))
            if self.phase == "optimize":
                # An optimizer would take the failure for a score of 0: the cell ends instead, unscored.
                raise CellStopped("error", f"a call failed while optimizing: {error}") from error
            raise
        self._note(answer, None)
        return answer.outputs

    async def acall(self, prompt: Any = None, *, messages: Any = None, **kwargs: Any) -> list[Any]:
        return await asyncio.to_thread(self.__call__, prompt, messages=messages, **kwargs)

    def _request(self, prompt: Any, messages: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
        """Everything that shapes the answer, as plain JSON; addresses and keys are left out."""
        merged = {**self.kwargs, **kwargs}
        for name in ("api_key", "api_base", "timeout", "cache"):
            merged.pop(name, None)
        form = merged.get("response_format")
        if isinstance(form, type) and issubclass(form, pydantic.BaseModel):
            merged["response_format"] = form.model_json_schema()
        return {"messages": messages or [{"role": "user", "content": str(prompt)}], **merged}

    def _highest_cost(self, request: dict[str, Any]) -> float | None:
        max_tokens = request.get("max_tokens") or request.get("max_completion_tokens") or self.spec.max_output_tokens
        prompt_bytes = len(json.dumps([request["messages"], request.get("response_format")], default=str).encode())
        return self.spec.highest_cost(prompt_bytes, max_tokens)

    def _send(self, prompt: Any, messages: Any, kwargs: dict[str, Any]) -> Answer:
        client = self.client
        sent = client.send(self, prompt, messages, kwargs) if client else None
        outputs, usage = sent or self._send_by_dspy(prompt, messages, kwargs)
        prompt_tokens, completion_tokens = _count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens"))
        cached_tokens = _count((usage.get("prompt_tokens_details") or {}).get("cached_tokens"))
        cost = None
        if prompt_tokens is not None and completion_tokens is not None:
            cost = self.spec.cost(prompt_tokens, completion_tokens, cached_tokens or 0)
        return Answer(
            outputs=outputs,
            prompt_tokens=prompt_tokens,
            completion_tokens=completion_tokens,
            cached_tokens=cached_tokens,
            reasoning_tokens=_count((usage.get("completion_tokens_details") or {}).get("reasoning_tokens")),
            list_cost_usd=cost,
        )

    def _send_by_dspy(self, prompt: Any, messages: Any, kwargs: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        with dspy.context(disable_history=True), dspy.track_usage() as tracker:
            outputs = super().__call__(prompt, messages=messages, **kwargs)
        return outputs, next(iter(tracker.get_total_tokens().values()), {})

    def _note(self, answer: Answer | None, error: str | None) -> None:
        """Write the call down: in the cell's meter and, while an example is scored, in its own record."""
        if answer is None:  # it failed for good
            call = CallRecord(phase=self.phase, role=self.role, list_cost_usd=0.0, billed_cost_usd=0.0, error=error)
        else:
            hit = answer.cache_hit
            call = CallRecord(
                phase=self.phase,
                role=self.role,
                prompt_tokens=answer.prompt_tokens,
                completion_tokens=answer.completion_tokens,
                cached_tokens=answer.cached_tokens,
                reasoning_tokens=answer.reasoning_tokens,
                list_cost_usd=answer.list_cost_usd,
                billed_cost_usd=0.0 if hit else answer.list_cost_usd,
                latency_seconds=answer.latency_seconds,
                attempts=0 if hit else answer.attempts,
                cache_hit=hit,
            )
        self.meter.add_call(call)
        if self.record is not None:
            self.record.append(call)


def make_lm(
    model: Model, gateway: CellGateway, meter: Meter, run: int, temperature: float, **options: Any
) -> MeteredLM:
    """The task LM of a cell; `phase`, `role`, `timeout` and `max_tokens` as keywords."""
    return MeteredLM(model, gateway, meter, run, temperature, **options)


def variant(**changes: Any) -> dict[str, Any]:
    """Settings for `dspy.context`: the current LM, if it counts, with another role, draw or record; else {}."""
    lm = dspy.settings.lm
    return {"lm": lm.copy(**changes)} if hasattr(lm, "meter") else {}


def _count(value: Any) -> int | None:
    """A number of tokens as a provider reports it; None for anything else, which is then billed at the highest cost."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
