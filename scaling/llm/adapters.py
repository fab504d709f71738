"""How programs speak to a model: DSPy's formats without a hidden second call, so calls per example stay exact."""

from __future__ import annotations

import json
from typing import Any

import dspy
from dspy.utils.exceptions import AdapterParseError, ContextWindowExceededError

from scaling.models import Model

Outputs = list[dict[str, Any]]
# Characters of an answer that DSPy is asked to parse. Texts are split at their headings; what is meant to be JSON and
# is not is repaired, which takes quadratic time.
LONGEST_TEXT, LONGEST_REPAIRED = 400_000, 10_000


class BoundedParse:
    """An adapter for which an answer too long or too deep to be parsed is one that cannot be parsed."""

    def parse(self, signature: Any, completion: str) -> dict[str, Any]:
        """As DSPy does it. Raises AdapterParseError for all that gives no fields."""
        only_split = all(field.annotation is str for field in signature.output_fields.values())
        if isinstance(self, dspy.JSONAdapter):
            only_split = _is_json(completion)
        limit = LONGEST_TEXT if only_split else LONGEST_REPAIRED
        reason = f"it is longer than {limit} characters"
        if len(completion) <= limit:
            try:
                fields: dict[str, Any] = super().parse(signature, completion)  # type: ignore[misc]
                return fields
            except (ValueError, RecursionError, MemoryError) as error:  # of nesting, for the most part
                reason = str(error)[:200]
        raise AdapterParseError(type(self).__name__, signature, completion[:limit], reason)


class ProposerMayFail:
    """An adapter for which a proposal that cannot be had or parsed is none, where MIPROv2 would end in an error.

    The proposer's answer is then the instruction it was to improve. Task calls raise as ever.
    """

    def __call__(self, lm: Any, lm_kwargs: Any, signature: Any, demos: Any, inputs: dict[str, Any]) -> Outputs:
        try:
            outputs: Outputs = super().__call__(lm, lm_kwargs, signature, demos, inputs)  # type: ignore[misc]
            return outputs
        except (AdapterParseError, ContextWindowExceededError):
            if getattr(lm, "role", None) != "proposer":
                raise
            lm.meter.add_unparsed_proposal()
            return [dict.fromkeys(signature.output_fields, inputs.get("basic_instruction", "unknown"))]


class ExactChatAdapter(ProposerMayFail, BoundedParse, dspy.ChatAdapter):
    """DSPy's chat format without its hidden second call in JSON."""

    def format_field_with_value(self, fields_with_values: dict[Any, Any]) -> str:
        """As DSPy does it, which makes a pydantic type for each text only to get the same text back."""
        if all(type(value) is str for value in fields_with_values.values()):
            sections = (f"[[ ## {field.name} ## ]]\n{value}" for field, value in fields_with_values.items())
            return "\n\n".join(sections).strip()
        formatted: str = super().format_field_with_value(fields_with_values)
        return formatted


class ExactJSONAdapter(ProposerMayFail, BoundedParse, dspy.JSONAdapter):
    """JSON, held to a schema where the server can."""


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def make_adapter(model: Model) -> dspy.Adapter:
    """The adapter of a model's registry entry."""
    return ExactJSONAdapter() if model.adapter == "json" else ExactChatAdapter(use_json_adapter_fallback=False)
