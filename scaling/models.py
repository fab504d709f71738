"""The model registry: names, routes, keys, prices and sizes, from models.toml and the user's own file."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic

from scaling.schema import (
    SAFE_MODEL,
    SHA256,
    VARIABLE,
    Address,
    is_address,
    read_toml,
    refuse_twice,
    shown,
    validated,
)
from scaling.types import UsageError, unknown_name

REGISTRY_FILE = Path(__file__).parent / "models.toml"
# size:NAME -> billions of parameters, published or assumed: from the first figure (included) up to the second.
SIZES = {"small": (0.0, 10.0), "medium": (10.0, 100.0), "large": (100.0, math.inf)}


# The id of the one entry that may be `embedded`: its weights come with the install.
EMBEDDED = "local/smollm2-135m"

Price = Annotated[float, pydantic.Field(strict=True, ge=0, le=1e6, allow_inf_nan=False)]
Billions = Annotated[float, pydantic.Field(strict=True, gt=0, le=1e6, allow_inf_nan=False)]
Tokens = Annotated[int, pydantic.Field(strict=True, ge=1, le=10**8)]
Text = Annotated[str, pydantic.Field(strict=True, max_length=500)]
ModelName = Annotated[str, pydantic.Field(strict=True, max_length=200, pattern=SAFE_MODEL)]
Variable = Annotated[str, pydantic.Field(strict=True, pattern=VARIABLE)]
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
    """One entry of the registry. Prices in USD per million tokens; None is unknown, never free."""

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
    output_usd_per_million: Price | None = None
    price_date: Text | None = None
    price_source: Text | None = None
    context_length: Tokens | None = None
    bytes_per_token: Annotated[float, pydantic.Field(strict=True, ge=0.1, le=100, allow_inf_nan=False)] = 4.0
    max_output_tokens: Annotated[int, pydantic.Field(strict=True, ge=1, le=10**7)] = 1024
    optimizer_max_output_tokens: Annotated[int, pydantic.Field(strict=True, ge=1, le=10**7)] = 4096
    max_concurrency: Annotated[int, pydantic.Field(strict=True, ge=1, le=100_000)] = 32
    adapter: Literal["chat", "json"] = "chat"
    sends_seed: Flag = False
    aliases: tuple[ModelName, ...] = ()
    status: Literal["current", "retired"] = "current"
    successor: ModelName | None = None

    @property
    def provider(self) -> str:
        """Calls to one provider share its limit of concurrency and its pauses."""
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

    def concurrency(self, limit: int | None) -> int:
        """Calls at a time: the user's limit or the entry's own; a model served here answers one by one."""
        return 1 if self.is_local else limit or self.max_concurrency

    def cost(self, prompt_tokens: int, completion_tokens: int, cached_tokens: int = 0) -> float | None:
        """List cost in USD of one call; None when the price is not known."""
        if self.input_usd_per_million is None or self.output_usd_per_million is None:
            return None
        cached_price = self.cached_input_usd_per_million
        cached = cached_tokens if cached_price is not None else 0
        usd = (prompt_tokens - cached) * self.input_usd_per_million + completion_tokens * self.output_usd_per_million
        return (usd + cached * (cached_price or 0.0)) / 1e6

    def highest_cost(self, prompt_bytes: int, max_tokens: int) -> float | None:
        """Upper bound in USD of a call not yet made: a token is at least a byte."""
        return self.cost(prompt_bytes, max_tokens)


def load_registry(models_file: Path | None = None) -> dict[str, Model]:
    """All known models by id; entries of `models_file` add to and override the built-in ones.

    Raises UsageError, in one line, for a file that is not a model file and for names that mean two models.
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
        successor = _entry(model.successor or "", registry)
        if model.status == "retired" and (successor is None or successor.status == "retired"):
            raise UsageError(
                f"{models_file}: model '{model.id}' is retired; its successor must be a model that can be called."
            )
    return registry


def find_model(name: str, registry: dict[str, Model], api_base: str | None = None) -> Model:
    """The entry of an id or alias; with `api_base` any openai/NAME is a model on that server.

    Its address is that of `api_base`, of the entry, or of the environment (OPENAI_BASE_URL). Raises UsageError for a
    name that is not known (with those that are), for a retired model (with its successor), and for an address in the
    environment that is none.
    """
    model = _entry(name, registry)
    if api_base is not None and (model is None or not model.is_local):
        if model is None and ("/" not in name or not re.search(SAFE_MODEL, name)):
            raise UsageError(
                f"--api-base needs a model as openai/NAME, not '{shown(name)}'. "
                f"Type --models openai/{shown(name)}, for example."
            )
        return replace(model or Model(id=name, route=name), api_base=api_base)
    if model is None:
        fix = "Give one of them, or openai/NAME with --api-base URL, or your own with --models-file FILE.toml."
        raise unknown_name("model", name, sorted(registry), fix)
    if model.status == "retired":
        raise UsageError(f"model '{model.id}' is retired and can no longer be called. Use --models {model.successor}.")
    return model if model.is_local or model.api_base else _at_environments_address(model)


def expand_names(names: list[str], registry: dict[str, Model]) -> list[str]:
    """Models in the order given, each once: ids, aliases, globs over ids (groq/*) and size:small, medium, large.

    Globs and sizes give models that can be called (retired ones are left out); a size, those whose size is
    published or assumed. Raises UsageError for a glob or size that gives none.
    """
    found: list[str] = []
    for name in names:
        if name.startswith("size:"):
            found += _of_size(name.removeprefix("size:"), registry)
        elif "*" in name or "?" in name:
            fix = "Give a pattern that matches one of them."
            found += _current(partial(_matches, name), name, registry, fix)
        else:
            entry = _entry(name, registry)
            found.append(entry.id if entry else name)
    return list(dict.fromkeys(found))


def require_key(model: Model) -> None:
    """Raise UsageError when the environment lacks the model's key."""
    if model.api_base is None and not model.has_key:
        raise UsageError(
            f"model '{model.id}' needs the environment variable {model.key_env}, which is not set. "
            f"Type: export {model.key_env}=... (or put it into .env), or use --models local/smollm2-135m."
        )


def _at_environments_address(model: Model) -> Model:
    """The model at the server that the environment names for its provider, under the names that LiteLLM reads.

    Raises UsageError for an empty or impossible address: with it the key would go to the provider itself.
    """
    provider = re.sub(r"\W", "_", model.route.split("/")[0]).upper()
    given = {name: os.environ[name] for name in (f"{provider}_BASE_URL", f"{provider}_API_BASE") if name in os.environ}
    for name, address in given.items():
        if not is_address(address):
            what = "not an http address" if address.strip() else "empty"
            raise UsageError(
                f"the environment variable {name} is {what}, so '{model.id}' has no server. "
                f"Type: unset {name} (or take it out of .env), or give it an address such as http://127.0.0.1:8000/v1."
            )
    if not given:
        return model
    key = f"{provider}_API_KEY"  # which LiteLLM sends there
    return replace(
        model, api_base=next(iter(given.values())), key_env=model.key_env or (key if key in os.environ else None)
    )


def _entry(name: str, registry: dict[str, Model]) -> Model | None:
    return registry.get(name) or next((m for m in registry.values() if name in m.aliases), None)


def _matches(pattern: str, model: Model) -> bool:
    return fnmatchcase(model.id, pattern)


def _of_size(size: str, registry: dict[str, Model]) -> list[str]:
    if size not in SIZES:
        raise unknown_name("size", size, list(SIZES), "Type --models size:small, for example.")
    low, high = SIZES[size]

    def fits(model: Model) -> bool:
        return model.parameters_billions is not None and low <= model.parameters_billions < high

    return _current(fits, f"size:{size}", registry, "Give its parameters_billions in a --models-file.")


def _current(wanted: Callable[[Model], bool], name: str, registry: dict[str, Model], fix: str) -> list[str]:
    """Ids of the models that can be called and are wanted; UsageError where there is none."""
    current = [model for model in registry.values() if model.status == "current"]
    found = [model.id for model in current if wanted(model)]
    if not found:
        raise unknown_name("model", name, sorted(model.id for model in current), fix)
    return found


def _read(path: Path) -> dict[str, Model]:
    tables = read_toml(path, "a model file").get("models")
    if not isinstance(tables, dict) or not all(isinstance(entry, dict) for entry in tables.values()):
        raise UsageError(f'{path} is not a model file; needed: tables [models."<id>"].')
    return {model_id: _model(path, model_id, entry) for model_id, entry in tables.items()}


def _model(path: Path, model_id: str, entry: dict[str, Any]) -> Model:
    where = f"{path}: model '{shown(model_id)}'"
    values = {"route": model_id} | entry
    if isinstance(values.get("aliases"), list):
        values["aliases"] = tuple(values["aliases"])
    return validated(Model, values, where, given={"id": model_id})
