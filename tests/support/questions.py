"""A model with prices on the scripted server, and one question to it."""

from __future__ import annotations

import dspy

from scaling.models import Model
from scaling.testing import ScriptedServer

PRICED = {"input_usd_per_million": 3.0, "output_usd_per_million": 11.0, "max_output_tokens": 50}


def a_model(server: ScriptedServer, **changes) -> Model:
    return Model(**({"id": "toy/x", "route": "openai/scripted", "api_base": server.url} | PRICED | changes))


def ask(lm: dspy.LM, question: str) -> str:
    return lm(messages=[{"role": "user", "content": question}])[0]
