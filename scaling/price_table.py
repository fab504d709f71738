"""LiteLLM's packaged table of models: what each costs, how long its texts may be, what it takes, when it ends.

The file of the installed package is read as it is. LiteLLM is not imported, and no network is used.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import re
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any, Literal

from scaling.batch_price import BatchPrice
from scaling.types import EFFORTS, UsageError

FILE = "model_prices_and_context_window_backup.json"
# OpenAI's models that reason, by the last part of their names: DSPy holds them to temperature 1 and to this limit.
OPENAI_REASONING = re.compile(r"(o[1345]|gpt-[5-9])(?!\d)(?!\.?\d*-chat)")
LEAST_OPENAI_OUTPUT = 16_000

Entry = dict[str, Any]  # of the file
Reasons = Literal["never", "on request", "by default"]
TakesTemperature = Literal["always", "without reasoning", "never"]


@dataclass(frozen=True, kw_only=True)
class Listed:
    """What the table says of a model. Prices in USD per million tokens; None is unknown.

    route: as DSPy and LiteLLM call it. mode: chat, embedding and so on. reasons: whether it reasons before it
    answers. temperature: when a request may set one. efforts: the values of `reasoning_effort` that it takes.
    least_output_tokens: a lower limit is refused. end_date: the day on which its provider ends it.
    """

    route: str
    provider: str
    mode: str | None = None
    input_usd_per_million: float | None = None
    cached_input_usd_per_million: float | None = None
    cache_write_usd_per_million: float | None = None
    output_usd_per_million: float | None = None
    reasoning_usd_per_million: float | None = None
    batch_price: BatchPrice | None = None
    context_length: int | None = None
    most_output_tokens: int | None = None
    least_output_tokens: int = 1
    reasons: Reasons = "never"
    temperature: TakesTemperature = "always"
    efforts: tuple[str, ...] = ()
    end_date: date | None = None
    successor: str | None = None


def table_source() -> str:
    """Whose table it is, with its version: the file itself has no date."""
    return f"litellm {importlib.metadata.version('litellm')}'s table"


@cache
def look_up(name: str) -> Listed | None:
    """What the table says of a model, by its name in the table or by its route; None where it is not there."""
    table = _table()
    key = name
    if key not in table:
        prefix, _, key = name.partition("/")
        if key not in table or _prefix(table[key]) != prefix:
            return None
    entry = table[key]
    prefix = _prefix(entry)
    return _listed(entry, key if key.startswith(f"{prefix}/") else f"{prefix}/{key}", prefix)


def unlisted(route: str) -> Listed:
    """What is known of a model by its route alone: its provider, and the rules for OpenAI's models that reason.

    Whether another one can reason is not known: it is asked to where the user says so.
    """
    listed = _listed({}, route, route.partition("/")[0])
    return listed if listed.reasons != "never" else replace(listed, reasons="on request")


def table_names(mode: str = "chat") -> list[str]:
    """The names of the table that are called in this mode."""
    return [name for name, entry in _table().items() if entry.get("mode") == mode]


@cache
def _table() -> dict[str, Entry]:
    """Name -> entry; a name that stands for another has the other's entry."""
    path = _path()
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"LiteLLM's table of models cannot be read ({error}). Type: pip install litellm") from None
    found = {}
    for name, entry in entries.items():
        if isinstance(entry, dict) and name != "sample_spec":
            entry = entries.get(entry.get("alias_of"), entry)
            if "litellm_provider" in entry:
                found[name] = entry
    return found


def _path() -> Path:
    spec = importlib.util.find_spec("litellm")
    if spec is None or spec.origin is None:
        raise UsageError("LiteLLM is not installed, whose table has the prices of models. Type: pip install litellm")
    return Path(spec.origin).parent / FILE


def _prefix(entry: Entry) -> str:
    """The first part of a route: 'vertex_ai' of the provider 'vertex_ai-language-models'."""
    provider = str(entry["litellm_provider"])
    return next((short for short in ("bedrock", "vertex_ai") if provider.startswith(short)), provider)


def _listed(entry: Entry, route: str, provider: str) -> Listed:
    is_openai = OPENAI_REASONING.match(route.rpartition("/")[2]) is not None
    is_claude = "claude" in route
    # Not every host's entry says of gpt-oss that it reasons.
    reasons = _reasons(entry, is_openai or "gpt-oss" in route, is_claude)
    return Listed(
        route=route,
        provider=provider,
        mode=entry.get("mode"),
        input_usd_per_million=_price(entry, "input_cost_per_token"),
        cached_input_usd_per_million=_price(entry, "cache_read_input_token_cost"),
        cache_write_usd_per_million=_price(entry, "cache_creation_input_token_cost"),
        output_usd_per_million=_price(entry, "output_cost_per_token"),
        reasoning_usd_per_million=_price(entry, "output_cost_per_reasoning_token"),
        batch_price=_batch_price(entry),
        context_length=_tokens(entry.get("max_input_tokens")),
        most_output_tokens=_tokens(entry.get("max_output_tokens")),
        least_output_tokens=LEAST_OPENAI_OUTPUT if is_openai else 1,
        reasons=reasons,
        temperature=_takes_temperature(entry, reasons, is_openai, is_claude),
        efforts=_efforts(entry, provider) if entry.get("supports_reasoning") or is_openai else (),
        end_date=_date(entry.get("deprecation_date")),
        successor=entry.get("successor_model"),
    )


def _reasons(entry: Entry, always: bool, is_claude: bool) -> Reasons:
    """Claude thinks when it is asked to, unless the table says otherwise; other models that can reason do it always."""
    if not entry.get("supports_reasoning") and not always:
        return "never"
    if entry.get("default_reasoning_effort") == "none":
        return "on request"
    if is_claude and not (entry.get("thinking_always_on") or entry.get("thinking_on_by_default")):
        return "on request"
    return "by default"


def _takes_temperature(entry: Entry, reasons: Reasons, is_openai: bool, is_claude: bool) -> TakesTemperature:
    if is_openai or entry.get("supports_sampling_params") is False:
        return "never"
    return "without reasoning" if is_claude and reasons != "never" else "always"


def _efforts(entry: Entry, provider: str) -> tuple[str, ...]:
    """The table marks what it knows beyond low, medium and high. OpenAI's chat API refuses 'max' for all models."""
    if levels := entry.get("reasoning_effort_levels"):
        return tuple(levels)
    marked = ["none", "minimal", "xhigh"] + ([] if provider == "openai" else ["max"])
    found = {level for level in marked if entry.get(f"supports_{level}_reasoning_effort")}
    if entry.get("supports_low_reasoning_effort") is not False:
        found.add("low")
    return tuple(level for level in EFFORTS if level in found | {"medium", "high"})


def _price(entry: Entry, name: str) -> float | None:
    """USD per million tokens; None also for a model that bills each request as well."""
    value = entry.get(name)
    if not isinstance(value, int | float) or "input_cost_per_request" in entry:
        return None
    return round(1e6 * value, 9)


def _batch_price(entry: Entry) -> BatchPrice | None:
    """The price of the batch API; None where the table lacks a part of it."""
    asked, answered = (_price(entry, f"{kind}_cost_per_token_batches") for kind in ("input", "output"))
    if asked is None or answered is None:
        return None
    cached = _price(entry, "cache_read_input_token_cost_batches")
    return BatchPrice(input_usd_per_million=asked, output_usd_per_million=answered, cached_input_usd_per_million=cached)


def _tokens(value: Any) -> int | None:
    return int(value) if isinstance(value, int | float) and value >= 1 else None


def _date(value: Any) -> date | None:
    with suppress(TypeError, ValueError):
        return date.fromisoformat(value)
    return None
