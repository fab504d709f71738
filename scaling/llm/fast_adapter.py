"""The adapters of a cell's calls, which format only once what does not change from row to row.

DSPy formats instruction, fields, demos and the schema of an answer anew for each call. All of them follow from
signature and demos, which thousands of calls share. The messages are those of `make_adapter`, byte for byte.
"""

from __future__ import annotations

import threading
from functools import lru_cache
from types import SimpleNamespace
from typing import Any

import dspy

from scaling.llm import adapters
from scaling.models import Model

# Signatures, and lists of demos, that an adapter remembers: a cell has a few predictors and candidates at a time.
MOST_KEPT = 256


class FormatsOnce:
    """An adapter that remembers what it made of a signature and its demos."""

    def __init__(self, **options: Any):
        super().__init__(**options)
        make: Any = super()
        # A signature may get another docstring, which is its instruction.
        self._system = lru_cache(MOST_KEPT)(lambda signature, doc: make.format_system_message(signature))
        self._wanted = lru_cache(MOST_KEPT)(lambda signature, doc: make.user_message_output_requirements(signature))
        self._demos: dict[Any, tuple[list[Any], list[dict[str, Any]], list[dict[str, Any]]]] = {}
        self._lock = threading.Lock()

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return self

    def format_system_message(self, signature: Any) -> str:
        text: str = self._system(signature, signature.__doc__)
        return text

    def user_message_output_requirements(self, signature: Any) -> str:
        text: str = self._wanted(signature, signature.__doc__)
        return text

    def format_user_message_content(
        self, signature: Any, inputs: dict[str, Any], prefix: str = "", suffix: str = "", main_request: bool = False
    ) -> str:
        """As DSPy does it, which makes a pydantic type for each text only to get the same text back."""
        shown = {name: inputs[name] for name in signature.input_fields if name in inputs}
        if not all(type(value) is str for value in shown.values()):
            text: str = super().format_user_message_content(signature, inputs, prefix, suffix, main_request)  # type: ignore[misc]
            return text
        parts = [prefix, *(f"[[ ## {name} ## ]]\n{value}" for name, value in shown.items())]
        if main_request:
            parts.append(self.user_message_output_requirements(signature))
        return "\n\n".join([*parts, suffix]).strip()

    def format_demos(self, signature: Any, demos: list[Any]) -> list[dict[str, Any]]:
        key, content = (signature, *map(id, demos)), [dict(demo) for demo in demos]
        with self._lock:
            kept = self._demos.get(key)
        if kept is None or kept[1] != content:
            messages = super().format_demos(signature, demos)  # type: ignore[misc]
            kept = (demos[:], content, messages)  # the demos themselves are kept: nobody else can have their ids
            with self._lock:
                if len(self._demos) >= MOST_KEPT:
                    self._demos.clear()
                self._demos[key] = kept
        return [dict(message) for message in kept[2]]


# Their names are those of what they stand for, as errors have them in their texts.
class ExactChatAdapter(FormatsOnce, adapters.ExactChatAdapter):
    """`adapters.ExactChatAdapter`, faster."""


class ExactJSONAdapter(FormatsOnce, adapters.ExactJSONAdapter):
    """`adapters.ExactJSONAdapter`, faster: the schema of an answer is made once as well."""

    def __init__(self, **options: Any):
        super().__init__(**options)
        self._forms = lru_cache(MOST_KEPT)(self._form)

    def _prepare_response_format(self, lm: Any, lm_kwargs: dict[str, Any], signature: Any) -> None:
        lm_kwargs.update(self._forms(signature, "response_format" in lm.supported_params, lm.supports_response_schema))

    def _form(self, signature: Any, takes_form: bool, takes_schema: bool) -> dict[str, Any]:
        """What DSPy adds to a call's settings."""
        settings: dict[str, Any] = {}
        params = {"response_format"} if takes_form else set()
        lm = SimpleNamespace(supported_params=params, supports_response_schema=takes_schema)
        super()._prepare_response_format(lm, settings, signature)
        return settings


def make_fast_adapter(model: Model) -> dspy.Adapter:
    """The adapter of a model's registry entry, for its calls."""
    return ExactJSONAdapter() if model.adapter == "json" else ExactChatAdapter(use_json_adapter_fallback=False)
