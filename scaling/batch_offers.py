"""Which providers have a batch API, what it holds and how long it takes, and what a model costs there.

The limits are those of the providers' documents. Prices are a model's own `batch_price`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from scaling.models import Model

MIB = 2**20


@dataclass(frozen=True)
class BatchOffer:
    """A provider's batch API. hours: after which a batch has ended, whatever is left of it. The most of one batch."""

    form: Literal["openai", "anthropic", "gemini"]
    hours: int
    most_requests: int
    most_bytes: int


# By the first part of a route. Google's batches are sent in one request, which may have 20 MB; the rest is in files.
OFFERS = {
    "openai": BatchOffer("openai", 24, 50_000, 200 * MIB),
    "groq": BatchOffer("openai", 24, 50_000, 200 * MIB),
    "anthropic": BatchOffer("anthropic", 24, 100_000, 256 * MIB),
    "gemini": BatchOffer("gemini", 48, 50_000, 19 * MIB),
}


def batch_offer(model: Model) -> BatchOffer | None:
    """The batch API that serves a model; None where there is none, or none that this program speaks to."""
    return None if model.is_local else OFFERS.get(model.route.partition("/")[0])


def at_batch_price(model: Model) -> Model:
    """The model with the prices of its batch API; with the live ones where those are not known."""
    price, written = model.batch_price, model.cache_write_usd_per_million
    if price is None or batch_offer(model) is None:
        return model
    if written is not None and model.input_usd_per_million:  # dearer than other input by the same share
        written *= price.input_usd_per_million / model.input_usd_per_million
    return replace(
        model, input_usd_per_million=price.input_usd_per_million, output_usd_per_million=price.output_usd_per_million,
        cached_input_usd_per_million=price.cached_input_usd_per_million, reasoning_usd_per_million=None,
        cache_write_usd_per_million=written,
    )  # fmt: skip
