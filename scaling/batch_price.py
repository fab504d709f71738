"""The price of a provider's batch API, as LiteLLM's table or a user's own entry gives it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import pydantic

Usd = Annotated[float, pydantic.Field(strict=True, ge=0, le=1e6, allow_inf_nan=False)]


@dataclass(frozen=True, kw_only=True)
class BatchPrice:
    """USD per million tokens. Reasoning costs what output costs. None: cached input costs what input does."""

    __pydantic_config__ = pydantic.ConfigDict(extra="forbid")

    input_usd_per_million: Usd
    output_usd_per_million: Usd
    cached_input_usd_per_million: Usd | None = None
