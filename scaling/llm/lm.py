"""The `dspy.LM` that programs and optimizers see: its calls go through the gateway and are counted by the meter."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterable, Sequence
from typing import Any

import dspy
import pydantic
from dspy._vendor.lm15.providers.anthropic import anthropic_adaptive_class
from dspy._vendor.lm15.providers.common import EFFORT_THINKING_BUDGETS
from dspy.clients.capabilities import Capabilities, capabilities
from dspy.utils import exceptions as lm_errors

from scaling.concurrency import most_at_a_time
from scaling.llm.client import ModelClient, Reply
from scaling.llm.errors import CallFailed
from scaling.llm.gateway import Call, CellGateway
from scaling.llm.meter import Meter
from scaling.llm.usage import read_usage
from scaling.models import Model
from scaling.records.record import Answer, CallRecord
from scaling.redact import remember, remember_url
from scaling.types import CellStopped, digest

# What a copy may change without a change of the requests.
OWN_SETTINGS = {"phase", "role", "draw", "record"}


class MeteredLM(dspy.LM):
    """A `dspy.LM` whose calls go through the gateway.

    Copies (`lm.copy(role=..., draw=...)`) share gateway and meter. `draw` tells apart the samples of one
    request (votes, redraws), `row_draw` the answers of the whole program to one row; `record` is a list that gets this
    LM's calls, for whoever scores one example.
    """

    def __init__(self, model: Model, gateway: CellGateway, meter: Meter, run: int, temperature: float, **options: Any):
        self.spec, self.gateway, self.meter, self.run = model, gateway, meter, run
        self.phase = options.pop("phase", "optimize")
        self.role, self.draw, self.row_draw = options.pop("role", "task"), 0, 0
        self.record: list[CallRecord] | None = None
        self.timeout_seconds = options.pop("timeout", 120.0)
        remember(os.environ.get(model.key_env or ""))
        remember_url(model.api_base)
        client: dict[str, Any] = {"timeout": self.timeout_seconds}
        if model.reasoning_effort is not None:
            client["reasoning_effort"] = model.reasoning_effort
        key = os.environ.get(model.key_env or "")
        if key or model.api_base:
            client["api_key"] = key or "none"
        if model.api_base:
            client["api_base"] = model.api_base
        super().__init__(
            model=model.route,
            temperature=temperature if model.takes_temperature else None,
            max_tokens=options.pop("max_tokens", model.output_limit),
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
        connections = most_at_a_time(self.spec, self.gateway.max_concurrency)
        return self.gateway.clients.get(self, self.spec, self.timeout_seconds, connections)

    def copy(self, **changes: Any) -> MeteredLM:
        """As DSPy does it, which looks through all base classes also where only what is ours changes."""
        if not changes.keys() <= OWN_SETTINGS:
            copied: MeteredLM = super().copy(**changes)
            return copied
        copied = object.__new__(type(self))
        own = {"history": [], "callbacks": list(self.callbacks), "kwargs": dict(self.kwargs)}
        copied.__dict__.update(self.__dict__ | own | changes)
        return copied

    @property
    def _capabilities(self) -> Capabilities:
        client = self.client
        return capabilities(self) if client is None else client.capabilities

    def __deepcopy__(self, memo: dict[int, Any]) -> MeteredLM:
        return self.copy()

    def __call__(self, prompt: Any = None, *, messages: Any = None, **kwargs: Any) -> list[Any]:
        answers: list[Answer] = []
        try:
            # Each answer that is asked for is reserved, billed, cached and tried again by itself.
            for settings, draw in self._requests(kwargs):
                answers.append(self._ask(prompt, messages, settings, draw))
        except lm_errors.ContextWindowExceededError:
            self._note(answers, "the prompt or the answer is too long for the model")
            raise
        except CallFailed as error:
            self._note(answers, str(error), error.maybe_billed)
            self.meter.add_failure(str(error))
            if self.phase == "optimize":
                # An optimizer would take the failure for a score of 0: the cell ends instead, unscored.
                raise CellStopped("error", f"a call failed while optimizing: {error}") from error
            raise
        self._note(answers, None)
        outputs = [output for answer in answers for output in answer.outputs]
        if any(isinstance(output, dict) for output in outputs):
            return [output if isinstance(output, dict) else {"text": output} for output in outputs]
        return outputs

    async def acall(self, prompt: Any = None, *, messages: Any = None, **kwargs: Any) -> list[Any]:
        return await asyncio.to_thread(self.__call__, prompt, messages=messages, **kwargs)

    def _requests(self, kwargs: dict[str, Any]) -> list[tuple[dict[str, Any], Any]]:
        """(settings, draw) of each request that a call needs: `n` answers are n requests. Raises ValueError."""
        count = {**self.kwargs, **kwargs}.get("n")
        if count is None or count == 1:
            return [(kwargs, self.draw)]
        if not isinstance(count, int) or count < 1:
            raise ValueError(f"n is {count!r}: it is a number of answers, at least 1")
        return [(kwargs | {"n": 1}, [self.draw, i]) for i in range(count)]

    def _ask(self, prompt: Any, messages: Any, kwargs: dict[str, Any], draw: Any) -> Answer:
        """One answer, by the gateway."""
        if not self.spec.takes_temperature:
            kwargs = kwargs | {"temperature": None}  # an optimizer may have set one in a copy
        request = self._request(prompt, messages, kwargs)
        draw = {"row_draw": self.row_draw, "draw": draw} if self.row_draw else draw
        key = digest([self.spec.id, request, self.run, draw])
        if self.spec.sends_seed:
            kwargs = kwargs | {"seed": int(key[:7], 16)}
        size, most_answered = prompt_bytes(request), self._most_answered(request)
        call = Call(
            key=key,
            model=self.spec,
            cell_id=self.meter.cell_id,
            rank=self.meter.rank,
            phase=self.phase,
            highest_cost=self.spec.highest_cost(size, most_answered),
            send=lambda: self._send(max(size, most_answered), prompt, messages, kwargs),
            prompt_tokens=size / self.spec.bytes_per_token,
        )
        return self.gateway.answer(call)

    def _request(self, prompt: Any, messages: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
        """Everything that shapes the answer, as plain JSON; addresses and keys are left out."""
        merged = {**self.kwargs, **kwargs}
        for name in ("api_key", "api_base", "timeout", "cache"):
            merged.pop(name, None)
        if merged.get("temperature") is None:
            merged.pop("temperature", None)
        form = merged.get("response_format")
        if isinstance(form, type) and issubclass(form, pydantic.BaseModel):
            merged["response_format"] = form.model_json_schema()
        return {"messages": messages or [{"role": "user", "content": str(prompt)}], **merged}

    def _most_answered(self, request: dict[str, Any]) -> int:
        """The limit of tokens of an answer that a request sets."""
        limits = [request.get(name) for name in ("max_tokens", "max_completion_tokens")]
        return max((limit for limit in limits if limit), default=self.spec.output_limit) + _thinking_budget(self.spec)

    def _send(self, most_tokens: int, prompt: Any, messages: Any, kwargs: dict[str, Any]) -> Answer:
        """One attempt. most_tokens: of the prompt or the answer, as far as the request says."""
        client = self.client
        sent = client.send(self, prompt, messages, kwargs) if client else None
        reply = sent or self._send_by_dspy(prompt, messages, kwargs)
        outputs = [_without_reasoning(output) for output in reply.outputs]
        # Providers add to a prompt, and some write more than they are asked to: that is possible, and billed.
        answered = len(json.dumps(outputs, default=str))
        most = max(most_tokens, answered, self.spec.context_length or 0)
        counts = read_usage(reply.usage, most, any(outputs))
        cost = None
        if counts.prompt is not None and counts.completion is not None:
            parts = (counts.cached or 0, counts.reasoning or 0, counts.written or 0)
            cost = self.spec.cost(counts.prompt, counts.completion, *parts)
        return Answer(
            outputs=outputs,
            prompt_tokens=counts.prompt,
            completion_tokens=counts.completion,
            cached_tokens=counts.cached,
            cache_write_tokens=counts.written,
            reasoning_tokens=counts.reasoning,
            list_cost_usd=cost,
            rate_limits=reply.rate_limits,
        )

    def _send_by_dspy(self, prompt: Any, messages: Any, kwargs: dict[str, Any]) -> Reply:
        def send() -> Reply:
            with dspy.context(disable_history=True), dspy.track_usage() as tracker:
                outputs = dspy.LM.__call__(self, prompt, messages=messages, **kwargs)
            return Reply(outputs, next(iter(tracker.get_total_tokens().values()), {}))

        return self.gateway.clients.within(self.timeout_seconds, send)

    def _note(self, answers: Sequence[Answer], error: str | None, maybe_billed: bool = False) -> None:
        """Write the call down: in the cell's meter and, while an example is scored, in its own record.

        What a call was billed is null where nobody knows, though its bill counts for the cap at its highest cost.
        """
        sent = [answer for answer in answers if not answer.cache_hit]
        call = CallRecord(
            phase=self.phase,
            role=self.role,
            prompt_tokens=_sum(answer.prompt_tokens for answer in answers),
            completion_tokens=_sum(answer.completion_tokens for answer in answers),
            cached_tokens=_sum(answer.cached_tokens for answer in answers),
            cache_write_tokens=_sum(answer.cache_write_tokens for answer in answers),
            reasoning_tokens=_sum(answer.reasoning_tokens for answer in answers),
            list_cost_usd=_sum(answer.list_cost_usd for answer in answers) if answers else 0.0,
            billed_cost_usd=None if maybe_billed else _sum(map(_billed, sent)) if sent else 0.0,
            latency_seconds=_sum(answer.latency_seconds for answer in answers),
            attempts=_sum(answer.attempts for answer in sent) if sent or not answers else 0,
            cache_hit=bool(answers) and not sent,
            error=error,
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
    """Settings for `dspy.context`: the current LM, if it counts, with another role, draw or record; else {}.

    No callback is told of what happens inside a program: ours ask for evaluations, and each call would pay for it.
    """
    lm = dspy.settings.lm
    return {"lm": lm.copy(**changes), "callbacks": []} if hasattr(lm, "meter") else {}


def _billed(answer: Answer) -> float | None:
    """What an answer was billed: its list cost, unless it says otherwise."""
    return answer.list_cost_usd if answer.billed_cost_usd is None else answer.billed_cost_usd


def _sum(values: Iterable[Any]) -> Any:
    """A sum; None where a part of it is not known, or there is none."""
    known = list(values)
    return None if not known or None in known else sum(known)


def prompt_bytes(request: dict[str, Any]) -> int:
    """Bytes of all that a model reads of a request, which are at least as many as its tokens."""
    read = [request["messages"], request.get("response_format")]
    read += [request[name] for name in ("tools", "functions") if request.get(name)]
    return len(json.dumps(read, default=str).encode())


def _thinking_budget(model: Model) -> int:
    """Tokens that DSPy adds to the limit of a Claude whose thinking has a budget in place of an effort."""
    effort = model.reasoning_effort
    if effort in (None, "none") or not model.route.startswith("anthropic/") or anthropic_adaptive_class(model.route):
        return 0
    return int(EFFORT_THINKING_BUDGETS[effort])


def _without_reasoning(output: Any) -> Any:
    """An answer as its text; the reasoning that comes with it is read by nobody, and optimizers expect a text."""
    if isinstance(output, dict) and "text" in output and output.keys() <= {"text", "reasoning_content"}:
        return output["text"]
    return output
