"""A scripted model that knows the benchmarks' answers: right with a chance planted by model and turn."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

from scaling.testing import Body, chat_fields, fingerprint, last_user_message

EARLIER = re.compile(r"^Answer \d+: ", re.MULTILINE)
WRONG = "none of these 987654321"


def scholar(golds: Iterable[tuple[str, str]], chance: Callable[[str, int], float]) -> Callable[[Body], str]:
    """The answer to a request as a function of its body, for `ScriptedServer`.

    golds: (a text that only this item's prompts hold, its right answer). chance(model, turn) is the probability of a
    right answer; turns count from 0. Luck is drawn by model and request, so models and draws are independent.
    """
    known = list(golds)

    def answer(body: Body) -> str:
        asked = last_user_message(body)
        right = max(((text, gold) for text, gold in known if text in asked), key=lambda item: len(item[0]))[1]
        turn = len(EARLIER.findall(asked.rpartition("[[ ## earlier_answers ## ]]")[2]))
        lucky = fingerprint([body, body["model"], "luck"]) / 16**12 < chance(body["model"], turn)
        said = right if lucky else WRONG
        fields = {name: _value(name, said) for name in chat_fields(body)}
        return "\n\n".join([*(f"[[ ## {n} ## ]]\n{v}" for n, v in fields.items()), "[[ ## completed ## ]]"])

    return answer


def golds_of(benchmark: str, rows: Iterable[dict[str, Any]]) -> list[tuple[str, str]]:
    """(text, right answer) of a benchmark's rows."""
    text, answer = {"superglue": ("text", "answer"), "humaneval": ("prompt", "code")}.get(
        benchmark, ("question", "answer")
    )
    return [(row[text].strip(), str(row[answer])) for row in rows]


def _value(field: str, said: str) -> str:
    tools = {"next_thought": "Nothing is to be looked up.", "next_tool_name": "finish", "next_tool_args": "{}"}
    return tools.get(field, said)
