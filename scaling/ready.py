"""What may keep a model from being called: a key that is not there, or an end that is near."""

from __future__ import annotations

from collections.abc import Iterable

from scaling import models
from scaling.models import Model, Registry, known_model

WARNED_DAYS = 60  # before the end of a model


def end_notes(called: Iterable[Model], registry: Registry) -> list[str]:
    """A sentence for each model that its provider ends soon."""
    notes = []
    for model in called:
        if model.api_base is None and model.end_date is not None and model.ends_within(WARNED_DAYS, models.today()):
            successor = known_model(model.successor or "", registry)
            after = f"; its successor is {successor.id}" if successor else ""
            notes.append(f"{model.id} ends on {model.end_date}{after}")
    return notes


def lacks_key(model: Model) -> bool:
    """Whether the environment lacks the model's key; a server of one's own may need none."""
    return model.api_base is None and not model.has_key


def missing_keys(called: Iterable[Model]) -> str | None:
    """What the environment lacks, in one sentence; None where all keys are there."""
    needed: dict[str, list[str]] = {}
    for model in called:
        if lacks_key(model):
            needed.setdefault(model.key_env or "", []).append(model.id)
    if not needed:
        return None
    which = ", ".join(f"{key} (for {', '.join(ids)})" for key, ids in sorted(needed.items()))
    are_not = "variable {} is" if len(needed) == 1 else "variables {} are"
    return f"the environment {are_not.format(which)} not set"
