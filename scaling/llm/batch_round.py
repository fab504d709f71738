"""One round of batches of one model: calls go out, and their answers land in the cache under the calls' own keys.

What becomes of a request: an answer is kept and billed at the batch price. What was not answered (the batch expired,
the provider failed) goes into the next batch, up to ATTEMPTS batches. What was refused, or not answered by then, is
left to the live call, which knows what a refusal means. A batch that is refused or fails as a whole stops the model's
cells, since asking live would cost more than was asked for.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from dspy.utils import exceptions as lm_errors
from msgspec.structs import replace

from scaling.batch_offers import BatchOffer, batch_offer
from scaling.llm.batch_apis import APIS, BatchApi, BatchState
from scaling.llm.batch_calls import BatchCall, RecordingClients
from scaling.llm.batch_http import BatchHttp, BatchRefused, BatchUnreachable
from scaling.llm.batch_store import Batch, BatchRequest, BatchStore, Landed, request_name
from scaling.llm.gateway import Gateway
from scaling.records.record import Answer

ATTEMPTS = 3  # batches that a request may be in
QUEUE_FULL_SECONDS = 600.0  # until a batch is sent again that the provider had no room for
OTHERS_SECONDS = 1.0
ROUNDING_USD = 1e-9  # of a sum of thousands of costs
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 60.0  # seconds between two looks at a batch


@dataclass
class BatchContext:
    """What all rounds of a sweep share. timeout: of one request to a batch API, in seconds. say: prints a line.

    billed: key of each answer that came and that no cell has used yet -> what it cost in USD. asked_live: keys of calls
    that no batch can answer.
    """

    gateway: Gateway
    store: BatchStore
    timeout: float
    say: Callable[[str], None]
    clients: RecordingClients = field(default_factory=RecordingClients)
    billed: dict[str, float | None] = field(default_factory=dict)
    asked_live: set[str] = field(default_factory=set)


class Round:
    """The calls of one model that one more batch, or several, are to answer."""

    def __init__(self, context: BatchContext, calls: Sequence[BatchCall]):
        first = calls[0]
        self.context, self.gateway, self.store = context, context.gateway, context.store
        self.model = first.model
        self.offer = _offer_of(first)
        self.waiting = {call.call.key: call for call in calls}
        self.tries: Counter[str] = Counter()
        self.open: dict[str, Batch] = {}  # by name: batches that are under way
        self.under_way: set[str] = set()  # keys of the calls in them
        self.reserved: set[int] = set()  # bills whose highest cost is held back from the cap
        self.http = BatchHttp(first.url, first.headers, context.timeout, self.gateway.sleep)
        self.api: BatchApi = APIS[self.offer.form](self.http, first.url)

    def run(self) -> None:
        """Return when each call has its answer in the cache or is left to the live call. Raises CellStopped."""
        try:
            self.gateway.check(self.model)
            self._take_up()
            while self._left():
                self._settle_landed()
                self._send_what_fits()
                if self.open:
                    self._wait_for_one()
        except BatchRefused as error:
            self._stop(f"the batch API of '{self.model.id}' refused ({error})")
        except BatchUnreachable as error:
            message = f"the batch API of '{self.model.id}' cannot be reached ({error}); its batches go on there"
            self.gateway.stop("interrupted", message)
            self.gateway.check(self.model)
        finally:
            self.http.close()

    def _left(self) -> bool:
        return bool(self.waiting or self.open)

    def _stop(self, reason: str) -> None:
        """End the model's cells."""
        advice = "type --retry-failed to send it again, or leave --batch out to ask live"
        self.gateway.stop("error", f"{reason}; {advice}", scope=self.model.id)
        self.gateway.check(self.model)

    # ---- batches of a command that was killed

    def _take_up(self) -> None:
        """Batches that are under way already. One that never arrived is withdrawn, and its calls are sent again."""
        for batch in self.store.open_batches(self.model.id):
            requests = self.store.requests(batch)
            if not any(request.key in self.waiting for request in requests):
                continue  # of cells that are not run now
            found = batch.provider_id or self.api.find(batch.name, batch.at, len(requests))
            if found is None:
                self._withdraw(batch, requests)
                continue
            if batch.provider_id is None:
                self.store.sent(batch, found)
            self._follow(Batch(batch.name, batch.model, batch.at, found), requests)
            self.context.say(
                f"batch {found} of {self.model.id} was sent before: {len(requests)} requests are waited for"
            )

    def _follow(self, batch: Batch, requests: Sequence[BatchRequest]) -> None:
        self.open[batch.name] = batch
        self.under_way |= {request.key for request in requests}

    def _withdraw(self, batch: Batch, requests: Sequence[BatchRequest]) -> None:
        for request in requests:
            self._free(request, 0.0)
        self.store.withdraw(batch)

    # ---- sending

    def _send_what_fits(self) -> None:
        """Send the calls that are in no batch, as many as the cap allows. Raises CellStopped where it allows none."""
        waiting = [call for key, call in self.waiting.items() if key not in self.under_way]
        for calls in self._files(waiting):
            fits = self._under_cap(calls)
            if fits and not self._send(calls[:fits]):
                fits = 0
            if fits < len(calls):
                self._hold_back(len(calls) - fits)
                return

    def _hold_back(self, count: int) -> None:
        """The cap has no room for so many calls before what is under way has been billed."""
        if self.open:
            self.context.say(
                f"{count} calls to {self.model.id} wait until the batches under way are billed (--max-cost)"
            )
        elif self.gateway.cost_budget.reserved > 0:
            self.gateway.sleep(OTHERS_SECONDS)  # another model's batches are under way
        else:
            cap = self.gateway.max_cost or 0.0
            self.gateway.stop("budget", f"the next call of {count} may cost more than --max-cost {cap:g} leaves")
            self.gateway.check(self.model)

    def _files(self, calls: Sequence[BatchCall]) -> list[list[BatchCall]]:
        """The calls in as many files as the provider's limits need."""
        files: list[list[BatchCall]] = []
        size = 0
        for call in calls:
            length = len(self.api.line(request_name(_new_name(), self.offer.most_requests), call.body)) + 1
            if not files or len(files[-1]) == self.offer.most_requests or size + length > self.offer.most_bytes:
                files.append([])
                size = 0
            files[-1].append(call)
            size += length
        return files

    def _under_cap(self, calls: Sequence[BatchCall]) -> int:
        """How many of the calls the cap allows now, in their order."""
        budget = self.gateway.cost_budget
        if budget.cap is None:
            return len(calls)
        room = budget.cap - budget.spent - budget.reserved - ROUNDING_USD
        for count, call in enumerate(calls):
            room -= call.call.highest_cost or 0.0
            if room < 0:
                return count
        return len(calls)

    def _send(self, calls: Sequence[BatchCall]) -> bool:
        """Send one batch; False where the cap does not allow it. It is on disk before, and its id at once after."""
        highest = sum(call.call.highest_cost or 0.0 for call in calls)
        if not self.gateway.cost_budget.reserve(highest, lambda: self.gateway.check(self.model)):
            return False
        batch, requests = self.store.begin(_new_name(), [call.call for call in calls])
        self.reserved |= {request.bill for request in requests}
        lines = [self.api.line(request.name, call.body) for request, call in zip(requests, calls, strict=True)]
        try:
            provider_id = self.http.patiently(lambda: self._create(batch, lines))
        except BatchRefused:
            self._withdraw(batch, requests)
            raise
        self.store.sent(batch, provider_id)
        self._follow(Batch(batch.name, batch.model, batch.at, provider_id), requests)
        cells = len({call.call.cell_id for call in calls})
        self.context.say(
            f"batch {provider_id}: {len(calls)} requests of {cells} {'cell' if cells == 1 else 'cells'} sent to "
            f"{self.model.id}, at most {self.offer.hours} h"
        )
        return True

    def _create(self, batch: Batch, lines: Sequence[bytes]) -> str:
        """The provider's id. Where its answer is lost, the batch is looked for before it is sent again."""
        try:
            return self.api.create(batch.name, lines)
        except BatchUnreachable:
            found = self.api.find(batch.name, batch.at, len(lines))
            if found is None:
                raise
            return found

    # ---- waiting and landing

    def _wait_for_one(self) -> None:
        """Wait until one of the batches has ended, and keep its results."""
        pause = FIRST_PAUSE
        while True:
            self.gateway.check(self.model)
            for batch in list(self.open.values()):
                if (state := self._look(batch)).ended:
                    return self._land(batch, state)
            self.gateway.sleep(pause)
            pause = min(1.5 * pause, LONGEST_PAUSE)

    def _look(self, batch: Batch) -> BatchState:
        try:
            return self.api.look(batch.provider_id or "")
        except BatchRefused as error:
            if error.status != 404:
                raise
            return BatchState(ended=True, gone=True)

    def _land(self, batch: Batch, state: BatchState) -> None:
        requests = self.store.requests(batch)
        if state.gone:
            self._lose(batch, requests)
        elif state.failed is None:
            self.http.patiently(lambda: self._keep_results(batch))
        else:
            self._withdraw(batch, requests)
        del self.open[batch.name]
        self.under_way -= {request.key for request in requests}
        if state.failed is not None:
            self._failed(state, requests)

    def _lose(self, batch: Batch, requests: Sequence[BatchRequest]) -> None:
        """A batch that the provider knows no more: nobody knows what it cost, so that it counts at its highest cost."""
        self.context.say(f"batch {batch.provider_id} of {self.model.id} is not known there any more: it is sent again")
        self.store.land(batch, [])
        for request in requests:
            self.tries[request.key] += 1
            self._settle_bill(request, request.highest_usd)

    def _keep_results(self, batch: Batch) -> None:
        results = self.api.results(batch.provider_id or "")
        self.store.land(batch, ((result.name, result.status, result.body) for result in results))

    def _failed(self, state: BatchState, requests: Sequence[BatchRequest]) -> None:
        """A batch that ended without a result: sent again where the provider had no room for it, for a while."""
        for request in requests:
            self.tries[request.key] += 1
        again = all(self.tries[request.key] < ATTEMPTS for request in requests)
        if not (state.queue_full and again):
            self._stop(f"a batch of '{self.model.id}' failed ({state.failed})")
        self.context.say(f"{self.model.provider} has no room for a batch now ({state.failed}); it is sent again later")
        if not self.open:
            self.gateway.sleep(QUEUE_FULL_SECONDS)

    def _settle_landed(self) -> None:
        """Bill and keep what has landed."""
        unanswered = 0
        for landed in self.store.landed(self.model.id):
            call = self.waiting.get(landed.request.key)
            if call is None:
                continue  # another study's, or another round's
            if self._settle(call, landed):
                del self.waiting[landed.request.key]
                continue
            unanswered += 1
            self.tries[landed.request.key] += 1
            if self.tries[landed.request.key] >= ATTEMPTS:
                self._leave_to_live(landed.request.key)
        if unanswered:
            self.context.say(f"{unanswered} requests to {self.model.id} were not answered by their batch")

    def _settle(self, call: BatchCall, landed: Landed) -> bool:
        """Whether the request is done with: it has its answer, or is left to the live call."""
        request = landed.request
        if landed.status == 200:
            return self._keep_answer(call, landed)
        self._settle_bill(request, 0.0)  # what was not answered is not billed
        if landed.status is not None and landed.status not in (408, 409, 429) and landed.status < 500:
            self.context.asked_live.add(request.key)
            return True
        return False

    def _keep_answer(self, call: BatchCall, landed: Landed) -> bool:
        request = landed.request
        try:
            with self.context.clients.answering(landed.body):
                answer = call.call.send()
        except lm_errors.LMError:  # no answer in it, and nobody knows whether it was billed
            self._settle_bill(request, request.highest_usd)
            return False
        cost = request.highest_usd if answer.list_cost_usd is None else answer.list_cost_usd
        if answer.list_cost_usd is not None:
            answer = replace(answer, list_cost_usd=_live_cost(call, answer))
        self._settle_bill(request, cost, (request.key, replace(answer, attempts=1 + self.tries[request.key])))
        self.context.billed[request.key] = cost
        self.gateway.check_reserve(self.model, cost, request.highest_usd)
        return True

    def _settle_bill(self, request: BatchRequest, cost: float | None, answer: tuple[str, Answer] | None = None) -> None:
        self.gateway.cache.settle_bill(request.bill, cost, answer)
        self.store.forget(request)
        self._free(request, cost)

    def _free(self, request: BatchRequest, cost: float | None) -> None:
        """What a request cost takes the place of what was held back for it, or of the open bill of a killed command."""
        highest = request.highest_usd or 0.0
        if request.bill in self.reserved:
            self.reserved.discard(request.bill)
            self.gateway.cost_budget.settle(highest, cost or 0.0)
        else:
            self.gateway.cost_budget.settle(0.0, (cost or 0.0) - highest)

    def _leave_to_live(self, key: str) -> None:
        self.context.asked_live.add(key)
        self.waiting.pop(key, None)


def _offer_of(call: BatchCall) -> BatchOffer:
    offer = batch_offer(call.model)
    assert offer is not None  # other models' calls are never written down
    return offer


def _live_cost(call: BatchCall, answer: Answer) -> float | None:
    """What the answer would have cost live."""
    counts = (
        answer.prompt_tokens, answer.completion_tokens, answer.cached_tokens, answer.reasoning_tokens,
        answer.cache_write_tokens,
    )  # fmt: skip
    return call.model.cost(*(count or 0 for count in counts))


def _new_name() -> str:
    """Our name for a batch."""
    return secrets.token_hex(12)
