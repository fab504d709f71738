"""The one gateway through which every LM call goes: cache, single flight, cap, places, retries, meter, stop.

`MeteredLM` is the `dspy.LM` that programs and optimizers see; all of a sweep's share one `Gateway`. Nothing
else counts, caches, retries or limits calls. A call: look in the cache; join an identical call in
flight; take a place at the provider; reserve its highest possible cost; send; settle; retry if it helps.
"""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import dspy
import pydantic
import tenacity
from dspy.clients.capabilities import Capabilities, capabilities
from dspy.utils import exceptions as lm_errors

from scaling.llm.cache import Cache
from scaling.llm.client import ModelClient, ModelClients
from scaling.llm.limits import ConcurrencyLimiter, CostBudget
from scaling.models import Model
from scaling.types import CellStopped, digest

MAX_ATTEMPTS = 8
LONGEST_PAUSE_SECONDS = 300.0
# Answers of a provider that refuses a request, and so cannot have billed it.
FREE_STATUSES = (400, 401, 403, 404, 413, 422, 429)
PROPOSING_ROLES = ("reflection", "proposer")
# After so many calls in a row that failed every attempt, the provider counts as down.
PROVIDER_DOWN_AFTER = 5
# The wrong key, model or account: retrying cannot help, and no other call of the model can succeed.
FATAL_ERRORS = (
    lm_errors.LMAuthError,
    lm_errors.LMBillingError,
    lm_errors.LMConfigurationError,
    lm_errors.LMUnsupportedModelError,
    lm_errors.LMUnsupportedFeatureError,
)
RETRYABLE_ERRORS = (
    lm_errors.LMRateLimitError,
    lm_errors.LMServerError,
    lm_errors.LMTimeoutError,
    lm_errors.LMTransportError,
    lm_errors.LMUnexpectedError,
)


class CallFailed(Exception):
    """A call that failed for good: an infrastructure error, which is not a score."""


@dataclass
class Usage:
    """Sums over the calls of one phase; costs in USD, None once a call of unknown price is in it."""

    calls: int = 0
    cache_hits: int = 0
    failed_calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    list_cost_usd: float | None = 0.0
    billed_cost_usd: float | None = 0.0

    def add(self, call: dict[str, Any]) -> None:
        self.calls += 1
        self.cache_hits += bool(call["cache_hit"])
        self.failed_calls += call["error"] is not None
        self.prompt_tokens += call["prompt_tokens"] or 0
        self.completion_tokens += call["completion_tokens"] or 0
        self.list_cost_usd = _sum(self.list_cost_usd, call["list_cost_usd"])
        self.billed_cost_usd = _sum(self.billed_cost_usd, call["billed_cost_usd"])


@dataclass
class CallTimes:
    """A cell's calls of one kind. `timed` are those whose seconds say how fast the cell's calls are."""

    calls: int = 0
    timed: int = 0
    seconds: float = 0.0

    def add(self, call: dict[str, Any], timed: bool) -> None:
        self.calls += 1
        self.timed += timed
        self.seconds += (call["latency_seconds"] or 0.0) * (not call["cache_hit"])


@dataclass(frozen=True)
class Progress:
    """How far a cell is: its rollouts by phase, and its calls by kind."""

    rollouts: dict[str, int]
    times: dict[str, CallTimes]


class Meter:
    """What one cell used: a line a call in calls.jsonl, sums by phase, and rollouts. Exact under threads.

    rank: who goes first where calls wait for a place; 0 before 1.
    """

    def __init__(self, cell_id: str, calls_file: Path | None = None, rank: int = 0):
        self.cell_id, self.rank = cell_id, rank
        self.usage: dict[str, Usage] = defaultdict(Usage)
        self.proposals = Usage()  # the reflection's or proposer's part of it
        self.rollouts: dict[str, int] = defaultdict(int)
        self.times: dict[str, CallTimes] = defaultdict(CallTimes)  # by kind: optimize, propose, evaluate
        self._has_sent = False
        self.unparsed_proposals = 0
        self.hosted: dict[str, Any] | None = None  # facts of the cell's hosted job, and its calls as its rollouts end
        self.hosted_calls: list[dict[str, Any]] = []
        self._lock = threading.Lock()
        if calls_file:
            calls_file.unlink(missing_ok=True)  # whoever still writes to an older one writes to that
        self._lines = calls_file.open("w", encoding="utf-8") if calls_file else None

    def add_call(self, call: dict[str, Any]) -> None:
        with self._lock:
            self.usage[call["phase"]].add(call)
            proposes = call["role"] in PROPOSING_ROLES
            # A cell that goes on after an interruption first replays what it has: that says nothing of its speed.
            self._has_sent |= not call["cache_hit"]
            self.times["propose" if proposes else call["phase"]].add(call, self._has_sent)
            if proposes:
                self.proposals.add(call)
            if self.hosted is not None and call["phase"] == "optimize":
                self.hosted_calls.append(call)
            try:
                if self._lines:
                    self._lines.write(json.dumps(call) + "\n")
            except OSError as error:  # optimizers would take it for a score of 0
                raise CellStopped("interrupted", f"calls.jsonl cannot be written ({error})") from error

    def add_rollout(self, phase: str) -> None:
        with self._lock:
            self.rollouts[phase] += 1

    def add_unparsed_proposal(self) -> None:
        with self._lock:
            self.unparsed_proposals += 1

    def progress(self) -> Progress:
        """How far the cell is now."""
        with self._lock:
            return Progress(dict(self.rollouts), {kind: replace(times) for kind, times in self.times.items()})

    def follow(self, progress: Progress) -> None:
        """Take over the progress of the cell's meter in another process."""
        with self._lock:
            self.rollouts.update(progress.rollouts)
            self.times.update(progress.times)

    def total(self) -> Usage:
        """Sums over all phases."""
        with self._lock:
            parts = list(self.usage.values())
        total = Usage()
        for name in vars(total):
            values = [getattr(part, name) for part in parts]
            setattr(total, name, None if None in values else sum(values))
        return total

    def close(self) -> None:
        if self._lines:
            self._lines.close()


@dataclass
class _Flight:
    """A call under way; those who asked for the same wait for its answer."""

    done: threading.Event = field(default_factory=threading.Event)
    answer: dict[str, Any] | None = None


class Gateway:
    """What all calls of a sweep share. Made once a sweep; `stop` ends every cell at its next call."""

    def __init__(self, cache: Cache, max_cost: float | None = None, max_concurrency: int | None = None):
        self.cache = cache
        self.cost_budget = CostBudget(max_cost, cache.spent_usd())
        self.max_concurrency = max_concurrency
        self.answered = 0
        self.errors = 0
        self.clients = ModelClients()
        self._lock = threading.Lock()
        self._flights: dict[str, _Flight] = {}
        self._places: dict[str, ConcurrencyLimiter] = {}
        self._halts: dict[str, CellStopped] = {}  # model id, provider, or "" for all
        self._failures_in_a_row: dict[str, int] = defaultdict(int)
        self._stop_event = threading.Event()

    def __deepcopy__(self, memo: dict) -> Gateway:
        return self  # programs are deep-copied by optimizers; the gateway is one

    def stop(self, status: str, message: str, scope: str = "") -> None:
        """End the cells of `scope` (a model id, a provider, or "" for all) at their next call."""
        with self._lock:
            self._halts.setdefault(scope, CellStopped(status, message))
        if scope == "":
            self._stop_event.set()

    def check(self, model: Model) -> None:
        """Raise CellStopped when the sweep, the provider or the model has been stopped."""
        for scope in ("", model.provider, model.id):
            if scope in self._halts:
                raise CellStopped(self._halts[scope].status, str(self._halts[scope]))

    def sleep(self, seconds: float) -> None:
        """Wait, but not longer than until the sweep is stopped."""
        if self._stop_event.wait(seconds):
            halt = self._halts[""]
            raise CellStopped(halt.status, str(halt))

    def answer(self, call: Call) -> dict[str, Any]:
        """The answer to a call, from the cache, from an identical call in flight, or from the provider."""
        self.check(call.model)
        while True:
            if (found := self.cache.get(call.key)) is not None:
                return found | {"cache_hit": True}
            with self._lock:
                flight = self._flights.get(call.key)
                leads = flight is None
                if leads:
                    flight = self._flights[call.key] = _Flight()
            if not leads:
                flight.done.wait()
                if flight.answer is not None:
                    return flight.answer | {"cache_hit": True}
                self.check(call.model)
                continue  # the one we waited for failed: ask ourselves
            try:
                # It may have landed between our look into the cache and our take-off.
                landed = self.cache.get(call.key)
                flight.answer = self._send(call) if landed is None else landed | {"cache_hit": True}
                return flight.answer
            finally:
                with self._lock:
                    del self._flights[call.key]
                flight.done.set()

    def _go_on(self, call: Call) -> None:
        """Raise when a call that waits need not be sent any more."""
        self.check(call.model)
        call.wanted()

    def _send(self, call: Call) -> dict[str, Any]:
        """The provider's answer, after as many attempts as it takes; CallFailed when it takes too many."""
        places = self._places_of(call.model)
        attempts = 0

        def attempt() -> dict[str, Any]:
            nonlocal attempts
            attempts += 1
            with places.taken(call.rank, lambda: self._go_on(call), self.sleep):
                try:
                    return self._pay(call)
                except lm_errors.LMError as error:
                    self.errors += 1
                    if (wait := getattr(error, "retry_after", None)) is not None:
                        places.pause(min(float(wait), LONGEST_PAUSE_SECONDS))
                    raise

        retrying = tenacity.Retrying(
            stop=tenacity.stop_after_attempt(MAX_ATTEMPTS),
            wait=_backoff,
            retry=tenacity.retry_if_exception(_worth_retrying),
            sleep=self.sleep,
            reraise=True,
        )
        try:
            answer = retrying(attempt)
        except lm_errors.LMError as error:
            raise self._failed(call, error, attempts) from error
        with self._lock:
            self._failures_in_a_row[call.model.provider] = 0
            self.answered += 1
        return answer | {"attempts": attempts, "cache_hit": False}

    def _pay(self, call: Call) -> dict[str, Any]:
        """One attempt: reserve, send, settle and store; the answer is on disk before anybody sees it."""
        reserved = call.highest_cost or 0.0
        if not self.cost_budget.reserve(reserved, lambda: self._go_on(call)):
            cap = self.cost_budget.cap
            self.stop("budget", f"the next call may cost ${reserved:.6f} and would pass --max-cost {cap:g}")
            self.check(call.model)
        billed = 0.0
        try:
            bill = self._on_disk(self.cache.open_bill, call.cell_id, call.model.id, call.phase, call.highest_cost)
            # A request that ends without an answer and without a refusal may have been billed: its bill stays open.
            billed = reserved
            started = time.monotonic()
            try:
                answer = call.send() | {"latency_seconds": time.monotonic() - started}
            except lm_errors.LMError as error:
                if _never_billed(error):
                    billed = 0.0
                    self._on_disk(self.cache.settle_bill, bill, 0.0)
                raise
            # A provider that reports no tokens is billed at the highest possible cost.
            cost = answer["list_cost_usd"] if answer["list_cost_usd"] is not None else call.highest_cost
            billed = cost or 0.0
            self._on_disk(self.cache.settle_bill, bill, cost, (call.key, answer))
        finally:
            self.cost_budget.settle(reserved, billed)
        if self.cost_budget.cap is not None and billed > reserved:
            message = f"'{call.model.id}' answered longer than its limit of tokens, so --max-cost cannot hold it"
            self.stop("error", f"{message}: leave --max-cost out, or use another server", scope=call.model.id)
        return answer

    def _on_disk(self, write: Callable[..., Any], *args: Any) -> Any:
        """Write to the cache; a disk that is full ends the sweep, as nothing that is paid for could be kept."""
        try:
            return write(*args)
        except sqlite3.Error as error:
            self.stop("interrupted", f"the cache cannot be written ({error})")
            raise CellStopped("interrupted", f"the cache cannot be written ({error})") from error

    def _failed(self, call: Call, error: Exception, attempts: int) -> BaseException:
        """What a call that failed for good means: the end of the model's cells, the provider's, or this call only."""
        reason = f"{type(error).__name__}: {str(error).splitlines()[0][:200] if str(error) else ''}"
        model = call.model
        if _is_too_long(error):
            # The program's doing: its example is scored as a failure.
            return lm_errors.ContextWindowExceededError(message=reason, model=model.id)
        if _is_fatal(error):
            key = f"; check {model.key_env}" if model.key_env else ""
            self.stop("error", f"'{model.id}' cannot be called{key} ({reason})", scope=model.id)
            self.check(model)
        if not _worth_retrying(error):
            return CallFailed(reason)  # the request itself was refused: that says nothing of the provider
        with self._lock:
            self._failures_in_a_row[model.provider] += 1
            in_a_row = self._failures_in_a_row[model.provider]
        if in_a_row >= PROVIDER_DOWN_AFTER:
            message = f"{model.provider} is down: {in_a_row} calls in a row failed {attempts} times ({reason})"
            self.stop("error", message, scope=model.provider)
            self.check(model)
        return CallFailed(reason)

    def _places_of(self, model: Model) -> ConcurrencyLimiter:
        with self._lock:
            if model.provider not in self._places:
                self._places[model.provider] = ConcurrencyLimiter(model.places(self.max_concurrency))
            return self._places[model.provider]


@dataclass
class Call:
    """One request on its way through the gateway."""

    key: str
    model: Model
    cell_id: str
    rank: int
    phase: str
    highest_cost: float | None
    send: Callable[[], dict[str, Any]]
    wanted: Callable[[], None] = lambda: None  # raises when nobody waits for the answer any more


class MeteredLM(dspy.LM):
    """A `dspy.LM` whose calls go through the gateway.

    Copies (`lm.copy(role=..., draw=...)`) share gateway and meter. `draw` tells apart the samples of one
    request (votes, redraws); `record` is a list that gets this LM's calls, for whoever scores one example.
    """

    def __init__(self, model: Model, gateway: Gateway, meter: Meter, run: int, temperature: float, **options: Any):
        self.spec, self.gateway, self.meter, self.run = model, gateway, meter, run
        self.phase = options.pop("phase", "optimize")
        self.role, self.draw = options.pop("role", "task"), 0
        self.record: list[dict[str, Any]] | None = None
        self.timeout_seconds = options.pop("timeout", 120.0)
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
        return self._capabilities.function_calling

    @property
    def supports_reasoning(self) -> bool:
        return self._capabilities.reasoning

    @property
    def supports_response_schema(self) -> bool:
        return self.spec.adapter == "json" or self._capabilities.response_schema

    @property
    def supported_params(self) -> set[str]:
        extra = {"response_format"} if self.spec.adapter == "json" else set()
        return set(self._capabilities.params) | extra

    @property
    def _client(self) -> ModelClient | None:
        """The model's own client; None where only LiteLLM can reach it."""
        connections = self.spec.places(self.gateway.max_concurrency)
        return self.gateway.clients.get(self, self.spec, self.timeout_seconds, connections)

    @property
    def _capabilities(self) -> Capabilities:
        client = self._client
        return capabilities(self) if client is None else client.capabilities

    def __deepcopy__(self, memo: dict) -> MeteredLM:
        return self.copy()

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
        return answer["outputs"]

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

    def _send(self, prompt: Any, messages: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
        client = self._client
        sent = client.send(self, prompt, messages, kwargs) if client else None
        outputs, used = sent or self._send_by_dspy(prompt, messages, kwargs)
        prompt_tokens, completion_tokens = used.get("prompt_tokens"), used.get("completion_tokens")
        known = prompt_tokens is not None and completion_tokens is not None
        cached = (used.get("prompt_tokens_details") or {}).get("cached_tokens")
        reasoning = (used.get("completion_tokens_details") or {}).get("reasoning_tokens")
        return {
            "outputs": outputs,
            "prompt_tokens": prompt_tokens,
            "completion_tokens": completion_tokens,
            "cached_tokens": cached,  # part of prompt_tokens
            "reasoning_tokens": reasoning,  # part of completion_tokens
            "list_cost_usd": self.spec.cost(prompt_tokens, completion_tokens, cached or 0) if known else None,
        }

    def _send_by_dspy(self, prompt: Any, messages: Any, kwargs: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        with dspy.context(disable_history=True), dspy.track_usage() as tracker:
            outputs = super().__call__(prompt, messages=messages, **kwargs)
        return outputs, next(iter(tracker.get_total_tokens().values()), {})

    def _note(self, answer: dict[str, Any] | None, error: str | None) -> None:
        """Write the call down: in the cell's meter and, while an example is scored, in its own record."""
        answer = answer or {}
        hit = bool(answer.get("cache_hit"))
        cost = answer.get("list_cost_usd") if error is None else 0.0
        call = {
            "phase": self.phase,
            "role": self.role,
            "prompt_tokens": answer.get("prompt_tokens"),
            "completion_tokens": answer.get("completion_tokens"),
            "cached_tokens": answer.get("cached_tokens"),
            "reasoning_tokens": answer.get("reasoning_tokens"),
            "list_cost_usd": cost,
            "billed_cost_usd": 0.0 if hit else cost,
            "latency_seconds": answer.get("latency_seconds"),
            "attempts": 0 if hit else answer.get("attempts"),
            "cache_hit": hit,
            "error": error,
        }
        self.meter.add_call(call)
        if self.record is not None:
            self.record.append(call)


def make_lm(model: Model, gateway: Gateway, meter: Meter, run: int, temperature: float, **options: Any) -> MeteredLM:
    """The task LM of a cell; `phase`, `role`, `timeout` and `max_tokens` as keywords."""
    return MeteredLM(model, gateway, meter, run, temperature, **options)


def variant(**changes: Any) -> dict[str, Any]:
    """Settings for `dspy.context`: the current LM, if it counts, with another role, draw or record; else {}."""
    lm = dspy.settings.lm
    return {"lm": lm.copy(**changes)} if hasattr(lm, "meter") else {}


def _is_too_long(error: BaseException) -> bool:
    """Servers say it in their own words; not all give OpenAI's code for it."""
    said = "context size" in str(error) or "context length" in str(error) or "context window" in str(error)
    refused = isinstance(error, lm_errors.LMInvalidRequestError) and said
    return refused or isinstance(error, lm_errors.ContextWindowExceededError)


def _never_billed(error: BaseException | None) -> bool:
    """The provider refused the request, or was never reached. A 5xx may come from a proxy after the model answered."""
    status = getattr(error, "status", None)
    if status is not None:
        return status in FREE_STATUSES
    while error is not None:
        # The native engine's and httpx's names for a connection that was not made.
        if type(error).__name__ in ("ConnectError", "ConnectTimeout"):
            return True
        error = error.__cause__
    return False


def _is_fatal(error: BaseException) -> bool:
    return isinstance(error, FATAL_ERRORS) or getattr(error, "status", None) in (401, 403, 404)


def _worth_retrying(error: BaseException) -> bool:
    if _is_fatal(error):
        return False
    # An HTTP 200 whose body is no JSON: a gateway's page, not the model's answer.
    garbage = isinstance(error, lm_errors.LMProviderError) and error.status == 200
    return garbage or isinstance(error, RETRYABLE_ERRORS)


def _backoff(state: tenacity.RetryCallState) -> float:
    """Retry-After where the provider gave one (the pause holds everybody), else jittered exponential."""
    error = state.outcome.exception() if state.outcome else None
    if getattr(error, "retry_after", None) is not None:
        return 0.0
    return tenacity.wait_random_exponential(multiplier=0.5, max=30)(state)


def _sum(total: float | None, amount: float | None) -> float | None:
    """Dollars added to 12 digits, so that the order in which threads end does not show in the sum."""
    return None if total is None or amount is None else round(total + amount, 12)
