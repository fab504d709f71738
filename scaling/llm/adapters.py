"""How programs speak to a model: DSPy's formats without a hidden second call, so calls per example stay exact."""

from __future__ import annotations

from typing import Any

import dspy
from dspy.utils.exceptions import AdapterParseError, ContextWindowExceededError

from scaling.models import Model

Outputs = list[dict[str, Any]]


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


class ExactChatAdapter(ProposerMayFail, dspy.ChatAdapter):
    """DSPy's chat format without its hidden second call in JSON."""

    def format_field_with_value(self, fields_with_values: dict[Any, Any]) -> str:
        """As DSPy does it, which makes a pydantic type for each text only to get the same text back."""
        if all(type(value) is str for value in fields_with_values.values()):
            sections = (f"[[ ## {field.name} ## ]]\n{value}" for field, value in fields_with_values.items())
            return "\n\n".join(sections).strip()
        formatted: str = super().format_field_with_value(fields_with_values)
        return formatted


class ExactJSONAdapter(ProposerMayFail, dspy.JSONAdapter):
    """JSON, held to a schema where the server can."""


def make_adapter(model: Model) -> dspy.Adapter:
    """The adapter of a model's registry entry."""
    return ExactJSONAdapter() if model.adapter == "json" else ExactChatAdapter(use_json_adapter_fallback=False)
