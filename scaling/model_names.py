"""Several models by one name: globs over ids (groq/*) and size:small, medium, large."""

from __future__ import annotations

import math
from collections.abc import Callable
from fnmatch import fnmatchcase
from functools import partial

from scaling.models import Model, Registry, known_model, today
from scaling.types import unknown_name

# size:NAME -> billions of parameters, published or assumed: from the first figure (included) up to the second.
SIZES = {"small": (0.0, 10.0), "medium": (10.0, 100.0), "large": (100.0, math.inf)}


def expand_names(names: list[str], registry: Registry) -> list[str]:
    """Models in the order given, each once: ids, aliases, globs over ids (groq/*) and size:small, medium, large.

    Globs and sizes give models of models.toml that can be called (those that have ended are left out); a size, those
    whose size is published or assumed. Raises UsageError for a glob or size that gives none.
    """
    found: list[str] = []
    for name in names:
        if name.startswith("size:"):
            found += _of_size(name.removeprefix("size:"), registry)
        elif "*" in name or "?" in name:
            fix = "Give a pattern that matches one of them."
            found += _current(partial(_matches, name), name, registry, fix)
        else:
            model = known_model(name, registry)
            found.append(model.id if model else name)
    return list(dict.fromkeys(found))


def _matches(pattern: str, model: Model) -> bool:
    return fnmatchcase(model.id, pattern)


def _of_size(size: str, registry: Registry) -> list[str]:
    if size not in SIZES:
        raise unknown_name("size", size, list(SIZES), "Type --models size:small, for example.")
    low, high = SIZES[size]

    def fits(model: Model) -> bool:
        return model.parameters_billions is not None and low <= model.parameters_billions < high

    return _current(fits, f"size:{size}", registry, "Give its parameters_billions in a --models-file.")


def _current(wanted: Callable[[Model], bool], name: str, registry: Registry, fix: str) -> list[str]:
    """Ids of the models that can be called and are wanted; UsageError where there is none."""
    current = [model for model in registry.values() if not model.has_ended(today())]
    found = [model.id for model in current if wanted(model)]
    if not found:
        raise unknown_name("model", name, sorted(model.id for model in current), fix)
    return found
