"""For those who add benchmarks, pipelines or optimizers: a scripted model server, so that tests need no model.

Only tests and benches import this folder; nothing of the program does.
"""

from scaling.testing.batches import BatchServer, StrictBatchServer
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
from scaling.testing.strict import BUDGET_CLAUDE, CLAUDE, GEMINI, GROQ, OPENAI, Maker, StrictServer

__all__ = [
    "BUDGET_CLAUDE",
    "BatchServer",
    "Body",
    "CLAUDE",
    "Fault",
    "GEMINI",
    "GROQ",
    "Maker",
    "OPENAI",
    "ScriptedServer",
    "StrictBatchServer",
    "StrictServer",
    "chat_fields",
    "fingerprint",
    "fraction",
    "json_fields",
    "last_user_message",
    "message_text",
    "whole_prompt",
]
