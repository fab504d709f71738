"""How many calls a model gets at a time: what the user says, what its entry says, or what its provider allows.

Limits are learnt ("auto") where the user asks for that, where the model's entry states requests or tokens a minute, and
for hosted models of which nobody says anything.
"""

from __future__ import annotations

from typing import Literal

from scaling.models import Model

# Calls at a time to a server of one's own; and at most to a provider whose limits are learnt.
DEFAULT_PLACES, MOST_PLACES = 32, 256

# What --max-concurrency gives: so many calls at a time, "auto", or nothing.
Concurrency = int | Literal["auto"] | None


def adapts(model: Model, limit: Concurrency) -> bool:
    """Whether the limits of a model are learnt."""
    if model.is_local or isinstance(limit, int):
        return False
    states_limits = (model.requests_per_minute, model.tokens_per_minute) != (None, None)
    is_hosted = model.api_base is None
    return limit == "auto" or states_limits or (is_hosted and model.max_concurrency is None)


def most_at_a_time(model: Model, limit: Concurrency) -> int:
    """The most calls at a time. A model that is served here answers one by one."""
    if model.is_local:
        return 1
    if isinstance(limit, int):
        return limit
    return model.max_concurrency or (MOST_PLACES if adapts(model, limit) else DEFAULT_PLACES)


def expected_at_a_time(model: Model, limit: Concurrency) -> int:
    """Calls at a time for an estimate: nobody knows beforehand what a provider allows."""
    return min(DEFAULT_PLACES, most_at_a_time(model, limit)) if adapts(model, limit) else most_at_a_time(model, limit)


def shares_limit(model: Model, limit: Concurrency) -> str:
    """Equal for models whose calls share a limit: those of a provider; each has its own where limits are learnt."""
    return model.id if adapts(model, limit) else model.provider
