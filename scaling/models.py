"""Models by name: LiteLLM's table, and what that table lacks from models.toml and the user's own file."""

from __future__ import annotations

import itertools
import os
import re
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic

from scaling.addresses import address_in_environment
from scaling.batch_price import BatchPrice
from scaling.price_table import Listed, Reasons, TakesTemperature, look_up, table_names, table_source, unlisted
from scaling.schema import SAFE_MODEL, SHA256, VARIABLE, Address, read_toml, refuse_twice, shown, validated
from scaling.types import EFFORTS, EMBEDDED, Effort, UsageError, did_you_mean

REGISTRY_FILE = Path(__file__).parent / "models.toml"
# Tokens of an answer where an entry does not say: of a task call, of a call that proposes, and of either with
# reasoning, which counts as output.
TASK_OUTPUT, PROPOSAL_OUTPUT, REASONING_OUTPUT = 1024, 4096, 16384
PRICES = tuple(f"{kind}_usd_per_million" for kind in ("input", "cached_input", "output", "reasoning", "cache_write"))
ALL_PRICES = (*PRICES, "batch_price")

Price = Annotated[float, pydantic.Field(strict=True, ge=0, le=1e6, allow_inf_nan=False)]
Billions = Annotated[float, pydantic.Field(strict=True, gt=0, le=1e6, allow_inf_nan=False)]
Tokens = Annotated[int, pydantic.Field(strict=True, ge=1, le=10**8)]
OutputTokens = Annotated[int, pydantic.Field(strict=True, ge=1, le=10**7)]
Text = Annotated[str, pydantic.Field(strict=True, max_length=500)]
ModelName = Annotated[str, pydantic.Field(strict=True, max_length=200, pattern=SAFE_MODEL)]
Variable = Annotated[str, pydantic.Field(strict=True, pattern=VARIABLE)]
PerMinute = Annotated[float, pydantic.Field(strict=True, gt=0, le=1e12, allow_inf_nan=False)]
Flag = Annotated[bool, pydantic.Strict()]


@dataclass(frozen=True)
class Weights:
    """The GGUF file of a model that this program serves itself: where it is had from, and how it is recognized.

    repository, revision: on the Hugging Face hub; without them the file is the user's own, at `path`.
    sha256: of the whole file; None where the publisher's is not known. path: where the file is on this machine.
    """

    __pydantic_config__ = pydantic.ConfigDict(extra="forbid")

    file: Text
    repository: ModelName | None = None
    revision: Text = "main"
    sha256: Annotated[str, pydantic.Field(strict=True, pattern=SHA256)] | None = None
    size_bytes: Annotated[int, pydantic.Field(strict=True, ge=1)] | None = None
    license: Text | None = None
    path: Path | None = None


@dataclass(frozen=True)
class Model:
    """A model as the program calls it. Prices in USD per million tokens; None is unknown, never free.

    reasons, temperature, efforts and the limits of tokens are those of `price_table.Listed`. reasoning_effort: what
    the cell asks for; None leaves it to the provider.
    """

    id: ModelName = field(metadata={"file": False})
    route: ModelName
    api_base: Address | None = None
    key_env: Variable | None = None
    embedded: Flag = False
    weights: Weights | None = None
    parameters_billions: Billions | None = None
    parameters_source: Text | None = None
    parameters_status: Literal["published", "assumed", "unknown"] = "unknown"
    input_usd_per_million: Price | None = None
    cached_input_usd_per_million: Price | None = None
    cache_write_usd_per_million: Price | None = None
    output_usd_per_million: Price | None = None
    reasoning_usd_per_million: Price | None = None
    batch_price: BatchPrice | None = None
    price_date: Text | None = None
    price_source: Text | None = None
    context_length: Tokens | None = None
    bytes_per_token: Annotated[float, pydantic.Field(strict=True, ge=0.1, le=100, allow_inf_nan=False)] = 4.0
    max_output_tokens: OutputTokens | None = None
    optimizer_max_output_tokens: OutputTokens | None = None
    most_output_tokens: OutputTokens | None = None
    least_output_tokens: OutputTokens = 1
    reasons: Reasons = "never"
    temperature: TakesTemperature = "always"
    efforts: tuple[Effort, ...] = ()
    reasoning_effort: Effort | None = field(default=None, metadata={"file": False})
    max_concurrency: Annotated[int, pydantic.Field(strict=True, ge=1, le=100_000)] | None = None
    requests_per_minute: PerMinute | None = None
    tokens_per_minute: PerMinute | None = None
    adapter: Literal["chat", "json"] = "chat"
    sends_seed: Flag = False
    aliases: tuple[ModelName, ...] = ()
    status: Literal["current", "retired"] = "current"
    end_date: date | None = None
    successor: ModelName | None = None

    @property
    def provider(self) -> str:
        """Whom the calls go to."""
        return self.api_base or self.route.split("/")[0]

    @property
    def is_local(self) -> bool:
        """Whether this program serves the model itself, on this machine."""
        return self.embedded or self.weights is not None

    @property
    def has_price(self) -> bool:
        return self.input_usd_per_million is not None and self.output_usd_per_million is not None

    @property
    def has_key(self) -> bool:
        return self.key_env is None or bool(os.environ.get(self.key_env))

    @property
    def is_reasoning(self) -> bool:
        """Whether its answers begin with reasoning, which is billed as output."""
        if self.reasons == "never":
            return False
        return self.reasons == "by default" if self.reasoning_effort is None else self.reasoning_effort != "none"

    @property
    def takes_temperature(self) -> bool:
        """Whether a request may set one; else the provider uses its own."""
        return self.temperature == "always" or (self.temperature == "without reasoning" and not self.is_reasoning)

    @property
    def output_limit(self) -> int:
        """The most tokens of a task call's answer, always sent."""
        return self.max_output_tokens or self._limit(TASK_OUTPUT)

    @property
    def optimizer_output_limit(self) -> int:
        """The most tokens of an answer that reflects or proposes, always sent."""
        return self.optimizer_max_output_tokens or self._limit(PROPOSAL_OUTPUT)

    def _limit(self, without_reasoning: int) -> int:
        """Room for reasoning where there is some, within what the model may answer and half of its context."""
        wanted = REASONING_OUTPUT if self.is_reasoning else without_reasoning
        bounds = [self.most_output_tokens, self.context_length and self.context_length // 2]
        return max(self.least_output_tokens, min([wanted, *(bound for bound in bounds if bound is not None)]))

    def cost(
        self,
        prompt_tokens: int,
        completion_tokens: int,
        cached_tokens: int = 0,
        reasoning_tokens: int = 0,
        written_tokens: int = 0,
    ) -> float | None:
        """List cost in USD of one call; None when the price is not known.

        Tokens read from and written into the provider's cache are parts of the prompt, reasoning of the completion.
        """
        if self.input_usd_per_million is None or self.output_usd_per_million is None:
            return None
        cached_price, reasoning_price = self.cached_input_usd_per_million, self.reasoning_usd_per_million
        cached = cached_tokens if cached_price is not None else 0
        reasoning = reasoning_tokens if reasoning_price is not None else 0
        usd = (prompt_tokens - cached) * self.input_usd_per_million + cached * (cached_price or 0.0)
        if self.cache_write_usd_per_million is not None:
            usd += written_tokens * (self.cache_write_usd_per_million - self.input_usd_per_million)
        usd += (completion_tokens - reasoning) * self.output_usd_per_million + reasoning * (reasoning_price or 0.0)
        return usd / 1e6

    def highest_cost(self, prompt_bytes: int, max_tokens: int) -> float | None:
        """Upper bound in USD of a call not yet made.

        A token is at least a byte, all of a prompt may be written into a cache, and all output may be reasoning.
        """
        ends = itertools.product((0, max_tokens), (0, prompt_bytes))
        costs = [self.cost(prompt_bytes, max_tokens, 0, reasoning, written) for reasoning, written in ends]
        return max((cost for cost in costs if cost is not None), default=None)

    def has_ended(self, today: date) -> bool:
        """Whether its provider no longer serves it."""
        return self.status == "retired" or (self.end_date is not None and self.end_date <= today)

    def ends_within(self, days: int, today: date) -> bool:
        """Whether it has ended, or ends in so many days."""
        return self.has_ended(today + timedelta(days=days))


Registry = dict[str, Model]


def today() -> date:
    """The day that models' end dates are held against."""
    return date.today()


def load_registry(models_file: Path | None = None) -> Registry:
    """The models of models.toml by id; entries of `models_file` add to and override them.

    LiteLLM's table fills in what an entry does not say, and `known_model` finds the names that have no entry. Raises
    UsageError, in one line, for a file that is not a model file and for names that mean two models.
    """
    registry = _read(REGISTRY_FILE)
    if models_file is None:
        return registry
    if not os.path.exists(models_file):  # also where the name is too long for one
        raise UsageError(f"--models-file: there is no file {shown(models_file)}.")
    own = _read(models_file)
    registry |= own
    for model in own.values():
        if model.embedded and model.id != EMBEDDED:
            raise UsageError(
                f"{models_file}: model '{model.id}': embedded is for {EMBEDDED} only. "
                f"Give its GGUF file as weights, or the api_base of its server."
            )
    names = ((name, model.id) for model in registry.values() for name in (model.id, *model.aliases))
    refuse_twice(names, str(models_file))
    for model in own.values():
        if model.status == "retired" and living_successor(model, registry) is None:
            raise UsageError(
                f"{models_file}: model '{model.id}' is retired; its successor must be a model that can be called."
            )
    return registry


def known_model(name: str, registry: Registry) -> Model | None:
    """The model of an id, an alias, or a name of LiteLLM's table; None where nobody knows it."""
    found = registry.get(name) or next((m for m in registry.values() if name in m.aliases), None)
    if found is not None:
        return found
    listed = look_up(name)
    if listed is None:
        return None
    return registry.get(listed.route) or _model_of(listed)


def find_model(name: str, registry: Registry, api_base: str | None = None) -> Model:
    """The model of a name; with `api_base` any openai/NAME is a model on that server.

    Its address is that of `api_base`, of the entry, or of the environment (OPENAI_BASE_URL). Raises UsageError for a
    name that is not known, for a model that is not called as a chat model, for one that has ended (with its
    successor), and for an address in the environment that is none.
    """
    model = known_model(name, registry)
    if api_base is not None and (model is None or not model.is_local):
        if model is None and ("/" not in name or not re.search(SAFE_MODEL, name)):
            raise UsageError(
                f"--api-base needs a model as openai/NAME, not '{shown(name)}'. "
                f"Type --models openai/{shown(name)}, for example."
            )
        return replace(model or replace(_model_of(unlisted(name)), key_env=None), api_base=api_base)
    if model is None:
        raise _unknown(name, registry)
    if not model.is_local and model.api_base is None and (found := address_in_environment(model.id, model.route)):
        model = replace(model, api_base=found[0], key_env=model.key_env or found[1])
    if model.api_base is not None:
        return model
    if (listed := look_up(model.route)) is not None and listed.mode != "chat":
        raise UsageError(f"model '{model.id}' answers no chat requests (LiteLLM's table: {listed.mode}). Use another.")
    if model.has_ended(today()):
        successor = living_successor(model, registry)
        instead = f"Use --models {successor.id}." if successor else "Use another."
        raise UsageError(f"model '{model.id}' {_ended(model)} and can no longer be called. {instead}")
    return model


def with_effort(model: Model, effort: Effort | None) -> Model:
    """The model as a cell with this effort asks it; one that never reasons stays as it is.

    Raises UsageError for an effort that the model does not take.
    """
    if effort is None or model.reasons == "never":
        return model
    possible = model.efforts or (EFFORTS if model.reasons == "on request" else ())
    if not possible:
        raise UsageError(f"--reasoning-effort {effort}: '{model.id}' takes none. Leave it out, or use another model.")
    if effort not in possible:
        raise UsageError(
            f"--reasoning-effort {effort}: '{model.id}' does not take it; possible: {', '.join(possible)}. "
            f"Type --reasoning-effort {possible[0]}, for example."
        )
    return replace(model, reasoning_effort=effort)


def living_successor(model: Model, registry: Registry) -> Model | None:
    """The first model in the line of successors that can be called; None where the line ends before."""
    seen: set[str] = set()
    successor: Model | None = model
    while successor is not None and successor.has_ended(today()) and successor.id not in seen:
        seen.add(successor.id)
        successor = known_model(successor.successor or "", registry)
    return None if successor is None or successor.id in seen else successor


def _ended(model: Model) -> str:
    return f"ended on {model.end_date}" if model.end_date else "is retired"


def _unknown(name: str, registry: Registry) -> UsageError:
    names = sorted(model.id for model in registry.values() if not model.has_ended(today()))
    nearest = did_you_mean(name, [*names, *table_names()])
    return UsageError(
        f"unknown model '{shown(name)}'{nearest}; possible: the chat models of LiteLLM's table and those of "
        f"scaling/models.toml, {EMBEDDED} or groq/openai/gpt-oss-20b, for example. Give one of them, or openai/NAME "
        f"with --api-base URL, or your own with --models-file FILE.toml."
    )


def _read(path: Path) -> Registry:
    tables = read_toml(path, "a model file").get("models")
    if not isinstance(tables, dict) or not all(isinstance(entry, dict) for entry in tables.values()):
        raise UsageError(f'{path} is not a model file; needed: tables [models."<id>"].')
    return {model_id: _entry(path, model_id, entry) for model_id, entry in tables.items()}


def _entry(path: Path, model_id: str, entry: dict[str, Any]) -> Model:
    """An entry of a file; what it does not say is the table's."""
    where = f"{path}: model '{shown(model_id)}'"
    values = {"route": model_id} | entry
    for name in ("aliases", "efforts"):
        if isinstance(values.get(name), list):
            values[name] = tuple(values[name])
    model = validated(Model, values, where, given={"id": model_id})
    if model.is_local:
        return model
    listed = look_up(model.route) or look_up(model.id) or unlisted(model.route)
    model = replace(model, **{name: value for name, value in _facts(listed, model).items() if name not in entry})
    if model.max_output_tokens is not None and model.max_output_tokens < model.least_output_tokens:
        raise UsageError(
            f"{where}: max_output_tokens: this model reasons, and DSPy asks for {model.least_output_tokens} or more. "
            f"Fix that field."
        )
    return model


def _facts(listed: Listed, model: Model) -> dict[str, Any]:
    """The fields of a model that the table fills; what a server of one's own costs and when it ends it cannot know."""
    facts = {name: value for name, value in vars(listed).items() if name not in ("provider", "mode", "route")}
    names = [name for name in PRICES if facts[name] is not None]
    if model.api_base is not None:
        names, facts = [], {name: v for name, v in facts.items() if name not in (*ALL_PRICES, "end_date", "successor")}
    else:
        facts["key_env"] = _keys().get(listed.provider)
    if any(getattr(model, name) is not None for name in PRICES):  # the entry has prices of its own
        facts = {name: value for name, value in facts.items() if name not in ALL_PRICES}
    elif names:
        facts["price_source"] = table_source()
    return facts


def _model_of(listed: Listed) -> Model:
    """A model that has no entry."""
    model = Model(id=listed.route, route=listed.route)
    return replace(model, **_facts(listed, model))


@cache
def _keys() -> dict[str, str]:
    """Provider -> the environment variable of its key, of those that need just one."""
    keys: dict[str, str] = read_toml(REGISTRY_FILE, "a model file")["keys"]
    return keys
