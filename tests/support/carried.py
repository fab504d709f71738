"""A scripted model on which a prompt helps or harms, by the model that it was optimized on and the one that runs it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from scaling.testing import Body, ScriptedServer, chat_fields, fingerprint, last_user_message, whole_prompt

PROPOSED = re.compile(r"Rule \w+ of the house")  # as the scripted server proposes
RULE = re.compile(r"Rule of (\w+)\.")
PLAIN = 0.5
Chances = Mapping[tuple[str, str], float]  # (optimized on, run on) -> the chance that an answer is right


def carried_answers(truth: Mapping[str, str], chances: Chances) -> Callable[[Body], str]:
    """The answer to a request: a proposer writes the rule of its model, and a rule has the chance that is planted."""
    script = ScriptedServer()

    def answer(body: Body) -> str:
        fields = chat_fields(body)
        right = next((label for text, label in truth.items() if text in last_user_message(body)), None)
        if right is None or not any(fields.values()):
            return PROPOSED.sub(f"Rule of {body['model']}.", script.default_answer(body))
        return _sections({name: _choice(name, options, right, body, chances) for name, options in fields.items()})

    return answer


def _choice(name: str, options: list[str], right: str, body: Body, chances: Chances) -> str:
    if right not in options:
        return f"{name} {fingerprint([body, name]):012x}"
    rule = RULE.search(whole_prompt(body))
    chance = chances[rule[1], body["model"]] if rule else PLAIN
    if fingerprint([body, body["model"], "luck"]) / 16**12 < chance:
        return right
    wrong = [option for option in options if option != right]
    return wrong[fingerprint([body, name]) % len(wrong)]


def _sections(values: Mapping[str, str]) -> str:
    return "\n\n".join([*(f"[[ ## {name} ## ]]\n{value}" for name, value in values.items()), "[[ ## completed ## ]]"])
