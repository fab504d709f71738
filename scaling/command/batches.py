"""`--batch evaluate`: whether it can be, what the plan says of it, and the queue of a sweep."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

from scaling.batch_offers import OFFERS, batch_offer
from scaling.command.options import Options
from scaling.llm.batch_store import BatchStore, requests_under_way
from scaling.llm.gateway import Gateway
from scaling.models import Model
from scaling.records.store import LEDGER
from scaling.run.batches import rounds_of
from scaling.run.estimate import Estimate, dollars
from scaling.run.task import Batches, CellTask
from scaling.types import UsageError


def check_batches(waiting: Sequence[CellTask], options: Options) -> None:
    """Raise UsageError where --batch is given and no model has a batch API."""
    models = {task.model.id: task.model for task in waiting}
    if options.batch and models and not any(batch_offer(model) for model in models.values()):
        raise UsageError(
            f"--batch {options.batch}: no model of this sweep has a batch API; possible: models of "
            f"{', '.join(OFFERS)}. Leave --batch out, or use --models groq/openai/gpt-oss-20b, for example."
        )


def batch_lines(waiting: Sequence[CellTask], total: Estimate, in_waves: bool) -> list[str]:
    """What the plan says: both prices, the longest wait (of each wave), and what is not as one may expect."""
    tasks = [task for task in waiting if batch_offer(task.model)]
    if not tasks:
        return []
    rounds = max(rounds_of(task.cell, task.bench) for task in tasks)
    hours = max(offer.hours for task in tasks if (offer := batch_offer(task.model)))
    counted = "1 round" if rounds == 1 else f"{rounds} rounds"
    each = " in each wave" if in_waves else ""
    wait = f"{counted}{each} of at most {hours} h, so {rounds * hours} h{each} at the longest, beside the live calls"
    lines = [f"with --batch evaluate: {_prices(total)}; {wait}"]
    at_live_price = _names(task.model for task in tasks if task.model.has_price and task.model.batch_price is None)
    live = _names(task.model for task in waiting if batch_offer(task.model) is None)
    if at_live_price:
        lines.append(f"note: the batch price is not known, so batches count at the live price: {at_live_price}")
    if live:
        lines.append(f"note: no batch API, so all calls are live: {live}")
    return lines


@contextmanager
def batches_of(
    options: Options, gateway: Gateway, since: float, say: Callable[[str], None]
) -> Iterator[Batches | None]:
    """The queue of a sweep with --batch while the block runs; None without."""
    ledger = options.output_dir / LEDGER
    if options.batch is None:
        if count := requests_under_way(ledger):
            say(f"note: {count} requests are in batches under way; with --batch evaluate they are not paid for again")
        yield None
        return
    from scaling.llm.batch_queue import BatchQueue  # httpx, which live calls do not need
    from scaling.llm.batch_round import BatchContext

    store = BatchStore(ledger, since)
    try:
        yield BatchQueue(BatchContext(gateway, store, options.timeout, say))
    finally:
        store.close()


def _prices(total: Estimate) -> str:
    """All dollars with scoring at batch prices, and what scoring costs by either way."""
    if total.usd is None or total.scoring_usd is None or total.batch_usd is None:
        return "the price is not known"
    ends = zip(total.usd, total.scoring_usd, total.batch_usd, strict=True)
    low, high = (usd - live + batch for usd, live, batch in ends)
    scoring = f"scoring {dollars(total.batch_usd)} in place of {dollars(total.scoring_usd)} live"
    return f"{dollars((low, high))} in total, {scoring}"


def _names(models: Iterable[Model]) -> str:
    return ", ".join(sorted({model.id for model in models}))
