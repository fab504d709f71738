"""For those who add benchmarks, pipelines or optimizers: a scripted model server, so that tests need no model.

Only tests and benches import this folder; nothing of the program does.
"""

from scaling.testing.server import (
    Body,
    Fault,
    ScriptedServer,
    chat_fields,
    fingerprint,
    fraction,
    json_fields,
    last_user_message,
    message_text,
    whole_prompt,
)

__all__ = [
    "Body", "Fault", "ScriptedServer", "chat_fields", "fingerprint", "fraction", "json_fields", "last_user_message",
    "message_text", "whole_prompt",
]  # fmt: skip
